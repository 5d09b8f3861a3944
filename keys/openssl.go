//go:build openssl && cgo

package keys

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/golang-fips/openssl/v2"
	"github.com/golang-fips/openssl/v2/bbig"
)

// libcryptos are the libraries that may be there, by preference.
var libcryptos = []string{"libcrypto.so.3", "libcrypto.so.1.1"}

// accelerate returns a signer that lets OpenSSL's libcrypto do the work of an RSA
// key. ECDSA keys stay with Go, which is faster and signs deterministically. When
// libcrypto is missing or its first signature does not verify, the key is
// returned as it is, with a note for the user.
func accelerate(key crypto.Signer) (crypto.Signer, string) {
	private, ok := key.(*rsa.PrivateKey)
	if !ok || len(private.Primes) != 2 {
		return key, ""
	}
	signer, err := newOpenSSLSigner(private)
	if err != nil {
		return key, fmt.Sprintf("signing without OpenSSL, which is slower: %v", err)
	}
	return signer, ""
}

// An opensslSigner makes PKCS #1 v1.5 signatures, the same bytes as Go's.
type opensslSigner struct {
	public  *rsa.PublicKey
	private *openssl.PrivateKeyRSA
}

func newOpenSSLSigner(key *rsa.PrivateKey) (*opensslSigner, error) {
	if err := loadLibcrypto(); err != nil {
		return nil, err
	}
	key.Precompute()
	private, err := openssl.NewPrivateKeyRSA(
		bbig.Enc(key.N), openssl.BigInt{uint(key.E)}, bbig.Enc(key.D),
		bbig.Enc(key.Primes[0]), bbig.Enc(key.Primes[1]),
		bbig.Enc(key.Precomputed.Dp), bbig.Enc(key.Precomputed.Dq), bbig.Enc(key.Precomputed.Qinv))
	if err != nil {
		return nil, err
	}
	s := &opensslSigner{&key.PublicKey, private}
	var digest [sha256.Size]byte
	rand.Read(digest[:])
	sig, err := s.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	if err := rsa.VerifyPKCS1v15(s.public, crypto.SHA256, digest[:], sig); err != nil {
		return nil, fmt.Errorf("its first signature is bad: %w", err)
	}
	return s, nil
}

func loadLibcrypto() error {
	for _, name := range libcryptos {
		// Init takes one name only in the life of a process.
		if exists, _ := openssl.CheckVersion(name); exists {
			return openssl.Init(name)
		}
	}
	return fmt.Errorf("none of %q can be loaded", libcryptos)
}

// Public implements crypto.Signer.
func (s *opensslSigner) Public() crypto.PublicKey { return s.public }

// Sign implements crypto.Signer for digests; PSS is refused.
func (s *opensslSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if _, ok := opts.(*rsa.PSSOptions); ok {
		return nil, fmt.Errorf("PSS signatures are not made by this key")
	}
	if h := opts.HashFunc(); h == 0 || len(digest) != h.Size() {
		return nil, fmt.Errorf("a digest of %d bytes is not one of %v", len(digest), h)
	}
	return openssl.SignRSAPKCS1v15(s.private, opts.HashFunc(), digest)
}
