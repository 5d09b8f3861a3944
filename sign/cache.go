package sign

import "crypto/sha256"

// A Cache keeps raw signatures from one run to the next, so that what was signed
// before is not signed again. A [Signer] verifies what it gets before using it: a
// cache can cost time, never trust.
//
// What fails in a cache is its own affair: it never keeps a signature from being
// made. Its methods may be called concurrently.
type Cache interface {
	// Lookup returns the raw signature over digest, which is by h, that the key
	// with this identity made; nil where there is none. The identity of a key is the
	// SHA-256 of its SubjectPublicKeyInfo in DER. The caller may keep what it gets.
	Lookup(identity [sha256.Size]byte, h Hash, digest []byte) []byte
	// Remember keeps sig in place of what Lookup would have returned. It must not
	// keep the slices themselves beyond the call, nor change them.
	Remember(identity [sha256.Size]byte, h Hash, digest, sig []byte)
}
