package cache

import (
	"context"
	"errors"
	"os"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/internal/atomicfile"
)

// full reports whether bbolt found no room for a page.
func full(err error) bool { return errors.Is(err, berrors.ErrMaxSizeReached) }

// rewrite replaces the cache at path, which is open and locked in f, by one of at
// most maxBytes with the newest entries that can be read and that keep, if not nil,
// wants. That is how a file shrinks, which bbolt's never do, and how a damaged one
// becomes whole.
func rewrite(path string, f *os.File, maxBytes int64, keep func(entry) bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	s, err := newSnapshot(f, info.Size())
	if err != nil && s == nil {
		s = new(snapshot) // nothing can be read
	}
	return atomicfile.Write(context.Background(), path, func(w *os.File) error {
		if _, err := w.Write(emptyFile()); err != nil {
			return err
		}
		// bbolt gets a descriptor of its own to close, and with it the lock goes.
		copied, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := fillDB(os.NewFile(uintptr(copied), w.Name()), s, maxBytes, keep); err != nil {
			return err
		}
		return lock(w, exclusive, patience)
	}, atomicfile.Options{Like: f})
}

// fillDB copies the entries of s to the new cache f, which it closes.
func fillDB(f *os.File, s *snapshot, maxBytes int64, keep func(entry) bool) error {
	db, err := openDB(f, maxBytes, true) // it is synced as a whole
	if err != nil {
		return errors.Join(err, f.Close())
	}
	for _, g := range s.generations {
		if err = copyGeneration(db, s, g, chunkSize(maxBytes), keep); err != nil {
			break
		}
	}
	if full(err) {
		err = nil // the older ones have no room
	}
	return errors.Join(err, db.Close())
}

// copyGeneration copies the entries of g that can be read.
func copyGeneration(db *bbolt.DB, s *snapshot, g generation, chunk int, keep func(entry) bool) error {
	var entries []entry
	put := func() error {
		if len(entries) == 0 {
			return nil
		}
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists(generationName(g.number))
			if err != nil {
				return err
			}
			b.FillPercent = 0.95 // they come in order
			return putAll(b, entries)
		})
		entries = entries[:0]
		return err
	}
	err := s.entries(g, nil, func(e entry) error {
		if keep != nil && !keep(e) {
			return nil
		}
		if entries = append(entries, e.clone()); len(entries) < chunk {
			return nil
		}
		return put()
	})
	if err != nil && !errors.Is(err, errDamaged) {
		return err
	}
	return put()
}
