package ca

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestInitMakesSeveralSigningKeys(t *testing.T) {
	t.Parallel()
	need(t, "openssl")
	dir := t.TempDir()
	o := InitOptions{Dir: dir, Name: "Example", SigningKeys: []string{"trixie", "team-b", "signing"}}
	r := initKeys(t, o)
	if got, want := slices.Sorted(maps.Keys(tree(t, dir))), strings.Fields("ca.crt ca.key signing.crt signing.der signing.key team-b.crt team-b.der team-b.key trixie.crt trixie.der trixie.key"); !slices.Equal(got, want) {
		t.Errorf("it made %q", got)
	}
	ids := map[string]bool{}
	for i, want := range []string{"Example trixie signing key", "Example team-b signing key", "Example signing key"} {
		k := r.Signing[i]
		if got := k.Certificate.Subject.CommonName; got != want || filepath.Base(k.Key) != o.SigningKeys[i]+".key" {
			t.Errorf("%s is of %q, want %q", k.Key, got, want)
		}
		runOpenSSL(t, "verify", "-x509_strict", "-CAfile", r.CACert, k.Cert)
		ids[k.KeyID.String()] = true
	}
	if len(ids) != 3 {
		t.Errorf("the key ids are %v", ids)
	}
	// One more by the same CA.
	before := tree(t, dir)
	o.SigningKeys = []string{"forky"}
	if r := initKeys(t, o); !r.CAFound || len(tree(t, dir)) != len(before)+3 {
		t.Errorf("it made %+v", r)
	}
	for _, tt := range []struct {
		names []string
		want  string
	}{
		{[]string{"new", "trixie"}, "trixie.key is there already"},
		{[]string{"new", "new"}, "named twice"},
		{[]string{"ca"}, "the files of the CA"},
		{[]string{"a/b"}, `"a/b" cannot be`},
		{[]string{".."}, "cannot be"},
		{[]string{"-x"}, "cannot be"},
		{[]string{""}, "cannot be"},
		{[]string{"a\nb"}, "cannot be"},
		{[]string{strings.Repeat("n", 60)}, "cannot be the name in a certificate"},
	} {
		before := tree(t, dir)
		o.SigningKeys = tt.names
		_, err := Init(t.Context(), o)
		checkError(t, err, tt.want)
		if !maps.Equal(before, tree(t, dir)) {
			t.Errorf("%q changed something", tt.names)
		}
	}
}

func TestInitByACAWhoseKeyIsElsewhere(t *testing.T) {
	t.Parallel()
	need(t, "openssl")
	dir := t.TempDir()
	key := filepath.Join(dir, "elsewhere.pem")
	runOpenSSL(t, "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-aes256", "-pass", "pass:of the CA", "-out", key)
	o := InitOptions{Dir: filepath.Join(dir, "one"), CAKey: key, CACert: filepath.Join(dir, "ca/root.crt"), Name: "Example", CADays: 100, CAPassphrase: answer("of the CA", nil)}

	// It has no certificate yet.
	r := initKeys(t, o)
	if !r.CAFound || !r.CACertMade || r.CAKey != key || r.CACert != o.CACert {
		t.Errorf("it tells %+v", r)
	}
	runOpenSSL(t, "verify", "-x509_strict", "-check_ss_sig", "-CAfile", o.CACert, r.Signing[0].Cert)
	root := loadCertificate(t, o.CACert)
	if root.Subject.CommonName != "Example CA" || root.NotAfter.After(time.Now().AddDate(0, 0, 101)) {
		t.Errorf("the CA is %q, until %v", root.Subject, root.NotAfter)
	}
	made := tree(t, dir)
	if len(made) != 7 { // two folders, the key and the certificate of the CA, three files
		t.Errorf("%q are there", slices.Sorted(maps.Keys(made)))
	}

	// Now it has one.
	o.Dir = filepath.Join(dir, "two")
	if r = initKeys(t, o); !r.CAFound || r.CACertMade {
		t.Errorf("it tells %+v", r)
	}
	runOpenSSL(t, "verify", "-x509_strict", "-CAfile", o.CACert, r.Signing[0].Cert)

	// One that came with the key; nothing is looked for in the folder.
	both := writeFile(t, filepath.Join(dir, "both.pem"), []byte(made["elsewhere.pem"][5:]+made["ca/root.crt"][5:]))
	o.Dir, o.CAKey, o.CACert = filepath.Join(dir, "three"), both, ""
	if r = initKeys(t, o); !r.CAFound || r.CACertMade || r.CACert != "" || len(tree(t, o.Dir)) != 3 {
		t.Errorf("it tells %+v", r)
	}
	runOpenSSL(t, "verify", "-x509_strict", "-CAfile", filepath.Join(dir, "ca/root.crt"), r.Signing[0].Cert)

	for name, tt := range map[string]struct {
		change func(*InitOptions)
		want   string
	}{
		"a wrong passphrase":        {func(o *InitOptions) { o.CAPassphrase = answer("wrong", nil) }, "--ca-passphrase-file"},
		"no such key":               {func(o *InitOptions) { o.CAKey = filepath.Join(dir, "missing") }, "missing: no such file"},
		"a certificate only":        {func(o *InitOptions) { o.CAKey, o.CACert = "", filepath.Join(dir, "ca/root.crt") }, "--ca-key"},
		"a certificate of another":  {func(o *InitOptions) { o.CACert = r.Signing[0].Cert }, "is not for this key"},
		"the key signs files, too":  {func(o *InitOptions) { o.CAKey = filepath.Join(dir, "leaf.pem") }, "came with the CA's key"},
		"a kind of key not for CAs": {func(o *InitOptions) { o.CAKey = "../testdata/private/ed25519.pem" }, "use an RSA or ECDSA key"},
	} {
		t.Run(name, func(t *testing.T) {
			writeFile(t, filepath.Join(dir, "leaf.pem"), []byte(tree(t, dir)["one/signing.key"][5:]+tree(t, dir)["one/signing.crt"][5:]))
			o := o
			o.Dir = filepath.Join(t.TempDir(), "out")
			tt.change(&o)
			_, err := Init(t.Context(), o)
			checkError(t, err, tt.want)
			if _, err := os.Stat(o.Dir); err == nil {
				t.Error("it left something")
			}
		})
	}
}

// A folder may be called like the scheme of a key reference.
func TestInitInAFolderCalledLikeAScheme(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"one", "two"} {
		r := initKeys(t, InitOptions{Dir: "odd:" + name, CADir: "odd:ca"})
		if r.CACert != "./odd:ca/ca.crt" || r.CAFound != (name == "two") {
			t.Errorf("it tells %+v", r)
		}
	}
}
