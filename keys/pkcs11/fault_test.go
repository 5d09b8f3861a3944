//go:build pkcs11 && cgo

package pkcs11

import (
	"context"
	"crypto"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"
)

// impatient makes what is waited for short.
func impatient(t *testing.T, most time.Duration) {
	before := []time.Duration{patience, firstPause, lastCall}
	patience, firstPause, lastCall = most, time.Millisecond, 50*time.Millisecond
	t.Cleanup(func() { patience, firstPause, lastCall = before[0], before[1], before[2] })
}

// notes collects what a user is told.
type notes struct {
	sync.Mutex
	texts []string
}

func (n *notes) add(text string) {
	n.Lock()
	defer n.Unlock()
	n.texts = append(n.texts, text)
}

// all is what was said so far.
func (n *notes) all() string {
	n.Lock()
	defer n.Unlock()
	return strings.Join(n.texts, "\n")
}

// signMany makes n signatures from several goroutines and returns the first error.
func signMany(k *Key, n int, each func(i int)) error {
	var failed atomic.Pointer[error]
	var next atomic.Int64
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for i := int(next.Add(1)); i <= n && failed.Load() == nil; i = int(next.Add(1)) {
				each(i)
				digest := digestOf(crypto.SHA256, i)
				sig, err := k.Sign(nil, digest, crypto.SHA256)
				if err == nil && !verifies(k.Public(), crypto.SHA256, digest, sig) {
					err = errors.New("it does not verify")
				}
				if err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wait.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

func newFaulty(t *testing.T) (*hsm, *Key, *notes) {
	h := newHSM(t, "release")
	h.generate("release", "EC:prime256v1", "key", "01")
	n := new(notes)
	o := h.options()
	o.Sessions, o.Note = 4, n.add
	return h, h.open("token=release;object=key", o), n
}

// nothing is for a call of signMany that needs nothing done between signatures.
func nothing(int) {}

// TestComesBack: each fault that passes costs time and no signature.
func TestComesBack(t *testing.T) {
	fails := func(function string, code uint, from, to int) func(string, int) error {
		return func(f string, n int) error {
			if f == function && n >= from && n < to {
				return p11.Error(code)
			}
			return nil
		}
	}
	for name, fail := range map[string]func(string, int) error{
		"session handle invalid":    fails("SignInit", p11.CKR_SESSION_HANDLE_INVALID, 20, 21),
		"session closed":            fails("Sign", p11.CKR_SESSION_CLOSED, 20, 25),
		"device error":              fails("Sign", p11.CKR_DEVICE_ERROR, 20, 23),
		"function failed":           fails("SignInit", p11.CKR_FUNCTION_FAILED, 20, 22),
		"not logged in":             fails("SignInit", p11.CKR_USER_NOT_LOGGED_IN, 20, 21),
		"key handle invalid":        fails("SignInit", p11.CKR_KEY_HANDLE_INVALID, 20, 21),
		"operation active":          fails("SignInit", p11.CKR_OPERATION_ACTIVE, 20, 21),
		"sessions cannot be opened": fails("OpenSession", p11.CKR_DEVICE_ERROR, 3, 4),
	} {
		t.Run(name, func(t *testing.T) {
			impatient(t, time.Minute)
			h, k, _ := newFaulty(t)
			h.spy.set(func() { h.spy.fail = fail })
			if err := signMany(k, 200, nothing); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPulledOut: the token is gone for a while, with all sessions and the login.
func TestPulledOut(t *testing.T) {
	impatient(t, time.Minute)
	h, k, n := newFaulty(t)
	var out atomic.Int64 // so many looks for the token find none
	h.spy.set(func() {
		h.spy.fail = func(function string, _ int) error {
			switch function {
			case "GetTokenInfo":
				if out.Load() > 0 {
					out.Add(-1)
					return p11.Error(p11.CKR_TOKEN_NOT_PRESENT)
				}
			case "SignInit", "OpenSession":
				if out.Load() > 0 {
					return p11.Error(p11.CKR_DEVICE_REMOVED)
				}
			}
			return nil
		}
	})
	err := signMany(k, 1000, func(i int) {
		if i == 300 {
			out.Store(6)
			loseSessions(k)
		}
	})
	if err != nil {
		t.Error(err)
	}
	if h.spy.count("Login") != 2 {
		t.Errorf("%d logins: once at first, once when it was back", h.spy.count("Login"))
	}
	if all := n.all(); !strings.Contains(all, `token "release" does not answer`) || !strings.Contains(all, "answers again") || strings.Contains(all, testPIN) || len(n.texts) != 2 {
		t.Errorf("the notes are %q", all)
	}
}

// TestStaysAway: patience ends, and is not spent again on each file that is left. When
// the token is back the key goes on.
func TestStaysAway(t *testing.T) {
	impatient(t, 300*time.Millisecond)
	h, k, _ := newFaulty(t)
	var away atomic.Bool
	away.Store(true)
	h.spy.set(func() {
		h.spy.fail = func(function string, _ int) error {
			if away.Load() && (function == "SignInit" || function == "GetSlotList") {
				return p11.Error(p11.CKR_DEVICE_REMOVED)
			}
			return nil
		}
	})
	begin := time.Now()
	err := signMany(k, 1000, nothing)
	if err == nil || !strings.Contains(err.Error(), "CKR_DEVICE_REMOVED") || !strings.Contains(err.Error(), "no answer any more, for 300ms") || !strings.Contains(err.Error(), `token "release"`) {
		t.Error(err)
	}
	if time.Since(begin) < patience {
		t.Error("it was not waited for")
	}
	looked := h.spy.count("GetSlotList")
	for range 10 {
		if _, err := k.Sign(nil, make([]byte, 32), crypto.SHA256); err == nil {
			t.Error("a token that is away signed")
		}
	}
	if more := h.spy.count("GetSlotList") - looked; more > 10 {
		t.Errorf("after that it was looked for %d times, for 10 files", more)
	}
	away.Store(false)
	if err := signMany(k, 10, nothing); err != nil {
		t.Errorf("it is back: %v", err)
	}
}

// TestAtOnce: what does not pass is not tried again.
func TestAtOnce(t *testing.T) {
	impatient(t, time.Minute)
	for _, code := range []uint{
		p11.CKR_KEY_FUNCTION_NOT_PERMITTED, p11.CKR_MECHANISM_INVALID, p11.CKR_KEY_TYPE_INCONSISTENT, p11.CKR_ARGUMENTS_BAD,
		p11.CKR_FUNCTION_NOT_SUPPORTED, p11.CKR_PIN_EXPIRED, p11.CKR_FUNCTION_CANCELED, p11.CKR_VENDOR_DEFINED + 7, p11.CKR_DATA_LEN_RANGE,
	} {
		h, k, _ := newFaulty(t)
		h.spy.set(func() {
			h.spy.fail = func(function string, _ int) error {
				if function == "SignInit" {
					return p11.Error(code)
				}
				return nil
			}
		})
		_, err := k.Sign(nil, make([]byte, 32), crypto.SHA256)
		if !errors.Is(err, p11.Error(code)) || h.spy.count("SignInit") != 1 {
			t.Errorf("%v, %d times", err, h.spy.count("SignInit"))
		}
		k.Close()
	}
}

// TestAgainAndAgain: a fault that comes back each time does not go on for ever.
func TestAgainAndAgain(t *testing.T) {
	impatient(t, time.Minute)
	h, k, _ := newFaulty(t)
	h.spy.set(func() {
		h.spy.fail = func(function string, _ int) error {
			if function == "Sign" {
				return p11.Error(p11.CKR_GENERAL_ERROR)
			}
			return nil
		}
	})
	longest := longestPause
	longestPause = 2 * time.Millisecond
	defer func() { longestPause = longest }()
	_, err := k.Sign(nil, make([]byte, 32), crypto.SHA256)
	if err == nil || !strings.Contains(err.Error(), "12 times in a row") || h.spy.count("Sign") != maxAttempts {
		t.Errorf("%v, %d times", err, h.spy.count("Sign"))
	}
}

// TestKeyRemoved: somebody deletes the key from the token in the middle.
func TestKeyRemoved(t *testing.T) {
	impatient(t, time.Minute)
	h, k, _ := newFaulty(t)
	err := signMany(k, 10000, func(i int) {
		if i == 500 {
			h.tool("release", "--delete-object", "--type", "privkey", "--id", "01")
		}
	})
	// SoftHSM says of a key that it is just about to delete that it may not sign.
	deleting := errors.Is(err, p11.Error(p11.CKR_KEY_FUNCTION_NOT_PERMITTED))
	if !deleting && (err == nil || !strings.Contains(err.Error(), "removed from the token while it was in use") || !strings.Contains(err.Error(), `token "release"`) || !strings.Contains(err.Error(), "id=%01")) {
		t.Error(err)
	}
	if n := h.spy.count("Sign"); n < 400 || n > 9999 {
		t.Errorf("%d signatures were made: the key was not removed in the middle", n)
	}
}

// TestKeyExchanged: the token that comes back has another key under the same name.
func TestKeyExchanged(t *testing.T) {
	impatient(t, time.Minute)
	h, k, _ := newFaulty(t)
	h.tool("release", "--delete-object", "--type", "privkey", "--id", "01")
	h.tool("release", "--delete-object", "--type", "pubkey", "--id", "01")
	h.generate("release", "EC:prime256v1", "key", "01")
	_, err := k.Sign(nil, make([]byte, 32), crypto.SHA256)
	if err == nil || !strings.Contains(err.Error(), "now has another key") {
		t.Error(err)
	}
}

// TestPINChanged: a remembered PIN that does not hold any more is tried once.
func TestPINChanged(t *testing.T) {
	impatient(t, time.Minute)
	h, k, _ := newFaulty(t)
	loseSessions(k)
	h.spy.set(func() {
		h.spy.logins = 0
		h.spy.fail = func(function string, _ int) error {
			if function == "Login" {
				return p11.Error(p11.CKR_PIN_INCORRECT)
			}
			return nil
		}
	})
	for range 5 {
		_, err := k.Sign(nil, make([]byte, 32), crypto.SHA256)
		if !errors.Is(err, errWrongPIN) || strings.Contains(err.Error(), testPIN) {
			t.Error(err)
		}
	}
	if h.spy.logins != 1 {
		t.Errorf("%d logins", h.spy.logins)
	}
}

// TestFewSessions: other programs have all but two sessions.
func TestFewSessions(t *testing.T) {
	impatient(t, time.Minute)
	h := newHSM(t, "release")
	h.generate("release", "EC:prime256v1", "key", "01")
	h.spy.fail = func(function string, n int) error {
		if function == "OpenSession" && n > 2 {
			return p11.Error(p11.CKR_SESSION_COUNT)
		}
		return nil
	}
	o := h.options()
	o.Sessions = 8
	if err := signMany(h.open("token=release", o), 500, nothing); err != nil {
		t.Error(err)
	}
	if opened := h.spy.count("OpenSession"); opened > 8 {
		t.Errorf("it was tried to open %d sessions", opened)
	}
	h = newHSM(t, "release")
	h.spy.fail = func(function string, _ int) error {
		if function == "OpenSession" {
			return p11.Error(p11.CKR_SESSION_COUNT)
		}
		return nil
	}
	if _, err := Open(context.Background(), h.uri("token=release"), h.options()); err == nil || !strings.Contains(err.Error(), "opening a session") {
		t.Error(err)
	}
}
