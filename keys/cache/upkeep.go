package cache

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/imaseal/imaseal/sign"
)

// A Group is what a file has of one key and one hash.
type Group struct {
	Identity [sha256.Size]byte // of the key, see Identity
	Hash     sign.Hash
	Entries  int
	Bytes    int64 // without what bbolt adds
	// Oldest and Newest are when the first and the last of them were written, or
	// moved to a newer generation because they were used.
	Oldest, Newest time.Time
}

// FileStats is what a file holds. An entry that has moved to a newer generation
// counts in both until the older one goes.
type FileStats struct {
	Bytes       int64 // the size of the file
	Generations int
	Groups      []Group // by identity and hash
}

// Identity returns the name by which a cache knows a key: the SHA-256 of its
// SubjectPublicKeyInfo in DER.
func Identity(pub crypto.PublicKey) ([sha256.Size]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return sha256.Sum256(der), nil
}

// Stats reads the whole cache at path. One that is damaged is an error.
func Stats(path string) (FileStats, error) {
	type kind struct {
		identity [sha256.Size]byte
		hash     sign.Hash
	}
	var stats FileStats
	groups := map[kind]*Group{}
	err := withLock(path, os.O_RDONLY, shared, patience, func(f *os.File, info fs.FileInfo) error {
		s, err := snapshotOf(f, info)
		if err != nil {
			return err
		}
		stats.Bytes, stats.Generations = info.Size(), len(s.generations)
		for _, g := range s.generations {
			err := s.entries(g, nil, func(e entry) error {
				k := kind{e.identity(), e.hash()}
				group, ok := groups[k]
				if !ok {
					group = &Group{Identity: k.identity, Hash: k.hash, Oldest: e.written(), Newest: e.written()}
					groups[k] = group
				}
				group.Entries++
				group.Bytes += e.size()
				if at := e.written(); at.Before(group.Oldest) {
					group.Oldest = at
				} else if at.After(group.Newest) {
					group.Newest = at
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	for _, g := range groups {
		stats.Groups = append(stats.Groups, *g)
	}
	slices.SortFunc(stats.Groups, func(a, b Group) int {
		return cmp.Or(bytes.Compare(a.Identity[:], b.Identity[:]), cmp.Compare(a.Hash, b.Hash))
	})
	return stats, explained(path, err)
}

// snapshotOf is newSnapshot for a file that may be empty.
func snapshotOf(f *os.File, info fs.FileInfo) (*snapshot, error) {
	if info.Size() == 0 {
		return new(snapshot), nil
	}
	return newSnapshot(f, info.Size())
}

// explained says which file err is about, and what helps.
func explained(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errBusy):
		return wrap(path, fmt.Errorf("%w: run this again when they have finished", err))
	case errors.Is(err, errDamaged):
		return wrap(path, errors.Join(err, errors.New("imaseal cache trim makes it anew from what can be read")))
	}
	return wrap(path, err)
}

// TrimOptions say what Trim leaves. Their zero value leaves everything and gives
// back what is free in the file.
type TrimOptions struct {
	// MaxBytes is how large the file may be, 0 for as large as it gets.
	MaxBytes int64
	// Before, if not zero, removes what was written before.
	Before time.Time
	// Remove, if not nil, says of which keys all is removed.
	Remove func(identity [sha256.Size]byte) bool
}

// Trim writes the cache at path anew, as small as it can be. A damaged one keeps
// what can be read. It returns how many entries and bytes it had and has; of a
// damaged one it may have more than it had, as far as that could be read.
func Trim(path string, o TrimOptions) (had, has FileStats, err error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = largestFile
	}
	if o.MaxBytes < smallestFile {
		return had, has, errors.New("cache: a file has 1 MiB at least")
	}
	if had, err = Stats(path); err != nil && !errors.Is(err, errDamaged) {
		return had, has, err
	}
	err = withLock(path, os.O_RDWR, exclusive, patience, func(f *os.File, info fs.FileInfo) error {
		had.Bytes = info.Size()
		return rewrite(path, f, o.MaxBytes, func(e entry) bool {
			return !e.written().Before(o.Before) && (o.Remove == nil || !o.Remove(e.identity()))
		})
	})
	if err != nil {
		return had, has, explained(path, err)
	}
	has, err = Stats(path)
	return had, has, err
}

// A Bad entry is one whose signature does not hold.
type Bad struct {
	Identity [sha256.Size]byte
	Hash     sign.Hash
	Digest   []byte
}

// Verdict is what Verify found.
type Verdict struct {
	Checked int // entries of the given keys
	Other   int // entries of other keys
	Bad     []Bad
	Removed int
}

// Verify verifies every entry by one of the keys. With remove those go whose digest
// has a bad one. The lock is held for a batch at a time, so builders go on.
func Verify(ctx context.Context, path string, publicKeys []crypto.PublicKey, remove bool) (Verdict, error) {
	trusted := map[[sha256.Size]byte]*sign.TrustedKeys{}
	for _, pub := range publicKeys {
		identity, err := Identity(pub)
		if err != nil {
			return Verdict{}, err
		}
		trusted[identity] = new(sign.TrustedKeys)
		if err := trusted[identity].Add(0, pub); err != nil {
			return Verdict{}, err
		}
	}
	holds := func(e entry) bool {
		keys, ok := trusted[e.identity()]
		return !ok || keys.VerifyDigest(sign.Signature{Version: 2, Hash: e.hash(), Sig: e.signature()}, e.digest()) == nil
	}
	var v Verdict
	bad := map[string]bool{}
	for at := new(place); !at.end; {
		if err := ctx.Err(); err != nil {
			return v, err
		}
		batch, err := nextBatch(path, at)
		if err != nil {
			return v, explained(path, err)
		}
		good := inParallel(batch, holds)
		for i, e := range batch {
			switch _, ok := trusted[e.identity()]; {
			case !ok:
				v.Other++
				continue
			case !good[i]:
				bad[string(e.key)] = true
				v.Bad = append(v.Bad, Bad{e.identity(), e.hash(), e.digest()})
			}
			v.Checked++
		}
	}
	if len(bad) == 0 || !remove {
		return v, nil
	}
	err := withLock(path, os.O_RDWR, exclusive, patience, func(f *os.File, _ fs.FileInfo) error {
		return rewrite(path, f, largestFile, func(e entry) bool {
			if bad[string(e.key)] {
				v.Removed++
			}
			return !bad[string(e.key)]
		})
	})
	return v, explained(path, err)
}

// A place is how far Verify has come: the generations from the newest on, and in
// the one with the number the keys.
type place struct {
	started bool
	number  uint64
	from    []byte
	end     bool
}

var errEnough = errors.New("enough")

// nextBatch reads some entries and moves at behind them.
func nextBatch(path string, at *place) ([]entry, error) {
	var batch []entry
	err := withLock(path, os.O_RDONLY, shared, patience, func(f *os.File, info fs.FileInfo) error {
		s, err := snapshotOf(f, info)
		if err != nil {
			return err
		}
		for _, g := range s.generations {
			if at.started && g.number > at.number {
				continue
			}
			if !at.started || g.number < at.number {
				at.started, at.number, at.from = true, g.number, nil
			}
			if err := s.entries(g, at.from, func(e entry) error {
				if len(batch) == batchSize {
					at.from = bytes.Clone(e.key)
					return errEnough
				}
				batch = append(batch, e.clone())
				return nil
			}); err != nil {
				return err
			}
			// What is added behind it from now on is not looked at.
			if g.number == 0 {
				break
			}
			at.number, at.from = g.number-1, nil
		}
		at.end = true
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return batch, err
}

// inParallel calls f for each entry on all cores and returns the answers.
func inParallel(batch []entry, f func(entry) bool) []bool {
	answers := make([]bool, len(batch))
	share := max(1, (len(batch)+runtime.NumCPU()-1)/runtime.NumCPU())
	var all sync.WaitGroup
	for from := 0; from < len(batch); from += share {
		all.Go(func() {
			for i := from; i < min(from+share, len(batch)); i++ {
				answers[i] = f(batch[i])
			}
		})
	}
	all.Wait()
	return answers
}
