package kmstest

// This file holds what the fakes have in common: their keys and their failures.

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/imaseal/imaseal/keys/remote"
)

// A Service is a fake of a key service.
type Service struct {
	// Key is the one that the service holds.
	Key crypto.Signer

	t     testing.TB
	mu    sync.Mutex
	fault Fault
}

// A Fault answers a request and returns true, or leaves it to the service.
type Fault func(w http.ResponseWriter, r *http.Request) bool

// ServeHTTP makes a Fault the whole of a service.
func (f Fault) ServeHTTP(w http.ResponseWriter, r *http.Request) { f(w, r) }

// OnSign limits f to requests for signatures.
func OnSign(f Fault) Fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		operation := strings.ToLower(r.Header.Get("X-Amz-Target") + strings.TrimSuffix(r.URL.Path, "/"))
		return strings.HasSuffix(operation, "sign") && f(w, r)
	}
}

// Answer is a Fault that answers with a status, a body and headers, each followed by
// its value.
func Answer(status int, body string, headers ...string) Fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		io.Copy(io.Discard, r.Body)
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
		return true
	}
}

// Break is a Fault that ends the connection within an answer.
func Break(w http.ResponseWriter, r *http.Request) bool {
	w.Header().Set("Content-Length", "1000")
	w.WriteHeader(http.StatusOK)
	io.WriteString(w, "{")
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// Endless is a Fault that does not stop talking.
func Endless(w http.ResponseWriter, r *http.Request) bool {
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, `{"x":"`)
	for {
		if _, err := w.Write(bytes.Repeat([]byte("x"), 1<<16)); err != nil {
			return true
		}
	}
}

// SetFault has f answer in the service's place from now on, nothing if nil.
func (s *Service) SetFault(f Fault) {
	s.mu.Lock()
	s.fault = f
	s.mu.Unlock()
}

// failed lets the fault have its turn.
func (s *Service) failed(w http.ResponseWriter, r *http.Request) bool {
	s.mu.Lock()
	f := s.fault
	s.mu.Unlock()
	return f != nil && f(w, r)
}

// sign makes a signature as the service does: over a digest, ECDSA in DER.
func (s *Service) sign(h crypto.Hash, digest []byte) []byte {
	sig, err := s.Key.Sign(rand.Reader, digest, h)
	if err != nil {
		s.t.Errorf("the service cannot sign: %v", err)
	}
	return sig
}

// wrong reports a request that is not as documented.
func (s *Service) wrong(w http.ResponseWriter, format string, args ...any) {
	s.t.Errorf(format, args...)
	http.Error(w, "not as documented", http.StatusBadRequest)
}

// read reads a request's body, which must have no field that v has not.
func read(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	_, err := d.Token()
	if err == io.EOF {
		return nil
	}
	return err
}

func reply(w http.ResponseWriter, kind string, v any) {
	w.Header().Set("Content-Type", kind)
	json.NewEncoder(w).Encode(v)
}

func (s *Service) spki() []byte {
	der, err := x509.MarshalPKIXPublicKey(s.Key.Public())
	if err != nil {
		s.t.Errorf("public key: %v", err)
	}
	return der
}

// RSAKey makes an RSA key.
func RSAKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// accountKey is the key by which a caller proves who it is.
var accountKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// ECKey makes a key on a curve.
func ECKey(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Digest is a digest of h that differs for each n.
func Digest(h crypto.Hash, n int) remote.Digest {
	w := h.New()
	w.Write([]byte{byte(n), byte(n >> 8)})
	return remote.Digest{Hash: h, Sum: w.Sum(nil)}
}

// Verify fails the test unless sig is a signature over d as kernels verify it.
func Verify(t testing.TB, public crypto.PublicKey, d remote.Digest, sig []byte) {
	t.Helper()
	switch public := public.(type) {
	case *rsa.PublicKey:
		if err := rsa.VerifyPKCS1v15(public, d.Hash, d.Sum, sig); err != nil {
			t.Errorf("an RSA signature of %d bytes does not verify: %v", len(sig), err)
		}
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(public, d.Sum, sig) {
			t.Errorf("an ECDSA signature of %d bytes does not verify", len(sig))
		}
	default:
		t.Errorf("the key is a %T", public)
	}
}
