package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"

	"github.com/imaseal/imaseal/keys/kernel"
)

// defaultType is the type of new keys.
var defaultType = kernel.KeyTypes()[0].Name

// keyGenerator returns what makes keys of a type of the table in keys/kernel.
func keyGenerator(name string) (func() (crypto.Signer, error), error) {
	if _, err := kernel.KeyTypeByName(name); err != nil {
		return nil, err
	}
	ec := func(curve elliptic.Curve) func() (crypto.Signer, error) {
		return func() (crypto.Signer, error) { return ecdsa.GenerateKey(curve, rand.Reader) }
	}
	bits := func(n int) func() (crypto.Signer, error) {
		return func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, n) }
	}
	switch name {
	case "p256":
		return ec(elliptic.P256()), nil
	case "p384":
		return ec(elliptic.P384()), nil
	case "p521":
		return ec(elliptic.P521()), nil
	case "rsa2048":
		return bits(2048), nil
	case "rsa3072":
		return bits(3072), nil
	case "rsa4096":
		return bits(4096), nil
	}
	return nil, fmt.Errorf("imaseal does not make keys of type %s: make one with another tool", name)
}

// typeOf names the type of a public key as the options of new keys do, or, where
// imaseal makes none of that type, for people.
func typeOf(pub crypto.PublicKey) string {
	if t, err := kernel.KeyTypeOf(pub); err == nil {
		return t.Name
	}
	return kernel.AlgorithmName(pub)
}
