package ca

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/keys/kernel"
)

// A Request is a public key for which a certificate is wanted, and who wants it.
type Request struct {
	PublicKey crypto.PublicKey
	// RawSubject is the subject that a certificate request names, DER; nil where there
	// is none.
	RawSubject []byte
	// Ignored names what a certificate request asks for and does not get: extensions
	// and attributes.
	Ignored []string
}

// maxSubject bounds the subject of a request in bytes.
const maxSubject = 1024

// LoadRequest reads what ref names: a certificate request (PKCS #10), whose
// signature must hold; a public key as SubjectPublicKeyInfo or PKCS #1, PEM or DER;
// or a key that [keys.Open] opens, of which the public part is taken.
func LoadRequest(ctx context.Context, ref string, o keys.OpenOptions) (*Request, error) {
	if path, ok := keys.FileOf(ref); ok {
		data, _, err := keys.ReadPrivateKeyFile(path)
		if err != nil {
			return nil, err
		}
		defer clear(data) // it may be a private key
		r, err := parseRequest(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if r != nil {
			return r, nil
		}
	}
	key, err := keys.Open(ctx, ref, o)
	if errors.Is(err, keys.ErrNoKey) {
		return nil, fmt.Errorf("%s: this is no certificate request and no key, neither PEM nor DER", ref)
	}
	if err != nil {
		return nil, err
	}
	r := &Request{PublicKey: key.Public()}
	return r, key.Close()
}

// parseRequest reads a certificate request or a public key. It returns nil when data
// is neither: a private key, perhaps.
func parseRequest(data []byte) (*Request, error) {
	if !bytes.Contains(data, []byte("-----BEGIN ")) {
		if csr, err := x509.ParseCertificateRequest(bytes.Clone(data)); err == nil {
			return fromCSR(csr)
		}
		pub, err := keys.ParsePublicKey(data)
		if err != nil {
			return nil, nil
		}
		return requestFor(pub)
	}
	certificates := 0
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch block.Type {
		case "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST":
			csr, err := x509.ParseCertificateRequest(bytes.Clone(block.Bytes))
			if err != nil {
				return nil, fmt.Errorf("the certificate request cannot be read: %w", err)
			}
			return fromCSR(csr)
		case "PUBLIC KEY", "RSA PUBLIC KEY":
			pub, err := keys.ParsePublicKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			return requestFor(pub)
		case "CERTIFICATE", "X509 CERTIFICATE":
			certificates++
		default:
			return nil, nil
		}
	}
	if certificates > 0 {
		return nil, errors.New("this is a certificate: for another one of its key use imaseal keys renew")
	}
	return nil, nil
}

// fromCSR judges a certificate request.
func fromCSR(csr *x509.CertificateRequest) (*Request, error) {
	r, err := requestFor(csr.PublicKey)
	if err != nil {
		return nil, err
	}
	// Whoever asks has the private key, and asks for this name.
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the signature of the certificate request does not verify: %w", err)
	}
	if err := checkSubject(csr.RawSubject, csr.Subject); err != nil {
		return nil, err
	}
	r.RawSubject = csr.RawSubject
	for _, e := range csr.Extensions {
		r.Ignored = append(r.Ignored, extensionName(e))
	}
	return r, nil
}

// requestFor judges the public key before anything is verified with it: with a huge
// one that takes long.
func requestFor(pub crypto.PublicKey) (*Request, error) {
	if key, ok := pub.(*rsa.PublicKey); ok && key.N.BitLen() > keys.MaxRSABits {
		return nil, fmt.Errorf("an RSA key of %d bits is more than %d", key.N.BitLen(), keys.MaxRSABits)
	}
	if _, err := kernel.KeyTypeOf(pub); err != nil {
		return nil, err
	}
	return &Request{PublicKey: pub}, nil
}

// checkSubject refuses a subject that a person could misread, or a kernel's listing
// of keys could be confused by. An empty one is fine: a name is to be given then.
func checkSubject(raw []byte, subject pkix.Name) error {
	if len(raw) > maxSubject {
		return fmt.Errorf("its subject has %d bytes, more than %d", len(raw), maxSubject)
	}
	for _, name := range subject.Names {
		text, ok := name.Value.(string)
		if !ok || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return fmt.Errorf("its subject holds what is no printable text: %q", subject)
		}
	}
	return nil
}

// extensionName names an extension for people.
func extensionName(e pkix.Extension) string {
	switch e.Id.String() {
	case "2.5.29.14":
		return "subjectKeyIdentifier"
	case "2.5.29.15":
		return "keyUsage"
	case "2.5.29.17":
		return "subjectAltName"
	case "2.5.29.19":
		return "basicConstraints"
	case "2.5.29.37":
		return "extendedKeyUsage"
	}
	return e.Id.String()
}

// RequestOptions say what [MakeRequest] makes.
type RequestOptions struct {
	// Key is the key for which a certificate is wanted. If nil, a new one is made, of
	// the type Type, p256 if empty, in the file NewKey. Passphrase encrypts it; empty
	// leaves it in plain text.
	Key        crypto.Signer
	NewKey     string
	Type       string
	Passphrase []byte
	// Name is in the subject, "imaseal" if empty.
	Name string
	// Out is the file of the request.
	Out string
}

// MakeRequest writes a certificate request (PKCS #10, PEM), for a CA that is
// elsewhere. It refuses to overwrite a file.
func MakeRequest(ctx context.Context, o RequestOptions) error {
	if o.Name == "" {
		o.Name = "imaseal"
	}
	if err := checkName(o.Name); err != nil {
		return err
	}
	if err := finishBefore(o.Out); err != nil {
		return err
	}
	if err := refuseExisting(o.Out); err != nil {
		return err
	}
	var files newFiles
	if o.Key == nil {
		var err error
		if o.Key, err = o.makeKey(&files); err != nil {
			return err
		}
	}
	der, err := newRequest(o.Key, o.Name)
	if err != nil {
		return err
	}
	files.addPEM(o.Out, "CERTIFICATE REQUEST", der)
	return files.write(ctx)
}

// makeKey makes the key for which the request is.
func (o *RequestOptions) makeKey(files *newFiles) (crypto.Signer, error) {
	if err := finishBefore(o.NewKey); err != nil {
		return nil, err
	}
	return files.addNewKey(o.NewKey, cmp.Or(o.Type, defaultType), o.Passphrase)
}

func newRequest(key crypto.Signer, name string) ([]byte, error) {
	if _, err := kernel.KeyTypeOf(key.Public()); err != nil {
		return nil, err
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: signingName(name)}}
	// The signature is verified there, whatever kind of key made it.
	der, err := signedBy(key, func(algorithm x509.SignatureAlgorithm) ([]byte, error) {
		template.SignatureAlgorithm = algorithm
		return x509.CreateCertificateRequest(rand.Reader, template, key)
	})
	if err != nil {
		return nil, fmt.Errorf("making the certificate request: %w", err)
	}
	return der, nil
}

// refuseExisting returns an error when one of the paths is there.
func refuseExisting(paths ...string) error {
	for _, path := range paths {
		if there, err := exists(path); err != nil {
			return err
		} else if there {
			return fmt.Errorf("%s is there already and is not overwritten: choose another name, or move it away", path)
		}
	}
	return nil
}
