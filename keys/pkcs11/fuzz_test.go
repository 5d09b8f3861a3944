//go:build pkcs11 && cgo

package pkcs11

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"testing"

	p11 "github.com/miekg/pkcs11"
)

// FuzzPublicKey reads what a token tells of an EC key. What is taken is on its curve.
func FuzzPublicKey(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	for params := range curves {
		f.Add([]byte(params), point)
		f.Add([]byte(params), append([]byte{4, byte(len(point))}, point...))
	}
	f.Add([]byte("\x13\x0aprime256v1"), []byte{4, 1, 4})
	f.Fuzz(func(t *testing.T, params, point []byte) {
		pub, err := parseEC(params, point)
		if (pub == nil) == (err == nil) {
			t.Errorf("%v, %v", pub, err)
		}
		if err == nil {
			if _, err := pub.(*ecdsa.PublicKey).ECDH(); err != nil {
				t.Errorf("a key that is none was taken: %v", err)
			}
		}
	})
}

// FuzzAnswer turns what a token answers into a signature, which has then one form only.
func FuzzAnswer(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(make([]byte, 64))
	f.Add(append(make([]byte, 63), 1))
	f.Add(append(append(append(make([]byte, 31), 1), make([]byte, 31)...), 0x80))
	t := &token{TokenInfo: p11.TokenInfo{Label: "fuzz"}}
	ec := &signer{token: t, public: key.Public()}
	modulus := new(big.Int).Lsh(big.NewInt(1), 2047)
	rsaKey := &signer{token: t, public: &rsa.PublicKey{N: modulus.SetBit(modulus, 0, 1), E: 65537}}
	f.Fuzz(func(t *testing.T, answer []byte) {
		if sig, err := ec.output(answer); err == nil {
			// 0x30, the length, and two numbers without a needless zero in front.
			if len(answer) != 64 || len(sig) < 8 || len(sig) > 72 || sig[0] != 0x30 || int(sig[1]) != len(sig)-2 {
				t.Errorf("%x became %x", answer, sig)
			}
			if ecdsa.VerifyASN1(&key.PublicKey, make([]byte, 32), sig) {
				t.Error("somebody has guessed a signature")
			}
		}
		if sig, err := rsaKey.output(answer); (err == nil) != (len(answer) == 256) || err == nil && len(sig) != 256 {
			t.Errorf("%d bytes: %v", len(answer), err)
		}
		if _, _, err := ec.input(answer, crypto.SHA256); (err == nil) != (len(answer) == 32) {
			t.Errorf("a digest of %d bytes: %v", len(answer), err)
		}
	})
}
