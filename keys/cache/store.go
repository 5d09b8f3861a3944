package cache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"

	"go.etcd.io/bbolt"
)

const (
	// generationShare is how many generations the file has room for, were it full
	// to the last byte.
	generationShare = 16
	// mostGenerations are kept, whatever their sizes: those of a cache that was
	// smaller once are small.
	mostGenerations = maxGenerations * 3 / 4
)

// errUnusable is for files that somebody damages as fast as they are written.
var errUnusable = errors.New("it stays damaged or full though it was written anew")

// store writes a batch.
func (c *Cache) store(batch map[string][]byte) error {
	entries := make([]entry, 0, len(batch))
	for key, value := range batch {
		entries = append(entries, entry{[]byte(key), value})
	}
	slices.SortFunc(entries, func(a, b entry) int { return bytes.Compare(a.key, b.key) })
	renew := false
	for range 4 {
		again := false
		err := withLock(c.path, os.O_RDWR, exclusive, c.o.patience, func(f *os.File, info fs.FileInfo) error {
			if why := writtenByOthers(info); why != "" {
				return errors.New(why)
			}
			if renew || info.Size() > c.o.MaxBytes {
				again, renew = true, false
				// A quarter is left for what comes.
				return rewrite(c.path, f, c.o.MaxBytes/4*3, nil)
			}
			err := c.storeLocked(f, info, entries)
			if errors.Is(err, errDamaged) && info.Size() > 0 {
				c.say("cache %s: it is damaged, and made anew from what can be read of it", c.path)
			}
			if errors.Is(err, errDamaged) || errors.Is(err, errFull) {
				again, renew, err = true, true, nil
			}
			return err
		})
		switch {
		case errors.Is(err, fs.ErrNotExist): // somebody removed it
			if err := create(c.path); err != nil {
				return err
			}
		case err != nil:
			return err
		case !again:
			c.suspect.Store(false)
			return nil
		}
	}
	return errUnusable
}

// storeLocked writes entries to f, which is locked.
func (c *Cache) storeLocked(f *os.File, info fs.FileInfo, entries []entry) error {
	s, err := checkForWriting(f, info.Size(), func(s *snapshot) []generation {
		if c.suspect.Load() {
			return s.generations
		}
		return s.generations[:min(1, len(s.generations))]
	})
	if err != nil {
		return err
	}
	return guarded(func() error { return c.update(f, s, entries) })
}

// guarded calls f, which lets bbolt write. bbolt panics at what it does not
// understand, and a file that is cut off under its mapping is a fault.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = damaged("%v", p)
		}
	}()
	return f()
}

// openDB opens f, which is locked, in bbolt. Closing the database closes f.
func openDB(f *os.File, maxBytes int64, noSync bool) (*bbolt.DB, error) {
	db, err := bbolt.Open(f.Name(), 0o600, &bbolt.Options{
		OpenFile:     func(string, int, fs.FileMode) (*os.File, error) { return f, nil },
		PageSize:     pageSize,
		MaxSize:      int(maxBytes),
		FreelistType: bbolt.FreelistMapType,
		Timeout:      patience,
		NoSync:       noSync,
		NoGrowSync:   noSync,
	})
	if err != nil {
		return nil, err
	}
	db.AllocSize = 0 // grow by what is needed, not in steps: the size is bounded
	return db, nil
}

// errFull says that there is no room left and nothing that could go.
var errFull = errors.New("the cache is full")

// An updater writes to one open file.
type updater struct {
	*Cache
	file        *os.File
	db          *bbolt.DB
	generations int // how many there are
}

// update writes entries in chunks that fit the size of the file.
func (c *Cache) update(f *os.File, s *snapshot, entries []entry) error {
	db, err := openDB(f, c.o.MaxBytes, c.o.noSync)
	if err != nil {
		return err
	}
	u := &updater{c, f, db, len(s.generations)}
	for chunk := range slices.Chunk(entries, chunkSize(c.o.MaxBytes)) {
		if err = u.put(chunk); err != nil {
			break
		}
	}
	// Not deferred: after a panic within bbolt, Close could wait for ever. f is
	// closed all the same, so that the lock is free.
	return errors.Join(err, db.Close())
}

// chunkSize returns how many entries are written in one transaction, which may
// touch a leaf for each.
func chunkSize(maxBytes int64) int {
	return int(min(batchSize, max(maxBytes/pageSize/16, 8)))
}

// put writes a chunk. The oldest generations go until there is room.
func (u *updater) put(chunk []entry) error {
	need := 2*len(chunk) + 32
	for {
		room, err := u.room()
		if err != nil {
			return err
		}
		if room >= need && u.generations <= mostGenerations {
			err := u.db.Update(func(tx *bbolt.Tx) error { return u.putIn(tx, chunk) })
			if !full(err) {
				return err
			}
		}
		if err := u.dropOldest(); err != nil {
			return err
		}
	}
}

// room returns how many pages are free or can be added.
func (u *updater) room() (int, error) {
	var size int64
	err := u.db.View(func(tx *bbolt.Tx) error {
		size = tx.Size()
		return nil
	})
	stats := u.db.Stats()
	// The list of free pages is written anew each time.
	list := int(size / pageSize * 8 / pageSize)
	return stats.FreePageN + stats.PendingPageN + int((u.o.MaxBytes-size)/pageSize) - list, err
}

// putIn writes a chunk to the newest generation, or to a new one when that is full.
func (u *updater) putIn(tx *bbolt.Tx, chunk []entry) error {
	name, _ := tx.Cursor().Last()
	var b *bbolt.Bucket
	if name != nil {
		b = tx.Bucket(name)
	}
	if b == nil || b.Sequence() >= uint64(u.o.MaxBytes/generationShare) {
		next := uint64(1)
		if name != nil {
			next = binary.BigEndian.Uint64(name) + 1
		}
		var err error
		if b, err = tx.CreateBucket(generationName(next)); err != nil {
			return err
		}
		u.generations++
	}
	return putAll(b, chunk)
}

// putAll writes entries and counts their bytes.
func putAll(b *bbolt.Bucket, entries []entry) error {
	total := b.Sequence()
	for _, e := range entries {
		if err := b.Put(e.key, e.value); err != nil {
			return err
		}
		total += uint64(e.size())
	}
	return b.SetSequence(total)
}

// dropOldest removes the oldest generation. It is checked first, as bbolt goes
// through all of its pages.
func (u *updater) dropOldest() error {
	info, err := u.file.Stat()
	if err != nil {
		return err
	}
	s, err := checkForWriting(u.file, info.Size(), func(s *snapshot) []generation {
		return s.generations[max(0, len(s.generations)-1):]
	})
	if err != nil {
		return err
	}
	if len(s.generations) < 2 {
		return errFull
	}
	oldest := s.generations[len(s.generations)-1]
	err = u.db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket(generationName(oldest.number)) })
	if err != nil {
		return fmt.Errorf("making room: %w", err)
	}
	u.generations = len(s.generations) - 1
	return nil
}
