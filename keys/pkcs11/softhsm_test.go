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
	"errors"
	"fmt"
	"math/big"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/imaseal/imaseal/sign"
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

// TestWrongPIN: one attempt, and the token is still usable afterwards.
func TestWrongPIN(t *testing.T) {
	h := newHSM(t, "release")
	h.generate("release", "EC:prime256v1", "key", "01")
	for _, pin := range []string{"wrong-pin-1", "x", strings.Repeat("long", 100)} {
		h.spy.set(func() { h.spy.logins = 0 })
		asked := 0
		_, err := Open(context.Background(), h.uri("token=release"), Options{PIN: func(prompt string) ([]byte, error) {
			asked++
			if prompt != `PIN for token "release": ` {
				t.Errorf("the prompt is %q", prompt)
			}
			return []byte(pin), nil
		}})
		if !errors.Is(err, ErrWrongPIN) || len(pin) > 1 && strings.Contains(err.Error(), pin) || !regexp.MustCompile(`CKR_PIN_\w+`).MatchString(err.Error()) {
			t.Errorf("%v", err)
		}
		if h.spy.logins != 1 || asked != 1 {
			t.Errorf("%d logins, asked %d times", h.spy.logins, asked)
		}
	}
	h.open("token=release", h.options())
}

// TestNoPIN: what is wrong before a PIN is tried, or is no wrong PIN.
func TestNoPIN(t *testing.T) {
	for name, test := range map[string]struct {
		pin  func(string) ([]byte, error)
		flag uint
		want string
	}{
		"none given": {nil, 0, "needs a PIN"},
		"empty":      {func(string) ([]byte, error) { return nil, nil }, 0, "the PIN is empty, it was not tried"},
		"no answer":  {func(string) ([]byte, error) { return nil, context.Canceled }, 0, "PIN: context canceled"},
		"locked":     {nil, p11.CKF_USER_PIN_LOCKED, "locked"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHSM(t, "release")
			h.spy.info = func(_ uint, info *p11.TokenInfo) { info.Flags |= test.flag }
			_, err := Open(context.Background(), h.uri("token=release"), Options{PIN: test.pin})
			if err == nil || !strings.Contains(err.Error(), test.want) || h.spy.logins != 0 {
				t.Errorf("%v, %d logins", err, h.spy.logins)
			}
		})
	}
	h := newHSM(t, "release")
	for _, code := range []uint{p11.CKR_PIN_LOCKED, p11.CKR_PIN_EXPIRED, p11.CKR_USER_PIN_NOT_INITIALIZED, p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN, p11.CKR_DEVICE_ERROR} {
		h.spy.set(func() {
			h.spy.logins = 0
			h.spy.fail = func(function string, _ int) error {
				if function == "Login" {
					return p11.Error(code)
				}
				return nil
			}
		})
		_, err := Open(context.Background(), h.uri("token=release"), h.options())
		if err == nil || errors.Is(err, ErrWrongPIN) || !strings.Contains(err.Error(), `token "release"`) || h.spy.logins != 1 {
			t.Errorf("%v, %d logins", err, h.spy.logins)
		}
	}
}

// TestPINFromFile: pin-source comes before the caller's own source.
func TestPINFromFile(t *testing.T) {
	h := newHSM(t, "release")
	h.generate("release", "EC:prime256v1", "key", "01")
	o := Options{
		PIN: func(string) ([]byte, error) { t.Error("the caller was asked"); return nil, nil },
		PINFile: func(path string) ([]byte, error) {
			if path != "/a file" {
				t.Errorf("the file is %q", path)
			}
			return []byte(testPIN), nil
		},
	}
	k, err := Open(context.Background(), "pkcs11:token=release?pin-source=file:/a%20file&module-path="+h.module, o)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if _, err := k.Sign(nil, make([]byte, 32), crypto.SHA256); err != nil {
		t.Error(err)
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

// TestHostileModule: what a token answers is not believed.
func TestHostileModule(t *testing.T) {
	h := newHSM(t, "release")
	h.generate("release", "EC:prime256v1", "ec", "01")
	h.generate("release", "rsa:2048", "rsa", "02")
	same := func(sig []byte) []byte { return sig }
	all := map[string]struct {
		answer func([]byte) []byte
		want   string // in the error of the ECDSA key; "" for none, "-" for none before it is verified
	}{
		"right":         {same, ""},
		"empty":         {func([]byte) []byte { return nil }, "0 bytes"},
		"short":         {func(sig []byte) []byte { return sig[:len(sig)-1] }, "bytes, which must have"},
		"long":          {func(sig []byte) []byte { return append(sig, 0) }, "bytes, which must have"},
		"huge":          {func([]byte) []byte { return make([]byte, 1<<20) }, "1048576 bytes"},
		"zeros":         {func(sig []byte) []byte { return make([]byte, len(sig)) }, "not below the order"},
		"all ones":      {func(sig []byte) []byte { return bytes.Repeat([]byte{0xff}, len(sig)) }, "not below the order"},
		"first zero":    {func(sig []byte) []byte { return fill(sig, 0, len(sig)/2, 0) }, "not below the order"},
		"second zero":   {func(sig []byte) []byte { return fill(sig, len(sig)/2, len(sig), 0) }, "not below the order"},
		"first huge":    {func(sig []byte) []byte { return fill(sig, 0, len(sig)/2, 0xff) }, "not below the order"},
		"second huge":   {func(sig []byte) []byte { return fill(sig, len(sig)/2, len(sig), 0xff) }, "not below the order"},
		"another one":   {func(sig []byte) []byte { sig[len(sig)-1] ^= 1; return sig }, "-"},
		"one of before": {nil, "-"},
	}
	var before [][]byte
	for _, label := range []string{"ec", "rsa"} {
		k := h.open("token=release;object="+label, h.options())
		signer, err := sign.NewSigner(k.Signer, 1)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for name, test := range all {
			n++
			answer := test.answer
			if answer == nil {
				h.spy.set(func() { h.spy.answer = func(sig []byte) []byte { before = append(before, sig); return sig } })
				if _, err := k.Sign(nil, digestOf(crypto.SHA256, -1), crypto.SHA256); err != nil {
					t.Fatal(err)
				}
				replay := before[len(before)-1]
				answer = func([]byte) []byte { return replay }
			}
			h.spy.set(func() { h.spy.answer = answer })
			digest := digestOf(crypto.SHA256, n)
			_, err := k.Sign(nil, digest, crypto.SHA256)
			refused := test.want != "" && test.want != "-"
			if label == "rsa" && strings.Contains(test.want, "order") {
				refused = false // those of RSA are only verified
			}
			if (err != nil) != refused || refused && label == "ec" && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s, %s: %v", label, name, err)
			}
			if _, err := signer.SignDigest(sign.SHA256, digest); (err == nil) != (test.want == "") {
				t.Errorf("%s, %s: used for a file: %v", label, name, err)
			}
		}
		h.spy.set(func() { h.spy.answer = nil })
	}
	for name, value := range map[string]func(uint, []byte) []byte{
		"no key type": func(a uint, got []byte) []byte { return unless(a != p11.CKA_KEY_TYPE, got, []byte{1}) },
		"key type DSA": func(a uint, got []byte) []byte {
			return unless(a != p11.CKA_KEY_TYPE, got, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		},
		"other curve": func(a uint, got []byte) []byte {
			return unless(a != p11.CKA_EC_PARAMS, got, []byte("\x06\x05\x2b\x81\x04\x00\x0a"))
		},
		"no curve": func(a uint, got []byte) []byte { return unless(a != p11.CKA_EC_PARAMS, got, nil) },
		"point not on": func(a uint, got []byte) []byte {
			return unless(a != p11.CKA_EC_POINT, got, append(got[:len(got)-1:len(got)-1], got[len(got)-1]^1))
		},
		"point too long": func(a uint, got []byte) []byte {
			return unless(a != p11.CKA_EC_POINT, got, append(got[:len(got):len(got)], 0))
		},
		"point missing": func(a uint, got []byte) []byte { return unless(a != p11.CKA_EC_POINT, got, nil) },
	} {
		h.spy.set(func() { h.spy.value = value })
		if _, err := Open(context.Background(), h.uri("token=release;object=ec"), h.options()); err == nil {
			t.Errorf("%s: the key was opened", name)
		}
	}
	for name, value := range map[string]func(uint, []byte) []byte{
		"no exponent":   func(a uint, got []byte) []byte { return unless(a != p11.CKA_PUBLIC_EXPONENT, got, nil) },
		"exponent 1":    func(a uint, got []byte) []byte { return unless(a != p11.CKA_PUBLIC_EXPONENT, got, []byte{1}) },
		"huge exponent": func(a uint, got []byte) []byte { return unless(a != p11.CKA_PUBLIC_EXPONENT, got, make33()) },
		"huge modulus": func(a uint, got []byte) []byte {
			return unless(a != p11.CKA_MODULUS, got, bytes.Repeat([]byte{0xff}, 4096))
		},
	} {
		h.spy.set(func() { h.spy.value = value })
		if _, err := Open(context.Background(), h.uri("token=release;object=rsa"), h.options()); err == nil {
			t.Errorf("%s: the key was opened", name)
		}
	}
}

// fill sets the bytes of sig from one place to another.
func fill(sig []byte, from, to int, value byte) []byte {
	copy(sig[from:to], bytes.Repeat([]byte{value}, to-from))
	return sig
}

func unless(keep bool, got, other []byte) []byte {
	if keep {
		return got
	}
	return other
}

func make33() []byte { return bytes.Repeat([]byte{0xff}, 33) }

// TestBarePoint: some modules leave out the OCTET STRING around a point.
func TestBarePoint(t *testing.T) {
	h := newHSM(t, "release")
	h.generate("release", "EC:prime256v1", "ec", "01")
	want := h.open("token=release", h.options()).Public()
	h.spy.set(func() {
		h.spy.value = func(a uint, got []byte) []byte {
			if a == p11.CKA_EC_POINT && len(got) == 67 {
				return got[2:]
			}
			return got
		}
	})
	if got := h.open("token=release", h.options()).Public(); !want.(*ecdsa.PublicKey).Equal(got) {
		t.Error("another key")
	}
}

// TestEveryTime: a key that wants a login for each signature gets it.
func TestEveryTime(t *testing.T) {
	h := newHSM(t, "release")
	h.generate("release", "EC:prime256v1", "key", "01", "--always-auth")
	k := h.open("token=release", h.options())
	if k.Sessions != 1 {
		t.Errorf("%d sessions: as many wrong PINs could be tried at once", k.Sessions)
	}
	for i := range 3 {
		digest := digestOf(crypto.SHA256, i)
		sig, err := k.Sign(nil, digest, crypto.SHA256)
		if err != nil || !verifies(k.Public(), crypto.SHA256, digest, sig) {
			t.Fatal(err)
		}
	}
	if h.spy.logins != 4 {
		t.Errorf("%d logins", h.spy.logins)
	}
	// The PIN was changed elsewhere: tried once, not for each of 10,000 files.
	h.spy.set(func() {
		h.spy.logins = 0
		h.spy.fail = func(function string, _ int) error {
			if function == "Login" {
				return p11.Error(p11.CKR_PIN_INCORRECT)
			}
			return nil
		}
	})
	for i := range 5 {
		if _, err := k.Sign(nil, digestOf(crypto.SHA256, i), crypto.SHA256); !errors.Is(err, ErrWrongPIN) {
			t.Error(err)
		}
	}
	if h.spy.logins != 1 {
		t.Errorf("a PIN that was refused was tried %d times", h.spy.logins)
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
