package keys

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/imaseal/imaseal/sign"
)

// MaxRSABits bounds the RSA keys that are used: verification with a larger one
// takes long, and no kernel takes it.
const MaxRSABits = 16384

// LoadCertificates reads the certificates in a file: one in DER, or any number in
// PEM. It does not judge them. There is at least one when the error is nil.
func LoadCertificates(path string) ([]*x509.Certificate, error) {
	data, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(data) // a private key may be in the same file
	certs, err := ParseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return certs, nil
}

// ParseCertificates is [LoadCertificates] for the content of a file.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	if !bytes.Contains(data, []byte("-----BEGIN ")) {
		cert, err := parseCertificate(data)
		if err != nil {
			return nil, err
		}
		return []*x509.Certificate{cert}, nil
	}
	var certs []*x509.Certificate
	var others []string
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" && block.Type != "X509 CERTIFICATE" {
			others = append(others, block.Type)
			continue
		}
		cert, err := parseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	if n := bytes.Count(data, []byte("-----BEGIN CERTIFICATE-----")); n > len(certs) {
		return nil, fmt.Errorf("only %d of the %d certificates in it can be read as PEM", len(certs), n)
	}
	if len(certs) == 0 {
		if len(others) > 0 {
			return nil, fmt.Errorf("there is no certificate in it, only PEM of type %q", others)
		}
		return nil, errors.New("there is no certificate in it that could be read as PEM")
	}
	return certs, nil
}

func parseCertificate(der []byte) (*x509.Certificate, error) {
	// A copy, as the certificate keeps what it was parsed from.
	cert, err := x509.ParseCertificate(bytes.Clone(der))
	if err != nil {
		return nil, fmt.Errorf("this is no certificate, neither PEM nor DER: %w", err)
	}
	if pub, ok := cert.PublicKey.(*rsa.PublicKey); ok && pub.N.BitLen() > MaxRSABits {
		return nil, fmt.Errorf("the certificate's RSA key has %d bits, more than %d", pub.N.BitLen(), MaxRSABits)
	}
	return cert, nil
}

// Match returns an error when pub is not the key that cert certifies.
func Match(cert *x509.Certificate, pub crypto.PublicKey) error {
	if !Same(cert.PublicKey, pub) {
		return fmt.Errorf("the certificate of %q is not for this key", cert.Subject)
	}
	return nil
}

// Same reports whether two public keys are the same key.
func Same(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

// CheckValidity returns an error when cert is expired or not yet valid. Kernels
// do not look at dates.
func CheckValidity(cert *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(cert.NotBefore):
		return fmt.Errorf("the certificate of %q is valid only from %s on", cert.Subject, cert.NotBefore.UTC().Format(time.RFC3339))
	case now.After(cert.NotAfter):
		return fmt.Errorf("the certificate of %q expired on %s", cert.Subject, cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// ChainsTo returns an error unless the kernel would take cert into a trusted
// keyring on the word of one of cas, as restrict_link_by_digsig does for .ima: it
// must be issued by that CA itself, be for digital signatures, and be no CA.
// Dates are not looked at. Two things are stricter: the issuer must be a CA, which
// kernels ask only of a key in .machine, and SHA-1 proves nothing. A CA without any
// key usage, as evmctl's example script makes it, may issue (RFC 5280 4.2.1.3).
func ChainsTo(cert *x509.Certificate, cas []*x509.Certificate) error {
	switch {
	case cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return fmt.Errorf("the certificate of %q is not for digital signatures (key usage): kernels refuse it in .ima", cert.Subject)
	case cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign != 0:
		return fmt.Errorf("the certificate of %q is that of a CA: kernels refuse it in .ima", cert.Subject)
	}
	reason := fmt.Errorf("the certificate of %q was issued by %q, which is none of the CAs given", cert.Subject, cert.Issuer)
	for _, ca := range cas {
		if !bytes.Equal(cert.RawIssuer, ca.RawSubject) {
			continue
		}
		if !identifiesIssuer(cert, ca) {
			reason = fmt.Errorf("the certificate of %q was issued by another certificate of CA %q (authority key identifier)", cert.Subject, ca.Subject)
			continue
		}
		if !ca.BasicConstraintsValid || !ca.IsCA || ca.KeyUsage != 0 && ca.KeyUsage&x509.KeyUsageCertSign == 0 {
			reason = fmt.Errorf("the certificate of %q, which issued that of %q, is not that of a CA (CA:TRUE, keyCertSign)", ca.Subject, cert.Subject)
			continue
		}
		err := cert.CheckSignatureFrom(ca)
		if err == nil {
			return nil
		}
		reason = fmt.Errorf("the signature of CA %q on the certificate of %q is bad: %w", ca.Subject, cert.Subject, err)
	}
	return reason
}

// identifiesIssuer reports whether the authority key identifier of cert is that of
// ca: key identifier, serial number, or both, as kernels look the issuer up. They
// do so by its name only where cert has none, since Linux 5.18.
func identifiesIssuer(cert, ca *x509.Certificate) bool {
	for _, extension := range cert.Extensions {
		if !extension.Id.Equal(oidAuthorityKeyID) {
			continue
		}
		var id struct {
			KeyID  []byte        `asn1:"optional,tag:0"`
			Issuer asn1.RawValue `asn1:"optional,tag:1"`
			Serial *big.Int      `asn1:"optional,tag:2"`
		}
		if unmarshalAll(extension.Value, &id) != nil ||
			len(id.KeyID) > 0 && !bytes.Equal(id.KeyID, ca.SubjectKeyId) ||
			id.Serial != nil && id.Serial.Cmp(ca.SerialNumber) != 0 {
			return false
		}
	}
	return true
}

var oidAuthorityKeyID = asn1.ObjectIdentifier{2, 5, 29, 35}

// KeyID returns the key id that signatures by the key carry: that of the subject
// key identifier of cert, under which kernels find it, or the computed one where
// cert is nil or has none. The warning is not empty when the two differ, or when
// kernels would not find the key: they file one without the identifier under a name
// made of issuer and serial number.
func KeyID(cert *x509.Certificate, pub crypto.PublicKey) (id sign.KeyID, warning string, err error) {
	computed, err := sign.KeyIDFromPublicKey(pub)
	if err != nil || cert == nil {
		return computed, "", err
	}
	id, err = sign.KeyIDFromCertificate(cert)
	if err != nil {
		return 0, "", err
	}
	switch {
	case len(cert.SubjectKeyId) == 0:
		warning = "the certificate has no subject key identifier: a kernel takes it and never finds it, so it will refuse these signatures"
	case id != computed:
		warning = fmt.Sprintf("the certificate's subject key identifier gives key id %s, its public key %s: the first is used, as kernels find the key by it", id, computed)
	}
	return id, warning, nil
}
