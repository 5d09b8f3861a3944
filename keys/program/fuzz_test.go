package program

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/keys/remote"
)

// FuzzServe gives a signing program any input. What it answers is always lines that
// the other side reads.
func FuzzServe(f *testing.F) {
	item := `{"sign":[{"id":1,"hash":"sha256","digest":"` + digestText(1) + `"},{"id":2,"hash":"sha512","digest":"AAAA"}]}` + "\n"
	f.Add([]byte(greeting + item))
	f.Add([]byte(greeting + item + item))
	f.Add([]byte(`{"imaseal":"sign-2"}` + "\n"))
	f.Add([]byte(greeting + `{"sign":[]}` + "\nx"))
	key := newKey(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		p := &Provider{Public: key.Public(), Sign: func(_ context.Context, d remote.Digest) ([]byte, error) { return d.Sum, nil }}
		err := Serve(t.Context(), bytes.NewReader(in), &out, func(context.Context, string) (*Provider, error) { return p, nil })
		if err != nil && strings.ContainsAny(err.Error(), "\x00\x1b") {
			t.Errorf("the error is no text: %q", err)
		}
		for i, line := range bytes.Split(bytes.TrimSuffix(out.Bytes(), []byte("\n")), []byte("\n")) {
			if out.Len() == 0 {
				break
			}
			var err error
			if i == 0 {
				_, _, _, err = parseWelcome(line)
			} else {
				_, err = parseAnswer(line)
			}
			if err != nil {
				t.Errorf("line %d: %v: %s", i, err, line)
			}
		}
	})
}

// FuzzAnswers gives imaseal any first line and any answer.
func FuzzAnswers(f *testing.F) {
	der, err := x509.MarshalPKIXPublicKey(newKey(f).Public())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"imaseal":"sign-1","public":"` + base64.StdEncoding.EncodeToString(der) + `","in_flight":3,"batch":2}`))
	f.Add([]byte(`{"imaseal":"sign-1","error":"no","temporary":true,"retry_after_ms":7}`))
	f.Add([]byte(`{"id":1,"signature":"AAAA"}`))
	f.Add([]byte(`{"id":1,"error":"\u001b[2J"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		w, public, declined, err := parseWelcome(line)
		if err == nil && (public == nil) == (declined == nil) {
			t.Errorf("neither a key nor an error, or both: %s", line)
		}
		if err == nil && (w.InFlight > MaxInFlight || w.Batch > MaxBatch || w.InFlight < 0 || w.Batch < 0) {
			t.Errorf("limits of %d and %d", w.InFlight, w.Batch)
		}
		if declined != nil && strings.ContainsAny(declined.Error(), "\x00\x1b\n") {
			t.Errorf("an error that a terminal obeys: %q", declined)
		}
		a, err := parseAnswer(line)
		if err != nil {
			return
		}
		p := &process{pending: map[int64]slot{}}
		b := &pendingBatch{results: make([]remote.Result, 1), missing: 1, done: make(chan struct{})}
		p.pending[1] = slot{b, 0}
		if got := p.answered(line) == nil; got != (a.ID == 1) {
			t.Errorf("answer %d was taken: %v", a.ID, got)
		}
		if p.answered(line) == nil {
			t.Errorf("answer %d was taken twice", a.ID)
		}
	})
}
