package remote

// This file holds the two encodings of ECDSA signatures.

import (
	"crypto/ecdsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// DERFromRaw returns the ASN.1 DER form, which kernels verify, of an ECDSA signature
// by pub in the form that some services give: r and s, big endian, each as long as
// the order of the curve (IEEE P1363, RFC 7518 3.4).
func DERFromRaw(pub *ecdsa.PublicKey, raw []byte) ([]byte, error) {
	order := pub.Curve.Params().N
	size := (order.BitLen() + 7) / 8
	if len(raw) != 2*size {
		return nil, fmt.Errorf("a signature of %d bytes is not the r and s of curve %s, which have %d", len(raw), pub.Curve.Params().Name, 2*size)
	}
	r, s := new(big.Int).SetBytes(raw[:size]), new(big.Int).SetBytes(raw[size:])
	for _, n := range []*big.Int{r, s} {
		if n.Sign() == 0 || n.Cmp(order) >= 0 {
			return nil, errors.New("r or s of the signature is not within the order of the curve")
		}
	}
	return asn1.Marshal(struct{ R, S *big.Int }{r, s})
}
