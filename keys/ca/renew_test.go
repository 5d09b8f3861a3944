package ca

import (
	"bytes"
	"crypto"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/sign"
)

func TestRenewKeepsTheKeyAndItsID(t *testing.T) {
	t.Parallel()
	need(t, "openssl")
	dir := t.TempDir()
	ca := testCA(t, dir)
	old := filepath.Join(dir, "keys/signing.crt")
	before := tree(t, dir)
	r, err := ca.Renew(t.Context(), RenewOptions{Old: old, Days: 30})
	if err != nil {
		t.Fatal(err)
	}
	oldCert := loadCertificate(t, old)
	for _, path := range []string{r.Cert, r.DER} {
		cert := loadCertificate(t, path)
		if err := keys.Match(cert, oldCert.PublicKey); err != nil {
			t.Error(err)
		}
		if !bytes.Equal(cert.SubjectKeyId, oldCert.SubjectKeyId) || !bytes.Equal(cert.RawSubject, oldCert.RawSubject) || cert.SerialNumber.Cmp(oldCert.SerialNumber) == 0 {
			t.Errorf("%s: identifier %x, subject %q, serial %v", path, cert.SubjectKeyId, cert.Subject, cert.SerialNumber)
		}
		if got := cert.NotAfter.Sub(cert.NotBefore); got != 30*24*time.Hour+backdate {
			t.Errorf("%s: valid for %v", path, got)
		}
	}
	if r.KeyID != r.OldKeyID || r.Key != "" || len(r.Warnings) > 0 || !r.Old.Equal(oldCert) {
		t.Errorf("it tells %+v", r)
	}
	runOpenSSL(t, "verify", "-x509_strict", "-CAfile", filepath.Join(dir, "ca/ca.crt"), r.Cert)
	after := tree(t, dir)
	for name, content := range before {
		if after[name] != content {
			t.Errorf("%s was changed", name)
		}
	}
	if got := len(after) - len(before); got != 2 || r.Cert != filepath.Join(dir, "keys/signing-2.crt") {
		t.Errorf("%q are there", slices.Sorted(maps.Keys(after)))
	}
}

func TestRenewBesideACAOfTheSameName(t *testing.T) {
	t.Parallel()
	ours, theirs := t.TempDir(), t.TempDir()
	testCA(t, ours)
	other := testCA(t, theirs)
	r, err := other.Renew(t.Context(), RenewOptions{Old: filepath.Join(ours, "keys/signing.crt")})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "not by this CA") {
		t.Errorf("it warns %q", r.Warnings)
	}
}

func TestRenewMakesANewKey(t *testing.T) {
	t.Parallel()
	need(t, "openssl")
	dir := t.TempDir()
	ca := testCA(t, dir)
	old := filepath.Join(dir, "keys/signing.der")
	before := tree(t, dir)
	for i, tt := range []struct{ keyType, name, want, subject string }{
		{"", "", "p256", "CN=Example signing key"},
		{"rsa2048", "Renamed", "rsa2048", "CN=Renamed signing key"},
	} {
		r, err := ca.Renew(t.Context(), RenewOptions{Old: old, NewKey: true, Type: tt.keyType, Name: tt.name, Passphrase: []byte(testPassphrase)})
		if err != nil {
			t.Fatal(err)
		}
		if want := filepath.Join(dir, "keys/signing-"+string(rune('2'+i))); r.Key != want+".key" || r.Cert != want+".crt" || r.DER != want+".der" {
			t.Errorf("it made %+v", r.KeyFiles)
		}
		key, err := keys.Open(t.Context(), r.Key, keys.OpenOptions{Passphrase: answer(testPassphrase, nil)})
		if err != nil {
			t.Fatal(err)
		}
		cert := loadCertificate(t, r.Cert)
		if err := keys.Match(cert, key.Public()); err != nil {
			t.Error(err)
		}
		if key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(r.Old.PublicKey) || r.KeyID == r.OldKeyID || typeOf(cert.PublicKey) != tt.want || cert.Subject.String() != tt.subject {
			t.Errorf("it made a key of type %s, key id %s after %s, for %q", typeOf(cert.PublicKey), r.KeyID, r.OldKeyID, cert.Subject)
		}
		if usual, err := sign.KeyIDFromPublicKey(key.Public()); err != nil || usual != r.KeyID {
			t.Errorf("key id %s, the key's is %s, %v", r.KeyID, usual, err)
		}
		runOpenSSL(t, "verify", "-x509_strict", "-CAfile", filepath.Join(dir, "ca/ca.crt"), r.Cert)
	}
	after := tree(t, dir)
	for name, content := range before {
		if after[name] != content {
			t.Errorf("%s was changed", name)
		}
	}
	if len(after) != len(before)+6 || !strings.HasPrefix(after["keys/signing-2.key"], "0600 -----BEGIN ENCRYPTED PRIVATE KEY") {
		t.Errorf("%q are there", slices.Sorted(maps.Keys(after)))
	}
}

// Signatures carry the end of the identifier that the old certificate has, whatever
// it is.
func TestRenewKeepsAnUnusualIdentifier(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := testCA(t, dir)
	old := writeFile(t, filepath.Join(dir, "odd.der"), withIdentifier(t, 0x12345678).Raw)
	r, err := ca.Renew(t.Context(), RenewOptions{Old: old})
	if err != nil {
		t.Fatal(err)
	}
	if r.KeyID != 0x12345678 || !bytes.Equal(r.Certificate.SubjectKeyId, r.Old.SubjectKeyId) {
		t.Errorf("the new key id is %s", r.KeyID)
	}
	if len(r.Warnings) != 2 || !strings.Contains(r.Warnings[0], `issued by "CN=other"`) || !strings.Contains(r.Warnings[1], "not the usual SHA-1") {
		t.Errorf("the warnings are %q", r.Warnings)
	}
	need(t, "openssl")
	p := pki{Dir: dir}
	p.Issue(t, "none", "/CN=none", "none", "subjectKeyIdentifier=none\nkeyUsage=digitalSignature\n")
	if r, err = ca.Renew(t.Context(), RenewOptions{Old: p.Path("none.crt")}); err != nil {
		t.Fatal(err)
	}
	if len(r.Certificate.SubjectKeyId) != 20 || !strings.Contains(strings.Join(r.Warnings, "\n"), "no subject key identifier") {
		t.Errorf("identifier %x, warnings %q", r.Certificate.SubjectKeyId, r.Warnings)
	}
}

func TestRenewOfTheCAItself(t *testing.T) {
	t.Parallel()
	need(t, "openssl")
	dir := t.TempDir()
	ca := testCA(t, dir)
	old := filepath.Join(dir, "ca/ca.crt")
	r, err := ca.Renew(t.Context(), RenewOptions{Old: old})
	if err != nil {
		t.Fatal(err)
	}
	if r.Cert != filepath.Join(dir, "ca/ca-2.crt") || r.Key != "" || !r.Certificate.NotAfter.After(time.Now().AddDate(19, 0, 0)) {
		t.Errorf("it made %+v", r.KeyFiles)
	}
	if got, want := shownExtensions(t, r.Cert), shownExtensions(t, old); !slices.Equal(got, want) {
		t.Errorf("the extensions are %q, not %q", got, want)
	}
	runOpenSSL(t, "verify", "-x509_strict", "-check_ss_sig", "-CAfile", r.Cert, filepath.Join(dir, "keys/signing.crt"))
	if err := keys.ChainsTo(loadCertificate(t, filepath.Join(dir, "keys/signing.crt")), certificates(t, r.Cert)); err != nil {
		t.Error(err)
	}
	for _, o := range []RenewOptions{{Old: old, NewKey: true}, {Old: old, Name: "x"}} {
		_, err := ca.Renew(t.Context(), o)
		checkError(t, err, "keeps its key and its name")
	}
	other := testCA(t, t.TempDir())
	_, err = other.Renew(t.Context(), RenewOptions{Old: old})
	checkError(t, err, "of another CA")
}

func TestRenewRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := testCA(t, dir)
	old := filepath.Join(dir, "keys/signing.crt")
	writeFile(t, filepath.Join(dir, "taken.key"), []byte("precious"))
	escape := filepath.Join(dir, "escape.der")
	foreign, err := newCACertificate(ca.key, newTemplate("a\x1b[31m", 1, testTime))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, escape, foreign.Raw)
	before := tree(t, dir)
	for name, tt := range map[string]struct {
		o    RenewOptions
		want string
	}{
		"no certificate":         {RenewOptions{Old: filepath.Join(dir, "keys/signing.key")}, "no certificate in it"},
		"a missing one":          {RenewOptions{Old: filepath.Join(dir, "missing")}, "no such file"},
		"a type of the old key":  {RenewOptions{Old: old, Type: "p384"}, "--new-key"},
		"an unknown type":        {RenewOptions{Old: old, NewKey: true, Type: "dsa"}, `unknown type of key "dsa"`},
		"days":                   {RenewOptions{Old: old, Days: 40000}, "for 40000 days"},
		"a bad name":             {RenewOptions{Old: old, Name: "\x1b[31m"}, "cannot be the name"},
		"a name to misread":      {RenewOptions{Old: escape}, "no printable text"},
		"a name that is taken":   {RenewOptions{Old: old, Out: filepath.Join(dir, "keys/signing")}, "signing.crt is there already and is not overwritten"},
		"a key that is in place": {RenewOptions{Old: old, NewKey: true, Out: filepath.Join(dir, "taken")}, "taken.key is there already and is not overwritten"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ca.Renew(t.Context(), tt.o)
			checkError(t, err, tt.want)
			if after := tree(t, dir); !maps.Equal(before, after) {
				t.Errorf("it left %q", slices.Sorted(maps.Keys(after)))
			}
		})
	}
}

func TestNextBase(t *testing.T) {
	for _, tt := range []struct {
		there string
		old   string
		want  string
	}{
		{"a.crt", "a.crt", "a-2"},
		{"a.crt a-2.crt", "a.crt", "a-3"},
		{"a.crt a-2.key", "a.crt", "a-3"},
		{"a.crt a-2.crt", "a-2.crt", "a-3"},
		{"a.crt a-2.der a-3.der", "a-2.der", "a-4"},
		{"a-2.der", "a-2.der", "a-2-2"}, // a-2 is its name
		{"release-13.crt", "release-13.crt", "release-13-2"},
		{"a a.b.pem", "a.b.pem", "a.b-2"},
		{"odd", "odd", "odd-2"},
	} {
		dir := t.TempDir()
		for _, name := range strings.Fields(tt.there) {
			writeFile(t, filepath.Join(dir, name), nil)
		}
		if got, err := nextBase(filepath.Join(dir, tt.old)); err != nil || got != filepath.Join(dir, tt.want) {
			t.Errorf("after %s, where %s are: %s, %v; want %s", tt.old, tt.there, got, err, tt.want)
		}
	}
	if _, err := os.Stat("a-2"); err == nil {
		t.Error("it made a file")
	}
}
