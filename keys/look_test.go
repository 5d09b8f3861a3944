package keys

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLookAt(t *testing.T) {
	dir := t.TempDir()
	plain := initKeys(t, InitOptions{Dir: filepath.Join(dir, "plain"), Type: "p256"}).Signing[0]
	secret := initKeys(t, InitOptions{Dir: filepath.Join(dir, "secret"), Type: "p256", Passphrase: []byte(testPassphrase)}).Signing[0]
	other := initKeys(t, InitOptions{Dir: filepath.Join(dir, "other"), Type: "p384"}).Signing[0]
	at := func(name string) string { return filepath.Join(dir, name) }
	copyTo := func(to string, from ...string) string {
		t.Helper()
		var all []byte
		for _, name := range from {
			content, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, content...)
		}
		return writeFile(t, at(to), all)
	}
	public := func(k KeyFiles) []byte {
		der, err := x509.MarshalPKIXPublicKey(k.Certificate.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public(secret)})

	for _, test := range []struct {
		name, path string
		keys       []KeyFiles // what is found, in order
		certified  bool
		asked      int
		note       string // part of the first one's
	}{
		{"a certificate", plain.Cert, []KeyFiles{plain}, true, 0, ""},
		{"one in DER", plain.DER, []KeyFiles{plain}, true, 0, ""},
		{"several", copyTo("several.pem", plain.Cert, other.Cert), []KeyFiles{plain, other}, true, 0, ""},
		{"an encrypted key and its certificate in one file", copyTo("both.pem", secret.Key, secret.Cert), []KeyFiles{secret}, true, 0, ""},
		{"a key with its certificate beside it", plain.Key, []KeyFiles{plain}, true, 0, "signing.crt"},
		{"an encrypted key with its certificate beside it", secret.Key, []KeyFiles{secret}, true, 0, "was not checked"},
		{"a key alone", copyTo("alone.key", plain.Key), []KeyFiles{plain}, false, 0, ""},
		{"an encrypted key alone", copyTo("locked.key", secret.Key), []KeyFiles{secret}, false, 1, ""},
		{"a public key", writeFile(t, at("public.pem"), publicPEM), []KeyFiles{secret}, false, 0, ""},
		{"one in DER, without PEM", writeFile(t, at("public.bin"), public(plain)), []KeyFiles{plain}, false, 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			asked := 0
			found, err := LookAt(t.Context(), test.path, OpenOptions{Passphrase: answer(testPassphrase, &asked)})
			if err != nil {
				t.Fatal(err)
			}
			if len(found) != len(test.keys) || asked != test.asked {
				t.Fatalf("%d keys, asked %d times", len(found), asked)
			}
			for i, want := range test.keys {
				if !Same(found[i].Key, want.Certificate.PublicKey) || (found[i].Certificate != nil) != test.certified {
					t.Errorf("key %d is another, or its certificate is: %+v", i, found[i])
				}
			}
			if !strings.Contains(found[0].Note, test.note) || test.note == "" && found[0].Note != "" {
				t.Errorf("the note is %q", found[0].Note)
			}
		})
	}

	// What stands beside a key in the clear must be of that key.
	copyTo("mixed.key", plain.Key)
	copyTo("mixed.crt", other.Cert)
	found, err := LookAt(t.Context(), at("mixed.key"), OpenOptions{})
	if err != nil || found[0].Certificate != nil {
		t.Errorf("another key's certificate is shown: %+v, %v", found, err)
	}
	writeFile(t, at("locked.pub"), publicPEM)
	found, err = LookAt(t.Context(), at("locked.key"), OpenOptions{})
	if err != nil || !Same(found[0].Key, secret.Certificate.PublicKey) {
		t.Errorf("a public key beside an encrypted one: %+v, %v", found, err)
	}
}

func TestLookAtRefuses(t *testing.T) {
	dir := t.TempDir()
	key := initKeys(t, InitOptions{Dir: filepath.Join(dir, "k"), Type: "p256", Passphrase: []byte(testPassphrase)}).Signing[0]
	content, err := os.ReadFile(key.Key)
	if err != nil {
		t.Fatal(err)
	}
	alone := writeFile(t, filepath.Join(dir, "alone.key"), content)
	_, err = LookAt(t.Context(), alone, OpenOptions{Passphrase: answer("wrong", nil)})
	checkError(t, err, "alone.key", "wrong passphrase")
	if holdsSecret(err.Error(), content) || strings.Contains(err.Error(), `"wrong"`) {
		t.Errorf("the error tells a secret: %v", err)
	}
	_, err = LookAt(t.Context(), alone, OpenOptions{})
	checkError(t, err, "alone.key", "encrypted")
	_, err = LookAt(t.Context(), writeFile(t, filepath.Join(dir, "text"), []byte("no key\n")), OpenOptions{})
	checkError(t, err, "text", "neither PEM nor DER")
	_, err = LookAt(t.Context(), dir, OpenOptions{})
	checkError(t, err, dir)
	_, err = LookAt(t.Context(), "nothing:here", OpenOptions{})
	checkError(t, err, "nothing:")
	_, err = LookAt(t.Context(), writeFile(t, filepath.Join(dir, "large"), make([]byte, maxKeyFile+1)), OpenOptions{})
	checkError(t, err, "large", "no key file")
}

func TestCertificatesIn(t *testing.T) {
	dir := t.TempDir()
	one := initKeys(t, InitOptions{Dir: dir, Type: "p256"})
	writeFile(t, filepath.Join(dir, "broken.pem"), []byte("-----BEGIN CERTIFICATE-----\n"))
	found, err := CertificatesIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range found {
		names = append(names, filepath.Base(f.Where))
	}
	if got := strings.Join(names, " "); got != "ca.crt signing.crt signing.der" {
		t.Errorf("certificates in %s", got)
	}
	if !Same(found[1].Key, one.Signing[0].Certificate.PublicKey) {
		t.Error("the key is not that of the certificate")
	}
	if _, err := CertificatesIn(filepath.Join(dir, "none")); err == nil {
		t.Error("a folder that is not there has certificates")
	}
}

func FuzzParsePublicKey(f *testing.F) {
	seed(f, "certificates", "private")
	for _, name := range []string{"one.crt", "two.crt"} {
		cert := loadCertificate(f, filepath.Join("testdata/certificates", name))
		f.Add(cert.RawSubjectPublicKeyInfo)
		f.Add(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: cert.RawSubjectPublicKeyInfo}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		pub, err := parsePublicKey(data)
		if (pub == nil) != (err != nil) {
			t.Errorf("key %v, error %v", pub, err)
		}
		if !bytes.Equal(data, before) {
			t.Error("the file's bytes were changed")
		}
	})
}
