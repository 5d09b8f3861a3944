package remote

// This file holds what goes to a service and what comes back.

import "crypto"

// A Digest is what a service is asked to sign: Sum, by Hash.
type Digest struct {
	Hash crypto.Hash // SHA256, SHA384 or SHA512
	Sum  []byte
}

// A Result is the answer for one digest: a signature, ASN.1 DER of an ECDSA key and
// PKCS #1 v1.5 of an RSA key, or an error, by [Temporary] where it passes.
type Result struct {
	Signature []byte
	Err       error
}
