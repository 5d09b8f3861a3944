//go:build !(openssl && cgo)

package keys

import "crypto"

// accelerate returns key as it is: this build signs with Go's own code. One with
// the tag openssl signs with RSA keys several times as fast.
func accelerate(key crypto.Signer) (crypto.Signer, string) { return key, "" }
