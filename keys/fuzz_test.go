package keys

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"path/filepath"
	"testing"
	"time"
)

// FuzzPrivateKey looks for key files that do harm. What is accepted signs, and is
// the same key when it is written as PKCS #8.
func FuzzPrivateKey(f *testing.F) {
	seed(f, "private")
	for _, c := range encryptionCases {
		f.Add(c.der(f))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		key, err := parsePrivateKey(bytes.Clone(raw), "test.key", refuse)
		if err != nil {
			return
		}
		digest := sha256.Sum256(raw)
		if sig, err := key.Sign(nil, digest[:], crypto.SHA256); err == nil && len(sig) == 0 {
			t.Error("an empty signature")
		}
		der, err := x509.MarshalPKCS8PrivateKey(key.Signer)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parsePrivateKey(der, "test.key", refuse)
		if err != nil {
			t.Fatal(err)
		}
		if !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(again.Public()) {
			t.Error("written and read it is another key")
		}
	})
}

// FuzzEncryptedKey looks for encrypted keys that do harm when they are opened.
func FuzzEncryptedKey(f *testing.F) {
	for _, c := range encryptionCases {
		f.Add(c.der(f))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		open, err := parseEncrypted(raw)
		if err != nil {
			return
		}
		work := derivationWork(raw)
		if work < 1 || work > 1<<31 {
			t.Fatalf("it would take %d steps", work)
		}
		if work > 1<<12 {
			return // within bounds, but too long for a fuzz run
		}
		if plain, err := open([]byte("x")); err != nil && !errors.Is(err, ErrWrongPassphrase) || err == nil && len(plain) == 0 {
			t.Errorf("%x, %v", plain, err)
		}
	})
}

// derivationWork returns the iterations of PBKDF2, or the blocks that scrypt mixes.
func derivationWork(der []byte) int {
	var k encryptedKey
	var params pbes2Params
	var iterated pbkdf2Params
	var mixed scryptParams
	unmarshalAll(der, &k)
	unmarshalAll(k.Algorithm.Parameters.FullBytes, &params)
	if unmarshalAll(params.KDF.Parameters.FullBytes, &iterated) == nil && params.KDF.Algorithm.Equal(oidPBKDF2) {
		return iterated.Iterations
	}
	unmarshalAll(params.KDF.Parameters.FullBytes, &mixed)
	return mixed.N * mixed.R * mixed.P
}

// FuzzCertificates looks for certificate files that do harm. What is accepted can
// be judged.
func FuzzCertificates(f *testing.F) {
	seed(f, "certificates")
	ca := loadCertificate(f, "testdata/certificates/one.crt")
	f.Fuzz(func(t *testing.T, raw []byte) {
		certs, err := ParseCertificates(raw)
		if (len(certs) == 0) == (err == nil) {
			t.Fatalf("%d certificates, %v", len(certs), err)
		}
		for _, cert := range certs[:min(len(certs), 4)] {
			if ChainsTo(cert, []*x509.Certificate{ca}) == nil && !bytes.Equal(cert.RawIssuer, ca.RawSubject) {
				t.Error("it chains to a CA of another name")
			}
			if _, _, err := KeyID(cert, cert.PublicKey); err == nil {
				if err := Match(cert, cert.PublicKey); err != nil {
					t.Error(err)
				}
			}
			if CheckValidity(cert, cert.NotBefore.Add(-time.Second)) == nil {
				t.Error("it is valid before it is")
			}
		}
	})
}

// FuzzParsePublicKey looks for public keys that do harm.
func FuzzParsePublicKey(f *testing.F) {
	seed(f, "certificates", "private")
	for _, name := range []string{"one.crt", "two.crt"} {
		cert := loadCertificate(f, filepath.Join("testdata/certificates", name))
		f.Add(cert.RawSubjectPublicKeyInfo)
		f.Add(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: cert.RawSubjectPublicKeyInfo}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		pub, err := ParsePublicKey(data)
		if (pub == nil) != (err != nil) {
			t.Errorf("key %v, error %v", pub, err)
		}
		if !bytes.Equal(data, before) {
			t.Error("the file's bytes were changed")
		}
	})
}
