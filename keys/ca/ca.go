// Package ca makes keys and certificates that kernels take: [Init] makes a CA and signing
// keys, [Open] opens the [Authority] that issues and renews certificates, [MakeRequest]
// asks one elsewhere. What it writes is whole in its place or not there, also when the
// process is killed (pending.go), and no file is ever overwritten.
package ca

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/keys/kernel"
	"github.com/imaseal/imaseal/sign"
)

// How long new certificates are valid in days, where nothing else is said: that of a
// signing key, and that of a CA.
const (
	DefaultDays   = 3 * 365
	DefaultCADays = 20 * 365
)

const (
	maxDays = 100 * 365
	// backdate keeps a new certificate valid on machines whose clock is behind.
	backdate = time.Hour
	// maxCommonName is ub-common-name of RFC 5280, in characters.
	maxCommonName = 64
)

// An Authority is a CA, which issues certificates. Close it.
type Authority struct {
	// Certificate is one that kernels take for that of a CA.
	Certificate *x509.Certificate
	// Note is what a user should know about the CA, "" for nothing.
	Note string

	key *keys.Key
}

// Open opens the CA whose private key ref names, as [keys.Open] does. Its certificate
// is the one for that key in what cert names, as [keys.OpenCertificates] takes it; if
// cert is empty, the one that came with the key. A certificate that kernels would not
// take for that of a CA, or that is not valid now, is an error.
func Open(ctx context.Context, ref, cert string, o keys.OpenOptions, now time.Time) (*Authority, error) {
	key, err := openCAKey(ctx, ref, o)
	if err != nil {
		return nil, err
	}
	ca, err := asAuthority(ctx, key, ref, cert, o, now)
	if err != nil {
		return nil, errors.Join(err, key.Close())
	}
	return ca, nil
}

// Close lets go of the CA's key.
func (ca *Authority) Close() error { return ca.key.Close() }

// openCAKey opens the key of a CA. The prompt and the error say that it is this one.
func openCAKey(ctx context.Context, ref string, o keys.OpenOptions) (*keys.Key, error) {
	if ask := o.Passphrase; ask != nil {
		o.Passphrase = func(prompt string) ([]byte, error) { return ask("(CA) " + prompt) }
	}
	key, err := keys.Open(ctx, ref, o)
	if errors.Is(err, keys.ErrWrongPassphrase) || errors.Is(err, keys.ErrNoTerminal) {
		return nil, fmt.Errorf("the CA's key: %w; for a CA these are --ca-passphrase-file and --ca-passphrase-fd", err)
	}
	if err != nil {
		return nil, fmt.Errorf("the CA's key: %w", err)
	}
	return key, nil
}

// asAuthority makes a CA of its key, with the certificate that cert names.
func asAuthority(ctx context.Context, k *keys.Key, ref, cert string, o keys.OpenOptions, now time.Time) (*Authority, error) {
	where, certs := ref, []*x509.Certificate{k.Certificate}
	if cert != "" {
		var err error
		if certs, err = keys.OpenCertificates(ctx, cert, o); err != nil {
			return nil, fmt.Errorf("the CA's certificate: %w", err)
		}
		where = cert
	} else if k.Certificate == nil {
		return nil, fmt.Errorf("there is no certificate of the CA in the file of its key, or on its token (%s): name it by --ca-cert", ref)
	}
	ca := &Authority{Certificate: certs[0], Note: k.Note, key: k}
	for _, c := range certs {
		if keys.Match(c, k.Public()) == nil {
			ca.Certificate = c
			break
		}
	}
	if err := keys.Match(ca.Certificate, k.Public()); err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	note, err := judgeCA(ca.Certificate)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	if note != "" && ca.Note != "" {
		ca.Note += "; "
	}
	ca.Note += note
	if err := keys.CheckValidity(ca.Certificate, now); err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	return ca, nil
}

// judgeCA returns an error when kernels would not look up an issuer by cert, and a
// note when only some would.
func judgeCA(cert *x509.Certificate) (note string, err error) {
	if !cert.BasicConstraintsValid || !cert.IsCA || cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0 || len(cert.SubjectKeyId) == 0 {
		return "", fmt.Errorf("%q is no certificate of a CA that kernels would take (CA:TRUE, keyCertSign, subject key identifier)", cert.Subject)
	}
	if cert.KeyUsage == 0 {
		return fmt.Sprintf("the certificate of CA %q has no key usage: kernels take it when it is built in, but not into .machine, which asks for keyCertSign", cert.Subject), nil
	}
	return "", nil
}

// newCACertificate makes the certificate of a CA for its own key.
func newCACertificate(key crypto.Signer, template *x509.Certificate) (*x509.Certificate, error) {
	if _, err := kernel.KeyTypeOf(key.Public()); err != nil {
		return nil, fmt.Errorf("the CA's key: %w", err)
	}
	template.KeyUsage = x509.KeyUsageCertSign
	template.IsCA = true
	template.BasicConstraintsValid = true
	return certify(template, key.Public(), template, key)
}

// issue makes the certificate of a signing key, for digital signatures only.
func (ca *Authority) issue(pub crypto.PublicKey, template *x509.Certificate) (*x509.Certificate, error) {
	if _, err := kernel.KeyTypeOf(pub); err != nil {
		return nil, err
	}
	if keys.Match(ca.Certificate, pub) == nil {
		return nil, errors.New("this is the key of the CA itself: a key that signs files must be another one")
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	cert, err := certify(template, pub, ca.Certificate, ca.key)
	if err != nil {
		return nil, err
	}
	// The kernel's rule, applied before anybody depends on the result.
	return cert, keys.ChainsTo(cert, []*x509.Certificate{ca.Certificate})
}

// certify makes a certificate for pub, version 3 with a random serial number. The
// signature is verified, whatever kind of key made it.
func certify(template *x509.Certificate, pub crypto.PublicKey, issuer *x509.Certificate, key crypto.Signer) (*x509.Certificate, error) {
	var err error
	// Set here because Go would take a truncated SHA-256, and for a CA only.
	if len(template.SubjectKeyId) == 0 {
		if template.SubjectKeyId, err = sign.SubjectKeyID(pub); err != nil {
			return nil, err
		}
	}
	der, err := signedBy(key, func(algorithm x509.SignatureAlgorithm) ([]byte, error) {
		template.SignatureAlgorithm = algorithm
		return x509.CreateCertificate(rand.Reader, template, issuer, pub, key)
	})
	if err != nil {
		return nil, fmt.Errorf("making the certificate of %q: %w", template.Subject, err)
	}
	return x509.ParseCertificate(der)
}

// signedBy has a certificate or a request made that key signs, by the hash that Go
// chooses. For RSA that is SHA-256, and services have keys that sign by SHA-512 only.
func signedBy(key crypto.Signer, make func(x509.SignatureAlgorithm) ([]byte, error)) ([]byte, error) {
	der, err := make(x509.UnknownSignatureAlgorithm)
	if _, ok := key.Public().(*rsa.PublicKey); ok && errors.Is(err, keys.ErrRefused) {
		if other, err := make(x509.SHA512WithRSA); err == nil {
			return other, nil
		}
	}
	return der, err
}

// newTemplate begins a certificate that is valid from now on.
func newTemplate(name string, days int, now time.Time) *x509.Certificate {
	now = now.UTC().Truncate(time.Second)
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-backdate),
		NotAfter:  now.AddDate(0, 0, days),
	}
}

func caName(name string) string      { return name + " CA" }
func signingName(name string) string { return name + " signing key" }

// checkName checks the name that signingName or caName completes.
func checkName(name string) error {
	completed := utf8.RuneCountInString(signingName(name))
	if completed > maxCommonName || name == "" || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("%q cannot be the name in a certificate: use at most %d printable characters", name, maxCommonName-completed+utf8.RuneCountInString(name))
	}
	return nil
}

func checkDays(days ...int) error {
	for _, n := range days {
		if n < 1 || n > maxDays {
			return fmt.Errorf("a certificate cannot be valid for %d days: use 1 to %d", n, maxDays)
		}
	}
	return nil
}
