//go:build pkcs11 && cgo

package pkcs11

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"math/big"
	"os"
	"strings"
	"sync"
	"testing"

	p11 "github.com/miekg/pkcs11"
)

// verifies reports whether sig is one over digest.
func verifies(pub crypto.PublicKey, h crypto.Hash, digest, sig []byte) bool {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(pub, h, digest, sig) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(pub, digest, sig)
	}
	return false
}

func digestOf(h crypto.Hash, n int) []byte {
	w := h.New()
	binary.Write(w, binary.BigEndian, int64(n))
	return w.Sum(nil)
}

var bigOne = big.NewInt(1)

var hashes = []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}

// TestSign makes signatures with every kind of key and every hash, and has Go verify.
func TestSign(t *testing.T) {
	h := newHSM(t, "release")
	for i, kind := range []string{"rsa:2048", "EC:prime256v1", "EC:secp384r1", "EC:secp521r1"} {
		t.Run(kind, func(t *testing.T) {
			id := fmt.Sprintf("%02x", i+1)
			h.generate("release", kind, kind, id)
			k := h.open("token=release;id=%"+id, h.options())
			for _, hash := range hashes {
				for n := range 3 {
					digest := digestOf(hash, n)
					sig, err := k.Sign(rand.Reader, digest, hash)
					if err != nil {
						t.Fatal(err)
					}
					if !verifies(k.Public(), hash, digest, sig) {
						t.Errorf("%v: the signature does not verify", hash)
					}
				}
			}
			if _, err := k.Sign(rand.Reader, make([]byte, 20), crypto.SHA1); err == nil {
				t.Error("a SHA-1 digest was signed")
			}
			if _, err := k.Sign(rand.Reader, make([]byte, 31), crypto.SHA256); err == nil {
				t.Error("a digest that is too short was signed")
			}
			if _, err := k.Sign(rand.Reader, make([]byte, 32), &rsa.PSSOptions{Hash: crypto.SHA256}); err == nil {
				t.Error("PSS was taken for PKCS #1 v1.5")
			}
			// What a CA does with a key.
			template := &x509.Certificate{SerialNumber: bigOne, IsCA: true, BasicConstraintsValid: true}
			if _, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k); err != nil {
				t.Errorf("a certificate: %v", err)
			}
		})
	}
}

// TestTokenAndFile: a token makes, of an RSA key, the very bytes that Go makes of the
// file that was imported.
func TestTokenAndFile(t *testing.T) {
	h := newHSM(t, "release")
	file, _ := h.certificate("rsa", 1, "-newkey", "rsa:2048")
	h.run("softhsm2-util", "--import", file, "--token", "release", "--label", "imported", "--id", "A1", "--pin", testPIN)
	k := h.open("token=release;object=imported", h.options())
	own := readKey(t, file).(*rsa.PrivateKey)
	for _, hash := range hashes {
		digest := digestOf(hash, 1)
		token, err := k.Sign(rand.Reader, digest, hash)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := own.Sign(nil, digest, hash)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(token, ours) {
			t.Errorf("%v: the token and the file make different signatures", hash)
		}
	}
}

// TestTenThousand makes 10,000 signatures through parallel sessions and verifies all.
func TestTenThousand(t *testing.T) {
	h := newHSM(t, "release")
	h.generate("release", "EC:prime256v1", "many", "01")
	o := h.options()
	o.Sessions = 8
	k := h.open("token=release;object=many", o)
	if k.Sessions != 8 {
		t.Fatalf("%d sessions", k.Sessions)
	}
	const n = 10000
	var wait sync.WaitGroup
	for worker := range 16 { // more than there are sessions
		wait.Go(func() {
			for i := worker; i < n; i += 16 {
				digest := digestOf(crypto.SHA256, i)
				sig, err := k.Sign(nil, digest, crypto.SHA256)
				if err != nil || !verifies(k.Public(), crypto.SHA256, digest, sig) {
					t.Errorf("signature %d: %v", i, err)
					return
				}
			}
		})
	}
	wait.Wait()
	if opened, logins := h.spy.count("OpenSession"), h.spy.count("Login"); opened < 2 || opened > 8 || logins != 1 {
		t.Errorf("%d sessions were opened, and there were %d logins", opened, logins)
	}
	if signed := h.spy.count("Sign"); signed != n {
		t.Errorf("%d signatures were asked for", signed)
	}
}

// TestWhichToken has several tokens, and keys of the same name.
func TestWhichToken(t *testing.T) {
	h := newHSM(t, "one", "two", "with space;and%")
	for _, token := range []string{"one", "two"} {
		h.generate(token, "EC:prime256v1", "same", "01")
	}
	h.generate("two", "EC:prime256v1", "same", "02")
	h.generate("with space;and%", "EC:prime256v1", "other key", "0a0b")
	k := h.open("token=one", h.options())
	serial := k.Signer.(*signer).token.SerialNumber
	slot := k.Signer.(*signer).token.slot
	for _, path := range []string{
		"serial=" + serial, fmt.Sprintf("slot-id=%d", slot), "token=one;object=same", "token=one;id=%01;type=private",
		"token=one;manufacturer=SoftHSM%20project;model=SoftHSM%20v2", "token=one;library-manufacturer=SoftHSM;library-version=2",
		"token=one;slot-manufacturer=SoftHSM%20project",
	} {
		same := h.open(path, h.options())
		if !k.Public().(*ecdsa.PublicKey).Equal(same.Public()) {
			t.Errorf("%s is another key", path)
		}
	}
	h.open("token=with%20space%3Band%25;object=other%20key;id=%0a%0b", h.options())

	for _, test := range []struct {
		path  string
		wants []string // in the error
	}{
		{"object=same", []string{"more than one token matches", "token=one", "token=two", "serial=" + serial}},
		{"token=two;object=same", []string{`token "two"`, "more than one private key matches", "id=%01;object=same", "id=%02;object=same"}},
		{"token=two", []string{"more than one private key matches"}},
		{"token=three", []string{"no token matches", "token=one", "token=two", "token=with%20space%3Band%25", "in slot"}},
		{"token=one;library-version=9", []string{"no token matches"}},
		{"token=one;slot-description=nowhere", []string{"no token matches"}},
		{"token=one;object=missing", []string{"has no private key pkcs11:object=missing", "id=%01;object=same;type=private", "type=public"}},
		{"token=one;id=01", []string{"has no private key", "percent sign"}},
		{"token=one;type=cert", []string{"a private key is needed"}},
	} {
		_, err := Open(context.Background(), h.uri(test.path), h.options())
		if err == nil {
			t.Errorf("%s was opened", test.path)
			continue
		}
		for _, want := range test.wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is missing: %v", test.path, want, err)
			}
		}
		if strings.Contains(err.Error(), testPIN) {
			t.Errorf("%s: the error holds the PIN: %v", test.path, err)
		}
	}
}

// TestTwoKeys: the keys of a token share one login, whichever is closed first.
func TestTwoKeys(t *testing.T) {
	h := newHSM(t, "release")
	h.generate("release", "EC:prime256v1", "a", "01")
	h.generate("release", "rsa:2048", "b", "02")
	var pin []byte
	asked := 0
	o := Options{PIN: func(string) ([]byte, error) { asked++; pin = []byte(testPIN); return pin, nil }}
	open := func(label string) *Key {
		k, err := Open(context.Background(), h.uri("token=release;object="+label), o)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	a, b := open("a"), open("b")
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.Sign(nil, make([]byte, 32), crypto.SHA256); err != nil {
		t.Error(err)
	}
	if asked != 1 || h.spy.logins != 1 || !bytes.Equal(pin, []byte(testPIN)) {
		t.Errorf("asked %d times, %d logins", asked, h.spy.logins)
	}
	for range 2 { // the second time does nothing
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := b.Sign(nil, make([]byte, 32), crypto.SHA256); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("a closed key: %v", err)
	}
	if !bytes.Equal(pin, make([]byte, len(testPIN))) {
		t.Error("the PIN is still in memory")
	}
	if a = open("a"); asked != 2 {
		t.Error("the PIN outlived the keys")
	}
	a.Close()
}

// TestCertificates: that of the key is the one with its id and its public key, of
// several the one that expires last.
func TestCertificates(t *testing.T) {
	h := newHSM(t, "release", "empty")
	key, first := h.certificate("first", 10, "-newkey", "rsa:2048")
	h.run("openssl", "req", "-x509", "-key", key, "-subj", "/CN=renewed", "-days", "20", "-outform", "DER", "-out", h.path("renewed.der"))
	_, stranger := h.certificate("stranger", 30, "-newkey", "rsa:2048")
	h.run("softhsm2-util", "--import", key, "--token", "release", "--label", "key", "--id", "01", "--pin", testPIN)
	o := h.options()
	if k := h.open("token=release;object=key", o); k.Certificate != nil {
		t.Errorf("there is none yet: %v", k.Certificate.Subject)
	}
	if _, err := Certificates(context.Background(), h.uri("token=release"), o); err == nil || !strings.Contains(err.Error(), "has no certificate") {
		t.Error(err)
	}
	h.put("release", "cert", first, "first", "01")
	h.put("release", "cert", h.path("renewed.der"), "renewed", "01")
	h.put("release", "cert", stranger, "stranger", "01")
	if k := h.open("token=release;object=key", o); k.Certificate == nil || k.Certificate.Subject.CommonName != "renewed" {
		t.Errorf("%v", k.Certificate)
	}
	h.spy.set(func() { h.spy.logins = 0 })
	certs, err := Certificates(context.Background(), h.uri("token=release;object=first"), Options{})
	if err != nil || len(certs) != 1 || certs[0].Subject.CommonName != "first" || h.spy.logins != 0 {
		t.Errorf("%v, %v, %d logins", certs, err, h.spy.logins)
	}
	for path, want := range map[string]string{
		"token=release;id=%01":                 "more than one certificate matches pkcs11:id=%01",
		"token=release;type=private":           "a certificate is needed",
		"token=release;object=missing":         "object=stranger;type=cert",
		"token=empty":                          "has no certificate",
		"token=nobody":                         "no token matches",
		"token=release;object=first;object=xx": "given twice",
	} {
		if _, err := Certificates(context.Background(), h.uri(path), Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	h.spy.set(func() {
		h.spy.value = func(attribute uint, got []byte) []byte {
			if attribute == p11.CKA_VALUE && len(got) > 100 {
				return got[:100]
			}
			return got
		}
	})
	if _, err := Certificates(context.Background(), h.uri("token=release;object=first"), Options{}); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("a truncated certificate: %v", err)
	}
}

// TestPublicKey: where there is no public key object, the private key or a certificate
// tells.
func TestPublicKey(t *testing.T) {
	h := newHSM(t, "release")
	for label, id := range map[string]string{"rsa": "01", "ec": "02", "ec-cert": "03", "ec-none": "04"} {
		newkey := []string{"-newkey", "rsa:2048"}
		if label != "rsa" {
			newkey = []string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"}
		}
		key, cert := h.certificate(label, 1, newkey...)
		h.run("softhsm2-util", "--import", key, "--token", "release", "--label", label, "--id", id, "--pin", testPIN)
		if label != "ec" {
			h.tool("release", "--delete-object", "--type", "pubkey", "--id", id)
		}
		if label == "ec-cert" {
			h.put("release", "cert", cert, label, id)
		}
		if label == "ec-none" {
			_, err := Open(context.Background(), h.uri("token=release;object=ec-none"), h.options())
			if err == nil || !strings.Contains(err.Error(), "does not tell the public key of id=%04;object=ec-none;type=private") {
				t.Error(err)
			}
			continue
		}
		k := h.open("token=release;object="+label, h.options())
		own := readKey(t, key).(crypto.Signer).Public().(interface{ Equal(crypto.PublicKey) bool })
		if !own.Equal(k.Public()) {
			t.Errorf("%s: another public key", label)
		}
		if sig, err := k.Sign(nil, digestOf(crypto.SHA384, 1), crypto.SHA384); err != nil || !verifies(k.Public(), crypto.SHA384, digestOf(crypto.SHA384, 1), sig) {
			t.Errorf("%s: %v", label, err)
		}
	}
}

// TestModules: what can be wrong about the module itself.
func TestModules(t *testing.T) {
	h := newHSM(t, "release")
	h.generate("release", "EC:prime256v1", "key", "01")
	text := h.path("text.so")
	if err := os.WriteFile(text, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	for module, want := range map[string]string{
		"module-path=" + text:                     "cannot be loaded",
		"module-path=" + h.path("missing.so"):     "no such file",
		"module-path=" + h.dir:                    "name the module in it by module-name",
		"module-name=nowhere":                     "is in none of",
		"module-path=" + h.dir + "&module-name=a": "is in none of " + h.dir,
	} {
		_, err := Open(context.Background(), "pkcs11:token=release?"+module, h.options())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", module, err)
		}
	}
	k, err := Open(context.Background(), "pkcs11:token=release?module-name=softhsm2", h.options())
	if err != nil {
		t.Fatal(err)
	}
	k.Close()
	os.Setenv("SOFTHSM2_CONF", h.path("missing.conf"))
	if _, err := Open(context.Background(), h.uri("token=release"), h.options()); err == nil || !strings.Contains(err.Error(), "SOFTHSM2_CONF") {
		t.Errorf("no configuration: %v", err)
	}
}

// TestP11Kit: without a module in the URI it is p11-kit that finds the token.
func TestP11Kit(t *testing.T) {
	if _, err := findModule(new(URI), libraryFolders); err != nil {
		t.Skip("p11-kit's modules are not installed: scripts/test installs them")
	}
	h := newHSM(t, "release")
	h.generate("release", "EC:prime256v1", "key", "01")
	if !strings.Contains(h.run("p11-kit", "list-modules"), "SoftHSM") {
		t.Skip("p11-kit does not know SoftHSM here")
	}
	k, err := Open(context.Background(), "pkcs11:token=release;object=key", h.options())
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	digest := sha256.Sum256(nil)
	sig, err := k.Sign(nil, digest[:], crypto.SHA256)
	if err != nil || !verifies(k.Public(), crypto.SHA256, digest[:], sig) {
		t.Error(err)
	}
}

func TestFitting(t *testing.T) {
	for _, test := range []struct {
		most   uint
		wanted int
		least  int
		equal  int
	}{
		{0, 0, 4, 0}, {0, 7, 0, 7}, {p11.CK_UNAVAILABLE_INFORMATION, 7, 0, 7}, {1, 0, 0, 1}, {3, 100, 0, 3}, {0, 1 << 30, 0, 1024},
	} {
		got := fitting(&token{TokenInfo: p11.TokenInfo{MaxSessionCount: test.most}}, test.wanted)
		if got < test.least || test.equal != 0 && got != test.equal {
			t.Errorf("%+v: %d", test, got)
		}
	}
}
