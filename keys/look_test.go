package keys_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/keys/ca"
	"github.com/imaseal/imaseal/keys/keystest"
)

// made are new keys.
func made(t testing.TB, o ca.InitOptions) *ca.InitResult {
	t.Helper()
	r, err := ca.Init(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLookAt(t *testing.T) {
	dir := t.TempDir()
	plain := made(t, ca.InitOptions{Dir: filepath.Join(dir, "plain"), Type: "p256"}).Signing[0]
	secret := made(t, ca.InitOptions{Dir: filepath.Join(dir, "secret"), Type: "p256", Passphrase: []byte(keystest.Passphrase)}).Signing[0]
	other := made(t, ca.InitOptions{Dir: filepath.Join(dir, "other"), Type: "p384"}).Signing[0]
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
		return keystest.WriteFile(t, at(to), all)
	}
	public := func(k ca.KeyFiles) []byte {
		der, err := x509.MarshalPKIXPublicKey(k.Certificate.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public(secret)})

	for _, test := range []struct {
		name, path string
		found      []ca.KeyFiles // what is found, in order
		certified  bool
		asked      int
		note       string // part of the first one's
	}{
		{"a certificate", plain.Cert, []ca.KeyFiles{plain}, true, 0, ""},
		{"one in DER", plain.DER, []ca.KeyFiles{plain}, true, 0, ""},
		{"several", copyTo("several.pem", plain.Cert, other.Cert), []ca.KeyFiles{plain, other}, true, 0, ""},
		{"an encrypted key and its certificate in one file", copyTo("both.pem", secret.Key, secret.Cert), []ca.KeyFiles{secret}, true, 0, ""},
		{"a key with its certificate beside it", plain.Key, []ca.KeyFiles{plain}, true, 0, "signing.crt"},
		{"an encrypted key with its certificate beside it", secret.Key, []ca.KeyFiles{secret}, true, 0, "was not checked"},
		{"a key alone", copyTo("alone.key", plain.Key), []ca.KeyFiles{plain}, false, 0, ""},
		{"an encrypted key alone", copyTo("locked.key", secret.Key), []ca.KeyFiles{secret}, false, 1, ""},
		{"a public key", keystest.WriteFile(t, at("public.pem"), publicPEM), []ca.KeyFiles{secret}, false, 0, ""},
		{"one in DER, without PEM", keystest.WriteFile(t, at("public.bin"), public(plain)), []ca.KeyFiles{plain}, false, 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			asked := 0
			found, err := keys.LookAt(t.Context(), test.path, keys.OpenOptions{Passphrase: keystest.Answer(keystest.Passphrase, &asked)})
			if err != nil {
				t.Fatal(err)
			}
			if len(found) != len(test.found) || asked != test.asked {
				t.Fatalf("%d keys, asked %d times", len(found), asked)
			}
			for i, want := range test.found {
				if !keys.Same(found[i].Key, want.Certificate.PublicKey) || (found[i].Certificate != nil) != test.certified {
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
	found, err := keys.LookAt(t.Context(), at("mixed.key"), keys.OpenOptions{})
	if err != nil || found[0].Certificate != nil {
		t.Errorf("another key's certificate is shown: %+v, %v", found, err)
	}
	keystest.WriteFile(t, at("locked.pub"), publicPEM)
	found, err = keys.LookAt(t.Context(), at("locked.key"), keys.OpenOptions{})
	if err != nil || !keys.Same(found[0].Key, secret.Certificate.PublicKey) {
		t.Errorf("a public key beside an encrypted one: %+v, %v", found, err)
	}
}

func TestLookAtRefuses(t *testing.T) {
	dir := t.TempDir()
	key := made(t, ca.InitOptions{Dir: filepath.Join(dir, "k"), Type: "p256", Passphrase: []byte(keystest.Passphrase)}).Signing[0]
	content, err := os.ReadFile(key.Key)
	if err != nil {
		t.Fatal(err)
	}
	alone := keystest.WriteFile(t, filepath.Join(dir, "alone.key"), content)
	_, err = keys.LookAt(t.Context(), alone, keys.OpenOptions{Passphrase: keystest.Answer("wrong", nil)})
	keystest.CheckError(t, err, "alone.key", "wrong passphrase")
	if keystest.HoldsSecret(err.Error(), content) || strings.Contains(err.Error(), `"wrong"`) {
		t.Errorf("the error tells a secret: %v", err)
	}
	_, err = keys.LookAt(t.Context(), alone, keys.OpenOptions{})
	keystest.CheckError(t, err, "alone.key", "encrypted")
	_, err = keys.LookAt(t.Context(), keystest.WriteFile(t, filepath.Join(dir, "text"), []byte("no key\n")), keys.OpenOptions{})
	keystest.CheckError(t, err, "text", "no certificate and no key, neither PEM nor DER")
	_, err = keys.LookAt(t.Context(), dir, keys.OpenOptions{})
	keystest.CheckError(t, err, dir)
	_, err = keys.LookAt(t.Context(), "nothing:here", keys.OpenOptions{})
	keystest.CheckError(t, err, "nothing:")
	_, err = keys.LookAt(t.Context(), keystest.WriteFile(t, filepath.Join(dir, "large"), make([]byte, 1<<20+1)), keys.OpenOptions{})
	keystest.CheckError(t, err, "large", "no key file")
}

func TestCertificatesIn(t *testing.T) {
	dir := t.TempDir()
	one := made(t, ca.InitOptions{Dir: dir, Type: "p256"})
	keystest.WriteFile(t, filepath.Join(dir, "broken.pem"), []byte("-----BEGIN CERTIFICATE-----\n"))
	found, err := keys.CertificatesIn(dir)
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
	if !keys.Same(found[1].Key, one.Signing[0].Certificate.PublicKey) {
		t.Error("the key is not that of the certificate")
	}
	if _, err := keys.CertificatesIn(filepath.Join(dir, "none")); err == nil {
		t.Error("a folder that is not there has certificates")
	}
}
