//go:build pkcs11 && cgo

package pkcs11

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/imaseal/imaseal/sign"
)

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
