package keys

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/imaseal/imaseal/sign"
)

// InitOptions say what [Init] makes.
type InitOptions struct {
	Dir string // folder of the signing key
	// CADir is the folder of the CA, Dir if empty. A CA that is there already,
	// ca.key and ca.crt, is used.
	CADir string
	// Type is that of the new keys: p256, p384, rsa2048, rsa3072 or rsa4096; p256
	// if empty.
	Type string
	Name string // in the certificates' subjects; "imaseal" if empty
	// Days is how long the signing certificate is valid, three years if 0; CADays
	// the same of the CA, 20 years if 0.
	Days, CADays int
	// Passphrase encrypts the new keys; empty leaves them in plain text.
	Passphrase []byte
	// CAPassphrase is asked for the passphrase of a CA that is there already. If
	// nil, that one must have the same Passphrase, or none.
	CAPassphrase Passphrase
	Now          time.Time
}

// An InitResult names the files that [Init] made.
type InitResult struct {
	CAKey, CACert                       string
	SigningKey, SigningCert, SigningDER string
	// CAFound says that the CA was there already.
	CAFound bool
	KeyID   sign.KeyID // of the signing key
}

const (
	defaultDays   = 3 * 365
	defaultCADays = 20 * 365
	maxDays       = 100 * 365
	// backdate keeps a new certificate valid on machines whose clock is behind.
	backdate = time.Hour
	// maxCommonName is ub-common-name of RFC 5280, in characters.
	maxCommonName = 64
)

// Init makes a CA (keyCertSign only) and a signing key with a certificate that it
// issues (digitalSignature only): the files ca.key and ca.crt in CADir;
// signing.key, signing.crt and signing.der in Dir. Keys are PKCS #8 PEM, mode
// 0600. It refuses to overwrite a file, and leaves none behind when it fails or ctx
// is cancelled.
func Init(ctx context.Context, o InitOptions) (*InitResult, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	r := &InitResult{
		CAKey: filepath.Join(o.CADir, "ca.key"), CACert: filepath.Join(o.CADir, "ca.crt"),
		SigningKey: filepath.Join(o.Dir, "signing.key"), SigningCert: filepath.Join(o.Dir, "signing.crt"),
		SigningDER: filepath.Join(o.Dir, "signing.der"),
	}
	var err error
	if r.CAFound, err = r.check(); err != nil {
		return nil, err
	}
	var files newFiles
	var ca *authority
	if r.CAFound {
		ca, err = o.loadCA(ctx, r)
	} else {
		ca, err = o.newCA(r, &files)
	}
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil { // a large key takes seconds to make
		return nil, err
	}
	if err := o.issue(r, ca, &files); err != nil {
		return nil, err
	}
	return r, files.write(ctx, o.CADir, o.Dir)
}

// complete fills in what was left out and checks what was not.
func (o *InitOptions) complete() error {
	if o.Dir == "" {
		return errors.New("no folder is named for the keys")
	}
	if o.CADir == "" {
		o.CADir = o.Dir
	}
	if o.Type == "" {
		o.Type = "p256"
	}
	if o.Name == "" {
		o.Name = "imaseal"
	}
	if o.Days == 0 {
		o.Days = defaultDays
	}
	if o.CADays == 0 {
		o.CADays = defaultCADays
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	for _, days := range []int{o.Days, o.CADays} {
		if days < 1 || days > maxDays {
			return fmt.Errorf("a certificate cannot be valid for %d days: use 1 to %d", days, maxDays)
		}
	}
	longest := utf8.RuneCountInString(o.signingName())
	if longest > maxCommonName || !utf8.ValidString(o.Name) || strings.ContainsFunc(o.Name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("%q cannot be the name in a certificate: use at most %d printable characters", o.Name, maxCommonName-longest+utf8.RuneCountInString(o.Name))
	}
	_, err := keyGenerator(o.Type)
	return err
}

func (o *InitOptions) caName() string      { return o.Name + " CA" }
func (o *InitOptions) signingName() string { return o.Name + " signing key" }

// check refuses to overwrite anything and reports whether there is a CA to use.
func (r *InitResult) check() (caFound bool, err error) {
	exists := func(path string) bool {
		_, statErr := os.Lstat(path)
		if statErr != nil && !errors.Is(statErr, fs.ErrNotExist) && err == nil {
			err = statErr
		}
		return statErr == nil
	}
	for _, path := range []string{r.SigningKey, r.SigningCert, r.SigningDER} {
		if exists(path) {
			return false, fmt.Errorf("%s is there already and is not overwritten: choose another folder, or move it away", path)
		}
	}
	key, cert := exists(r.CAKey), exists(r.CACert)
	if err == nil && key != cert {
		there, missing := r.CAKey, r.CACert
		if cert {
			there, missing = missing, there
		}
		return false, fmt.Errorf("%s is there but %s is not: a CA that is to be used needs both; for a new CA choose another folder", there, missing)
	}
	return key && cert, err
}

// An authority issues certificates.
type authority struct {
	key  crypto.Signer
	cert *x509.Certificate
}

func (o *InitOptions) newCA(r *InitResult, files *newFiles) (*authority, error) {
	key, err := o.generate()
	if err != nil {
		return nil, err
	}
	template := o.template(o.caName(), o.CADays)
	template.KeyUsage = x509.KeyUsageCertSign
	template.IsCA = true
	template.BasicConstraintsValid = true
	cert, err := certify(template, key.Public(), &authority{key, template})
	if err != nil {
		return nil, err
	}
	if err := files.addKey(r.CAKey, key, o.Passphrase); err != nil {
		return nil, err
	}
	files.addCertificate(r.CACert, cert)
	return &authority{key, cert}, nil
}

// loadCA takes the CA that is there, if it is one.
func (o *InitOptions) loadCA(ctx context.Context, r *InitResult) (*authority, error) {
	ask := o.CAPassphrase
	if ask == nil && len(o.Passphrase) > 0 {
		ask = func(string) ([]byte, error) { return append([]byte(nil), o.Passphrase...), nil }
	}
	key, err := openFile(ctx, r.CAKey, OpenOptions{Passphrase: ask})
	if err != nil {
		return nil, fmt.Errorf("using the CA that is there: %w", err)
	}
	certs, err := LoadCertificates(r.CACert)
	if err != nil {
		return nil, fmt.Errorf("using the CA that is there: %w", err)
	}
	ca := &authority{key, certs[0]}
	if err := Match(ca.cert, key.Public()); err != nil {
		return nil, fmt.Errorf("using the CA that is there: %s: %w", r.CACert, err)
	}
	if !ca.cert.IsCA || ca.cert.KeyUsage&x509.KeyUsageCertSign == 0 || len(ca.cert.SubjectKeyId) == 0 {
		return nil, fmt.Errorf("%s is no certificate of a CA that kernels would take (CA:TRUE, keyCertSign, subject key identifier)", r.CACert)
	}
	if err := CheckValidity(ca.cert, o.Now); err != nil {
		return nil, fmt.Errorf("using the CA that is there: %s: %w", r.CACert, err)
	}
	return ca, nil
}

func (o *InitOptions) issue(r *InitResult, ca *authority, files *newFiles) error {
	key, err := o.generate()
	if err != nil {
		return err
	}
	template := o.template(o.signingName(), o.Days)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	cert, err := certify(template, key.Public(), ca)
	if err != nil {
		return err
	}
	// The kernel's rule, applied before anybody depends on the result.
	if err := ChainsTo(cert, []*x509.Certificate{ca.cert}); err != nil {
		return err
	}
	if err := files.addKey(r.SigningKey, key, o.Passphrase); err != nil {
		return err
	}
	files.addCertificate(r.SigningCert, cert)
	files.add(r.SigningDER, 0o644, cert.Raw)
	r.KeyID, err = sign.KeyIDFromCertificate(cert)
	return err
}

func (o *InitOptions) template(name string, days int) *x509.Certificate {
	now := o.Now.UTC().Truncate(time.Second)
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-backdate),
		NotAfter:  now.AddDate(0, 0, days),
	}
}

// certify makes a certificate for pub, version 3 with a random serial number.
func certify(template *x509.Certificate, pub crypto.PublicKey, issuer *authority) (*x509.Certificate, error) {
	var err error
	// Set here because Go would take a truncated SHA-256, and for a CA only.
	if template.SubjectKeyId, err = sign.SubjectKeyID(pub); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.cert, pub, issuer.key)
	if err != nil {
		return nil, fmt.Errorf("making the certificate of %q: %w", template.Subject, err)
	}
	return x509.ParseCertificate(der)
}

func (o *InitOptions) generate() (crypto.Signer, error) {
	generate, err := keyGenerator(o.Type)
	if err != nil {
		return nil, err
	}
	return generate()
}

func keyGenerator(name string) (func() (crypto.Signer, error), error) {
	ec := func(curve elliptic.Curve) func() (crypto.Signer, error) {
		return func() (crypto.Signer, error) { return ecdsa.GenerateKey(curve, rand.Reader) }
	}
	bits := func(n int) func() (crypto.Signer, error) {
		return func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, n) }
	}
	switch name {
	case "p256":
		return ec(elliptic.P256()), nil
	case "p384":
		return ec(elliptic.P384()), nil
	case "rsa2048":
		return bits(2048), nil
	case "rsa3072":
		return bits(3072), nil
	case "rsa4096":
		return bits(4096), nil
	}
	return nil, fmt.Errorf("unknown type of key %q: use p256, p384, rsa2048, rsa3072 or rsa4096", name)
}
