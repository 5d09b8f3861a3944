//go:build openssl && cgo

package keys

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"sync"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

func openedRSA(t testing.TB) (*Key, *rsa.PrivateKey) {
	t.Helper()
	key, err := Open(context.Background(), "testdata/private/rsa-pkcs8.pem", OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := parsePrivateKey(readTestdata(t, "private/rsa-pkcs8.pem"), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return key, plain.Signer.(*rsa.PrivateKey)
}

func TestOpenSSLMakesTheBytesThatGoMakes(t *testing.T) {
	key, plain := openedRSA(t)
	if _, ok := key.Signer.(*opensslSigner); !ok {
		t.Fatalf("a %T signs: %s", key.Signer, key.Note)
	}
	if !plain.PublicKey.Equal(key.Public()) {
		t.Error("another public key")
	}
	for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA224, crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				digest := make([]byte, h.Size())
				rand.Read(digest)
				got, err := key.Sign(nil, digest, h)
				if err != nil {
					t.Errorf("%v: %v", h, err)
					return
				}
				want, err := plain.Sign(nil, digest, h)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%v: %x, Go makes %x, %v", h, got, want, err)
				}
			})
		}
		wg.Wait()
	}
}

func TestOpenSSLRefusesWhatIsNoDigest(t *testing.T) {
	key, _ := openedRSA(t)
	digest := make([]byte, 32)
	_, err := key.Sign(nil, digest, &rsa.PSSOptions{Hash: crypto.SHA256})
	checkError(t, err, "PSS")
	_, err = key.Sign(nil, digest[1:], crypto.SHA256)
	checkError(t, err, "31 bytes")
	_, err = key.Sign(nil, digest, crypto.Hash(0))
	checkError(t, err, "32 bytes")
}

func TestOpenSSLLeavesECDSAToGo(t *testing.T) {
	key, err := Open(context.Background(), "testdata/private/p256-pkcs8.pem", OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := key.Signer.(*ecdsa.PrivateKey); !ok {
		t.Errorf("a %T signs", key.Signer)
	}
}

func TestWithoutLibcryptoGoSignsAndSaysSo(t *testing.T) {
	before := libcryptos
	libcryptos = []string{"libcrypto.so.none"}
	defer func() { libcryptos = before }()
	key, plain := openedRSA(t)
	if _, ok := key.Signer.(*rsa.PrivateKey); !ok {
		t.Errorf("a %T signs", key.Signer)
	}
	for _, want := range []string{"signing without OpenSSL", "libcrypto.so.none"} {
		if !bytes.Contains([]byte(key.Note), []byte(want)) {
			t.Errorf("no %q in the note %q", want, key.Note)
		}
	}
	if !plain.Equal(key.Signer) {
		t.Error("another key")
	}
}

func TestASignerForFilesTakesAnOpenSSLKey(t *testing.T) {
	key, _ := openedRSA(t)
	id, _, err := KeyID(nil, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sign.NewSigner(key.Signer, id); err != nil {
		t.Error(err)
	}
}
