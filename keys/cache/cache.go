// Package cache keeps raw signatures in a bbolt file from one run to the next, so
// that a rebuilt archive has only those files signed that changed. Start with
// [Open], whose Cache is a [sign.Cache]; [Stats], [Trim] and [Verify] look after a
// file.
//
// # What a file can do
//
// A cache costs time at most. What it holds is verified by who uses it; what is
// damaged in it is a miss, and the file is made anew. Signatures are looked up by a
// reader of our own, which bounds what it reads and follows, without a lock and
// without a mapping. bbolt itself only writes, in a locked file whose structure was
// checked right before. Only who ignores the lock and changes the file in just that
// moment could end the process; so a file that others may write is read only.
//
// # Several processes
//
// A run collects what it signs and writes it in sorted batches, so that the lock is
// held for a fraction of a second at a time. Who cannot get it goes on without
// keeping the signatures, and says so once. A process that is killed leaves what
// the last batch left.
//
// # Bounds
//
// The file never grows beyond Options.MaxBytes. Signatures are in generations, some
// eight of which fill the file, and the oldest makes room for a new one. Once the file
// is half full, what is used of the older half moves to the newest generation: so
// the signatures that go are those that were not used for longest, to within a
// generation or so.
package cache

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imaseal/imaseal/sign"
)

// Sizes of a file in bytes.
const (
	smallestFile = 1 << 20
	largestFile  = 1 << 40
	DefaultSize  = 512 << 20
)

const (
	// batchSize is how many signatures are written at once, about 600 KiB of
	// RSA-4096, at the latest after batchTime.
	batchSize = 1024
	batchTime = 10 * time.Second
	// maxPending bounds those that wait for a lock, to some 10 MiB.
	maxPending = 16 * batchSize
	// patience is how long a lock is waited for.
	patience = 5 * time.Second
)

// Options say how a cache is used.
type Options struct {
	// MaxBytes is how large the file may get, DefaultSize if 0; 1 MiB at least.
	MaxBytes int64
	// Note, if not nil, is told why the cache does less than it should. It may be
	// called concurrently.
	Note func(string)

	patience time.Duration    // how long a lock is waited for, if not 0
	now      func() time.Time // the clock, if not nil
	noSync   bool             // for tests that write thousands of times
}

// A Cache is an open file of signatures. Its methods may be called concurrently.
// After Close it has nothing and keeps nothing.
type Cache struct {
	path string
	o    Options

	current atomic.Pointer[snapshot]
	// suspect says that something in the file is damaged, though perhaps only for
	// an old snapshot.
	suspect atomic.Bool

	mu       sync.Mutex
	file     *os.File // what current reads
	old      []*os.File
	pending  map[string][]byte // values to be written, by key
	flying   map[string][]byte // those that are being written
	written  time.Time         // when the last batch was
	readOnly bool
	said     map[string]bool
	batches  sync.WaitGroup
}

var _ sign.Cache = (*Cache)(nil)

// Open opens the cache at path and makes it where there is nothing or an empty file.
// A file that is no cache of ours is an error and stays as it is. A damaged cache
// is not: it is made anew when it is written to.
func Open(path string, o Options) (*Cache, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	c := &Cache{path: path, o: o, pending: map[string][]byte{}, written: time.Now(), said: map[string]bool{}}
	f, info, err := openOurs(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		if err = create(path); err == nil {
			f, info, err = openOurs(path, os.O_RDONLY)
		}
	}
	if err != nil {
		return nil, err
	}
	if why := writtenByOthers(info); why != "" {
		c.readOnly = true
		c.say("cache %s: %s: signatures are taken from it, but none are kept", path, why)
	}
	c.file = f
	c.load(f, info)
	return c, nil
}

func (o *Options) complete() error {
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultSize
	}
	if o.MaxBytes < smallestFile || o.MaxBytes > largestFile {
		return fmt.Errorf("a cache of %d bytes: it must have 1 MiB at least and 1 TiB at most", o.MaxBytes)
	}
	if o.patience == 0 {
		o.patience = patience
	}
	if o.now == nil {
		o.now = time.Now
	}
	return nil
}

// say notes a text once.
func (c *Cache) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	c.mu.Lock()
	known := c.said[text]
	c.said[text] = true
	c.mu.Unlock()
	if !known && c.o.Note != nil {
		c.o.Note(text)
	}
}

// load makes a snapshot of f the current one, and returns it; nil when f is damaged.
func (c *Cache) load(f *os.File, info fs.FileInfo) *snapshot {
	s, err := newSnapshot(f, info.Size())
	if err != nil {
		// It may be that a writer was just at it.
		lock(f, shared, c.o.patience)
		if info, err = f.Stat(); err == nil {
			s, err = newSnapshot(f, info.Size())
		}
		unlock(f)
	}
	if err != nil {
		c.suspect.Store(info == nil || info.Size() > 0)
		return nil
	}
	c.current.Store(s)
	return s
}

// Lookup implements [sign.Cache].
func (c *Cache) Lookup(identity [sha256.Size]byte, h sign.Hash, digest []byte) []byte {
	key := entryKey(identity, h, digest)
	if e := (entry{key, make([]byte, timeSize+1)}); !e.wellFormed() {
		return nil
	}
	c.mu.Lock()
	value, ok := c.pending[string(key)]
	if !ok {
		value, ok = c.flying[string(key)]
	}
	c.mu.Unlock()
	if ok {
		return value[timeSize:]
	}
	s := c.current.Load()
	if s == nil {
		s = c.refresh(nil) // it was damaged, and may have been made anew
	}
	for s != nil {
		value, age, err := s.find(key)
		if value != nil {
			if filling := int64(s.high)*pageSize > c.o.MaxBytes/2; filling && age > 0 && age >= len(s.generations)/2 {
				c.keep(key, newValue(c.o.now(), value[timeSize:]))
			}
			return value[timeSize:]
		}
		// It may have been written since, or the snapshot's pages may be gone.
		next := c.refresh(s)
		if next == nil && err != nil {
			c.suspect.Store(true)
		}
		s = next
	}
	return nil
}

// refresh returns a snapshot that is newer than s, nil where there is none.
func (c *Cache) refresh(s *snapshot) *snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.current.Load(); now != s {
		return now
	}
	if c.file == nil {
		return nil
	}
	info, err := c.file.Stat()
	if err != nil {
		return nil
	}
	if at, err := os.Lstat(c.path); err == nil && !os.SameFile(info, at) {
		f, newInfo, err := openOurs(c.path, os.O_RDONLY)
		if err != nil {
			return nil
		}
		// A lookup may still be reading the old one.
		c.old = append(c.old, c.file)
		c.file, info = f, newInfo
	} else if m, err := readMeta(c.file); err != nil || s != nil && m.transaction == s.meta.transaction {
		return nil
	}
	next, err := newSnapshot(c.file, info.Size())
	if err != nil {
		return nil
	}
	c.current.Store(next)
	return next
}

// Remember implements [sign.Cache].
func (c *Cache) Remember(identity [sha256.Size]byte, h sign.Hash, digest, sig []byte) {
	e := entry{entryKey(identity, h, digest), newValue(c.o.now(), sig)}
	if e.wellFormed() {
		c.keep(e.key, e.value)
	}
}

// keep has value written for key some time.
func (c *Cache) keep(key, value []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.readOnly || c.file == nil || len(c.pending) >= maxPending {
		return
	}
	c.pending[string(key)] = value
	if c.flying == nil && (len(c.pending) >= batchSize || time.Since(c.written) > batchTime) {
		c.flying, c.pending = c.pending, map[string][]byte{}
		c.batches.Go(c.write)
	}
}

// write writes the batch that is flying.
func (c *Cache) write() {
	err := c.store(c.flying)
	c.mu.Lock()
	kept := c.flying
	c.flying, c.written = nil, time.Now()
	if errors.Is(err, errBusy) { // later, perhaps
		for key, value := range kept {
			if _, newer := c.pending[key]; !newer {
				c.pending[key] = value
			}
		}
		err = nil
	}
	if err != nil {
		c.readOnly = true
	}
	c.mu.Unlock()
	if err != nil {
		c.say("%v; the run goes on, but its signatures are not kept", wrap(c.path, err))
	}
}

// wrap puts the path in front of err, once.
func wrap(path string, err error) error {
	switch text := err.Error(); {
	case strings.HasPrefix(text, "cache: "), strings.HasPrefix(text, "cache "+path+": "):
		return err
	case strings.Contains(text, path):
		return fmt.Errorf("cache: %w", err)
	}
	return fmt.Errorf("cache %s: %w", path, err)
}

// Close writes what was remembered and lets go of the file. What goes wrong is
// noted: it concerns the cache only. A nil Cache is closed.
func (c *Cache) Close() {
	if c == nil {
		return
	}
	c.batches.Wait()
	c.mu.Lock()
	rest := c.pending
	if c.readOnly || c.file == nil {
		rest = nil
	}
	c.pending, c.flying = nil, nil
	c.mu.Unlock()
	if len(rest) > 0 {
		if err := c.store(rest); err != nil {
			c.say("%v; %d signatures of this run were not kept", wrap(c.path, err), len(rest))
		}
	}
	c.current.Store(nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range append(c.old, c.file) {
		if f != nil {
			f.Close()
		}
	}
	c.file, c.old = nil, nil
}
