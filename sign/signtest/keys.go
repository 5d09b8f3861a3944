package signtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"

	"github.com/imaseal/imaseal/sign"
)

// Keys for the tests of all rooms. They panic where they fail, so that a variable can
// hold one.

// NewSigner signs with a new P-256 key; what it signs is of no consequence.
func NewSigner() *sign.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return SignerOf(key)
}

// FormatSigner signs with the P-256 key of RFC 6979, A.2.5, as the examples of
// docs/format.md do: anybody has that key.
func FormatSigner() *sign.Signer {
	scalar, err := hex.DecodeString("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721")
	if err != nil {
		panic(err)
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
	if err != nil {
		panic(err)
	}
	return SignerOf(key)
}

// SignerOf signs with a key for which there is no certificate.
func SignerOf(key crypto.Signer) *sign.Signer {
	id, err := sign.KeyIDFromPublicKey(key.Public())
	if err != nil {
		panic(err)
	}
	s, err := sign.NewSigner(key, id)
	if err != nil {
		panic(err)
	}
	return s
}

// Trust trusts the keys of signers.
func Trust(signers ...*sign.Signer) *sign.TrustedKeys {
	keys := new(sign.TrustedKeys)
	for _, s := range signers {
		if err := keys.Add(s.KeyID(), s.Public()); err != nil {
			panic(err)
		}
	}
	return keys
}
