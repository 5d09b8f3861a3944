package sign_test

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"os/exec"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

func TestKeyIDIsThatOfEvmctl(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range vectors(t) {
		id, err := sign.KeyIDFromPublicKey(testKey(t, v.key).Public())
		if err != nil || id.String() != hex.EncodeToString(v.value[3:7]) {
			t.Errorf("%s: key id %s, %v; evmctl's is %x", v.key, id, err, v.value[3:7])
		}
		seen[v.key] = true
	}
	if len(seen) != 3 {
		t.Error("keys are missing")
	}
}

func TestSubjectKeyIDIsThatOfOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	for _, name := range []string{"rsa2048", "p256", "p384"} {
		key := testKey(t, name)
		der, err := exec.Command("openssl", "req", "-new", "-x509", "-key", "testdata/"+name+".pem", "-subj", "/CN=x", "-outform", "DER").Output()
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		skid, err := sign.SubjectKeyID(key.Public())
		if err != nil || !bytes.Equal(skid, cert.SubjectKeyId) {
			t.Errorf("%s: %x, %v; openssl's is %x", name, skid, err, cert.SubjectKeyId)
		}
		ofCert, err := sign.KeyIDFromCertificate(cert)
		if err != nil || ofCert.String() != hex.EncodeToString(skid[16:]) {
			t.Errorf("%s: key id of the certificate is %s, %v", name, ofCert, err)
		}
		cert.SubjectKeyId = []byte{9, 1, 2, 3, 4}
		if id, _ := sign.KeyIDFromCertificate(cert); id != 0x01020304 {
			t.Errorf("%s: the certificate's own identifier is not taken: %s", name, id)
		}
		cert.SubjectKeyId = nil
		if id, _ := sign.KeyIDFromCertificate(cert); id != ofCert {
			t.Errorf("%s: without an identifier: %s", name, id)
		}
	}
}

func TestParseKeyID(t *testing.T) {
	for text, want := range map[string]sign.KeyID{"0": 0, "ab": 0xab, "0xDEADBEEF": 0xdeadbeef, "0Xdeadbeef": 0xdeadbeef, "00000001": 1} {
		if id, err := sign.ParseKeyID(text); err != nil || id != want {
			t.Errorf("%q: %v, %v", text, id, err)
		}
	}
	for _, text := range []string{"", "0x", "x", "-1", "+1", "1_0", "123456789", "deadbeef ", "0x0x1"} {
		if id, err := sign.ParseKeyID(text); err == nil {
			t.Errorf("%q is taken for %v", text, id)
		}
	}
	if s := sign.KeyID(0xab).String(); s != "000000ab" {
		t.Error(s)
	}
}
