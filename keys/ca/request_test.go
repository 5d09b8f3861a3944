package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/keys/remote"
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
		if !publicKey(t, "../../testdata/private/"+tt.key+".pub").Equal(r.PublicKey) {
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
		key, err := keys.Open(t.Context(), "../testdata/private/"+name, keys.OpenOptions{})
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

func TestMakeRequestMakesAKey(t *testing.T) {
	t.Parallel()
	need(t, "openssl")
	dir := t.TempDir()
	o := RequestOptions{NewKey: filepath.Join(dir, "keys/next.key"), Out: filepath.Join(dir, "out/next.csr"), Type: "p521", Passphrase: []byte(testPassphrase)}
	if err := MakeRequest(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	key, err := keys.Open(t.Context(), o.NewKey, keys.OpenOptions{Passphrase: answer(testPassphrase, nil)})
	if err != nil {
		t.Fatal(err)
	}
	r := loadRequest(t, o.Out)
	if !r.PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) || typeOf(r.PublicKey) != "p521" {
		t.Errorf("the request is for a key of type %s, or for another", typeOf(r.PublicKey))
	}
	runOpenSSL(t, "req", "-in", o.Out, "-noout", "-verify")
	before := tree(t, dir)
	if !strings.HasPrefix(before["keys/next.key"], "0600 -----BEGIN ENCRYPTED") || len(before) != 4 {
		t.Errorf("%q are there", slices.Sorted(maps.Keys(before)))
	}
	for want, change := range map[string]func(o *RequestOptions){
		"next.key is there already":   func(o *RequestOptions) { o.Out += "2" },
		"next.csr is there already":   func(o *RequestOptions) { o.NewKey += "2" },
		"unknown type of key \"dsa\"": func(o *RequestOptions) { o.NewKey, o.Out, o.Type = o.NewKey+"2", o.Out+"2", "dsa" },
		"not a directory":             func(o *RequestOptions) { o.NewKey, o.Out = o.NewKey+"2", o.Out+"/below" },
	} {
		o := o
		change(&o)
		checkError(t, MakeRequest(t.Context(), o), want)
		if after := tree(t, dir); !maps.Equal(before, after) {
			t.Errorf("%s: it left %q", want, slices.Sorted(maps.Keys(after)))
		}
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
	key, err := keys.Open(t.Context(), "../testdata/private/p256-pkcs8.pem", keys.OpenOptions{})
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

// A key of a service that is tied to SHA-512 certifies and asks for a certificate by it.
func TestAKeyThatSignsByOneHash(t *testing.T) {
	t.Parallel()
	file, err := keys.Open(t.Context(), "../testdata/private/rsa-pkcs8.pem", keys.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tied := func(to crypto.Hash) *keys.Key {
		sign := func(_ context.Context, batch []remote.Digest) ([]remote.Result, error) {
			var r remote.Result
			if batch[0].Hash != to {
				r.Err = errors.New("it signs no such hash")
			} else {
				r.Signature, r.Err = file.Sign(nil, batch[0].Sum, to)
			}
			return []remote.Result{r}, nil
		}
		s := remote.NewSigner(t.Context(), file.Public(), sign, remote.Options{Name: "kms", Batch: 1})
		t.Cleanup(func() { s.Close() })
		return &keys.Key{Signer: s}
	}
	out := filepath.Join(t.TempDir(), "csr")
	if err := MakeRequest(t.Context(), RequestOptions{Key: tied(crypto.SHA512), Out: out}); err != nil {
		t.Fatal(err)
	}
	if csr, err := os.ReadFile(out); err != nil {
		t.Fatal(err)
	} else if block, _ := pem.Decode(csr); !bytes.Contains(block.Bytes, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13}) {
		t.Error("the request is not signed by sha512WithRSAEncryption")
	}
	if r := loadRequest(t, out); !keys.Same(r.PublicKey, file.Public()) {
		t.Error("it is for another key")
	}
	cert, err := newCACertificate(tied(crypto.SHA512), newTemplate("x CA", 1, testTime))
	if err != nil || cert.SignatureAlgorithm != x509.SHA512WithRSA {
		t.Errorf("the certificate of a CA: %v", err)
	}
	// What is told is what the service said of the hash that it was asked for first.
	err = MakeRequest(t.Context(), RequestOptions{Key: tied(crypto.SHA384), Out: out + "2"})
	checkError(t, err, "making the certificate request", "kms: it signs no such hash")
}
