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
// wait then, up to a batch. Until something was signed there is one at a time, and a
// hash of which the first digest is refused for good is given up, so that a wrong
// password is tried once and not as often as there are files.
type Signer struct {
	public crypto.PublicKey
	sign   SignFunc
	o      Options
	ctx    context.Context
	cancel context.CancelCauseFunc
	health health

	mu      sync.Mutex // guards what follows
	waiting map[crypto.Hash][]*call
	queued  int // calls of all time
	active  int // requests in flight, or waiting to be made again
	signed  map[crypto.Hash]bool
	refused map[crypto.Hash]error // why nothing by this hash is signed
	running sync.WaitGroup
}

// A call is a Sign that waits for its result.
type call struct {
	Digest
	number   int // in the order of the calls
	result   Result
	attempts int
	done     chan struct{}
}

// NewSigner returns a Signer for the service that sign asks, whose key is public. It
// cannot be used after ctx is done; Close it.
func NewSigner(ctx context.Context, public crypto.PublicKey, sign SignFunc, o Options) *Signer {
	s := &Signer{
		public: public, sign: sign, o: o.withDefaults(),
		waiting: map[crypto.Hash][]*call{}, signed: map[crypto.Hash]bool{}, refused: map[crypto.Hash]error{},
	}
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
	if err := s.refused[c.Hash]; err != nil {
		return err
	}
	s.queued++
	c.number = s.queued
	s.waiting[c.Hash] = append(s.waiting[c.Hash], c)
	s.start()
	return nil
}

// start makes the requests that may be made now. The caller holds mu.
func (s *Signer) start() {
	limit := 1
	if len(s.signed) > 0 {
		limit = s.o.InFlight
	}
	for s.active < limit {
		batch := s.take()
		if batch == nil {
			return
		}
		s.active++
		s.running.Go(func() { s.run(batch) })
	}
}

// take removes the next batch from those that wait: the call that waits longest, and
// those by the same hash. It returns nil when nobody waits.
func (s *Signer) take() []*call {
	var next []*call
	for _, calls := range s.waiting {
		if len(calls) > 0 && (next == nil || calls[0].number < next[0].number) {
			next = calls
		}
	}
	if next == nil {
		return nil
	}
	n := min(len(next), s.o.Batch)
	s.waiting[next[0].Hash] = next[n:]
	return next[:n:n]
}

// run makes requests until each call of batch has its result.
func (s *Signer) run(batch []*call) {
	for n := 1; len(batch) > 0; n++ {
		batch = s.try(batch, n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active--
	s.start()
}

// try makes request n of a batch and finishes the calls that have their result by it.
// It returns those that shall be made again, after it has waited as long as is due.
func (s *Signer) try(batch []*call, n int) []*call {
	if err := s.health.begin(); err != nil {
		finish(batch, err)
		return nil
	}
	began, successes := time.Now(), s.health.count()
	results, err := s.request(batch)
	if s.ctx.Err() != nil {
		finish(batch, fmt.Errorf("%s: %w", s.o.Name, context.Cause(s.ctx)))
		return nil
	}
	after, temporary := IsTemporary(err)
	switch {
	case err != nil && !temporary:
		finish(batch, s.health.stop(err))
		return nil
	case err != nil:
		results = make([]Result, len(batch))
		for i := range results {
			results[i].Err = err
		}
	default:
		s.answered(batch[0].Hash, results)
		for _, r := range results {
			d, _ := IsTemporary(r.Err)
			after = max(after, d)
		}
	}
	wait := pause(n, after)
	if err != nil {
		if dead := s.health.failing(began, err, wait); dead != nil {
			finish(batch, dead)
			return nil
		}
	}
	// How often a digest may fail counts only while the service answers others:
	// otherwise it is the service's patience that ends.
	again := s.settle(batch, results, err == nil || s.health.count() != successes)
	if len(again) > 0 && err == nil {
		// The service is well: others need not wait for these.
		s.running.Go(func() { s.later(again, wait) })
		return nil
	}
	return s.wait(again, wait)
}

// wait returns batch after a pause, or nothing when the key was closed meanwhile.
func (s *Signer) wait(batch []*call, d time.Duration) []*call {
	if len(batch) == 0 {
		return nil
	}
	if err := sleep(s.ctx, d); err != nil {
		finish(batch, fmt.Errorf("%s: %w", s.o.Name, err))
		return nil
	}
	return batch
}

// later puts batch back to those that wait for a request, after a pause.
func (s *Signer) later(batch []*call, d time.Duration) {
	batch = s.wait(batch, d)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(batch) > 0 {
		h := batch[0].Hash
		s.waiting[h] = append(batch, s.waiting[h]...)
	}
	s.start()
}

// request makes one request. One of which every digest failed for the moment failed
// as a whole.
func (s *Signer) request(batch []*call) (results []Result, err error) {
	digests := make([]Digest, len(batch))
	for i, c := range batch {
		digests[i] = c.Digest
	}
	err = once(s.ctx, s.o, func(ctx context.Context) (err error) {
		results, err = s.sign(ctx, digests)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(results) != len(batch) {
		return nil, fmt.Errorf("%d results for %d digests", len(results), len(batch))
	}
	var longest time.Duration
	for _, r := range results {
		after, temporary := IsTemporary(r.Err)
		if !temporary {
			return results, nil
		}
		longest = max(longest, after)
	}
	return nil, Temporary(results[0].Err, longest)
}

// answered is called for the results of a request that succeeded, by hash h.
func (s *Signer) answered(h crypto.Hash, results []Result) {
	s.health.well()
	s.mu.Lock()
	defer s.mu.Unlock()
	var refused error
	for _, r := range results {
		if _, temporary := IsTemporary(r.Err); r.Err == nil {
			s.signed[h] = true
		} else if !temporary {
			refused = r.Err
		}
	}
	if refused != nil && !s.signed[h] {
		s.refused[h] = s.refusal(refused)
		finish(s.waiting[h], s.refused[h])
		delete(s.waiting, h)
	}
	s.start()
}

// settle finishes the calls that have a result for good, and returns the others.
func (s *Signer) settle(batch []*call, results []Result, counts bool) (again []*call) {
	for i, c := range batch {
		r := results[i]
		if r.Err == nil {
			c.result = r
			close(c.done)
			continue
		}
		if counts {
			c.attempts++
		}
		_, temporary := IsTemporary(r.Err)
		switch {
		case temporary && c.attempts < maxAttempts:
			again = append(again, c)
		case temporary:
			finish(batch[i:i+1], fmt.Errorf("%s: %w (asked %d times while others succeeded)", s.o.Name, r.Err, c.attempts))
		default:
			finish(batch[i:i+1], s.refusal(r.Err))
		}
	}
	return again
}

func (s *Signer) refusal(err error) error { return refusal{fmt.Errorf("%s: %w", s.o.Name, err)} }

func finish(calls []*call, err error) {
	for _, c := range calls {
		c.result = Result{Err: err}
		close(c.done)
	}
}
