//go:build pkcs11 && cgo

package pkcs11

import (
	"context"
	"crypto"
	"errors"
	"regexp"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"
)

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
		if !errors.Is(err, errWrongPIN) || len(pin) > 1 && strings.Contains(err.Error(), pin) || !regexp.MustCompile(`CKR_PIN_\w+`).MatchString(err.Error()) {
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
		if err == nil || errors.Is(err, errWrongPIN) || !strings.Contains(err.Error(), `token "release"`) || h.spy.logins != 1 {
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
		if _, err := k.Sign(nil, digestOf(crypto.SHA256, i), crypto.SHA256); !errors.Is(err, errWrongPIN) {
			t.Error(err)
		}
	}
	if h.spy.logins != 1 {
		t.Errorf("a PIN that was refused was tried %d times", h.spy.logins)
	}
}
