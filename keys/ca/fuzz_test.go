package ca

import (
	"bytes"
	"crypto/x509"
	"testing"
)

// FuzzRequest looks for certificate requests and public keys that do harm. What is
// accepted gets a certificate that says nothing but its key and its name.
func FuzzRequest(f *testing.F) {
	seed(f, "../../testdata/private", "requests")
	ca := testCA(f, f.TempDir())
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := parseRequest(bytes.Clone(raw))
		if r == nil || err != nil {
			return
		}
		template := newTemplate("x", 1, testTime)
		if len(r.RawSubject) > 0 {
			if err := useSubject(template, r.RawSubject); err != nil {
				t.Fatal(err)
			}
		}
		cert, err := ca.issue(r.PublicKey, template)
		if err != nil {
			return // such as a curve that Go parses and kernels do not take
		}
		if len(cert.Extensions) != 3 || cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature {
			t.Errorf("the certificate says %v", cert.Extensions)
		}
		if len(r.RawSubject) > 0 && !bytes.Equal(cert.RawSubject, r.RawSubject) {
			t.Errorf("its subject is %x, not %x", cert.RawSubject, r.RawSubject)
		}
	})
}
