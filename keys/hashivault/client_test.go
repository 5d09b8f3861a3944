package hashivault

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha512"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imaseal/imaseal/keys/hashivault/vaulttest"
)

func TestKinds(t *testing.T) {
	for name, key := range map[string]crypto.Signer{
		"rsa-2048": newRSA(t, 2048), "rsa-3072": newRSA(t, 3072),
		"p256": newECDSA(t, elliptic.P256()), "p384": newECDSA(t, elliptic.P384()), "p521": newECDSA(t, elliptic.P521()),
	} {
		t.Run(name, func(t *testing.T) {
			server := vaulttest.New(t, key)
			s := mustOpen(t, ref, Options{})
			digest512 := sha512.Sum512([]byte("x"))
			digest384 := sha512.Sum384([]byte("x"))
			for h, digest := range map[crypto.Hash][]byte{crypto.SHA256: digestOf(1), crypto.SHA384: digest384[:], crypto.SHA512: digest512[:]} {
				sig, err := s.Sign(nil, digest, h)
				if err != nil || !verify(key.Public(), h, digest, sig) {
					t.Errorf("%v: %v", h, err)
				}
				if private, ok := key.(*rsa.PrivateKey); ok {
					if want, _ := private.Sign(nil, digest, h); !bytes.Equal(sig, want) {
						t.Errorf("%v: the signature is not that of the key itself", h)
					}
				}
			}
			if len(server.Wrong) > 0 {
				t.Error(server.Wrong)
			}
		})
	}
}

// TestTenThousand has as many digests signed in few requests, each digest once.
func TestTenThousand(t *testing.T) {
	server := vaulttest.New(t, newECDSA(t, elliptic.P256()))
	s := mustOpen(t, ref, Options{})
	if s.Jobs() != 2048 {
		t.Errorf("%d jobs", s.Jobs())
	}
	if err := firstError(signAll(s, 10000)); err != nil {
		t.Fatal(err)
	}
	requests, batches, digests := server.Counts()
	if requests > 120 || slices.Max(batches) != maxBatch || digests != 10000 {
		t.Errorf("%d requests for %d digests: %v", requests, digests, batches)
	}
	for digest, n := range server.Digests {
		if n != 1 {
			t.Fatalf("%x was signed %d times", digest, n)
		}
	}
}

func TestJobs(t *testing.T) {
	vaulttest.New(t, newECDSA(t, elliptic.P256()))
	for jobs, want := range map[int]int{1: 1, 5: 5, 8: 8, 20: 16, 10000: 2048} {
		if s := mustOpen(t, ref, Options{Jobs: jobs}); s.Jobs() != want || s.Jobs() > jobs {
			t.Errorf("%d jobs become %d, not %d", jobs, s.Jobs(), want)
		}
	}
}

// TestVersions has the key rotated while it is in use.
func TestVersions(t *testing.T) {
	keys := []crypto.Signer{newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())}
	server := vaulttest.New(t, keys[0], keys[1])
	latest, first := mustOpen(t, ref, Options{}), mustOpen(t, ref+"?version=1", Options{})
	server.Mu.Lock()
	server.Versions = keys
	server.Mu.Unlock()
	for i, s := range map[int]*Signer{1: latest, 0: first} {
		if !keys[i].Public().(*ecdsa.PublicKey).Equal(s.Public()) {
			t.Errorf("version %d has another key", i+1)
		}
		if err := firstError(signAll(s, 3)); err != nil {
			t.Error(err)
		}
	}
	if _, err := Open(t.Context(), ref+"?version=9", Options{}); err == nil || !strings.Contains(err.Error(), "the key has no version 9, but 1, 2, 3") {
		t.Error(err)
	}
}

// TestPassingTrouble has the server fail in ways that pass, in the middle of it.
func TestPassingTrouble(t *testing.T) {
	fail := func(status int, header ...string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			vaulttest.Fail(w, status, "trouble")
		}
	}
	for name, trouble := range map[string]func(http.ResponseWriter){
		"500":         fail(500),
		"503 sealed":  fail(503),
		"429":         fail(429, "Retry-After", "1"),
		"412":         fail(412),
		"dropped":     func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"half a body": func(w http.ResponseWriter) { w.Header().Set("Content-Length", "1000"); io.WriteString(w, `{"data":`) },
		"half, without end": func(w http.ResponseWriter) {
			io.WriteString(w, `{"data":`)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := vaulttest.New(t, newECDSA(t, elliptic.P256()))
			server.Disturb = func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n == 3 || n == 5 {
					trouble(w)
					return true
				}
				return false
			}
			s := mustOpen(t, ref, Options{})
			if err := firstError(signAll(s, 2000)); err != nil {
				t.Error(err)
			}
			if _, _, digests := server.Counts(); digests != 2000 {
				t.Errorf("%d digests", digests)
			}
		})
	}
}

func TestHangs(t *testing.T) {
	server := vaulttest.New(t, newECDSA(t, elliptic.P256()))
	t.Setenv("VAULT_CLIENT_TIMEOUT", "300ms")
	hangs := func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n == 3 {
			io.Copy(io.Discard, r.Body) // only then is the end of the connection seen
			<-r.Context().Done()
		}
		return n == 3
	}
	server.Disturb = hangs
	s := mustOpen(t, ref, Options{})
	for range 3 {
		if err := firstError(signAll(s, 5)); err != nil {
			t.Error(err)
		}
	}
}

// TestLastingTrouble has the server answer each time as no other try would change. It
// is asked once.
func TestLastingTrouble(t *testing.T) {
	edit := func(f func([]map[string]any) []map[string]any) func(*vaulttest.Server) {
		return func(s *vaulttest.Server) { s.Edit = f }
	}
	answer := func(status int, body string) func(*vaulttest.Server) {
		return func(s *vaulttest.Server) {
			s.Disturb = func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n > 1 {
					w.WriteHeader(status)
					io.WriteString(w, body)
				}
				return n > 1
			}
		}
	}
	each := func(name string, value any) func(*vaulttest.Server) {
		return edit(func(results []map[string]any) []map[string]any {
			for _, r := range results {
				r[name] = value
			}
			return results
		})
	}
	for name, c := range map[string]struct {
		trouble func(*vaulttest.Server)
		want    string
	}{
		"403":                {answer(403, `{"errors":["permission denied"]}`), "403 Forbidden: permission denied: the token is not valid or has expired"},
		"403 of a proxy":     {answer(403, "<html>"), "403 Forbidden: the token is not valid"},
		"400":                {answer(400, `{"errors":["no \u001b[2J","really"]}`), `400 Bad Request: no \u001b[2J; really`},
		"404":                {answer(404, `{"errors":[]}`), "404 Not Found: there is no key release in transit"},
		"the token back":     {answer(400, `{"errors":["bad token `+vaulttest.Token+`"]}`), "400 Bad Request: bad token [token]"},
		"half the token":     {answer(403, `{"errors":["`+strings.Repeat("x", maxMessage-20)+vaulttest.Token+`"]}`), "xxx[token]: the token is not valid"},
		"the token, by item": {each("error", "bad token "+vaulttest.Token), "bad token [token]"},
		"the token as a host": {func(s *vaulttest.Server) {
			s.Disturb = func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n > 1 {
					w.Header().Set("Location", "https://"+vaulttest.Token+".example/")
					w.WriteHeader(http.StatusTemporaryRedirect)
				}
				return n > 1
			}
		}, "it redirects to https://[token].example"},
		"a page":           {answer(200, "<html>hello"), "the answer is not one of a transit engine"},
		"nothing":          {answer(204, ""), "204 No Content"},
		"no data":          {answer(200, `{"errors":[]}`), "the answer is not one of a transit engine"},
		"endless":          {answer(200, strings.Repeat(" ", maxBody+10)), "its answer has more than 4194304 bytes"},
		"too few":          {edit(func(r []map[string]any) []map[string]any { return r[1:] }), "0 signatures for 1 digests"},
		"another order":    {each("reference", "1"), "in another order"},
		"another version":  {each("signature", "vault:v2:AAAA"), `a signature begins with "vault:v2:AAA…", not with vault:v1:`},
		"no base64":        {each("signature", "vault:v1:####"), "a signature is not in base64"},
		"empty":            {each("signature", ""), `a signature begins with ""`},
		"wrong signature":  {each("signature", "vault:v1:AAAA"), "the signature does not verify"},
		"refused, by item": {each("error", "no\nway"), `: no\u000away`},
	} {
		t.Run(name, func(t *testing.T) {
			server := vaulttest.New(t, newECDSA(t, elliptic.P256()))
			c.trouble(server)
			s := mustOpen(t, ref, Options{})
			err := firstError(signAll(s, 1))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, not %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), vaulttest.Token[:8]) {
				t.Errorf("the token is in it: %v", err)
			}
			if requests, _, _ := server.Counts(); requests != 2 {
				t.Errorf("%d requests, not one for the key and one to sign", requests)
			}
		})
	}
}

// TestTokenAsAType has no half of the token left where the type of a key is cut off.
func TestTokenAsAType(t *testing.T) {
	server := vaulttest.New(t, newECDSA(t, elliptic.P256()))
	server.Type = strings.Repeat("x", 25) + vaulttest.Token
	if _, err := Open(t.Context(), ref, Options{}); err == nil || !strings.Contains(err.Error(), "xxx[token], whose") {
		t.Error(err)
	}
}

// TestShortToken has a token, as servers for trying things out have it, that stands in
// signatures by chance.
func TestShortToken(t *testing.T) {
	server := vaulttest.New(t, newRSA(t, 2048))
	t.Setenv("VAULT_TOKEN", "A")
	server.Disturb = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		r.Header.Set("X-Vault-Token", vaulttest.Token)
		return false
	}
	if err := firstError(signAll(mustOpen(t, ref, Options{}), 20)); err != nil {
		t.Error(err)
	}
}

// TestOneOfABatchIsRefused has the others signed all the same, once something was.
func TestOneOfABatchIsRefused(t *testing.T) {
	server := vaulttest.New(t, newECDSA(t, elliptic.P256()))
	s := mustOpen(t, ref, Options{})
	if err := firstError(signAll(s, 1)); err != nil {
		t.Fatal(err)
	}
	server.Edit = func(results []map[string]any) []map[string]any {
		delete(results[0], "signature")
		results[0]["error"] = "not this one"
		return results
	}
	bad := 0
	for _, err := range signAll(s, 200) {
		if err != nil {
			bad++
			if !strings.HasSuffix(err.Error(), ": not this one") {
				t.Error(err)
			}
		}
	}
	if _, batches, _ := server.Counts(); bad != len(batches)-1 || bad == 200 {
		t.Errorf("%d failed in %d batches", bad, len(batches))
	}
}

func TestAnOldServerSendsNoReference(t *testing.T) {
	server := vaulttest.New(t, newECDSA(t, elliptic.P256()))
	server.Edit = func(results []map[string]any) []map[string]any {
		for _, r := range results {
			delete(r, "reference")
		}
		return results
	}
	if err := firstError(signAll(mustOpen(t, ref, Options{}), 50)); err != nil {
		t.Error(err)
	}
}

func TestDeadServer(t *testing.T) {
	server := vaulttest.New(t, newECDSA(t, elliptic.P256()))
	var notes []string
	s := mustOpen(t, ref, Options{Patience: time.Second, Note: func(text string) { notes = append(notes, text) }})
	server.Close()
	err := firstError(signAll(s, 1))
	if err == nil || !strings.Contains(err.Error(), "nothing listens there") || !strings.Contains(err.Error(), "then given up; when it is well, run imaseal again") {
		t.Error(err)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "trying again for 1s") {
		t.Errorf("notes: %q", notes)
	}
}

// TestTheContextEnds has it end while a request hangs.
func TestTheContextEnds(t *testing.T) {
	server := vaulttest.New(t, newECDSA(t, elliptic.P256()))
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Open(ctx, ref, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	server.SetDisturb(func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()
		return true
	})
	if err := firstError(signAll(s, 3)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := Open(ctx, ref, Options{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
