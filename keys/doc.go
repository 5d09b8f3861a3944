// Package keys finds signing keys and certificates, and makes them. It hands out
// [crypto.Signer]s, certificates and OpenPGP signers, and knows no package format.
//
// A key reference is a path, or scheme:rest, which [Open] looks up in one table.
// Passphrases come by callback, [Passphrase], never as an argument of a command.
package keys
