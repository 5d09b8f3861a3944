package sign_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

// A token is a key that is no software key: it counts, and fails or lies when
// told to.
type token struct {
	crypto.Signer
	calls atomic.Int32
	fail  atomic.Bool
	lie   bool
	// failAt is the call that alone fails, 0 for none.
	failAt int32
}

var errToken = errors.New("token was pulled out")

func (k *token) Sign(random io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	if n := k.calls.Add(1); k.fail.Load() || n == k.failAt {
		return nil, errToken
	}
	if random == nil {
		return nil, errors.New("token wants randomness")
	}
	if k.lie {
		digest = make([]byte, len(digest))
	}
	return k.Signer.Sign(random, digest, o)
}

func newToken(t *testing.T, k *token) *sign.Signer {
	t.Helper()
	k.Signer = testKey(t, "p256")
	s, err := sign.NewSigner(k, 7)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSignerSignsEqualDigestsOnce(t *testing.T) {
	k := new(token)
	s := newToken(t, k)
	var all sync.WaitGroup
	values := make([][]byte, 200)
	for i := range values {
		all.Go(func() {
			var err error
			if values[i], err = s.SignDigest(sign.SHA256, digestOf(sign.SHA256, fmt.Sprint(i%10))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := k.calls.Load(); n != 10 {
		t.Errorf("%d calls of the key for 10 digests", n)
	}
	for i, v := range values {
		if !bytes.Equal(v, values[i%10]) {
			t.Errorf("%d and %d differ", i, i%10)
		}
	}
	// Equal bytes by another hash are another digest.
	if _, err := s.SignDigest(sign.SHA512, digestOf(sign.SHA512, "0")); err != nil || k.calls.Load() != 11 {
		t.Error(err, k.calls.Load())
	}
}

func TestSignerTriesAgainAfterAFailure(t *testing.T) {
	k := new(token)
	s := newToken(t, k)
	digest := digestOf(sign.SHA256, "x")
	k.fail.Store(true)
	if _, err := s.SignDigest(sign.SHA256, digest); !errors.Is(err, errToken) {
		t.Error(err)
	}
	k.fail.Store(false)
	if _, err := s.SignDigest(sign.SHA256, digest); err != nil {
		t.Error(err)
	}
}

func TestSignerRefusesASignatureThatDoesNotVerify(t *testing.T) {
	s := newToken(t, &token{lie: true})
	if value, err := s.SignDigest(sign.SHA256, digestOf(sign.SHA256, "x")); !errors.Is(err, sign.ErrBadSignature) {
		t.Errorf("%x, %v", value, err)
	}
}

func TestSoftwareKeysSignDeterministically(t *testing.T) {
	for _, name := range []string{"rsa2048", "p256", "p384"} {
		digest := digestOf(sign.SHA256, name)
		first, err := testSigner(t, name).SignDigest(sign.SHA256, digest)
		if err != nil {
			t.Fatal(err)
		}
		again, err := testSigner(t, name).SignDigest(sign.SHA256, digest)
		if err != nil || !bytes.Equal(first, again) {
			t.Errorf("%s: %x and %x, %v", name, first, again, err)
		}
	}
}

func TestSignerRefuses(t *testing.T) {
	s := testSigner(t, "p256")
	for _, c := range []struct {
		h sign.Hash
		n int
	}{{sign.SHA256, 31}, {sign.SHA256, 48}, {sign.SHA256, 0}, {sign.SHA1, 20}, {sign.MD5, 16}, {sign.SHA224, 28}, {0, 0}, {99, 32}} {
		if v, err := s.SignDigest(c.h, make([]byte, c.n)); err == nil {
			t.Errorf("%d bytes by %s: %x", c.n, c.h, v)
		}
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	short := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2046), E: 65537}} // 2047 bits
	for name, key := range map[string]crypto.Signer{"P-224": p224, "Ed25519": ed, "RSA-2047": short} {
		if _, err := sign.NewSigner(key, 1); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
