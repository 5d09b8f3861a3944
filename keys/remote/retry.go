package remote

// This file holds when a service is asked again, and when it is given up.

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// firstPause and maxPause bound the pause before another try, which doubles.
	firstPause = 500 * time.Millisecond
	maxPause   = 20 * time.Second
	// defaultPatience is how long a service may fail without a success between.
	defaultPatience = 2 * time.Minute
	// defaultTimeout is how long one request may take.
	defaultTimeout = time.Minute
	// maxAttempts is how often one digest is sent, when a service that is well
	// otherwise fails it again and again.
	maxAttempts = 8
	// noteEvery keeps a service that comes and goes from flooding the user.
	noteEvery = 30 * time.Second
)

// Options say how a service is used. The zero value asks for one digest at a time.
type Options struct {
	// Name is what messages call the service, such as "Vault at https://vault:8200".
	Name string
	// InFlight is how many requests are made at once, Batch how many digests one
	// request holds; 1 if 0.
	InFlight, Batch int
	// Timeout is how long a request may take, a minute if 0. One that takes longer is
	// a temporary failure.
	Timeout time.Duration
	// Patience is how long the service may fail, without a success between, before it
	// is given up for good; two minutes if 0. A request that began before it was over
	// is waited for.
	Patience time.Duration
	// Advice is what a person should do about a service that was given up.
	Advice string
	// Note, if not nil, is told when the service begins to fail and when it is well
	// again. It may be called concurrently.
	Note func(string)
}

func (o Options) withDefaults() Options {
	o.InFlight, o.Batch = max(o.InFlight, 1), max(o.Batch, 1)
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.Patience <= 0 {
		o.Patience = defaultPatience
	}
	if o.Note == nil {
		o.Note = func(string) {}
	}
	return o
}

// A health follows whether a service answers. All requests to it share one, so that
// it is told of once and given up once. Its methods may be called concurrently.
type health struct {
	o Options

	mu        sync.Mutex
	successes int       // of all time
	since     time.Time // when the first request of a row of failures began; zero when well
	failures  int       // in that row
	told      bool      // that the row has begun
	last      time.Time // when the user was last told something
	dead      error     // why the service was given up
}

// begin is called before a request, and fails when the service was given up.
func (h *health) begin() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dead
}

// well is called after a success.
func (h *health) well() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.successes++
	if h.told {
		h.last = time.Now()
		h.o.Note(fmt.Sprintf("%s: well again after %s and %d failed requests", h.o.Name, round(time.Since(h.since)), h.failures))
	}
	h.since, h.failures, h.told = time.Time{}, 0, false
}

// count returns how many requests have succeeded.
func (h *health) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.successes
}

// stop gives the service up: it said that no further request will succeed.
func (h *health) stop(err error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead == nil {
		h.dead = fmt.Errorf("%s: %w", h.o.Name, err)
	}
	return h.dead
}

// failing is called after a request that began at began failed with the temporary
// error err. It returns nil when there shall be another one after pause.
func (h *health) failing(began time.Time, err error, pause time.Duration) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead != nil {
		return h.dead
	}
	if h.since.IsZero() {
		h.since = began
	}
	h.failures++
	trying := time.Since(h.since)
	if trying+pause > h.o.Patience && h.failures > 1 {
		h.dead = fmt.Errorf("%s: %w (asked %d times in %s, then given up%s)", h.o.Name, err, h.failures, round(trying), prefixed("; ", h.o.Advice))
		return h.dead
	}
	if !h.told && (h.last.IsZero() || time.Since(h.last) >= noteEvery) {
		h.told, h.last = true, time.Now()
		h.o.Note(fmt.Sprintf("%s: %v: trying again for %s", h.o.Name, err, h.o.Patience))
	}
	return nil
}

// round leaves what a person cares for of a time.
func round(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

// pause returns how long to wait before try n+1: twice as long each time, at random
// between the half and the whole of it so that many do not come back at once, and no
// less than the service asked for, as far as that is within bounds.
func pause(n int, after time.Duration) time.Duration {
	d := maxPause
	if n < 10 {
		d = min(firstPause<<(n-1), maxPause)
	}
	d = d/2 + rand.N(d/2)
	return max(d, min(after, 3*maxPause))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Retry calls ask, which makes one request, until it succeeds or its error is not by
// [Temporary], as long as the Patience of o lasts. It is for what comes before the
// first signature, such as the public key.
func Retry(ctx context.Context, o Options, ask func(context.Context) error) error {
	h := &health{o: o.withDefaults()}
	for n := 1; ; n++ {
		began := time.Now()
		err := once(ctx, h.o, ask)
		if err == nil {
			h.well()
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		after, temporary := IsTemporary(err)
		if !temporary {
			return h.stop(err)
		}
		wait := pause(n, after)
		if err := h.failing(began, err, wait); err != nil {
			return err
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// once makes one request within its time.
func once(ctx context.Context, o Options, ask func(context.Context) error) error {
	late := Temporary(fmt.Errorf("no answer within %s", o.Timeout), 0)
	timed, cancel := context.WithTimeoutCause(ctx, o.Timeout, late)
	defer cancel()
	err := ask(timed)
	if err != nil && ctx.Err() == nil && timed.Err() != nil {
		return late
	}
	return err
}
