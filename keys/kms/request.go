package kms

// This file holds how the services are reached, and what their failures mean.

import (
	"crypto"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/imaseal/imaseal/keys/remote"
)

// InFlight is how many signatures a service is asked for at once. At the usual 20 ms
// each that is more than their quotas allow in a second.
const InFlight = 32

// maxAnswer bounds an answer in bytes; the longest that is used has a few thousand.
const maxAnswer = 1 << 20

// timeout is how long a request may take, its answer included.
var timeout = 30 * time.Second

// Client returns the client for all requests to a service: through the proxy that the
// environment names, with a connection for each request in flight, bounded in time and
// in what it reads. It follows no redirection: these services make none, and requests
// carry credentials.
func Client() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = InFlight
	return &http.Client{
		Transport:     bounded{t},
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// bounded reads no answer beyond maxAnswer.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.next.RoundTrip(r)
	if err == nil {
		res.Body = &boundedBody{res.Body, maxAnswer}
	}
	return res, err
}

type boundedBody struct {
	io.ReadCloser
	left int // below 0 once there was more
}

func (b *boundedBody) Read(p []byte) (n int, err error) {
	if b.left >= 0 {
		n, err = b.ReadCloser.Read(p[:min(len(p), b.left+1)])
		b.left -= n
	}
	if b.left < 0 {
		return 0, fmt.Errorf("an answer of more than %d bytes", maxAnswer)
	}
	return n, err
}

// Failure returns err, with the name of the service in front, and marked by
// [remote.Temporary] when another try may succeed: the service was not reached, was
// busy, or broke. status and header are those of its answer, 0 and nil where there was
// none.
func Failure(service string, err error, status int, header http.Header) error {
	err = oneLine{err}
	if status < 300 { // none, or one whose body did not arrive
		return fmt.Errorf("%s: %w", service, remote.TransportError(err))
	}
	err = fmt.Errorf("%s: %w", service, err)
	if after, ok := remote.StatusTemporary(status, header); ok {
		return remote.Temporary(err, after)
	}
	return err
}

// oneLine is an error without the lines and rulers of some libraries.
type oneLine struct{ error }

func (e oneLine) Error() string {
	words := strings.Fields(e.error.Error())
	ruler := func(word string) bool { return strings.Trim(word, "-") == "" }
	return strings.Join(slices.DeleteFunc(words, ruler), " ")
}

func (e oneLine) Unwrap() error { return e.error }

// WrongHash is the error for a digest by got where key signs those by want only.
func WrongHash(key string, want, got crypto.Hash) error {
	name := strings.ToLower(strings.ReplaceAll(want.String(), "-", ""))
	return fmt.Errorf("%s signs %s digests only, not %s: use --hash %s, or for a package that fixes its hash a key for %s", key, want, got, name, got)
}
