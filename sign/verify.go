package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Verdicts of [TrustedKeys.VerifyDigest].
var (
	// ErrUnknownKey says that no trusted key has the signature's key id.
	ErrUnknownKey = errors.New("unknown key id")
	// ErrBadSignature says that the key did not make this signature over this
	// digest.
	ErrBadSignature = errors.New("bad signature")
)

// TrustedKeys are the public keys against which signatures are verified, as the
// kernel's keyring is. The zero value trusts none. It must not be added to while
// it is in use.
type TrustedKeys struct {
	keys map[KeyID][]crypto.PublicKey
}

// AddCertificate trusts the key of cert, under the key id that the kernel would
// file it by.
func (t *TrustedKeys) AddCertificate(cert *x509.Certificate) error {
	id, err := KeyIDFromCertificate(cert)
	if err != nil {
		return err
	}
	return t.Add(id, cert.PublicKey)
}

// Add trusts pub under id. Several keys may share one id; the kernel would find
// only one of them.
func (t *TrustedKeys) Add(id KeyID, pub crypto.PublicKey) error {
	switch pub.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
	default:
		return fmt.Errorf("key %s is a %T: the kernel verifies RSA and ECDSA only", id, pub)
	}
	if t.keys == nil {
		t.keys = map[KeyID][]crypto.PublicKey{}
	}
	t.keys[id] = append(t.keys[id], pub)
	return nil
}

// KeyIDs returns the key ids under which keys are trusted, in ascending order.
func (t *TrustedKeys) KeyIDs() []KeyID { return slices.Sorted(maps.Keys(t.keys)) }

// Has reports whether a key is trusted under id.
func (t *TrustedKeys) Has(id KeyID) bool { return len(t.keys[id]) > 0 }

// VerifyDigest returns nil when a trusted key made s over digest, otherwise
// [ErrUnknownKey] or [ErrBadSignature], wrapped with the reason.
func (t *TrustedKeys) VerifyDigest(s Signature, digest []byte) error {
	keys := t.keys[s.KeyID]
	if len(keys) == 0 {
		return fmt.Errorf("%w: no trusted key has %s", ErrUnknownKey, s.KeyID)
	}
	var err error
	for _, pub := range keys {
		if err = verifyWith(pub, s, digest); err == nil {
			return nil
		}
	}
	return err
}

// verifyWith chooses the algorithm by the key, as the kernel does.
func verifyWith(pub crypto.PublicKey, s Signature, digest []byte) error {
	if !s.Hash.Known() || len(digest) != s.Hash.Size() {
		return fmt.Errorf("%w: it is over %s, the digest has %d bytes", ErrBadSignature, s.Hash, len(digest))
	}
	signed := s.signedDigest(digest)
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		if err := rsa.VerifyPKCS1v15(pub, s.Hash.Crypto(), signed, s.Sig); err != nil {
			return fmt.Errorf("%w: key %s did not make it over this content", ErrBadSignature, s.KeyID)
		}
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(pub, signed, s.Sig) {
			return fmt.Errorf("%w: key %s did not make it over this content", ErrBadSignature, s.KeyID)
		}
	default:
		return fmt.Errorf("%w: key %s is a %T", ErrBadSignature, s.KeyID, pub)
	}
	return nil
}
