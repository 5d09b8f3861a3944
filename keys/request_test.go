package keys

import (
	"crypto"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLoadRequestReadsWhatOpenSSLWrites(t *testing.T) {
	for name, tt := range map[string]struct{ key, subject, ignored string }{
		"p256.csr":       {"p256", "CN=one", ""},
		"p256.csr.der":   {"p256", "CN=one", ""},
		"rsa-sha1.csr":   {"rsa", "CN=two,O=Team", ""},
		"extensions.csr": {"p256", "CN=three", "basicConstraints keyUsage subjectKeyIdentifier"},
		"p256.pub":       {"p256", "", ""},
		"p256.pub.der":   {"p256", "", ""},
		"rsa-pkcs1.pub":  {"rsa", "", ""},
	} {
		r := loadRequest(t, "testdata/requests/"+name)
		if !publicKey(t, "private/"+tt.key+".pub").Equal(r.PublicKey) {
			t.Errorf("%s: this is another key", name)
		}
		template := newTemplate("", 1, testTime)
		if tt.subject == "" && r.RawSubject != nil {
			t.Errorf("%s: a public key has the subject %x", name, r.RawSubject)
		} else if tt.subject != "" {
			if err := useSubject(template, r.RawSubject); err != nil || template.Subject.String() != tt.subject {
				t.Errorf("%s: the subject is %q, %v", name, template.Subject, err)
			}
		}
		if got := strings.Join(r.Ignored, " "); got != tt.ignored {
			t.Errorf("%s: ignored is %q", name, got)
		}
	}
	files, err := os.ReadDir("testdata/requests")
	if err != nil || len(files) != 7 {
		t.Errorf("%d files, %v", len(files), err)
	}
}

func TestMakeRequest(t *testing.T) {
	t.Parallel()
	need(t, "openssl")
	dir := t.TempDir()
	for _, name := range []string{"p256-pkcs8.pem", "rsa-pkcs8.pem"} {
		key, err := Open(t.Context(), "testdata/private/"+name, OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(dir, "new", name+".csr")
		o := RequestOptions{Key: key, Name: "Release 3", Out: out}
		if err := MakeRequest(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		text := runOpenSSL(t, "req", "-in", out, "-noout", "-verify", "-text", "-subject")
		for _, want := range []string{"verify OK", "CN = Release 3 signing key"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
		if r := loadRequest(t, out); !r.PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
			t.Error("it is for another key")
		}
		checkError(t, MakeRequest(t.Context(), o), out, "is not overwritten")
		o.Name = "a\nb"
		checkError(t, MakeRequest(t.Context(), o), "cannot be the name")
	}
}

// A wrongSigner answers with what is no signature of its key, as a broken service
// does.
type wrongSigner struct{ crypto.Signer }

func (w wrongSigner) Sign(rand io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	digest[0] ^= 1
	return w.Signer.Sign(rand, digest, o)
}

func TestAWrongSignatureIsNoticed(t *testing.T) {
	t.Parallel()
	key, err := Open(t.Context(), "testdata/private/p256-pkcs8.pem", OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	key.Signer = wrongSigner{key.Signer}
	out := filepath.Join(t.TempDir(), "csr")
	checkError(t, MakeRequest(t.Context(), RequestOptions{Key: key, Out: out}), "making the certificate request", "signature")
	if _, err := os.Stat(out); err == nil {
		t.Error("it was written all the same")
	}
	ca := testCA(t, t.TempDir())
	ca.key.Signer = wrongSigner{ca.key.Signer}
	_, err = ca.Issue(t.Context(), IssueOptions{Request: loadRequest(t, "testdata/requests/p256.csr"), Out: out})
	checkError(t, err, "making the certificate", "signature")
	if _, err := os.Stat(out + ".crt"); err == nil {
		t.Error("it was written all the same")
	}
}
