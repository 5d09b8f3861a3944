package keys

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

const (
	// maxKeyFile bounds a key or certificate file in bytes; a chain of RSA-4096
	// certificates with their texts stays far below it.
	maxKeyFile = 1 << 20
	// maxKeyDER is more than an RSA key of 16384 bits needs. Parsing checks RSA
	// keys, which takes the longer the larger they are.
	maxKeyDER = 16 << 10
)

// readKeyFile reads a file that need not be the owner's alone.
func readKeyFile(path string) ([]byte, error) {
	content, _, err := ReadPrivateKeyFile(path)
	return content, err
}

// ReadPrivateKeyFile reads a file that holds a private key, of at most 1 MiB. The note
// is not empty when others can read or write it. Clear the content after use.
func ReadPrivateKeyFile(path string) (content []byte, note string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, "", err
	}
	if content, err = io.ReadAll(io.LimitReader(f, maxKeyFile+1)); err != nil {
		return nil, "", err
	}
	if len(content) > maxKeyFile {
		return nil, "", fmt.Errorf("%s: more than %d bytes, this is no key file", path, maxKeyFile)
	}
	return content, openToOthers(path, info.Mode()), nil
}

// openToOthers warns of a private key that is not the owner's alone. It is no
// error: build machines have keys that a group reads.
func openToOthers(path string, mode fs.FileMode) string {
	if !mode.IsRegular() || mode.Perm()&0o066 == 0 {
		return ""
	}
	return fmt.Sprintf("%s: other users can read or write this private key (mode %04o): chmod 600 it", path, mode.Perm())
}

func openFile(_ context.Context, path string, o OpenOptions) (*Key, error) {
	content, others, err := ReadPrivateKeyFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(content)
	key, err := parsePrivateKey(content, path, o.Passphrase)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	signer, note := accelerate(key.Signer)
	key.Signer = signer
	key.Note = joinNotes(others, note)
	return key, nil
}

func joinNotes(notes ...string) string {
	return strings.Join(strings.FieldsFunc(strings.Join(notes, "\n"), func(r rune) bool { return r == '\n' }), "; ")
}

// parsePrivateKey finds the one private key in content, and its certificate:
// PKCS #8 (plain or encrypted), PKCS #1 and SEC 1, in PEM or DER. p is called at
// most once; name is what it is told to ask for. Errors never hold bytes of the
// key.
func parsePrivateKey(content []byte, name string, p Passphrase) (*Key, error) {
	// Looked for here because package pem does not find a block with a checksum.
	if bytes.Contains(content, []byte("-----BEGIN PGP PRIVATE KEY BLOCK-----")) {
		return nil, errors.New("this is an OpenPGP key, which kernels do not take: it is for --openpgp-key; imaseal keys init makes a key for files")
	}
	if !bytes.Contains(content, pemStart) {
		signer, err := parseDER(content, name, p)
		if err != nil {
			return nil, err
		}
		return &Key{Signer: signer}, nil
	}
	var found *pem.Block
	var certs []*x509.Certificate
	var others []string
	for rest := content; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		defer clear(block.Bytes)
		switch block.Type {
		case "PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY":
			if found != nil {
				return nil, errors.New("it holds more than one private key: keep one in a file")
			}
			found = block
		case "CERTIFICATE", "X509 CERTIFICATE":
			cert, err := parseCertificate(block.Bytes)
			if err != nil {
				return nil, err
			}
			certs = append(certs, cert)
		case "OPENSSH PRIVATE KEY":
			return nil, errors.New("this is a key in OpenSSH's own format: convert a copy of it with ssh-keygen -p -m PKCS8 -f COPY")
		default:
			others = append(others, block.Type)
		}
	}
	if found == nil {
		return nil, noKeyError(certs, others)
	}
	if found.Headers["DEK-Info"] != "" || strings.Contains(found.Headers["Proc-Type"], "ENCRYPTED") {
		return nil, fmt.Errorf("it is encrypted in OpenSSL's old way, which is not safe: convert it with %s", convertCommand(name))
	}
	signer, err := parseDER(found.Bytes, name, p)
	if err != nil {
		return nil, err
	}
	key := &Key{Signer: signer}
	for _, cert := range certs {
		if key.Certificate == nil || Match(key.Certificate, signer.Public()) != nil && Match(cert, signer.Public()) == nil {
			key.Certificate = cert
		}
	}
	return key, nil
}

var pemStart = []byte("-----BEGIN ")

func noKeyError(certs []*x509.Certificate, others []string) error {
	switch {
	case len(certs) > 0:
		return errors.New("it holds a certificate but no private key: that is what --cert takes")
	case len(others) > 0:
		return fmt.Errorf("it holds no private key, only PEM of type %q", others)
	}
	return errors.New("it holds no private key that could be read as PEM")
}

// convertCommand is a command line that writes the key in a way that can be read.
func convertCommand(name string) string {
	return "openssl pkcs8 -topk8 -v2 aes-256-cbc -in " + shellWord(name) + " -out NEW"
}

func shellWord(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("/._-+", r)
	}) {
		name = "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
	}
	return name
}

// ErrNoKey says that a file holds no private key, in no form that is known.
var ErrNoKey = errors.New("this is no private key, neither PEM nor DER")

// parseDER tells the forms apart by their structure, so that an error speaks of
// the right one.
func parseDER(der []byte, name string, p Passphrase) (crypto.Signer, error) {
	if len(der) > maxKeyDER {
		return nil, fmt.Errorf("a key of %d bytes is too large", len(der))
	}
	if isEncrypted(der) {
		plain, err := decryptKey(der, name, p)
		if err != nil {
			return nil, err
		}
		defer clear(plain)
		der = plain
	}
	var sequence, version, second asn1.RawValue
	if err := unmarshalAll(der, &sequence); err != nil || sequence.Tag != asn1.TagSequence {
		return nil, ErrNoKey
	}
	rest, err := asn1.Unmarshal(sequence.Bytes, &version)
	if err == nil {
		_, err = asn1.Unmarshal(rest, &second)
	}
	if err != nil || version.Tag != asn1.TagInteger {
		return nil, ErrNoKey
	}
	if second.Tag == asn1.TagSequence && bytes.Equal(version.Bytes, []byte{3}) {
		return nil, fmt.Errorf("this is a PKCS #12 file: take the key out of it with openssl pkcs12 -in %s -nocerts -out NEW", shellWord(name))
	}
	switch second.Tag {
	case asn1.TagInteger: // PKCS #1: version, modulus
		key, err := x509.ParsePKCS1PrivateKey(der)
		return asSigner(key, err)
	case asn1.TagOctetString: // SEC 1: version, private key
		key, err := x509.ParseECPrivateKey(der)
		return asSigner(key, err)
	default: // PKCS #8: version, algorithm
		key, err := x509.ParsePKCS8PrivateKey(der)
		return asSigner(key, err)
	}
}

// asSigner takes what kernels verify; its strength is for the signer to judge.
func asSigner(key any, err error) (crypto.Signer, error) {
	if err != nil {
		return nil, fmt.Errorf("parsing the private key: %w: use an RSA key, or an ECDSA key on P-256, P-384 or P-521 that names its curve (openssl ec -param_enc named_curve)", err)
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return key, nil
	case *ecdsa.PrivateKey:
		return key, nil
	}
	return nil, fmt.Errorf("a %T cannot sign files: use an RSA or ECDSA key", key)
}
