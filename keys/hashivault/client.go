package hashivault

// This file holds the connection: requests, their failures, and the signer.

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/imaseal/imaseal/keys/remote"
)

const (
	// maxBatch is how many digests a request holds: 256 signatures by RSA-4096 take a
	// server a second or two, far from its limits of 90 seconds and 32 MiB.
	maxBatch = 256
	// maxInFlight is how many requests are made at once. Vault works on the digests of
	// one request one after the other, so several keep its cores busy.
	maxInFlight = 8
	// maxBody bounds a response in bytes. A key with thousands of versions is below.
	maxBody = 4 << 20
	// maxMessage bounds what is shown of a server's error, in bytes.
	maxMessage = 500
	// maxRedirects is how often a request follows the server to another path.
	maxRedirects = 3
	// connectTimeout bounds reaching the server, apart from the time to answer.
	connectTimeout = 15 * time.Second
)

// Options say how the server is used.
type Options struct {
	// Jobs is how many digests may wait for a signature; 0 leaves that to the package.
	Jobs int
	// Patience is how long the server may fail, without a success between, before it
	// is given up; 0 for what remote has.
	Patience time.Duration
	// Note, if not nil, is told when the server fails and when it is well again.
	Note func(string)
}

// A Signer is a transit key. Its methods may be called concurrently.
type Signer struct {
	*remote.Signer
	// Note is what a user should know about the connection, "" for nothing.
	Note string

	client *client
}

// Close ends all requests and closes the connections.
func (s *Signer) Close() error {
	err := s.Signer.Close()
	s.client.http.CloseIdleConnections()
	return err
}

// Open opens the transit key that rest names: //NAME, or //NAME?version=N, what
// follows hashivault: in a reference. The server and the credentials come from the
// environment. Without a version it is the latest one, and stays that one: a key that
// is rotated meanwhile does not change. The Signer cannot be used after ctx is done.
func Open(ctx context.Context, rest string, o Options) (*Signer, error) {
	cfg, err := newConfig(rest)
	if err != nil {
		return nil, fmt.Errorf("hashivault:%s: %w", remote.Printable(rest, 200), err)
	}
	c := newClient(cfg)
	ro := remote.Options{
		Name:     fmt.Sprintf("hashivault://%s at %s", cfg.key, cfg.address),
		Timeout:  cfg.timeout,
		Patience: o.Patience,
		Note:     o.Note,
		Advice:   "when it is well, run imaseal again: finished packages are kept",
		Batch:    maxBatch,
		InFlight: maxInFlight,
	}
	if o.Jobs > 0 {
		ro.InFlight = min(maxInFlight, o.Jobs)
		ro.Batch = min(maxBatch, o.Jobs/ro.InFlight)
	}
	err = remote.Retry(ctx, ro, func(ctx context.Context) error {
		answer, err := c.do(ctx, http.MethodGet, "keys/"+cfg.key, nil)
		if err != nil {
			return err
		}
		c.public, c.version, err = parseKey(answer, cfg.version)
		return err
	})
	if err != nil {
		c.http.CloseIdleConnections()
		return nil, err
	}
	return &Signer{remote.NewSigner(ctx, c.public, c.sign, ro), cfg.note, c}, nil
}

// A client makes requests.
type client struct {
	*config
	http    *http.Client
	public  crypto.PublicKey
	version int // of the key
}

func newClient(cfg *config) *client {
	return &client{config: cfg, http: &http.Client{
		CheckRedirect: checkRedirect,
		// HTTP/1.1: a request that hangs then takes one connection with it, not all.
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: connectTimeout}).DialContext,
			TLSHandshakeTimeout: connectTimeout,
			TLSClientConfig:     cfg.tls,
			MaxIdleConnsPerHost: maxInFlight,
			IdleConnTimeout:     time.Minute,
			DisableCompression:  true, // a bound on the body is then one on what is received
		},
	}}
}

// checkRedirect follows the server to another path only: the token is for the server
// that the user named.
func checkRedirect(next *http.Request, before []*http.Request) error {
	first := before[0]
	if next.URL.Scheme != first.URL.Scheme || next.URL.Host != first.URL.Host {
		return fmt.Errorf("it redirects to %s://%s, which does not get the token: if that is the right server, name it in VAULT_ADDR",
			remote.Printable(next.URL.Scheme, 20), remote.Printable(next.URL.Host, 200))
	}
	if next.Method != first.Method || len(before) > maxRedirects {
		return errors.New("it redirects in a way that a Vault server does not")
	}
	return nil
}

// do makes one request and returns a good response.
func (c *client) do(ctx context.Context, method, path string, body any) (response, error) {
	token, err := c.token()
	if err != nil {
		return response{}, err
	}
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return response{}, err
		}
		content = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.address.JoinPath("v1", c.mount, path).String(), content)
	if err != nil {
		return response{}, err
	}
	r.Header.Set("X-Vault-Token", token)
	r.Header.Set("X-Vault-Request", "true") // an agent in between wants it
	r.Header.Set("User-Agent", "imaseal")
	if c.namespace != "" {
		r.Header.Set("X-Vault-Namespace", c.namespace)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return response{}, hide(remote.TransportError(err), token)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxBody+1))
	if err != nil {
		return response{}, hide(remote.TransportError(err), token)
	}
	if len(text) > maxBody {
		return response{}, fmt.Errorf("its answer has more than %d bytes", maxBody)
	}
	got := response{text, token}
	if answer.StatusCode != http.StatusOK {
		return response{}, c.statusError(answer, got)
	}
	return got, nil
}

// hide returns err without the token, which a header of the answer may have repeated.
func hide(err error, token string) error {
	text := strings.ReplaceAll(err.Error(), token, hidden)
	if text == err.Error() {
		return err
	}
	if after, temporary := remote.IsTemporary(err); temporary {
		return remote.Temporary(errors.New(text), after)
	}
	return errors.New(text)
}

// statusError says what a status means, and what to do.
func (c *client) statusError(answer *http.Response, got response) error {
	text := strconv.Itoa(answer.StatusCode)
	if name := http.StatusText(answer.StatusCode); name != "" {
		text += " " + name
	}
	if m := message(got); m != "" {
		text += ": " + m
	}
	switch answer.StatusCode {
	case http.StatusForbidden, http.StatusUnauthorized:
		text += fmt.Sprintf(": the token is not valid or has expired (vault token lookup), or its policy lacks read on %s/keys/%s and update on %s/sign/%s/*", c.mount, c.key, c.mount, c.key)
	case http.StatusNotFound:
		text += fmt.Sprintf(": there is no key %s in %s, or no transit engine there; TRANSIT_SECRET_ENGINE_PATH and VAULT_NAMESPACE say where", c.key, c.mount)
	case http.StatusPreconditionFailed:
		// A replica that has not yet heard of what the token has seen.
		return remote.Temporary(errors.New(text), 0)
	}
	err := errors.New(text)
	if after, temporary := remote.StatusTemporary(answer.StatusCode, answer.Header); temporary {
		return remote.Temporary(err, after)
	}
	return err
}

// sign is a [remote.SignFunc].
func (c *client) sign(ctx context.Context, batch []remote.Digest) ([]remote.Result, error) {
	path := "sign/" + c.key + "/" + hashNames[batch[0].Hash]
	answer, err := c.do(ctx, http.MethodPost, path, newSignRequest(c.public, c.version, batch))
	if err != nil {
		return nil, err
	}
	return parseSignatures(answer, len(batch), c.version)
}
