package ca

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imaseal/imaseal/keys"
)

func initKeys(t testing.TB, o InitOptions) *InitResult {
	t.Helper()
	r, err := Init(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var extensionsOf = regexp.MustCompile(`(?s)\n +X509v3 extensions:\n(.*)\n +Signature Algorithm`)

// shownExtensions are those that openssl x509 -text shows, a line each.
func shownExtensions(t testing.TB, path string) []string {
	t.Helper()
	m := extensionsOf.FindStringSubmatch(runOpenSSL(t, "x509", "-in", path, "-noout", "-text"))
	if m == nil {
		t.Fatal("openssl shows no extensions")
	}
	var lines []string
	for line := range strings.Lines(m[1]) {
		lines = append(lines, strings.TrimPrefix(strings.TrimSpace(line), "keyid:"))
	}
	return lines
}

// keyIdentifier is the one that openssl computes for a key.
func keyIdentifier(t testing.TB, key string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "crt")
	runOpenSSL(t, "req", "-x509", "-key", key, "-subj", "/CN=x", "-out", out)
	lines := shownExtensions(t, out)
	return lines[slices.Index(lines, "X509v3 Subject Key Identifier:")+1]
}

func TestInitMakesWhatKernelsWant(t *testing.T) {
	t.Parallel()
	need(t, "openssl")
	for _, tt := range []struct{ keyType, shown, signature string }{
		{"", "ASN1 OID: prime256v1", "ecdsa-with-SHA256"},
		{"p256", "ASN1 OID: prime256v1", "ecdsa-with-SHA256"},
		{"p384", "ASN1 OID: secp384r1", "ecdsa-with-SHA384"},
		{"p521", "ASN1 OID: secp521r1", "ecdsa-with-SHA512"},
		{"rsa2048", "Public-Key: (2048 bit)", "sha256WithRSAEncryption"},
		{"rsa3072", "Public-Key: (3072 bit)", "sha256WithRSAEncryption"},
		{"rsa4096", "Public-Key: (4096 bit)", "sha256WithRSAEncryption"},
	} {
		t.Run("type "+tt.keyType, func(t *testing.T) {
			if testing.Short() && tt.keyType == "rsa4096" {
				t.Skip("making a large key takes long")
			}
			dir := t.TempDir()
			r := initKeys(t, InitOptions{Dir: filepath.Join(dir, "a/keys"), CADir: filepath.Join(dir, "ca"), Type: tt.keyType, Name: "Example release"})

			made := tree(t, dir)
			if got := slices.Sorted(maps.Keys(made)); !slices.Equal(got, []string{
				"a/", "a/keys/", "a/keys/signing.crt", "a/keys/signing.der", "a/keys/signing.key", "ca/", "ca/ca.crt", "ca/ca.key",
			}) {
				t.Errorf("it made %q", got)
			}
			for name, begins := range map[string]string{
				"a/": "0700", "a/keys/": "0700", "ca/": "0700",
				"ca/ca.key": "0600 -----BEGIN PRIVATE KEY-----", "a/keys/signing.key": "0600 -----BEGIN PRIVATE KEY-----",
				"ca/ca.crt": "0644 -----BEGIN CERTIFICATE-----", "a/keys/signing.crt": "0644 -----BEGIN CERTIFICATE-----",
				"a/keys/signing.der": "0644 \x30",
			} {
				if !strings.HasPrefix(made[name], begins) {
					t.Errorf("%s is %.40q, want %q", name, made[name], begins)
				}
			}
			signing := r.Signing[0]
			if want := (KeyFiles{
				Key: filepath.Join(dir, "a/keys/signing.key"), Cert: filepath.Join(dir, "a/keys/signing.crt"), DER: filepath.Join(dir, "a/keys/signing.der"),
				Certificate: signing.Certificate, KeyID: signing.KeyID,
			}); signing != want || len(r.Signing) != 1 || r.CAFound || r.CACertMade || r.CAKey != filepath.Join(dir, "ca/ca.key") || r.CACert != filepath.Join(dir, "ca/ca.crt") {
				t.Errorf("the result is %+v, want %+v", *r, want)
			}

			runOpenSSL(t, "verify", "-x509_strict", "-check_ss_sig", "-CAfile", r.CACert, r.Signing[0].Cert)
			if der := runOpenSSL(t, "x509", "-in", r.Signing[0].Cert, "-outform", "DER"); made["a/keys/signing.der"] != "0644 "+der {
				t.Error("signing.der is not signing.crt")
			}
			caID, id := keyIdentifier(t, r.CAKey), keyIdentifier(t, r.Signing[0].Key)
			if got, want := shownExtensions(t, r.CACert), []string{
				"X509v3 Key Usage: critical", "Certificate Sign", "X509v3 Basic Constraints: critical", "CA:TRUE",
				"X509v3 Subject Key Identifier:", caID,
			}; !slices.Equal(got, want) {
				t.Errorf("the CA's extensions are %q, want %q", got, want)
			}
			if got, want := shownExtensions(t, r.Signing[0].Cert), []string{
				"X509v3 Key Usage: critical", "Digital Signature", "X509v3 Subject Key Identifier:", id,
				"X509v3 Authority Key Identifier:", caID,
			}; !slices.Equal(got, want) {
				t.Errorf("the signing certificate's extensions are %q, want %q", got, want)
			}
			if want := strings.ToLower(strings.ReplaceAll(id[len(id)-11:], ":", "")); r.Signing[0].KeyID.String() != want {
				t.Errorf("key id %s, want %s", r.Signing[0].KeyID, want)
			}
			for path, subject := range map[string]string{r.CACert: "CN = Example release CA", r.Signing[0].Cert: "CN = Example release signing key"} {
				text := runOpenSSL(t, "x509", "-in", path, "-noout", "-text")
				for _, want := range []string{"Version: 3 (0x2)", "Issuer: CN = Example release CA\n", "Subject: " + subject + "\n", tt.shown, "Signature Algorithm: " + tt.signature} {
					if !strings.Contains(text, want) {
						t.Errorf("%s: no %q in\n%s", path, want, text)
					}
				}
			}
		})
	}
}

func TestInitKeysSignAndVerifyWithEvmctl(t *testing.T) {
	t.Parallel()
	need(t, "evmctl")
	for keyType, passphrase := range map[string]string{"p256": testPassphrase, "rsa2048": ""} {
		dir := t.TempDir()
		r := initKeys(t, InitOptions{Dir: dir, Type: keyType, Passphrase: []byte(passphrase)})
		for _, args := range [][]string{
			{"-k", r.Signing[0].Key, "--pass=" + passphrase},
			{"-k", r.Signing[0].Key, "--pass=" + passphrase, "--keyid-from-cert", r.Signing[0].DER},
		} {
			if id := evmctlKeyID(t, args...); id != r.Signing[0].KeyID {
				t.Errorf("evmctl signs with key id %s, want %s", id, r.Signing[0].KeyID)
			}
		}
		file := writeFile(t, filepath.Join(dir, "file"), []byte("content"))
		run(t, "evmctl", "ima_sign", "--sigfile", "-a", "sha256", "-k", r.Signing[0].Key, "--pass="+passphrase, file)
		run(t, "evmctl", "ima_verify", "--sigfile", "-k", r.Signing[0].DER, file)
		writeFile(t, file, []byte("another"))
		if out, err := exec.Command("evmctl", "ima_verify", "--sigfile", "-k", r.Signing[0].DER, file).CombinedOutput(); err == nil {
			t.Errorf("evmctl takes a tampered file: %s", out)
		}
	}
}

// The kernel itself takes the certificate into a keyring, under our key id.
func TestInitCertificateIsImportedIntoAKeyring(t *testing.T) {
	need(t, "evmctl", "keyctl")
	r := initKeys(t, InitOptions{Dir: t.TempDir(), Type: "rsa2048"})
	script := `ring=$(keyctl newring _ima @s) && id=$(evmctl import "$0" "$ring") && keyctl describe "$id"`
	out, err := exec.Command("keyctl", "session", "-", "sh", "-c", script, r.Signing[0].DER).CombinedOutput()
	if err != nil {
		t.Skipf("this kernel keeps no asymmetric keys for us: %v: %s", err, bytes.TrimSpace(out))
	}
	if !strings.Contains(string(out), r.Signing[0].KeyID.String()) {
		t.Errorf("the kernel describes the key as %s, want key id %s in it", out, r.Signing[0].KeyID)
	}
}

func TestInitEncryptsKeysWithThePassphrase(t *testing.T) {
	t.Parallel()
	need(t, "openssl")
	dir := t.TempDir()
	passphrase := []byte(testPassphrase)
	r := initKeys(t, InitOptions{Dir: dir, Passphrase: passphrase})
	if string(passphrase) != testPassphrase {
		t.Error("the caller's passphrase was changed")
	}
	pass := writeFile(t, filepath.Join(dir, "pass"), []byte(testPassphrase))
	wrong := writeFile(t, filepath.Join(dir, "wrong"), []byte("correct horse"))
	for _, path := range []string{r.CAKey, r.Signing[0].Key} {
		info, err := os.Stat(path)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
		}
		runOpenSSL(t, "pkey", "-in", path, "-passin", "file:"+pass, "-noout")
		if exec.Command("openssl", "pkey", "-in", path, "-passin", "file:"+wrong, "-noout").Run() == nil {
			t.Errorf("%s: openssl opens it with another passphrase", path)
		}
		key, err := keys.Open(context.Background(), path, keys.OpenOptions{Passphrase: answer(testPassphrase, nil)})
		if err != nil {
			t.Fatal(err)
		}
		if key.Note != "" {
			t.Errorf("the note is %q", key.Note)
		}
	}
}

func TestInitDates(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 2, 28, 12, 30, 15, 999, time.FixedZone("x", 3600))
	for _, tt := range []struct {
		days, caDays   int
		leafEnd, caEnd string
		warning        string // part of the only one
	}{
		{0, 0, "2029-02-27T11:30:15Z", "2046-02-23T11:30:15Z", ""},
		{1, 1, "2026-03-01T11:30:15Z", "2026-03-01T11:30:15Z", ""},
		{36500, 36500, "2126-02-04T11:30:15Z", "2126-02-04T11:30:15Z", ""},
		{100, 10, "2026-06-08T11:30:15Z", "2026-03-10T11:30:15Z", "signing.crt is valid longer than the certificate of its CA, which ends on 2026-03-10"},
	} {
		r := initKeys(t, InitOptions{Dir: t.TempDir(), Days: tt.days, CADays: tt.caDays, Now: now})
		if warned := strings.Join(r.Warnings, "\n"); !strings.Contains(warned, tt.warning) || (warned == "") != (tt.warning == "") {
			t.Errorf("%d days, the CA %d: warned of %q", tt.days, tt.caDays, warned)
		}
		for path, end := range map[string]string{r.Signing[0].Cert: tt.leafEnd, r.CACert: tt.caEnd} {
			cert := loadCertificate(t, path)
			if got := cert.NotAfter.Format(time.RFC3339); got != end {
				t.Errorf("%d days: ends %s, want %s", tt.days, got, end)
			}
			if got := cert.NotBefore.Format(time.RFC3339); got != "2026-02-28T10:30:15Z" {
				t.Errorf("begins %s, want an hour before now", got)
			}
		}
	}
}

func TestInitRefusesWhatCannotBe(t *testing.T) {
	tests := []struct {
		name string
		o    InitOptions
		want string
	}{
		{"no folder", InitOptions{}, "no folder"},
		{"another type", InitOptions{Dir: "x", Type: "rsa1024"}, `unknown type of key "rsa1024": use p256`},
		{"a negative number of days", InitOptions{Dir: "x", Days: -3}, "for -3 days: use 1 to 36500"},
		{"too many days", InitOptions{Dir: "x", Days: 36501}, "for 36501 days"},
		{"too many days of the CA", InitOptions{Dir: "x", CADays: 40000}, "for 40000 days"},
		{"a long name", InitOptions{Dir: "x", Name: strings.Repeat("n", 53)}, "at most 52 printable"},
		{"a name of two lines", InitOptions{Dir: "x", Name: "a\nb"}, `"a\nb" cannot be the name`},
		{"a name that is no text", InitOptions{Dir: "x", Name: "\xff"}, "cannot be the name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			_, err := Init(t.Context(), tt.o)
			checkError(t, err, tt.want)
			if left := tree(t, "."); len(left) > 0 {
				t.Errorf("it left %q", left)
			}
		})
	}
	r := initKeys(t, InitOptions{Dir: t.TempDir(), Name: strings.Repeat("ü", 52)})
	if got := loadCertificate(t, r.Signing[0].Cert).Subject.CommonName; got != strings.Repeat("ü", 52)+" signing key" {
		t.Errorf("the longest name became %q", got)
	}
}

func TestInitOverwritesNothing(t *testing.T) {
	for _, name := range []string{"signing.key", "signing.crt", "signing.der", "ca.key", "ca.crt"} {
		for kind, make := range map[string]func(string) error{
			"file":          func(path string) error { return os.WriteFile(path, []byte("precious"), 0o640) },
			"dangling link": func(path string) error { return os.Symlink("nowhere", path) },
			"folder":        func(path string) error { return os.Mkdir(path, 0o700) },
		} {
			t.Run(name+" is a "+kind, func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, name)
				if err := make(path); err != nil {
					t.Fatal(err)
				}
				before := tree(t, dir)
				_, err := Init(t.Context(), InitOptions{Dir: dir})
				checkError(t, err, path, "is there", "another folder")
				if after := tree(t, dir); !maps.Equal(before, after) {
					t.Errorf("%q became %q", before, after)
				}
			})
		}
	}
}

func TestInitLeavesNothingBehindWhenItFails(t *testing.T) {
	t.Run("the folder cannot be made", func(t *testing.T) {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, "file"), nil)
		before := tree(t, dir)
		_, err := Init(t.Context(), InitOptions{Dir: filepath.Join(dir, "file/keys"), CADir: filepath.Join(dir, "new/ca")})
		checkError(t, err, "file/keys", "not a directory")
		if after := tree(t, dir); !maps.Equal(before, after) {
			t.Errorf("it left %q", after)
		}
	})
	// What turns up after the check is neither overwritten nor removed.
	t.Run("a file turns up meanwhile", func(t *testing.T) {
		dir := t.TempDir()
		there := writeFile(t, filepath.Join(dir, "there"), []byte("precious"))
		before := tree(t, dir)
		var files newFiles
		secret := []byte("secret")
		files.add(filepath.Join(dir, "new/a/first"), 0o600, secret)
		files.add(there, 0o600, []byte("second"))
		files.add(filepath.Join(dir, "third"), 0o600, []byte("third"))
		err := files.write(t.Context())
		if !errors.Is(err, fs.ErrExist) {
			t.Errorf("%v", err)
		}
		if after := tree(t, dir); !maps.Equal(before, after) {
			t.Errorf("%q became %q", before, after)
		}
		if string(secret) == "secret" {
			t.Error("the key stays in memory")
		}
	})
	t.Run("the second file cannot be made", func(t *testing.T) {
		dir := t.TempDir()
		var files newFiles
		files.add(filepath.Join(dir, "keys/signing.key"), 0o600, []byte("x"))
		files.add(filepath.Join(dir, "keys/./signing.key"), 0o600, []byte("x"))
		checkError(t, files.write(t.Context()), "signing.key: file exists")
		if left := tree(t, dir); len(left) > 0 {
			t.Errorf("it left %q", left)
		}
	})
}

// Two runs may make the same folders at once.
func TestFoldersThatAreMadeMeanwhile(t *testing.T) {
	for range 20 {
		top := t.TempDir()
		var runs sync.WaitGroup
		for range 8 {
			runs.Go(func() {
				if _, err := makeFolders(filepath.Join(top, "a/b/c")); err != nil {
					t.Error(err)
				}
			})
		}
		runs.Wait()
	}
}
