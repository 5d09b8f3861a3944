// Package signtest is the contract that every package format has to keep: what
// the comments of [sign.Package] promise, as tests. A format's tests call [Run]
// with a few packages of theirs; [Memory] is the smallest format that passes.
//
// Small packages are best: every check reads or writes each of them many times.
//
// Keys that sign for tests (keys.go), and what scripts/ keeps for them (cached.go), are
// here for the tests of all rooms.
package signtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

// A Format is a package format under test.
type Format struct {
	// Open opens a package file of the given size in bytes.
	Open func(r io.ReaderAt, size int64) (sign.Package, error)
	// Raw holds unsigned package files by a name for the test's output. At least
	// one must have two files with content or more.
	Raw map[string][]byte
	// Write are the options with which the packages are written. The zero value
	// will do unless a package holds an OpenPGP signature that would not survive.
	Write sign.WriteOptions
}

// Run checks every package of f against the contract. It counts goroutines, so it
// must not run in parallel with other tests.
func Run(t *testing.T, f Format) {
	t.Helper()
	if len(f.Raw) == 0 {
		t.Fatal("signtest: no package to test")
	}
	for _, name := range slices.Sorted(maps.Keys(f.Raw)) {
		t.Run(name, func(t *testing.T) {
			for _, c := range checks {
				t.Run(c.name, func(t *testing.T) {
					if err := c.run(&subject{Format: f, raw: f.Raw[name]}); err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
}

// A check is one promise. It returns how the promise is broken, so that the
// suite's own tests can see it refuse a broken format.
type check struct {
	name string
	run  func(*subject) error
}

var checks = []check{
	{"unsigned package has no manifest", (*subject).unsigned},
	{"files are well formed", (*subject).files},
	{"walk can be repeated", (*subject).repeat},
	{"walk can stop early", (*subject).stopEarly},
	{"content can be left unread", (*subject).leaveUnread},
	{"content ends with its step", (*subject).readLate},
	{"signed package carries its manifest", (*subject).signAndRead},
	{"signature of a changed manifest does not hold", (*subject).changed},
	{"selection is kept", (*subject).selection},
	{"signing twice gives the same bytes", (*subject).deterministic},
	{"unsigning gives the original bytes", (*subject).unsign},
	{"failing writer stops Write", (*subject).failingWriter},
	{"failing reader stops everything", (*subject).failingReader},
	{"cancelled context stops everything", (*subject).cancelled},
	{"damaged package does no harm", (*subject).damaged},
}

// A subject is a package file under test.
type subject struct {
	Format
	raw []byte
}

// keys are made once: an RSA key takes longer to make than all checks.
var keys = sync.OnceValue(func() (k struct{ rsa, ec, other *sign.Signer }) {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	k.rsa, k.ec, k.other = SignerOf(r), NewSigner(), NewSigner()
	return k
})

// both runs f with each kind of key.
func both(f func(key *sign.Signer) error) error {
	k := keys()
	if err := f(k.rsa); err != nil {
		return fmt.Errorf("with an RSA key: %w", err)
	}
	if err := f(k.ec); err != nil {
		return fmt.Errorf("with an EC key: %w", err)
	}
	return nil
}

func (s *subject) open(raw []byte) (sign.Package, error) {
	p, err := s.Open(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		return nil, fmt.Errorf("opening: %w", err)
	}
	return p, nil
}

// write returns the copy of p that carries m.
func (s *subject) write(p sign.Package, m *sign.Manifest) ([]byte, error) {
	if err := p.CanWrite(m, s.Write); err != nil {
		return nil, fmt.Errorf("CanWrite: %w", err)
	}
	var b bytes.Buffer
	if err := p.Write(context.Background(), &b, m, s.Write); err != nil {
		return nil, fmt.Errorf("calling Write: %w", err)
	}
	return b.Bytes(), nil
}

// sign returns the signed copy of raw and the manifest that was written.
func (s *subject) sign(raw []byte, key *sign.Signer, o sign.Options) ([]byte, *sign.Manifest, error) {
	p, err := s.open(raw)
	if err != nil {
		return nil, nil, err
	}
	m, err := sign.Sign(context.Background(), p, key, o)
	if err != nil {
		return nil, nil, fmt.Errorf("calling Sign: %w", err)
	}
	signed, err := s.write(p, m)
	return signed, m, err
}

func (s *subject) verify(raw []byte, keys *sign.TrustedKeys, o sign.Options) (*sign.Report, error) {
	p, err := s.open(raw)
	if err != nil {
		return nil, err
	}
	return sign.Verify(context.Background(), p, keys, o)
}

// offsets returns up to 2n places of a file of size bytes: the first n, where the
// structures are, and n spread over all of it.
func offsets(size, n int) []int {
	var all []int
	for i := range min(n, size) {
		all = append(all, i, size*i/n)
	}
	if size > 0 {
		all = append(all, size-1)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

var errInjected = errors.New("signtest: injected failure")

// A failingWriter takes room bytes and fails then.
type failingWriter struct{ room int }

func (w *failingWriter) Write(b []byte) (int, error) {
	if len(b) <= w.room {
		w.room -= len(b)
		return len(b), nil
	}
	n := w.room
	w.room = 0
	return n, errInjected
}

// A failingReader fails every read that touches an offset of limit or more.
type failingReader struct {
	raw   []byte
	limit int
}

func (r failingReader) ReadAt(b []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, errors.New("signtest: negative offset")
	}
	if offset >= int64(r.limit) {
		return 0, errInjected
	}
	n := copy(b, r.raw[offset:r.limit])
	if n < len(b) {
		return n, errInjected
	}
	return n, nil
}
