package kms

// This file holds how the services are reached, and which failures are worth another
// try.

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/imaseal/imaseal/keys/remote"
)

// InFlight is how many signatures a service is asked for at once. At the usual 20 ms
// each that is more than their quotas allow in a second.
const InFlight = 32

// maxResponse bounds an answer in bytes; the longest that is used has a few thousand.
const maxResponse = 1 << 20

// timeout is how long a request may take, its answer included.
var timeout = time.Minute

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

// bounded cuts long answers off with an error.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.next.RoundTrip(r)
	if err == nil {
		res.Body = http.MaxBytesReader(nil, res.Body, maxResponse)
	}
	return res, err
}

// Failure returns err, marked by [remote.Temporary] when another try may succeed: the
// service was not reached, was busy, or broke. status and header are those of its
// answer, 0 and nil where there was none.
func Failure(err error, status int, header http.Header) error {
	temporary := status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status >= 500
	if temporary || passing(err) {
		return remote.Temporary(err, retryAfter(header, time.Now()))
	}
	return err
}

// passing reports whether err is that of a connection which may hold next time.
func passing(err error) bool {
	var wrongCertificate *tls.CertificateVerificationError
	var noTLS tls.RecordHeaderError
	var noHost *net.DNSError
	switch {
	case errors.Is(err, context.Canceled), errors.As(err, &wrongCertificate), errors.As(err, &noTLS):
		return false
	case errors.As(err, &noHost) && noHost.IsNotFound:
		return false
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// retryAfter reads the header of that name: seconds, or a date (RFC 9110 10.2.3).
func retryAfter(header http.Header, now time.Time) time.Duration {
	value := header.Get("Retry-After")
	if d, err := time.ParseDuration(value + "s"); err == nil {
		return max(d, 0)
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// WrongHash is the error for a digest by got where key signs those by want only.
func WrongHash(key string, want, got crypto.Hash) error {
	name := strings.ToLower(strings.ReplaceAll(want.String(), "-", ""))
	return fmt.Errorf("%s signs %s digests only, not %s: use --hash %s, or for a package that fixes its hash a key for %s", key, want, got, name, got)
}
