package ca

import (
	"crypto/x509"
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

// testCA opens a CA that Init made in dir/ca, beside a signing key in dir/keys.
func testCA(t testing.TB, dir string) *Authority {
	t.Helper()
	r := initKeys(t, InitOptions{Dir: filepath.Join(dir, "keys"), CADir: filepath.Join(dir, "ca"), Name: "Example"})
	ca, err := Open(t.Context(), r.CAKey, r.CACert, keys.OpenOptions{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	return ca
}

func loadRequest(t testing.TB, ref string) *Request {
	t.Helper()
	r, err := LoadRequest(t.Context(), ref, keys.OpenOptions{Passphrase: answer(testPassphrase, nil)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestIssueTakesOnlyKeyAndNameFromARequest(t *testing.T) {
	t.Parallel()
	need(t, "openssl")
	dir := t.TempDir()
	ca := testCA(t, dir)
	p := pki{Dir: dir}
	p.Key(t, "asked")
	config := writeFile(t, p.Path("config"), []byte(`[req]
distinguished_name = dn
prompt = no
req_extensions = ext
[dn]
O = Team
CN = Release 2
[ext]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,digitalSignature
extendedKeyUsage = codeSigning
subjectKeyIdentifier = 01:02:03:04
subjectAltName = DNS:example.org
1.2.3.4 = ASN1:NULL
`))
	runOpenSSL(t, "req", "-new", "-key", p.Path("asked.key"), "-config", config, "-out", p.Path("asked.csr"))
	runOpenSSL(t, "req", "-new", "-key", p.Path("asked.key"), "-config", config, "-outform", "DER", "-out", p.Path("der.csr"))
	runOpenSSL(t, "pkey", "-in", p.Path("asked.key"), "-pubout", "-out", p.Path("public.pem"))
	runOpenSSL(t, "pkey", "-in", p.Path("asked.key"), "-pubout", "-outform", "DER", "-out", p.Path("public.der"))
	runOpenSSL(t, "pkcs8", "-topk8", "-in", p.Path("asked.key"), "-passout", "pass:"+testPassphrase, "-out", p.Path("locked.key"))
	id := keyIdentifier(t, p.Path("asked.key"))
	caID := keyIdentifier(t, p.Path("ca/ca.key"))

	const ignored = "not taken over from the request: basicConstraints, keyUsage, extendedKeyUsage, subjectKeyIdentifier, subjectAltName, 1.2.3.4"
	for _, tt := range []struct {
		ref, name string
		subject   string
		warning   string
	}{
		{"asked.csr", "", "O = Team, CN = Release 2", ignored},
		{"der.csr", "", "O = Team, CN = Release 2", ignored},
		{"asked.csr", "Other", "CN = Other signing key", ignored},
		{"public.pem", "Other", "CN = Other signing key", ""},
		{"public.der", "Other", "CN = Other signing key", ""},
		{"asked.key", "Other", "CN = Other signing key", ""},
		{"locked.key", "Other", "CN = Other signing key", ""},
	} {
		t.Run(tt.ref+" "+tt.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "new/release.crt")
			made, err := ca.Issue(t.Context(), IssueOptions{Request: loadRequest(t, p.Path(tt.ref)), Name: tt.name, Days: 10, Out: out})
			if err != nil {
				t.Fatal(err)
			}
			runOpenSSL(t, "verify", "-x509_strict", "-CAfile", p.Path("ca/ca.crt"), out)
			if got, want := shownExtensions(t, out), []string{
				"X509v3 Key Usage: critical", "Digital Signature", "X509v3 Subject Key Identifier:", id,
				"X509v3 Authority Key Identifier:", caID,
			}; !slices.Equal(got, want) {
				t.Errorf("the extensions are %q, want %q", got, want)
			}
			text := runOpenSSL(t, "x509", "-in", out, "-noout", "-text")
			for _, want := range []string{"Version: 3 (0x2)", "Issuer: CN = Example CA\n", "Subject: " + tt.subject + "\n"} {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
			if days := made.Certificate.NotAfter.Sub(made.Certificate.NotBefore); days != 10*24*time.Hour+backdate {
				t.Errorf("it is valid for %v", days)
			}
			if got := strings.Join(made.Warnings, "\n"); got != tt.warning {
				t.Errorf("the warnings are %q, want %q", got, tt.warning)
			}
			files := tree(t, filepath.Dir(out))
			der := runOpenSSL(t, "x509", "-in", out, "-outform", "DER")
			if len(files) != 2 || files["release.der"] != "0644 "+der || made.Key != "" || made.Cert != out {
				t.Errorf("%q were made, %+v tells", slices.Sorted(maps.Keys(files)), made.KeyFiles)
			}
			if want, err := sign.KeyIDFromPublicKey(made.Certificate.PublicKey); err != nil || made.KeyID != want {
				t.Errorf("key id %s, want %s, %v", made.KeyID, want, err)
			}
			_, err = ca.Issue(t.Context(), IssueOptions{Request: loadRequest(t, p.Path(tt.ref)), Name: "x", Out: out})
			checkError(t, err, out, "is not overwritten")
		})
	}
}

func TestIssueRefuses(t *testing.T) {
	t.Parallel()
	need(t, "openssl")
	dir := t.TempDir()
	ca := testCA(t, dir)
	p := pki{Dir: dir}
	p.Key(t, "fine")
	p.Issue(t, "fine", "/CN=fine", "fine", leafExtensions)
	runOpenSSL(t, "req", "-new", "-key", p.Path("fine.key"), "-subj", "/CN=fine", "-outform", "DER", "-out", p.Path("der.csr"))
	runOpenSSL(t, "req", "-new", "-key", p.Path("fine.key"), "-subj", "/", "-out", p.Path("nobody.csr"))
	runOpenSSL(t, "req", "-new", "-key", p.Path("fine.key"), "-subj", "/CN=two\nlines", "-out", p.Path("lines.csr"))
	runOpenSSL(t, "req", "-new", "-key", p.Path("fine.key"), "-subj", "/OU="+strings.Repeat("x", 64)+strings.Repeat("/OU="+strings.Repeat("x", 64), 20), "-out", p.Path("long.csr"))
	runOpenSSL(t, "req", "-new", "-nodes", "-newkey", "rsa:1024", "-keyout", p.Path("short.key"), "-subj", "/CN=short", "-out", p.Path("short.csr"))
	runOpenSSL(t, "req", "-new", "-nodes", "-newkey", "rsa:2560", "-keyout", p.Path("odd.key"), "-subj", "/CN=odd", "-out", p.Path("odd.csr"))
	runOpenSSL(t, "req", "-new", "-nodes", "-newkey", "ed25519", "-keyout", p.Path("ed.key"), "-subj", "/CN=ed", "-out", p.Path("ed.csr"))
	runOpenSSL(t, "ecparam", "-name", "secp256k1", "-genkey", "-noout", "-out", p.Path("k1.key"))
	runOpenSSL(t, "ec", "-in", p.Path("k1.key"), "-pubout", "-out", p.Path("k1.pem"))
	runOpenSSL(t, "req", "-new", "-key", p.Path("k1.key"), "-subj", "/CN=k1", "-out", p.Path("k1.csr"))
	der, err := os.ReadFile(p.Path("der.csr"))
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(der)
	flipped[slices.Index(flipped, 'f')] = 'F' // in the name, which is signed
	writeFile(t, p.Path("flipped.csr"), flipped)
	writeFile(t, p.Path("cut.csr"), der[:len(der)/2])
	writeFile(t, p.Path("text.csr"), []byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"))
	writeFile(t, p.Path("cut.pem"), []byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"))
	for _, tt := range []struct{ ref, want string }{
		{"flipped.csr", "the signature of the certificate request does not verify"},
		{"short.csr", "RSA key of 1024 bits is too short"},
		{"odd.csr", "2560 bits"},
		{"ed.csr", "use an RSA or ECDSA key"},
		{"k1.pem", "the public key cannot be read: x509: unsupported elliptic curve"},
		{"cut.csr", "no certificate request and no key"},
		{"text.csr", "the certificate request cannot be read: "},
		{"k1.csr", "the certificate request cannot be read: x509: unsupported elliptic curve"},
		{"cut.pem", "the public key cannot be read"},
		{"lines.csr", "no printable text"},
		{"long.csr", "bytes, more than 1024"},
		{"fine.crt", "use imaseal keys renew"},
		{"missing", "no such file"},
		{"config:x", "knows no keys of that kind"},
	} {
		ref := tt.ref
		if !strings.Contains(ref, ":") {
			ref = p.Path(ref)
		}
		_, err := LoadRequest(t.Context(), ref, keys.OpenOptions{})
		checkError(t, err, tt.want)
	}

	before := tree(t, dir)
	fine := loadRequest(t, p.Path("fine.csr"))
	for name, tt := range map[string]struct {
		o    IssueOptions
		want string
	}{
		"no name":       {IssueOptions{Request: loadRequest(t, p.Path("nobody.csr"))}, "use --name"},
		"a public key":  {IssueOptions{Request: &Request{PublicKey: fine.PublicKey}}, "use --name"},
		"a long name":   {IssueOptions{Request: fine, Name: strings.Repeat("n", 60)}, "at most 52"},
		"days":          {IssueOptions{Request: fine, Days: -1}, "for -1 days"},
		"the CA's key":  {IssueOptions{Request: loadRequest(t, p.Path("ca/ca.key")), Name: "x"}, "the key of the CA itself"},
		"no other":      {IssueOptions{Request: fine, Others: []string{p.Path("missing")}}, "missing"},
		"no such place": {IssueOptions{Request: fine, Out: p.Path("fine.key/new.crt")}, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.o.Out == "" {
				tt.o.Out = p.Path("out.crt")
			}
			_, err := ca.Issue(t.Context(), tt.o)
			checkError(t, err, tt.want)
			if after := tree(t, dir); !maps.Equal(before, after) {
				t.Errorf("it left %q", slices.Sorted(maps.Keys(after)))
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	testCA(t, dir)
	key, cert := filepath.Join(dir, "ca/ca.key"), filepath.Join(dir, "ca/ca.crt")
	leaf := filepath.Join(dir, "keys/signing")
	for _, tt := range []struct{ key, cert, want string }{
		{key, "", "name it by --ca-cert"},
		{key, leaf + ".crt", "is not for this key"},
		{leaf + ".key", leaf + ".crt", "no certificate of a CA"},
		{key, key, "no certificate in it"},
		{cert, cert, "the CA's key"},
		{key, cert + ".missing", "the CA's certificate"},
	} {
		_, err := Open(t.Context(), tt.key, tt.cert, keys.OpenOptions{}, time.Now())
		checkError(t, err, tt.want)
	}
	_, err := Open(t.Context(), key, cert, keys.OpenOptions{}, time.Now().AddDate(30, 0, 0))
	checkError(t, err, cert, "expired")

	// A chain: the certificate that fits the key is taken. Key and certificate in one
	// file need no other.
	chain := writeFile(t, filepath.Join(dir, "chain.pem"), []byte(tree(t, dir)["keys/signing.crt"][5:]+tree(t, dir)["ca/ca.crt"][5:]))
	both := writeFile(t, filepath.Join(dir, "both.pem"), []byte(tree(t, dir)["ca/ca.key"][5:]+tree(t, dir)["ca/ca.crt"][5:]))
	for _, tt := range []struct{ key, cert string }{{key, chain}, {both, ""}} {
		ca, err := Open(t.Context(), tt.key, tt.cert, keys.OpenOptions{}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if !ca.Certificate.IsCA {
			t.Errorf("%s: it takes %q", tt.key, ca.Certificate.Subject)
		}
	}
}

// The passphrase of a CA is asked for as such, and the error names its flags.
func TestThePassphraseOfACAIsAskedForAsSuch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := initKeys(t, InitOptions{Dir: filepath.Join(dir, "keys"), CADir: filepath.Join(dir, "ca"), Passphrase: []byte("of the key"), NewCAPassphrase: answer("of the CA", nil)})
	for _, path := range []string{r.CAKey, r.Signing[0].Key} {
		_, err := keys.Open(t.Context(), path, keys.OpenOptions{Passphrase: answer(map[bool]string{true: "of the CA", false: "of the key"}[path == r.CAKey], nil)})
		if err != nil {
			t.Error(err)
		}
	}
	var prompt string
	ask := func(p string) ([]byte, error) { prompt = p; return []byte("of the key"), nil }
	_, err := Open(t.Context(), r.CAKey, r.CACert, keys.OpenOptions{Passphrase: ask}, time.Now())
	checkError(t, err, "the CA's key", "wrong passphrase", "--ca-passphrase-file")
	if prompt != "(CA) Passphrase for "+r.CAKey+": " {
		t.Errorf("the prompt is %q", prompt)
	}
}

// withIdentifier makes a certificate of a new key with a subject key identifier that
// ends in id.
func withIdentifier(t testing.TB, id sign.KeyID) *x509.Certificate {
	t.Helper()
	generate, err := keyGenerator("p256")
	if err != nil {
		t.Fatal(err)
	}
	key, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	template := newTemplate("other", 1, time.Now())
	template.SubjectKeyId = []byte{1, 2, 3, byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)}
	cert, err := certify(template, key.Public(), template, key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestIssueWarnsOfACollisionAndOfTheEndOfTheCA(t *testing.T) {
	t.Parallel()
	need(t, "openssl")
	dir := t.TempDir()
	ca := testCA(t, dir)
	p := pki{Dir: dir}
	p.Key(t, "asked")
	request := loadRequest(t, p.Path("asked.key"))
	id, err := sign.KeyIDFromPublicKey(request.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	others, beside := p.Path("others"), p.Path("beside")
	for _, d := range []string{others, beside} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(d, "same.der"), withIdentifier(t, id).Raw)
		writeFile(t, filepath.Join(d, "another.der"), withIdentifier(t, id+1).Raw)
		writeFile(t, filepath.Join(d, "no-certificate.pem"), []byte("nothing"))
		if err := os.Mkdir(filepath.Join(d, "folder.crt"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	made, err := ca.Issue(t.Context(), IssueOptions{Request: request, Name: "x", Days: 365 * 30, Out: filepath.Join(beside, "new"), Others: []string{others, beside}})
	if err != nil {
		t.Fatal(err)
	}
	if len(made.Warnings) != 3 || !strings.Contains(made.Warnings[0], "valid longer than the certificate of its CA") ||
		!strings.HasPrefix(made.Warnings[1], beside+"/same.der: another key has the same key id "+id.String()) || !strings.HasPrefix(made.Warnings[2], others+"/same.der: ") {
		t.Errorf("the warnings are %q", made.Warnings)
	}
	// The same key once more is no collision.
	if again, err := ca.Issue(t.Context(), IssueOptions{Request: request, Name: "x", Out: p.Path("again/new")}); err != nil || len(again.Warnings) != 0 {
		t.Errorf("%v, %v", again, err)
	}
	again, err := ca.Issue(t.Context(), IssueOptions{Request: request, Name: "x", Out: p.Path("again/newer")})
	if err != nil || len(again.Warnings) != 0 {
		t.Errorf("%v, %v", again, err)
	}
}
