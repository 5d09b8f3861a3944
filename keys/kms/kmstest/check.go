package kmstest

// This file holds what every provider has to pass.

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/imaseal/imaseal/keys/program"
	"github.com/imaseal/imaseal/keys/remote"
)

// An Open is that of a provider.
type Open = func(context.Context, string) (*program.Provider, error)

// CheckSigns has the key sign many digests by each of the hashes, and verifies them.
func CheckSigns(t *testing.T, open Open, ref string, public crypto.PublicKey, hashes []crypto.Hash) {
	t.Helper()
	var digests []remote.Digest
	for _, h := range hashes {
		for n := range 40 {
			digests = append(digests, Digest(h, n))
		}
	}
	first, answers := Converse(t, open, ref, digests...)
	if first.Error != "" || first.InFlight != 32 || first.Batch != 1 {
		t.Fatalf("%s: %+v", ref, first)
	}
	got, err := x509.ParsePKIXPublicKey(first.Public)
	if err != nil || !reflect.DeepEqual(got, public) {
		t.Fatalf("%s: the public key is another: %v", ref, err)
	}
	for i, a := range answers {
		if a.Error != "" {
			t.Fatalf("%s: digest %d by %s: %+v", ref, i, digests[i].Hash, a)
		}
		Verify(t, public, digests[i], a.Signature)
	}
}

// CheckRefused has a key that is not opened, for good. Of the credentials nothing is in
// the error: secret is a part of them.
func CheckRefused(t *testing.T, open Open, ref, want, secret string) {
	t.Helper()
	first, _ := Converse(t, open, ref)
	if !strings.Contains(first.Error, want) || first.Temporary || first.Public != nil {
		t.Errorf("%+v, not %q", first, want)
	}
	if strings.Contains(first.Error, secret) {
		t.Errorf("a secret in %q", first.Error)
	}
}

// CheckWrongHash has a key asked for a hash that it does not sign by.
func CheckWrongHash(t *testing.T, open Open, ref string, h crypto.Hash, want string) {
	t.Helper()
	_, answers := Converse(t, open, ref, Digest(h, 1))
	if !strings.Contains(answers[0].Error, want) || answers[0].Temporary || answers[0].Signature != nil {
		t.Errorf("%+v, not %q", answers[0], want)
	}
}

// A FaultCase is a way to fail, and what is said of it.
type FaultCase struct {
	Name         string
	Fault        Fault
	Want         string
	Temporary    bool
	RetryAfterMS int
}

// common are failures that no service is safe from.
var common = []FaultCase{
	{Name: "500", Fault: Answer(500, "oops"), Temporary: true},
	{Name: "502 in HTML", Fault: Answer(502, "<html>bad gateway</html>", "Content-Type", "text/html"), Temporary: true},
	{Name: "503 for a while", Fault: Answer(503, "", "Retry-After", "7"), Temporary: true, RetryAfterMS: 7000},
	{Name: "429 for a while", Fault: Answer(429, "{}", "Retry-After", "2"), Temporary: true, RetryAfterMS: 2000},
	{Name: "a connection that breaks", Fault: Break, Temporary: true},
	{Name: "a connection that closes", Fault: func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }, Temporary: true},
	{Name: "200 with garbage", Fault: Answer(200, "garbage", "Content-Type", "application/json")},
	{Name: "200 with nothing", Fault: Answer(200, "", "Content-Type", "application/json")},
	{Name: "200 with an empty object", Fault: Answer(200, "{}", "Content-Type", "application/json")},
	{Name: "200 without end", Fault: Endless, Want: "an answer of more than 1048576 bytes"},
	{Name: "a redirection", Fault: Answer(307, "", "Location", "https://other.example/")},
	{Name: "400", Fault: Answer(400, "no")},
	{Name: "404", Fault: Answer(404, "no")},
}

// CheckFaults has a service fail when it is asked for the key, and for a signature.
// The answer must say whether that passes, and after how long; once it has passed
// the same provider must sign.
func CheckFaults(t *testing.T, open Open, ref string, service func(*testing.T) *Service, own []FaultCase) {
	for _, c := range append(own, common...) {
		t.Run(c.Name, func(t *testing.T) {
			s := service(t)
			s.SetFault(c.Fault)
			first, _ := Converse(t, open, ref)
			c.check(t, "the key", first)

			s.SetFault(OnSign(c.Fault))
			_, answers := Converse(t, open, ref, Digest(crypto.SHA256, 1), Digest(crypto.SHA256, 2))
			c.check(t, "the first signature", answers[0])
			c.check(t, "the second signature", answers[1])

			s.SetFault(nil)
			p, err := open(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			var asked atomic.Int32
			s.SetFault(OnSign(func(w http.ResponseWriter, r *http.Request) bool { asked.Add(1); return c.Fault(w, r) }))
			if sig, err := p.Sign(t.Context(), Digest(crypto.SHA256, 3)); err == nil {
				t.Errorf("a signature %x in spite of the fault", sig)
			}
			if n := asked.Load(); n != 1 {
				t.Errorf("the service was asked %d times: it is imaseal that asks again", n)
			}
			s.SetFault(nil)
			sig, err := p.Sign(t.Context(), Digest(crypto.SHA256, 3))
			if err != nil {
				t.Fatalf("after the fault: %v", err)
			}
			Verify(t, p.Public, Digest(crypto.SHA256, 3), sig)
		})
	}
}

func (c FaultCase) check(t *testing.T, what string, got Line) {
	t.Helper()
	if got.Error == "" || got.Signature != nil || got.Public != nil {
		t.Errorf("%s came in spite of the fault: %+v", what, got)
	}
	if !strings.Contains(got.Error, c.Want) || got.Temporary != c.Temporary || got.RetryAfterMS != c.RetryAfterMS {
		t.Errorf("%s: %+v", what, got)
	}
}

// CheckHang has a service never answer, and the request given up.
func CheckHang(t *testing.T, open Open, ref string, s *Service) {
	t.Helper()
	p, err := open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.SetFault(OnSign(func(_ http.ResponseWriter, r *http.Request) bool {
		io.Copy(io.Discard, r.Body) // only then the server sees the client go
		cancel()
		<-r.Context().Done()
		return true
	}))
	if sig, err := p.Sign(ctx, Digest(crypto.SHA256, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("%x, %v", sig, err)
	}
}
