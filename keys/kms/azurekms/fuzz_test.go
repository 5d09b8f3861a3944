package azurekms

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/imaseal/imaseal/keys/kms/kmstest"
)

// FuzzPublicKey reads keys from a vault that answers what it likes. A key that is
// taken must be one that can verify.
func FuzzPublicKey(f *testing.F) {
	point, err := kmstest.ECKey(f, elliptic.P256()).PublicKey.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add("EC", "P-256", point[1:33], point[33:])
	f.Add("RSA-HSM", "", kmstest.RSAKey(f, 2048).N.Bytes(), []byte{1, 0, 1})
	f.Fuzz(func(t *testing.T, kty, crv string, a, b []byte) {
		k := &azkeys.JSONWebKey{Kty: (*azkeys.KeyType)(&kty), Crv: (*azkeys.CurveName)(&crv), N: a, E: b, X: a, Y: b}
		public, err := publicKey(k)
		if err != nil {
			return
		}
		switch public := public.(type) {
		case *rsa.PublicKey:
			if public.E < 1 || public.N.BitLen() > 8*maxModulus {
				t.Errorf("took %+v", public)
			}
			rsa.VerifyPKCS1v15(public, 0, make([]byte, 32), make([]byte, public.Size()))
		case *ecdsa.PublicKey:
			if _, err := public.ECDH(); err != nil || curveHash(public) == 0 {
				t.Errorf("took %+v: %v", public, err)
			}
		default:
			t.Errorf("took a %T", public)
		}
	})
}
