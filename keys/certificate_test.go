package keys

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLoadCertificates(t *testing.T) {
	one := string(readTestdata(t, "certificates/one.crt"))
	two := string(readTestdata(t, "certificates/two.crt"))
	key := string(readTestdata(t, "private/p256-pkcs8.pem"))
	tests := []struct {
		name string
		file string // in testdata; its content if text is empty
		text string
		want string // common names, or
		err  string
	}{
		{name: "PEM", file: "certificates/one.crt", want: "one"},
		{name: "DER", file: "certificates/one.der", want: "one"},
		{name: "several, with openssl's text between", file: "certificates/both-with-text.crt", want: "one two"},
		{name: "beside a private key", text: key + two, want: "two"},
		{name: "lines of DOS", text: strings.ReplaceAll(one+two, "\n", "\r\n"), want: "one two"},
		{name: "the old name of the block", text: strings.ReplaceAll(one, " CERTIFICATE", " X509 CERTIFICATE"), want: "one"},
		{name: "a private key only", text: key, err: `no certificate in it, only PEM of type ["PRIVATE KEY"]`},
		{name: "an encrypted key in DER", file: "private/p256-encrypted.der", err: "neither PEM nor DER"},
		{name: "nothing", text: "\n", err: "neither PEM nor DER"},
		{name: "PEM that is cut", text: one[:200], err: "only 0 of the 1 certificates"},
		{name: "the second is cut", text: one + two[:200], err: "only 1 of the 2 certificates"},
		{name: "the first is cut", text: one[:200] + "\n" + two, err: "only 1 of the 2 certificates"},
		{name: "the second is no certificate", text: one + strings.ReplaceAll(key, "PRIVATE KEY", "CERTIFICATE"), err: "certificate 2:"},
		{name: "DER that is cut", text: string(readTestdata(t, "certificates/one.der")[:200]), err: "neither PEM nor DER"},
		{name: "bytes after the DER", text: string(readTestdata(t, "certificates/one.der")) + "x", err: "neither PEM nor DER"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join("testdata", tt.file)
			if tt.text != "" {
				path = writeFile(t, filepath.Join(t.TempDir(), "file"), []byte(tt.text))
			}
			certs, err := LoadCertificates(path)
			if tt.err != "" {
				checkError(t, err, path, tt.err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, cert := range certs {
				names = append(names, cert.Subject.CommonName)
			}
			if got := strings.Join(names, " "); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
	_, err := LoadCertificates("testdata/missing")
	checkError(t, err, "testdata/missing")
}

// Verification takes the longer the larger the key is.
func TestACertificateWithAHugeRSAKeyIsRefused(t *testing.T) {
	ca, err := Open(context.Background(), "testdata/private/p256-pkcs8.pem", OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for bits, fine := range map[uint]bool{MaxRSABits: true, MaxRSABits + 8: false} {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		pub := &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: 65537}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "huge"}}
		der, err := x509.CreateCertificate(nil, template, template, pub, ca.Signer)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = ParseCertificates(der); fine && err != nil {
			t.Error(err)
		} else if !fine {
			checkError(t, err, "16392 bits")
		}
	}
}

func TestMatch(t *testing.T) {
	one := loadCertificate(t, "testdata/certificates/one.crt")
	for name, fits := range map[string]bool{"p256-pkcs8.pem": true, "ecparam.pem": false, "rsa-pkcs8.pem": false} {
		key, err := Open(context.Background(), "testdata/private/"+name, OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := Match(one, key.Public()); fits && err != nil {
			t.Error(err)
		} else if !fits {
			checkError(t, err, "CN=one", "not for this key")
		}
	}
}

func TestCheckValidity(t *testing.T) {
	cert := loadCertificate(t, "testdata/certificates/one.crt")
	for _, tt := range []struct {
		when time.Time
		want string
	}{
		{cert.NotBefore, ""},
		{cert.NotAfter, ""},
		{cert.NotBefore.Add(-time.Second), "valid only from " + cert.NotBefore.Format(time.RFC3339)},
		{cert.NotAfter.Add(time.Second), "expired on " + cert.NotAfter.Format(time.RFC3339)},
	} {
		if err := CheckValidity(cert, tt.when); tt.want == "" && err != nil {
			t.Error(err)
		} else if tt.want != "" {
			checkError(t, err, tt.want)
		}
	}
}

func TestChainsToIsTheKernelsRule(t *testing.T) {
	t.Parallel()
	need(t, "openssl")
	p := pki{Dir: t.TempDir()}
	ca := p.Issue(t, "ca", "/CN=CA", "ca", caExtensions)
	p.Issue(t, "other-ca", "/CN=Other CA", "other-ca", caExtensions)
	p.Issue(t, "impostor", "/CN=CA", "impostor", caExtensions)
	p.Issue(t, "no-skid", "/CN=CA without", "no-skid", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=none\n")
	p.Issue(t, "no-ca", "/CN=No CA", "no-ca", "keyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n")
	p.Issue(t, "ca-false", "/CN=False CA", "ca-false", "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n")
	p.Issue(t, "ca-signs-data", "/CN=Data CA", "ca-signs-data", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,digitalSignature\nsubjectKeyIdentifier=hash\n")
	p.Issue(t, "ca-any-usage", "/CN=CA of any usage", "ca-any-usage", "basicConstraints=CA:TRUE\nsubjectKeyIdentifier=hash\n")
	p.Issue(t, "middle", "/CN=Middle", "ca", caExtensions+"authorityKeyIdentifier=keyid\n")
	// The same CA with another serial number, as a renewal makes it.
	if err := os.Link(p.Path("ca.key"), p.Path("renewed.key")); err != nil {
		t.Fatal(err)
	}
	p.Issue(t, "renewed", "/CN=CA", "renewed", caExtensions)

	tests := []struct {
		name       string
		issuer     string
		extensions string
		cas        string // "" for the issuer
		more       []string
		want       string // "" where the kernel takes it
	}{
		{name: "as keys init makes it", issuer: "ca", extensions: leafExtensions},
		{name: "the second CA of two", issuer: "ca", extensions: leafExtensions, cas: "other-ca ca"},
		{name: "an impostor stands first", issuer: "ca", extensions: leafExtensions, cas: "impostor ca"},
		{name: "no authority key identifier", issuer: "ca", extensions: "keyUsage=digitalSignature\n"},
		{name: "no subject key identifier", issuer: "ca", extensions: "keyUsage=digitalSignature\nsubjectKeyIdentifier=none\nauthorityKeyIdentifier=keyid\n"},
		{name: "more uses", issuer: "ca", extensions: "keyUsage=digitalSignature,nonRepudiation\nextendedKeyUsage=codeSigning\n"},
		{name: "CA:FALSE", issuer: "ca", extensions: leafExtensions + "basicConstraints=CA:FALSE\n"},
		{name: "issued by a CA without a key usage", issuer: "ca-any-usage", extensions: leafExtensions},
		{name: "issued by a CA below", issuer: "middle", extensions: leafExtensions},
		{name: "serial number of the issuer", issuer: "ca", extensions: leafExtensions[:strings.Index(leafExtensions, "auth")] + "authorityKeyIdentifier=keyid:always,issuer:always\n"},
		{name: "a renewed CA of the same key", issuer: "ca", extensions: leafExtensions, cas: "renewed"},
		{name: "no identifier, and the CA has none", issuer: "no-skid", extensions: "keyUsage=digitalSignature\nauthorityKeyIdentifier=none\n"},

		{name: "no key usage", issuer: "ca", extensions: "subjectKeyIdentifier=hash\n", want: "not for digital signatures"},
		{name: "another key usage", issuer: "ca", extensions: "keyUsage=keyEncipherment\n", want: "not for digital signatures"},
		{name: "CA:TRUE", issuer: "ca", extensions: leafExtensions + "basicConstraints=CA:TRUE\n", want: "is that of a CA"},
		{name: "keyCertSign too", issuer: "ca", extensions: "keyUsage=digitalSignature,keyCertSign\n", want: "is that of a CA"},
		{name: "another CA", issuer: "ca", extensions: leafExtensions, cas: "other-ca", want: "none of the CAs given"},
		{name: "no CA at all", issuer: "ca", extensions: leafExtensions, cas: "-", want: "none of the CAs given"},
		{name: "an impostor", issuer: "ca", extensions: leafExtensions, cas: "impostor", want: "another certificate of CA"},
		{name: "an impostor, no identifier", issuer: "ca", extensions: "keyUsage=digitalSignature\nauthorityKeyIdentifier=none\n", cas: "impostor", want: "is bad"},
		{name: "the CA above is not enough", issuer: "middle", extensions: leafExtensions, cas: "ca", want: "none of the CAs given"},
		{name: "a renewed CA, named by serial number", issuer: "ca", extensions: leafExtensions[:strings.Index(leafExtensions, "auth")] + "authorityKeyIdentifier=keyid:always,issuer:always\n", cas: "renewed", want: "another certificate of CA"},
		{name: "the issuer is no CA", issuer: "no-ca", extensions: "keyUsage=digitalSignature\n", want: "is not that of a CA"},
		{name: "the issuer is CA:FALSE", issuer: "ca-false", extensions: "keyUsage=digitalSignature\n", want: "is not that of a CA"},
		{name: "the issuer may not issue", issuer: "ca-signs-data", extensions: "keyUsage=digitalSignature\n", want: "is not that of a CA"},
		{name: "SHA-1", issuer: "ca", extensions: leafExtensions, more: []string{"-sha1"}, want: "insecure algorithm"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cert := p.Issue(t, "leaf", "/CN=leaf", tt.issuer, tt.extensions, tt.more...)
			var cas []*x509.Certificate
			if tt.cas == "" {
				tt.cas = tt.issuer
			}
			for _, name := range strings.Fields(strings.Trim(tt.cas, "-")) {
				cas = append(cas, loadCertificate(t, p.Path(name+".crt")))
			}
			if strings.Contains(tt.cas, "other-ca ca") && len(cas) != 2 {
				t.Fatal("the CAs were not found")
			}
			if err := ChainsTo(cert, cas); tt.want == "" && err != nil {
				t.Errorf("refused: %v\n%s", err, runOpenSSL(t, "x509", "-in", p.Path("leaf.crt"), "-noout", "-text"))
			} else if tt.want != "" {
				checkError(t, err, tt.want)
			}
		})
	}

	t.Run("a bit of the certificate is flipped", func(t *testing.T) {
		der := bytes.Clone(p.Issue(t, "leaf", "/CN=leaf", "ca", leafExtensions).Raw)
		i := bytes.LastIndex(der, []byte("leaf"))
		der[i] ^= 0x20
		certs, err := ParseCertificates(der)
		if err != nil {
			t.Fatal(err)
		}
		checkError(t, ChainsTo(certs[0], []*x509.Certificate{ca}), "is bad")
	})
	// The kernel finds the CA by the identifier, so one that has none is not found.
	t.Run("an identifier, and the CA has none", func(t *testing.T) {
		without := loadCertificate(t, p.Path("no-skid.crt"))
		cert := *p.Issue(t, "leaf", "/CN=leaf", "no-skid", "keyUsage=digitalSignature\nauthorityKeyIdentifier=none\n")
		cert.Extensions = append(cert.Extensions, pkix.Extension{Id: oidAuthorityKeyID, Value: []byte{0x30, 3, 0x80, 1, 7}})
		checkError(t, ChainsTo(&cert, []*x509.Certificate{without}), "another certificate of CA")
	})
}

func TestKeyIDIsThatOfEvmctl(t *testing.T) {
	for _, name := range []string{"p256-pkcs8.pem", "rsa-pkcs8.pem"} {
		key, err := Open(context.Background(), "testdata/private/"+name, OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := evmctlKeyID(t, "-k", "testdata/private/"+name)
		id, warning, err := KeyID(nil, key.Public())
		if err != nil || id != want || warning != "" {
			t.Errorf("%s: %s, %q, %v; evmctl says %s", name, id, warning, err, want)
		}
	}
}

func TestKeyIDIsTheCertificates(t *testing.T) {
	t.Parallel()
	need(t, "openssl", "evmctl")
	p := pki{Dir: t.TempDir()}
	p.Key(t, "leaf")
	computed := evmctlKeyID(t, "-k", p.Path("leaf.key"))
	for _, tt := range []struct{ name, extensions string }{
		{"the computed identifier", "subjectKeyIdentifier=hash\n"},
		{"no identifier", "subjectKeyIdentifier=none\nkeyUsage=digitalSignature\n"},
		{"an identifier of its own", "subjectKeyIdentifier=01:02:03:04:05:06:07:08\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cert := p.Issue(t, "leaf", "/CN=leaf", "leaf", tt.extensions)
			want := computed
			if strings.Contains(tt.extensions, "01:") {
				// It wants DER, and reads the identifier from it.
				der := writeFile(t, p.Path("leaf.der"), cert.Raw)
				if want = evmctlKeyID(t, "-k", p.Path("leaf.key"), "--keyid-from-cert", der); want != 0x05060708 {
					t.Fatalf("evmctl finds %s", want)
				}
			}
			id, warning, err := KeyID(cert, cert.PublicKey)
			if err != nil || id != want {
				t.Errorf("%s, %v; want %s", id, err, want)
			}
			differs, none := want != computed, strings.Contains(tt.extensions, "none")
			if (differs || none) != (warning != "") || none && !strings.Contains(warning, "no subject key identifier") {
				t.Errorf("the warning is %q", warning)
			} else if differs && (!strings.Contains(warning, "05060708") || !strings.Contains(warning, computed.String())) {
				t.Errorf("the warning names not both: %q", warning)
			}
		})
	}
}
