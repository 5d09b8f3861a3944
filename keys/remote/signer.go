package remote

// This file holds the crypto.Signer: how calls become batches and batches answers.

import (
	"context"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// A SignFunc makes one request: it has the digests of batch signed, which are by one
// hash, and returns as many results in their order. Its error is for the request as a
// whole; where it is by [Temporary] the request is made again, otherwise the service
// is given up. It is called concurrently.
type SignFunc func(ctx context.Context, batch []Digest) ([]Result, error)

// A Signer is the key of a service. Its methods may be called concurrently.
//
// Calls that wait are gathered: a request leaves as soon as one may, with all that
// wait then, up to a batch. Until the first request has succeeded there is one at a
// time, so that a wrong password is tried once and not as often as may be in flight.
type Signer struct {
	public crypto.PublicKey
	sign   SignFunc
	o      Options
	ctx    context.Context
	cancel context.CancelCauseFunc
	health health

	mu      sync.Mutex // guards what follows
	waiting []*call
	active  int  // requests in flight, or waiting to be made again
	proven  bool // one has succeeded
	running sync.WaitGroup
}

// A call is a Sign that waits for its result.
type call struct {
	Digest
	result   Result
	attempts int
	done     chan struct{}
}

// NewSigner returns a Signer for the service that sign asks, whose key is public. It
// cannot be used after ctx is done; Close it.
func NewSigner(ctx context.Context, public crypto.PublicKey, sign SignFunc, o Options) *Signer {
	s := &Signer{public: public, sign: sign, o: o.withDefaults()}
	s.health.o = s.o
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	return s
}

// Public implements crypto.Signer.
func (s *Signer) Public() crypto.PublicKey { return s.public }

// Jobs is how many calls of Sign are worth making at once.
func (s *Signer) Jobs() int { return s.o.InFlight * s.o.Batch }

var errClosed = errors.New("the key was closed")

// Close ends all requests and waits for them.
func (s *Signer) Close() error {
	s.mu.Lock() // a Sign that found the key open has started its request then
	s.cancel(errClosed)
	s.mu.Unlock()
	s.running.Wait()
	return nil
}

// Sign implements crypto.Signer for digests; PSS is refused. A service's ECDSA
// signatures are not deterministic.
func (s *Signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if _, ok := opts.(*rsa.PSSOptions); ok {
		return nil, errors.New("PSS signatures are not made by this key: the kernel does not verify them")
	}
	h := opts.HashFunc()
	switch h {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
	default:
		return nil, fmt.Errorf("%s: digests by %v are not signed: use sha256, sha384 or sha512", s.o.Name, h)
	}
	if len(digest) != h.Size() {
		return nil, fmt.Errorf("%s: a digest of %d bytes is not one of %v", s.o.Name, len(digest), h)
	}
	c := &call{Digest: Digest{h, digest}, done: make(chan struct{})}
	if err := s.queue(c); err != nil {
		return nil, err
	}
	<-c.done
	return c.result.Signature, c.result.Err
}

func (s *Signer) queue(c *call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return fmt.Errorf("%s: %w", s.o.Name, context.Cause(s.ctx))
	}
	s.waiting = append(s.waiting, c)
	s.start()
	return nil
}

// start makes the requests that may be made now. The caller holds mu.
func (s *Signer) start() {
	limit := 1
	if s.proven {
		limit = s.o.InFlight
	}
	for s.active < limit && len(s.waiting) > 0 {
		batch := s.take()
		s.active++
		s.running.Go(func() { s.run(batch) })
	}
}

// take removes the next batch from those that wait: the first call, and those by the
// same hash.
func (s *Signer) take() []*call {
	h := s.waiting[0].Hash
	var batch, rest []*call
	for _, c := range s.waiting {
		if c.Hash == h && len(batch) < s.o.Batch {
			batch = append(batch, c)
		} else {
			rest = append(rest, c)
		}
	}
	s.waiting = rest
	return batch
}

// run makes requests until each call of batch has its result.
func (s *Signer) run(batch []*call) {
	for n := 1; len(batch) > 0; n++ {
		began := time.Now()
		failed, err := s.request(batch)
		switch {
		case s.ctx.Err() != nil:
			err = context.Cause(s.ctx)
			finish(failed, fmt.Errorf("%s: %w", s.o.Name, err))
			failed = nil
		case err != nil:
			after, _ := IsTemporary(err)
			wait := pause(n, after)
			if err = s.health.failing(began, err, wait); err == nil {
				err = sleep(s.ctx, wait)
			}
			if err != nil {
				finish(failed, err)
				failed = nil
			}
		case len(failed) > 0:
			if err := sleep(s.ctx, pause(n, longest(failed))); err != nil {
				finish(failed, err)
				failed = nil
			}
		}
		batch = failed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active--
	s.start()
}

// request makes one request and finishes the calls that have their result by it. It
// returns those that shall be made again, and the temporary error when all shall.
func (s *Signer) request(batch []*call) (again []*call, err error) {
	if err := s.health.begin(); err != nil {
		finish(batch, err)
		return nil, nil
	}
	digests := make([]Digest, len(batch))
	for i, c := range batch {
		digests[i] = c.Digest
	}
	var results []Result
	err = once(s.ctx, s.o, func(ctx context.Context) (err error) {
		results, err = s.sign(ctx, digests)
		return err
	})
	if err == nil && len(results) != len(batch) {
		err = fmt.Errorf("%d results for %d digests", len(results), len(batch))
	}
	if err != nil {
		if _, temporary := IsTemporary(err); temporary || s.ctx.Err() != nil {
			return batch, err
		}
		finish(batch, s.health.stop(err))
		return nil, nil
	}
	s.health.well()
	s.mu.Lock()
	s.proven = true
	s.start()
	s.mu.Unlock()
	for i, c := range batch {
		c.result = results[i]
		c.attempts++
		if c.result.Err == nil {
			close(c.done)
			continue
		}
		_, temporary := IsTemporary(c.result.Err)
		if temporary && c.attempts < maxAttempts {
			again = append(again, c)
			continue
		}
		if temporary {
			c.result.Err = fmt.Errorf("%w (asked %d times)", c.result.Err, c.attempts)
		}
		finish([]*call{c}, fmt.Errorf("%s: %w", s.o.Name, c.result.Err))
	}
	return again, nil
}

// longest returns how long the service asked to be left alone.
func longest(calls []*call) (after time.Duration) {
	for _, c := range calls {
		d, _ := IsTemporary(c.result.Err)
		after = max(after, d)
	}
	return after
}

func finish(calls []*call, err error) {
	for _, c := range calls {
		c.result = Result{Err: err}
		close(c.done)
	}
}
