package ca

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imaseal/imaseal/keys"
)

func TestInitIssuesByTheCAThatIsThere(t *testing.T) {
	need(t, "openssl")
	dir := t.TempDir()
	first := initKeys(t, InitOptions{Dir: filepath.Join(dir, "one"), CADir: filepath.Join(dir, "ca")})
	if first.CAFound {
		t.Error("it found a CA where none is")
	}
	before := tree(t, filepath.Join(dir, "ca"))
	second := initKeys(t, InitOptions{Dir: filepath.Join(dir, "two"), CADir: filepath.Join(dir, "ca"), Name: "another", Type: "p384"})
	if !second.CAFound {
		t.Error("it does not say that it found the CA")
	}
	if after := tree(t, filepath.Join(dir, "ca")); !maps.Equal(before, after) {
		t.Errorf("the CA was changed: %q became %q", before, after)
	}
	if first.Signing[0].KeyID == second.Signing[0].KeyID {
		t.Error("both have the same key")
	}
	one, two := loadCertificate(t, first.Signing[0].Cert), loadCertificate(t, second.Signing[0].Cert)
	if one.SerialNumber.Cmp(two.SerialNumber) == 0 {
		t.Error("both have the same serial number")
	}
	runOpenSSL(t, "verify", "-x509_strict", "-CAfile", first.CACert, first.Signing[0].Cert, second.Signing[0].Cert)
}

func TestInitOpensAnEncryptedCA(t *testing.T) {
	t.Parallel()
	secret := []byte("of the CA")
	made := func(t *testing.T) string {
		dir := t.TempDir()
		initKeys(t, InitOptions{Dir: filepath.Join(dir, "one"), CADir: filepath.Join(dir, "ca"), Passphrase: secret})
		return dir
	}
	dir := made(t)
	tests := []struct {
		name       string
		passphrase []byte
		ca         keys.Passphrase
		want       string
	}{
		{name: "by the passphrase of the new key", passphrase: secret},
		{name: "by one of its own", passphrase: []byte("new"), ca: answer(string(secret), nil)},
		{name: "into a key in plain text", ca: answer(string(secret), nil)},
		{name: "not by another one", passphrase: []byte("new"), want: "wrong passphrase"},
		{name: "not by none", want: "encrypted"},
		{name: "not by another one of its own", passphrase: secret, ca: answer("wrong", nil), want: "wrong passphrase"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			r, err := Init(t.Context(), InitOptions{Dir: out, CADir: filepath.Join(dir, "ca"), Passphrase: tt.passphrase, CAPassphrase: tt.ca})
			if tt.want != "" {
				checkError(t, err, "using the CA that is there", "ca.key", tt.want)
				if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("it left something: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := keys.Open(t.Context(), r.Signing[0].Key, keys.OpenOptions{Passphrase: answer(string(tt.passphrase), nil)}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestInitRefusesACAThatKernelsWouldNotTake(t *testing.T) {
	t.Parallel()
	need(t, "openssl")
	tests := []struct {
		name       string
		extensions string
		edit       func(t *testing.T, p pki)
		now        time.Time
		want       string
	}{
		{name: "no CA:TRUE", extensions: "keyUsage=keyCertSign\nsubjectKeyIdentifier=hash\n", want: "no certificate of a CA"},
		{name: "no keyCertSign", extensions: "basicConstraints=CA:TRUE\nkeyUsage=digitalSignature\nsubjectKeyIdentifier=hash\n", want: "no certificate of a CA"},
		{name: "no identifier", extensions: "basicConstraints=CA:TRUE\nkeyUsage=keyCertSign\nsubjectKeyIdentifier=none\n", want: "no certificate of a CA"},
		{name: "expired", extensions: caExtensions, now: time.Now().AddDate(11, 0, 0), want: "expired on"},
		{name: "of another key", extensions: caExtensions, want: "not for this key", edit: func(t *testing.T, p pki) {
			writeFile(t, p.Path("ca.key"), readTestdata(t, "../../testdata/private/p256-pkcs8.pem"))
		}},
		{name: "no certificate at all", extensions: caExtensions, want: "ca.crt", edit: func(t *testing.T, p pki) {
			writeFile(t, p.Path("ca.crt"), readTestdata(t, "../../testdata/private/p256-pkcs8.pem"))
		}},
		{name: "a key that cannot be read", extensions: caExtensions, want: "ca.key", edit: func(t *testing.T, p pki) {
			writeFile(t, p.Path("ca.key"), readTestdata(t, "../../testdata/private/ed25519.pem"))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pki{Dir: t.TempDir()}
			p.Issue(t, "ca", "/CN=CA", "ca", tt.extensions)
			if tt.edit != nil {
				tt.edit(t, p)
			}
			before := tree(t, p.Dir)
			_, err := Init(t.Context(), InitOptions{Dir: p.Path("new"), CADir: p.Dir, Now: tt.now})
			checkError(t, err, tt.want)
			if after := tree(t, p.Dir); !maps.Equal(before, after) {
				t.Errorf("%q became %q", before, after)
			}
		})
	}
	// Kernels take one without a key usage when it is built in.
	p := pki{Dir: t.TempDir()}
	p.Issue(t, "ca", "/CN=CA", "ca", "basicConstraints=CA:TRUE\nsubjectKeyIdentifier=hash\n")
	if r := initKeys(t, InitOptions{Dir: p.Path("new"), CADir: p.Dir}); !strings.Contains(r.Note, "no key usage") {
		t.Errorf("the note is %q", r.Note)
	}
	// One that openssl made well is taken.
	p = pki{Dir: t.TempDir()}
	p.Issue(t, "ca", "/CN=CA/O=Some Project", "ca", caExtensions)
	r := initKeys(t, InitOptions{Dir: p.Path("new"), CADir: p.Dir})
	if r.Note != "" {
		t.Errorf("the note is %q", r.Note)
	}
	runOpenSSL(t, "verify", "-x509_strict", "-CAfile", r.CACert, r.Signing[0].Cert)
}
