package kms

import (
	"context"
	"crypto"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/imaseal/imaseal/keys/program"
	"github.com/imaseal/imaseal/keys/remote"
)

func TestClientTimeout(t *testing.T) {
	defer func(d time.Duration) { timeout = d }(timeout)
	timeout = 50 * time.Millisecond
	for name, beginning := range map[string]string{"no answer": "", "half an answer": "half"} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if beginning != "" {
				io.WriteString(w, beginning)
				w.(http.Flusher).Flush()
			}
			<-r.Context().Done()
		}))
		res, err := Client().Get(server.URL)
		status := 0
		if err == nil {
			status = res.StatusCode
			_, err = io.ReadAll(res.Body)
			res.Body.Close()
		}
		if err = Failure("the service", err, status, nil); err == nil || !strings.HasPrefix(err.Error(), "the service: ") {
			t.Errorf("%s: %v", name, err)
		}
		if _, temporary := remote.IsTemporary(err); !temporary {
			t.Errorf("%s: %v does not pass", name, err)
		}
		server.Close()
	}
}

func TestClientBounds(t *testing.T) {
	for size, want := range map[int]bool{maxAnswer: true, maxAnswer + 1: false} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Write(make([]byte, size))
		}))
		res, err := Client().Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(res.Body); (err == nil) != want || err == nil && len(got) != size {
			t.Errorf("%d bytes: %d were read: %v", size, len(got), err)
		}
		if n, err := res.Body.Read(make([]byte, 10)); n != 0 || err == nil || (err == io.EOF) != want {
			t.Errorf("%d bytes: %d more were read: %v", size, n, err)
		}
		res.Body.Close()
		server.Close()
	}
}

// TestClientRedirect sends no credentials where an answer says.
func TestClientRedirect(t *testing.T) {
	var asked bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer other.Close()
	server := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer server.Close()
	res, err := Client().Post(server.URL, "", strings.NewReader("secret"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if asked || res.StatusCode != http.StatusTemporaryRedirect {
		t.Errorf("status %d, asked: %v", res.StatusCode, asked)
	}
}

func TestFailure(t *testing.T) {
	header := http.Header{"Retry-After": {"3"}}
	for status, temporary := range map[int]bool{400: false, 401: false, 403: false, 404: false, 307: false, 408: true, 429: true, 500: true, 503: true} {
		err := Failure("S", errors.New("text\n-----\n of  more"), status, header)
		if after, ok := remote.IsTemporary(err); ok != temporary || ok && after != 3*time.Second || err.Error() != "S: text of more" {
			t.Errorf("%d: %v, temporary %v, after %v", status, err, ok, after)
		}
	}
}

func TestWrongHash(t *testing.T) {
	if text := WrongHash("it", crypto.SHA512, crypto.SHA256).Error(); text != "it signs SHA-512 digests only, not SHA-256: use --hash sha512, or for a package that fixes its hash a key for SHA-256" {
		t.Error(text)
	}
}

func TestRun(t *testing.T) {
	open := func(_ context.Context, ref string) (*program.Provider, error) {
		return nil, errors.New("no key " + ref)
	}
	for _, c := range []struct {
		args []string
		in   string
		code int
		errs string
	}{
		{[]string{"--help"}, "", 2, "imaseal-kms-x is started by imaseal and takes no arguments: give imaseal a --key that it serves\n"},
		{nil, `{"imaseal":"sign-1","key":"x:y"}` + "\n", 1, ""},
		{nil, "garbage\n", 1, "imaseal-kms-x: "},
		{nil, "", 1, "imaseal-kms-x: "},
	} {
		var out, errs strings.Builder
		if code := Run("imaseal-kms-x", c.args, strings.NewReader(c.in), &out, &errs, open); code != c.code || !strings.HasPrefix(errs.String(), c.errs) || (c.errs == "") != (errs.Len() == 0) {
			t.Errorf("%q: %d, %q", c.in, code, errs.String())
		}
	}
}
