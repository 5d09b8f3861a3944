package azurekms

// This file reads public keys as Azure gives them: JSON Web Keys, RFC 7518 6.

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
)

// maxModulus bounds an RSA modulus in bytes; the service has keys of 4096 bits.
const maxModulus = 2048

// A curve is one that kernels verify, with the only hash that the service signs by.
type curve struct {
	elliptic.Curve
	hash crypto.Hash
}

var curves = map[azkeys.CurveName]curve{
	azkeys.CurveNameP256: {elliptic.P256(), crypto.SHA256},
	azkeys.CurveNameP384: {elliptic.P384(), crypto.SHA384},
	azkeys.CurveNameP521: {elliptic.P521(), crypto.SHA512},
}

// curveHash returns the hash of the curve that pub is on.
func curveHash(pub *ecdsa.PublicKey) crypto.Hash {
	return curves[azkeys.CurveName(pub.Curve.Params().Name)].hash
}

// publicKey returns the key that k describes, which must be for signing.
func publicKey(k *azkeys.JSONWebKey) (crypto.PublicKey, error) {
	may := func(op *azkeys.KeyOperation) bool { return op != nil && *op == azkeys.KeyOperationSign }
	if len(k.KeyOps) > 0 && !slices.ContainsFunc(k.KeyOps, may) {
		return nil, errors.New("the key is not for signing: allow it the operation sign")
	}
	if k.Kty == nil {
		return nil, errors.New("the vault gave a key without a type")
	}
	switch *k.Kty {
	case azkeys.KeyTypeRSA, azkeys.KeyTypeRSAHSM:
		return rsaKey(k)
	case azkeys.KeyTypeEC, azkeys.KeyTypeECHSM:
		return ecKey(k)
	}
	return nil, fmt.Errorf("a key of type %s signs no files: make an RSA or EC key", *k.Kty)
}

func rsaKey(k *azkeys.JSONWebKey) (crypto.PublicKey, error) {
	exponent := new(big.Int).SetBytes(k.E[:min(len(k.E), 8)])
	if len(k.N) == 0 || len(k.N) > maxModulus || len(k.E) > 4 || exponent.Sign() == 0 || exponent.BitLen() > 31 {
		return nil, errors.New("the vault gave an RSA key that is none")
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(k.N), E: int(exponent.Int64())}, nil
}

func ecKey(k *azkeys.JSONWebKey) (crypto.PublicKey, error) {
	if k.Crv == nil {
		return nil, errors.New("the vault gave an EC key without a curve")
	}
	c, ok := curves[*k.Crv]
	if !ok {
		return nil, fmt.Errorf("the kernel does not verify signatures on curve %s: make a key on P-256, P-384 or P-521", *k.Crv)
	}
	size := (c.Params().BitSize + 7) / 8
	x, y := bytes.TrimLeft(k.X, "\x00"), bytes.TrimLeft(k.Y, "\x00")
	if len(x) > size || len(y) > size {
		return nil, fmt.Errorf("the vault gave a point that is not on curve %s", *k.Crv)
	}
	point := make([]byte, 1+2*size)
	point[0] = 4 // uncompressed, SEC 1 2.3.3
	copy(point[1+size-len(x):], x)
	copy(point[1+2*size-len(y):], y)
	public, err := ecdsa.ParseUncompressedPublicKey(c.Curve, point)
	if err != nil {
		return nil, fmt.Errorf("the vault gave a point that is not on curve %s: %w", *k.Crv, err)
	}
	return public, nil
}
