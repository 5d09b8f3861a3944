// Package kernel knows what a Linux kernel takes: which keys and signatures it
// verifies, which certificates its trusted keyrings let in and why not, and what its
// configuration and /proc/keys say of it. It makes no keys and changes no keyring.
//
// Start with Judge for a certificate, KeyTypeOf for a key, ReadConfig for what a kernel
// was built with and ReadKeyrings for what it holds.
package kernel
