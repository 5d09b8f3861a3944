package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/imaseal/imaseal/scripts/kernellab/plan"
	"github.com/imaseal/imaseal/sign"
)

// A ca is the laboratory's certification authority: kernel A has its certificate
// built in. It lives as long as the cache.
type ca struct {
	key         crypto.Signer
	certificate *x509.Certificate
	file        string // of the certificate, PEM
}

func (l *lab) ca() (*ca, error) {
	dir, err := l.made("ca", func(dir string) error {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return err
		}
		template := certificate("kernel laboratory CA")
		template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			return err
		}
		return writeKey(dir, "ca", key, der)
	})
	if err != nil {
		return nil, err
	}
	c := &ca{file: filepath.Join(dir, "ca.crt")}
	if c.certificate, err = readCertificate(c.file); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key: remove the folder", dir)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: remove the folder", dir, err)
	}
	c.key = key.(crypto.Signer)
	return c, nil
}

// A signingKey is one that packages are signed with.
type signingKey struct {
	name      string
	key, cert string // files
	// expect is what a keyring that wants a path of trust does with it.
	expect string
}

// keyTypes are the kinds of key that are tried, by name.
var keyTypes = []struct {
	name string
	make func() (crypto.Signer, error)
}{
	{"rsa2048", func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }},
	{"rsa3072", func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 3072) }},
	{"rsa4096", func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 4096) }},
	{"p256", func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }},
	{"p384", func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) }},
}

// oddCertificates are what a keyring with a path of trust refuses, and what it
// takes though it looks odd.
var oddCertificates = []struct {
	name, expect string
	self         bool
	change       func(*x509.Certificate)
}{
	{"unvouched", plan.Denied, true, func(*x509.Certificate) {}},
	{"no-digital-signature", plan.Denied, false, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }},
	{"no-key-usage", plan.Denied, false, func(c *x509.Certificate) { c.KeyUsage = 0 }},
	{"ca-certificate", plan.Denied, false, func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageDigitalSignature|x509.KeyUsageCertSign
	}},
	// Taken, but no signature by it is: nothing finds the key.
	{"no-subject-key-identifier", plan.Allowed, false, func(c *x509.Certificate) { c.SubjectKeyId = []byte{} }},
	{"expired", plan.Allowed, false, func(c *x509.Certificate) { c.NotAfter = c.NotBefore.AddDate(0, 0, 1) }},
}

// signingKeys returns a key of each type that the CA vouches for, and a stranger's.
func (l *lab) signingKeys() (good []signingKey, odd []signingKey, err error) {
	authority, err := l.ca()
	if err != nil {
		return nil, nil, err
	}
	dir, err := l.made("keys", func(dir string) error {
		for _, t := range keyTypes {
			key, err := t.make()
			if err != nil {
				return err
			}
			if err := authority.issue(dir, t.name, key, certificate(t.name)); err != nil {
				return err
			}
		}
		for _, o := range oddCertificates {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				return err
			}
			by, template := authority, certificate(o.name)
			o.change(template)
			if o.self {
				by = &ca{key: key, certificate: template}
			}
			if err := by.issue(dir, o.name, key, template); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	file := func(name, expect string) signingKey {
		return signingKey{name: name, key: filepath.Join(dir, name+".key"), cert: filepath.Join(dir, name+".crt"), expect: expect}
	}
	for _, t := range keyTypes {
		good = append(good, file(t.name, plan.Allowed))
	}
	for _, o := range oddCertificates {
		odd = append(odd, file(o.name, o.expect))
	}
	return good, odd, nil
}

func (c *ca) issue(dir, name string, key crypto.Signer, template *x509.Certificate) error {
	if template.SubjectKeyId == nil { // crypto/x509 gives one to a CA only
		skid, err := sign.SubjectKeyID(key.Public())
		if err != nil {
			return err
		}
		template.SubjectKeyId = skid
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.certificate, key.Public(), c.key)
	if err != nil {
		return fmt.Errorf("certificate %s: %w", name, err)
	}
	return writeKey(dir, name, key, der)
}

// certificate returns the template of one that may sign.
func certificate(name string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		panic(err) // the system's random numbers do not fail
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
}

func writeKey(dir, name string, key crypto.Signer, certificate []byte) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := os.WriteFile(filepath.Join(dir, name+".key"), text, 0o600); err != nil {
		return err
	}
	text = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	return os.WriteFile(filepath.Join(dir, name+".crt"), text, 0o644)
}

func readCertificate(file string) (*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return x509.ParseCertificate(block.Bytes)
}
