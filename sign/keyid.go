package sign

import (
	"crypto"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"strconv"
)

// KeyID is the key id of a file signature: the last four bytes, big endian, of
// the certificate's subject key identifier. The kernel finds the public key in
// its keyring by it.
type KeyID uint32

// ParseKeyID reads a key id of one to eight hexadecimal digits, with or without
// 0x in front.
func ParseKeyID(s string) (KeyID, error) {
	digits := s
	if len(digits) > 2 && (digits[:2] == "0x" || digits[:2] == "0X") {
		digits = digits[2:]
	}
	n, err := strconv.ParseUint(digits, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("key id %q is not a hexadecimal number of at most 8 digits", s)
	}
	return KeyID(n), nil
}

// String returns eight hexadecimal digits.
func (id KeyID) String() string { return fmt.Sprintf("%08x", uint32(id)) }

// SubjectKeyID returns the SHA-1 of the public key's bits (RFC 5280 4.2.1.2,
// method 1): what a certificate for pub should carry as its subject key
// identifier, and what evmctl computes where there is no certificate.
func SubjectKeyID(pub crypto.PublicKey) ([]byte, error) {
	bits, err := PublicKeyBits(pub)
	if err != nil {
		return nil, err
	}
	sum := sha1.Sum(bits)
	return sum[:], nil
}

// PublicKeyBits returns what identifiers are computed of: the bits in the
// SubjectPublicKeyInfo of pub, without its algorithm.
func PublicKeyBits(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("computing the key id: %w", err)
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, fmt.Errorf("computing the key id: %w", err)
	}
	return info.Key.Bytes, nil
}

// KeyIDFromPublicKey computes the key id of a key that has no certificate.
func KeyIDFromPublicKey(pub crypto.PublicKey) (KeyID, error) {
	skid, err := SubjectKeyID(pub)
	if err != nil {
		return 0, err
	}
	return keyIDFromSKID(skid), nil
}

// KeyIDFromCertificate returns the key id under which the kernel files cert:
// that of its subject key identifier. Where it has none it is the computed one, as
// evmctl has it; a kernel then finds no key.
func KeyIDFromCertificate(cert *x509.Certificate) (KeyID, error) {
	if len(cert.SubjectKeyId) >= 4 {
		return keyIDFromSKID(cert.SubjectKeyId), nil
	}
	return KeyIDFromPublicKey(cert.PublicKey)
}

func keyIDFromSKID(skid []byte) KeyID {
	return KeyID(binary.BigEndian.Uint32(skid[len(skid)-4:]))
}
