//go:build pkcs11 && cgo

package pkcs11

// This file has calls into the module that do not return.

import (
	"context"
	"crypto"
	"errors"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"
)

// TestInterrupted: the end of the context ends every kind of waiting, and Close does
// not wait for a call that hangs.
func TestInterrupted(t *testing.T) {
	for name, hang := range map[string]func(block chan struct{}) func(string, int) error{
		"waiting for the token": func(chan struct{}) func(string, int) error {
			return func(function string, _ int) error {
				if function == "SignInit" || function == "GetSlotList" {
					return p11.Error(p11.CKR_DEVICE_REMOVED)
				}
				return nil
			}
		},
		"a call that hangs": func(block chan struct{}) func(string, int) error {
			return func(function string, _ int) error {
				if function == "Sign" {
					return hangs{block}
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			impatient(t, time.Hour)
			h := newHSM(t, "release")
			h.generate("release", "EC:prime256v1", "key", "01")
			ctx, cancel := context.WithCancel(context.Background())
			o := h.options()
			o.Sessions = 1
			k, err := Open(ctx, h.uri("token=release"), o)
			if err != nil {
				t.Fatal(err)
			}
			block := make(chan struct{})
			h.spy.set(func() { h.spy.fail = hang(block) })
			done := make(chan error, 2)
			for range 2 { // one of them waits for the session
				go func() {
					_, err := k.Sign(nil, make([]byte, 32), crypto.SHA256)
					done <- err
				}()
			}
			for h.spy.count("SignInit") == 0 {
				time.Sleep(time.Millisecond)
			}
			cancel()
			for range 2 {
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}
			if err := k.Close(); err != nil {
				t.Error(err)
			}
			close(block)
			for k.Signer.(*signer).calls.Load() > 0 {
				time.Sleep(time.Millisecond)
			}
			// The module was left as it is; the next key ends it.
			h.spy.set(func() { h.spy.fail = nil })
			if k, err = Open(context.Background(), h.uri("token=release"), o); err != nil {
				t.Fatal(err)
			}
			k.Close()
		})
	}
}

// TestHangingCall: a call that never returns, after the connection was lost under it,
// costs patience and no signature.
func TestHangingCall(t *testing.T) {
	impatient(t, 200*time.Millisecond)
	h, k, _ := newFaulty(t)
	block := make(chan struct{})
	defer close(block)
	h.spy.set(func() {
		h.spy.fail = func(function string, n int) error {
			switch {
			case function == "Sign" && n == 20:
				return hangs{block}
			case function == "Sign" && n == 25:
				return p11.Error(p11.CKR_DEVICE_ERROR)
			}
			return nil
		}
	})
	if err := signMany(k, 200, nothing); err != nil {
		t.Error(err)
	}
}

// hangs has the spy block before it fails.
type hangs struct{ block chan struct{} }

func (hangs) Error() string { return "this call hung" }
