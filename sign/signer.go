package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// maxRemembered bounds the memory in bytes that a [Signer] spends on remembering
// signatures by digest. One digest in ten repeats in a distribution, most of
// them within one package.
const maxRemembered = 16 << 20

// rememberedSize is what one of them costs: a signature and its entry, generously.
const rememberedSize = 1024

// A Signer makes file signatures with one key. Its methods may be called
// concurrently. Equal digests are signed once.
type Signer struct {
	// Jobs is how many calls of SignDigest the key can work on at once, 0 for as
	// many as the caller likes. To be set before the Signer is used.
	Jobs int
	// Cache, if not nil, is asked before the key is; to be set before the Signer is
	// used. An ECDSA key in software is as fast as a cache and does without.
	Cache Cache

	key    crypto.Signer
	id     KeyID
	random io.Reader // nil for software keys, which then sign deterministically
	verify bool

	identity    [sha256.Size]byte // of the public key, in the cache
	cacheable   bool
	found, made atomic.Int64 // signatures by the cache, by the key in spite of one

	mu         sync.Mutex
	remembered map[string]*onceSigned
	room       int
}

type onceSigned struct {
	once  sync.Once
	value []byte
	err   error
}

// A KeyError says that a key did not sign. It is about no file or package in particular:
// a service that was given up gives the same for all that are left.
type KeyError struct {
	KeyID KeyID
	Err   error // what the key said
}

func (e *KeyError) Error() string { return fmt.Sprintf("signing with key %s: %v", e.KeyID, e.Err) }
func (e *KeyError) Unwrap() error { return e.Err }

// NewSigner returns a Signer for key, which must be RSA of at least 2048 bits,
// ECDSA P-256, P-384 or P-521: what Linux verifies. id is the key id that every
// signature will carry; take it from the certificate where there is one. A
// software key signs deterministically (RFC 6979 for ECDSA); what another kind
// of key signs is verified before it is used.
func NewSigner(key crypto.Signer, id KeyID) (*Signer, error) {
	s := &Signer{key: key, id: id, remembered: map[string]*onceSigned{}, room: maxRemembered}
	switch pub := key.Public().(type) {
	case *rsa.PublicKey:
		if pub.N.BitLen() < 2048 {
			return nil, fmt.Errorf("an RSA key of %d bits is too short: make one of 2048 bits or more", pub.N.BitLen())
		}
	case *ecdsa.PublicKey:
		switch pub.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
		default:
			return nil, fmt.Errorf("the kernel does not verify curve %s: use P-256 or P-384", pub.Curve.Params().Name)
		}
	default:
		return nil, fmt.Errorf("the kernel does not verify signatures of %T: use an RSA or ECDSA key", pub)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	s.identity = sha256.Sum256(spki)
	switch key.(type) {
	case *rsa.PrivateKey:
		s.cacheable = true
	case *ecdsa.PrivateKey:
	default:
		s.random = rand.Reader
		s.verify = true
		s.cacheable = true
	}
	return s, nil
}

// KeyID returns the key id that the signatures carry.
func (s *Signer) KeyID() KeyID { return s.id }

// Public returns the public key of the signing key.
func (s *Signer) Public() crypto.PublicKey { return s.key.Public() }

// SignDigest returns the value of security.ima for a file whose digest by h is
// digest. The caller must not change the value: equal digests share it.
func (s *Signer) SignDigest(h Hash, digest []byte) ([]byte, error) {
	if !h.Strong() {
		return nil, fmt.Errorf("files are not signed by %s digests: use sha256, sha384 or sha512", h)
	}
	if len(digest) != h.Size() {
		return nil, fmt.Errorf("a digest of %d bytes is not one of %s", len(digest), h)
	}
	key := string(append([]byte{byte(h)}, digest...))
	s.mu.Lock()
	entry, ok := s.remembered[key]
	if !ok {
		entry = new(onceSigned)
		if s.room > 0 {
			s.remembered[key] = entry
			s.room -= rememberedSize
		}
	}
	s.mu.Unlock()
	entry.once.Do(func() { entry.value, entry.err = s.sign(h, digest) })
	if entry.err != nil {
		// A token that was pulled out may be back for the next package.
		s.mu.Lock()
		if s.remembered[key] == entry {
			delete(s.remembered, key)
			s.room += rememberedSize
		}
		s.mu.Unlock()
	}
	return entry.value, entry.err
}

// Cached returns how many signatures the cache had, of how many that it was asked
// for. Both are 0 where no cache is used.
func (s *Signer) Cached() (found, asked int64) {
	found = s.found.Load()
	return found, found + s.made.Load()
}

func (s *Signer) sign(h Hash, digest []byte) ([]byte, error) {
	if s.Cache == nil || !s.cacheable {
		return s.signWithKey(h, digest, nil)
	}
	if sig := s.Cache.Lookup(s.identity, h, digest); sig != nil {
		value := Signature{Version: 2, Hash: h, KeyID: s.id, Sig: sig}
		if verifyWith(s.key.Public(), value, digest) == nil {
			s.found.Add(1)
			return value.MarshalBinary()
		}
	}
	s.made.Add(1)
	return s.signWithKey(h, digest, s.Cache)
}

// signWithKey lets the key sign, and cache remember it where that is not nil.
func (s *Signer) signWithKey(h Hash, digest []byte, cache Cache) ([]byte, error) {
	sig, err := s.key.Sign(s.random, digest, h.Crypto())
	if err != nil {
		return nil, &KeyError{s.id, err}
	}
	value := Signature{Version: 2, Hash: h, KeyID: s.id, Sig: sig}
	if s.verify {
		if err := verifyWith(s.key.Public(), value, digest); err != nil {
			return nil, fmt.Errorf("key %s made a signature that does not verify: %w", s.id, err)
		}
	}
	if cache != nil {
		cache.Remember(s.identity, h, digest, sig)
	}
	return value.MarshalBinary()
}
