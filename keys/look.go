package keys

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A PublicKey is the public half of a key, as a file or a reference gives it.
type PublicKey struct {
	Key crypto.PublicKey
	// Certificate is that of the key; nil where there is none.
	Certificate *x509.Certificate
	// Where is the file or the reference that it came from.
	Where string
	// Note is what a user should know about how it was found, "" for nothing.
	Note string
}

// LookAt returns the public keys, with their certificates, of what ref names: a file
// with certificates, a public key or a private key, or a key reference. It is for
// looking only. Where a certificate or public key can be had in the clear, beside an
// encrypted key or on a token, no passphrase is asked for. There is at least one when
// the error is nil.
func LookAt(ctx context.Context, ref string, o OpenOptions) ([]PublicKey, error) {
	if path, ok := FileOf(ref); ok {
		return lookAtFile(ctx, path, o)
	}
	if name, _ := splitRef(ref); name == "pkcs11" {
		// The certificate of a token is there for everybody, mostly.
		open := o
		open.Passphrase = nil
		if certs, err := OpenCertificates(ctx, ref, open); err == nil {
			return ofCertificates(certs, ref), nil
		}
	}
	key, err := Open(ctx, ref, o)
	if err != nil {
		return nil, err
	}
	defer key.Close()
	return []PublicKey{{Key: key.Public(), Certificate: key.Certificate, Where: ref, Note: key.Note}}, nil
}

func ofCertificates(certs []*x509.Certificate, where string) []PublicKey {
	var found []PublicKey
	for _, cert := range certs {
		found = append(found, PublicKey{Key: cert.PublicKey, Certificate: cert, Where: where})
	}
	return found
}

func lookAtFile(ctx context.Context, path string, o OpenOptions) ([]PublicKey, error) {
	content, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(content) // it may be a private key
	if bytes.Contains(content, []byte("-----BEGIN CERTIFICATE")) || bytes.Contains(content, []byte("-----BEGIN X509 CERTIFICATE")) {
		certs, err := ParseCertificates(content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return ofCertificates(certs, path), nil
	}
	if !bytes.Contains(content, pemStart) {
		if cert, err := parseCertificate(content); err == nil {
			return ofCertificates([]*x509.Certificate{cert}, path), nil
		}
	}
	if pub, err := ParsePublicKey(content); err == nil {
		return []PublicKey{{Key: pub, Where: path}}, nil
	}
	return lookAtPrivateKey(ctx, content, path, o)
}

// errEncrypted ends the parsing of a private key that asks for a passphrase.
var errEncrypted = errors.New("it is encrypted")

// lookAtPrivateKey returns the public half of a private key with the certificate that
// stands beside it: of the same name, but for its ending.
func lookAtPrivateKey(ctx context.Context, content []byte, path string, o OpenOptions) ([]PublicKey, error) {
	key, err := parsePrivateKey(content, path, func(string) ([]byte, error) { return nil, errEncrypted })
	if errors.Is(err, ErrNoKey) {
		return nil, fmt.Errorf("%s: this is no certificate and no key, neither PEM nor DER", path)
	}
	if err != nil && !errors.Is(err, errEncrypted) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err != nil {
		if found := beside(path, nil); len(found) > 0 {
			found[0].Note = fmt.Sprintf("shown in place of %s, which is encrypted; whether the two belong together was not checked", path)
			return found, nil
		}
		if key, err = openFile(ctx, path, o); err != nil {
			return nil, err
		}
	}
	defer key.Close()
	found := PublicKey{Key: key.Public(), Certificate: key.Certificate, Where: path}
	if others := beside(path, found.Key); found.Certificate == nil && len(others) > 0 {
		found.Certificate = others[0].Certificate
		found.Note = "its certificate is " + others[0].Where
	}
	return []PublicKey{found}, nil
}

// beside returns the certificate, or else the public key, in the files that are called
// like path but for the ending. pub, if not nil, is the key that it must be of, and
// then only certificates count.
func beside(path string, pub crypto.PublicKey) []PublicKey {
	stem := TrimEnding(path)
	var keys []PublicKey
	for _, ending := range []string{".crt", ".pem", ".cer", ".der", ".x509", ".pub"} {
		name := stem + ending
		if name == path {
			continue
		}
		content, err := readKeyFile(name)
		if err != nil {
			continue
		}
		certs, err := ParseCertificates(content)
		if err != nil {
			if key, err := ParsePublicKey(content); err == nil && pub == nil {
				keys = append(keys, PublicKey{Key: key, Where: name})
			}
			clear(content)
			continue
		}
		for _, cert := range certs {
			if pub == nil || Match(cert, pub) == nil {
				return ofCertificates([]*x509.Certificate{cert}, name)
			}
		}
	}
	return keys
}

// TrimEnding takes the ending of a certificate, a key or a request off a path.
func TrimEnding(path string) string {
	switch ext := filepath.Ext(path); ext {
	case ".crt", ".der", ".pem", ".cer", ".x509", ".key", ".csr", ".pub", ".priv":
		return strings.TrimSuffix(path, ext)
	}
	return path
}

// ParsePublicKey reads a public key, the content of a file, in PEM or DER: PKIX, or
// RSA's own PKCS #1.
func ParsePublicKey(content []byte) (crypto.PublicKey, error) {
	der := content
	if bytes.Contains(content, pemStart) {
		block, _ := pem.Decode(content)
		if block == nil || block.Type != "PUBLIC KEY" && block.Type != "RSA PUBLIC KEY" {
			return nil, errors.New("this is no public key")
		}
		der = block.Bytes
	}
	if len(der) > maxKeyDER {
		return nil, fmt.Errorf("a key of %d bytes is too large", len(der))
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		rsaPub, errRSA := x509.ParsePKCS1PublicKey(der)
		if errRSA != nil {
			return nil, fmt.Errorf("the public key cannot be read: %w", err)
		}
		pub = rsaPub
	}
	if key, ok := pub.(*rsa.PublicKey); ok && key.N.BitLen() > MaxRSABits {
		return nil, fmt.Errorf("an RSA key of %d bits has more than %d", key.N.BitLen(), MaxRSABits)
	}
	return pub, nil
}

// maxFolder bounds how many files of a folder are looked at for certificates.
const maxFolder = 10000

// CertificatesIn returns the certificates in the files of a folder that are called
// like certificates, sorted by the name of the file. Files that hold none are left
// out.
func CertificatesIn(dir string) ([]PublicKey, error) {
	names, err := certificateFiles(dir)
	if err != nil {
		return nil, err
	}
	var found []PublicKey
	for _, name := range names {
		path := filepath.Join(dir, name)
		certs, err := LoadCertificates(path)
		if errors.Is(err, fs.ErrPermission) {
			return nil, err
		}
		if err == nil {
			found = append(found, ofCertificates(certs, path)...)
		}
	}
	return found, nil
}

// certificateFiles returns the names of the files in dir that may be certificates.
func certificateFiles(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(maxFolder + 1)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(entries) > maxFolder {
		return nil, fmt.Errorf("%s: more than %d files, too many to look for certificates in", dir, maxFolder)
	}
	var names []string
	for _, entry := range entries {
		switch filepath.Ext(entry.Name()) {
		case ".crt", ".der", ".pem", ".cer", ".x509":
			if entry.Type().IsRegular() {
				names = append(names, entry.Name())
			}
		}
	}
	slices.Sort(names)
	return names, nil
}
