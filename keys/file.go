package keys

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxKeyFile bounds a key or certificate file in bytes; a chain of RSA-4096
// certificates with their texts stays far below it.
const maxKeyFile = 1 << 20

func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(content) > maxKeyFile {
		return nil, fmt.Errorf("%s: more than %d bytes, this is no key file", path, maxKeyFile)
	}
	return content, nil
}

func openFile(ctx context.Context, path string, p Passphrase) (*Key, error) {
	content, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(content)
	key, err := parsePrivateKey(content, func() ([]byte, error) { return p("Passphrase for " + path + ": ") })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	key.Signer, key.Note = accelerate(key.Signer)
	return key, nil
}

// parsePrivateKey reads PKCS#8 (plain or encrypted), PKCS#1 and SEC 1, in PEM or
// DER. passphrase is called at most once. Errors never hold bytes of the key.
func parsePrivateKey(content []byte, passphrase func() ([]byte, error)) (*Key, error) {
	key := new(Key)
	rest := content
	var found bool
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		found = true
		switch {
		case block.Type == "CERTIFICATE":
			if key.Certificate != nil {
				continue
			}
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("the certificate in it: %w", err)
			}
			key.Certificate = cert
		case bytes.HasSuffix([]byte(block.Type), []byte("PRIVATE KEY")):
			if key.Signer != nil {
				return nil, errors.New("it holds more than one private key")
			}
			signer, err := parseBlock(block, passphrase)
			if err != nil {
				return nil, err
			}
			key.Signer = signer
		}
	}
	if !found {
		signer, err := parseDER(content, passphrase)
		if err != nil {
			return nil, err
		}
		key.Signer = signer
	}
	if key.Signer == nil {
		return nil, errors.New("it holds no private key")
	}
	return key, nil
}

func parseBlock(block *pem.Block, passphrase func() ([]byte, error)) (crypto.Signer, error) {
	if block.Headers["DEK-Info"] != "" {
		return nil, errors.New("it is encrypted in OpenSSL's old way, which is not safe: convert it with openssl pkcs8 -topk8 -in OLD -out NEW")
	}
	switch block.Type {
	case "PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY":
		return parseDER(block.Bytes, passphrase)
	}
	return nil, fmt.Errorf("a key of type %q cannot sign files: use an RSA or ECDSA key", block.Type)
}

func parseDER(der []byte, passphrase func() ([]byte, error)) (crypto.Signer, error) {
	if isEncrypted(der) {
		secret, err := passphrase()
		if err != nil {
			return nil, err
		}
		defer clear(secret)
		plain, err := decryptPKCS8(der, secret)
		if err != nil {
			return nil, err
		}
		defer clear(plain)
		der = plain
	}
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		switch key := key.(type) {
		case *rsa.PrivateKey:
			return key, nil
		case *ecdsa.PrivateKey:
			return key, nil
		default:
			return nil, fmt.Errorf("a %T cannot sign files: use an RSA or ECDSA key", key)
		}
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	return nil, errors.New("no private key in PKCS#8, PKCS#1 or SEC 1 form is in it")
}
