package program

// This file is imaseal's end of the protocol: a signing key in another program.

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/imaseal/imaseal/keys/remote"
)

const (
	// unsaidInFlight is how many digests a program that does not say is given at once.
	unsaidInFlight = 64
	// maxStarts is how often in a row a program is started that ends before it has
	// answered anything.
	maxStarts = 5
	// answerTimeout is how long an answer may take: a program may try again itself, or
	// have somebody touch a token.
	answerTimeout = 2 * time.Minute
)

// Options say how a program is used.
type Options struct {
	// Key is what the first line names: which key the program shall use.
	Key string
	// Jobs is how many digests may wait for an answer; 0 leaves that to the program.
	Jobs int
	// Timeout is how long an answer may take, two minutes if 0; Patience how long a
	// program may fail without a signature between, two minutes if 0.
	Timeout, Patience time.Duration
	// Note, if not nil, is told what the program writes to standard error, and when it
	// fails and is well again. It may be called concurrently.
	Note func(string)
}

// A Signer is a key in a program. Its methods may be called concurrently.
type Signer struct {
	*remote.Signer
	client *client
}

// Close ends the program: its input ends, and when it does not end soon it is killed.
func (s *Signer) Close() error {
	err := s.Signer.Close()
	s.client.close()
	return err
}

// Open starts the program argv, without a shell, and asks it for the key that o names.
// The program has imaseal's environment; it is killed when ctx is done. One that ends
// or hangs is started again, and asked again for what it did not answer.
func Open(ctx context.Context, argv []string, o Options) (*Signer, error) {
	if o.Note == nil {
		o.Note = func(string) {}
	}
	if o.Timeout <= 0 {
		o.Timeout = answerTimeout
	}
	c := &client{argv: argv, o: o, name: "signing program " + filepath.Base(argv[0])}
	c.ctx, c.cancel = context.WithCancel(ctx)
	ro := remote.Options{
		Name: c.name, Timeout: o.Timeout, Patience: o.Patience, Note: o.Note,
		Advice: "see what the program says, then run imaseal again: finished packages are kept",
	}
	w, err := c.first(ctx, ro)
	if err != nil {
		c.close()
		return nil, err
	}
	inFlight := w.InFlight
	if inFlight == 0 {
		inFlight = unsaidInFlight
	}
	if o.Jobs > 0 {
		inFlight = min(inFlight, o.Jobs)
	}
	ro.Batch = min(max(w.Batch, 1), inFlight)
	ro.InFlight = inFlight / ro.Batch
	return &Signer{remote.NewSigner(ctx, c.public, c.sign, ro), c}, nil
}

// first starts the program for the first time. One that ends or hangs then is not
// tried again: it is more likely the wrong one, or called wrongly.
func (c *client) first(ctx context.Context, o remote.Options) (w welcome, err error) {
	o.Timeout *= 2 // the one below ends first
	c.mu.Lock()
	defer c.mu.Unlock()
	err = remote.Retry(ctx, o, func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeoutCause(ctx, c.o.Timeout, fmt.Errorf("nothing came within %s", c.o.Timeout))
		defer cancel()
		w, err = c.start(ctx)
		return err
	})
	return w, err
}

// A client keeps one process running.
type client struct {
	ctx    context.Context
	cancel context.CancelFunc
	argv   []string
	o      Options
	name   string

	mu      sync.Mutex // guards what follows
	process *process   // nil before the first one
	public  crypto.PublicKey
	starts  int // since the last signature
}

// start starts the program and returns its first line. The caller holds mu.
func (c *client) start(ctx context.Context) (welcome, error) {
	p, w, public, err := startProcess(ctx, c.ctx, c.argv, c.o.Key, func(line string) {
		if c.ctx.Err() == nil { // what it says of being interrupted is no news
			c.o.Note(c.name + ": " + line)
		}
	})
	if err != nil {
		return w, err
	}
	if c.public != nil && !equal(c.public, public) {
		p.end()
		return w, errors.New("it was started again and came with another key")
	}
	c.process, c.public = p, public
	c.starts++
	return w, nil
}

// equal compares keys of the kinds that parseWelcome lets pass.
func equal(a, b crypto.PublicKey) bool {
	switch a := a.(type) {
	case *rsa.PublicKey:
		return a.Equal(b)
	case *ecdsa.PublicKey:
		return a.Equal(b)
	}
	return false
}

// running returns the process, a new one when the last has ended.
func (c *client) running(ctx context.Context) (*process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	failed := c.process.failure()
	if failed == nil {
		return c.process, nil
	}
	if c.starts >= maxStarts {
		return nil, fmt.Errorf("%w (started %d times, and each time it ended before it had signed anything)", permanent(failed), c.starts)
	}
	_, err := c.start(ctx)
	var ended *endedError
	if errors.As(err, &ended) {
		c.starts++
		err = remote.Temporary(err, 0)
	}
	return c.process, err
}

// permanent returns err without its mark.
func permanent(err error) error { return errors.New(err.Error()) }

// sign is a [remote.SignFunc]: one line.
func (c *client) sign(ctx context.Context, batch []remote.Digest) ([]remote.Result, error) {
	p, err := c.running(ctx)
	if err == nil {
		err = ctx.Err() // a start may have taken long: the new process does not hang
	}
	if err != nil {
		return nil, err
	}
	results, err := p.sign(ctx, batch)
	for _, r := range results {
		if len(r.Signature) > 0 {
			c.mu.Lock()
			c.starts = 0
			c.mu.Unlock()
			break
		}
	}
	return results, err
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process != nil {
		c.process.end()
	}
	c.cancel()
}
