package remote

// This file holds which failures of HTTP pass.

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// StatusTemporary reports whether a response of this status may be another one when
// the request is made again, and how long the service asked to be left alone (RFC 9110
// 10.2.3, in seconds or as a date).
func StatusTemporary(status int, header http.Header) (after time.Duration, ok bool) {
	switch {
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusTooManyRequests:
	case status == http.StatusNotImplemented, status == http.StatusHTTPVersionNotSupported:
		return 0, false
	case status >= 500 && status <= 599:
	default:
		return 0, false
	}
	text := strings.TrimSpace(header.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	if date, err := http.ParseTime(text); err == nil {
		return max(time.Until(date), 0), true
	}
	return 0, true
}

// TransportError gives an error of http.Client.Do, or of reading a response's body,
// its kind and a sentence: a connection that was refused or broke is temporary; a
// certificate that does not verify, or a name that does not exist, is not.
func TransportError(err error) error {
	// The address is said by whoever knows what it is.
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var (
		verify    *tls.CertificateVerificationError
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		dns       *net.DNSError
		network   *net.OpError
	)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &authority):
		return fmt.Errorf("its certificate is by no trusted authority (%w): name the file with the right one", err)
	case errors.As(err, &name):
		return fmt.Errorf("its certificate is for another name: %w", err)
	case errors.As(err, &invalid), errors.As(err, &verify):
		return fmt.Errorf("its certificate does not hold: %w", err)
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("it does not speak TLS (%w): is its address one with http://?", err)
	case errors.As(err, &network) && (network.Op == "remote error" || network.Op == "local error"):
		// An alert of TLS: of a protocol, or a client certificate that is missing.
		return fmt.Errorf("the TLS handshake failed: %w", err)
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Errorf("%w: is the address right?", err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return Temporary(fmt.Errorf("nothing listens there (%w)", err), 0)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Temporary(fmt.Errorf("the connection broke (%w)", err), 0)
	case errors.As(err, &dns), network != nil, errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return Temporary(err, 0)
	}
	return err
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}
