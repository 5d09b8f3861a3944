package remote

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A fake is a service whose signature of a digest is the digest itself. It remembers
// the size of each request.
type fake struct {
	answer func(n int, batch []Digest) ([]Result, error) // of request n, from 1; nil for a good one
	takes  time.Duration

	mu             sync.Mutex
	requests       []int
	now, most      int
	notes          []string
	hashesInABatch int
}

func (f *fake) sign(ctx context.Context, batch []Digest) ([]Result, error) {
	f.mu.Lock()
	f.requests = append(f.requests, len(batch))
	n := len(f.requests)
	f.now++
	f.most = max(f.most, f.now)
	hashes := map[crypto.Hash]bool{}
	for _, d := range batch {
		hashes[d.Hash] = true
	}
	f.hashesInABatch = max(f.hashesInABatch, len(hashes))
	f.mu.Unlock()
	defer func() { f.mu.Lock(); f.now--; f.mu.Unlock() }()
	if f.takes > 0 {
		select {
		case <-time.After(f.takes):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if f.answer != nil {
		return f.answer(n, batch)
	}
	return good(batch), nil
}

func good(batch []Digest) []Result {
	results := make([]Result, len(batch))
	for i, d := range batch {
		results[i].Signature = d.Sum
	}
	return results
}

func (f *fake) note(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notes = append(f.notes, text)
}

func (f *fake) open(ctx context.Context, o Options) *Signer {
	o.Name, o.Advice, o.Note = "the fake", "mend it", f.note
	return NewSigner(ctx, "public", f.sign, o)
}

func digest(n int) []byte {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))
	return sum[:]
}

// signAll signs n digests at once and returns the errors by digest.
func signAll(t *testing.T, s *Signer, n int) []error {
	t.Helper()
	errs := make([]error, n)
	var done sync.WaitGroup
	for i := range n {
		done.Go(func() {
			sig, err := s.Sign(rand.Reader, digest(i), crypto.SHA256)
			if err == nil && !slices.Equal(sig, digest(i)) {
				err = fmt.Errorf("digest %d has the signature of another", i)
			}
			errs[i] = err
		})
	}
	done.Wait()
	return errs
}

func mustSignAll(t *testing.T, s *Signer, n int) {
	t.Helper()
	for i, err := range signAll(t, s, n) {
		if err != nil {
			t.Fatalf("digest %d: %v", i, err)
		}
	}
}

// begin has digest n asked for, and returns when the request is under way: what is signed
// then comes after it. It is for a fake that takes its time, in a bubble of synctest.
func begin(s *Signer, n int) (failed <-chan error) {
	done := make(chan error, 1)
	go func() {
		_, err := s.Sign(rand.Reader, digest(n), crypto.SHA256)
		done <- err
	}()
	synctest.Wait()
	return done
}
