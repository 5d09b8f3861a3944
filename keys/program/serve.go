package program

// This file is the end of the protocol that a signing program is.

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/imaseal/imaseal/keys/remote"
)

// defaultInFlight is how many digests a [Provider] that does not say is given at once.
const defaultInFlight = 32

// A Provider is a key that a signing program holds or reaches.
type Provider struct {
	// Public is the public key, RSA or ECDSA. It must not change.
	Public crypto.PublicKey
	// Sign signs one digest: ASN.1 DER of an ECDSA key, PKCS #1 v1.5 of an RSA key.
	// It is called concurrently. Its error is by [remote.Temporary] where another try
	// may succeed; imaseal tries again, after a pause that grows.
	Sign func(ctx context.Context, d remote.Digest) ([]byte, error)
	// SignBatch, if not nil, is called in place of Sign with up to Batch digests, and
	// returns as many results in their order. Its error is for all of them.
	SignBatch func(ctx context.Context, batch []remote.Digest) ([]remote.Result, error)
	// InFlight is how many digests are signed at once, 32 if 0.
	InFlight int
	// Batch is how many digests SignBatch takes, 1 if 0.
	Batch int
}

// Serve answers requests that it reads from in until in ends or ctx is done. The first
// line names a key; open returns it. An error of open is answered, and marked as
// temporary where it is by [remote.Temporary]; so are those of the Provider. Serve
// itself returns that of open, or what is wrong with the input: the program should
// print it to standard error and end with an exit status that is not 0.
//
// Nothing but Serve may write to out. Secrets must not be in errors: they are shown.
func Serve(ctx context.Context, in io.Reader, out io.Writer, open func(ctx context.Context, key string) (*Provider, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &server{out: out}
	lines := bufio.NewReaderSize(in, MaxRequestLine)
	p, err := s.greet(ctx, lines, open)
	if err != nil {
		return err
	}
	s.provider = p
	s.room = make(chan struct{}, p.InFlight)
	err = s.requests(ctx, lines)
	if err != nil {
		cancel()
	}
	s.running.Wait()
	return errors.Join(err, s.failed)
}

// greet reads the first line and answers it.
func (s *server) greet(ctx context.Context, lines *bufio.Reader, open func(context.Context, string) (*Provider, error)) (*Provider, error) {
	line, err := readLine(lines)
	if err != nil {
		return nil, fmt.Errorf("the first line: %w", err)
	}
	w := welcome{Version: Version}
	h, err := parseHello(line)
	if err != nil {
		w.failure = newFailure(err)
		return nil, errors.Join(err, s.write(w))
	}
	p, err := open(ctx, h.Key)
	if err == nil {
		w.Public, err = x509.MarshalPKIXPublicKey(p.Public)
	}
	if err != nil {
		w.failure = newFailure(err)
		return nil, errors.Join(err, s.write(w))
	}
	own := *p
	own.Batch = min(max(own.Batch, 1), MaxBatch)
	if own.SignBatch == nil {
		own.Batch = 1
	}
	if own.InFlight <= 0 {
		own.InFlight = defaultInFlight
	}
	own.InFlight = min(max(own.InFlight, own.Batch), MaxInFlight)
	w.InFlight, w.Batch = own.InFlight, own.Batch
	return &own, s.write(w)
}

// A server is a conversation.
type server struct {
	provider *Provider
	room     chan struct{} // a token for each digest that is worked on
	running  sync.WaitGroup

	mu     sync.Mutex // guards what follows
	out    io.Writer
	failed error // of writing to out
}

func (s *server) requests(ctx context.Context, lines *bufio.Reader) error {
	read := make(chan readResult)
	// It outlives this function, at most until in ends: a read cannot be interrupted.
	go func() {
		for {
			line, err := readLine(lines)
			select {
			case read <- readResult{bytes.Clone(line), err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	var last int64
	for {
		var line readResult
		select {
		case line = <-read:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if line.err == io.EOF {
			return nil
		}
		if line.err != nil {
			return fmt.Errorf("after request %d: %w", last, line.err)
		}
		items, err := parseRequest(line.line, last)
		if err != nil {
			return fmt.Errorf("after request %d: %w", last, err)
		}
		last = items[len(items)-1].ID
		for len(items) > 0 {
			n := min(s.provider.Batch, len(items))
			if err := s.start(ctx, items[:n]); err != nil {
				return err
			}
			items = items[n:]
		}
	}
}

type readResult struct {
	line []byte
	err  error
}

// start signs items in the background, once there is room for them.
func (s *server) start(ctx context.Context, items []item) error {
	var ids []int64
	var batch []remote.Digest
	for _, i := range items {
		d, err := i.digest()
		if err != nil {
			s.write(answer{ID: i.ID, failure: newFailure(err)})
			continue
		}
		ids, batch = append(ids, i.ID), append(batch, d)
	}
	for range batch {
		select {
		case s.room <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	s.running.Go(func() {
		results, err := s.sign(ctx, batch)
		if err == nil && len(results) != len(batch) {
			err = fmt.Errorf("the program made %d results of %d digests", len(results), len(batch))
		}
		for i, id := range ids {
			a := answer{ID: id}
			switch {
			case err != nil:
				a.failure = newFailure(err)
			case results[i].Err != nil:
				a.failure = newFailure(results[i].Err)
			case len(results[i].Signature) == 0:
				a.failure = newFailure(errors.New("the program made an empty signature"))
			default:
				a.Signature = results[i].Signature
			}
			s.write(a)
			<-s.room
		}
	})
	return nil
}

func (s *server) sign(ctx context.Context, batch []remote.Digest) ([]remote.Result, error) {
	if len(batch) == 0 {
		return nil, nil
	}
	if s.provider.SignBatch != nil {
		return s.provider.SignBatch(ctx, batch)
	}
	sig, err := s.provider.Sign(ctx, batch[0])
	return []remote.Result{{Signature: sig, Err: err}}, nil
}

// write writes a line; after the first error none.
func (s *server) write(v any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		if err := writeLine(s.out, v); err != nil {
			s.failed = fmt.Errorf("answering: %w", err)
		}
	}
	return s.failed
}
