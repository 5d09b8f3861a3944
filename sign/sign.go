package sign

import (
	"context"
	"errors"
	"fmt"
)

// Options say how a package is signed or verified. The zero value takes every
// file and one goroutine.
type Options struct {
	// Selection says which files have to be signed.
	Selection Selection
	// Paths, if not nil, are the payload files that have to be signed, in place of
	// Selection. A package that carries a statement cannot be signed so: the statement
	// holds rules.
	Paths map[string]bool
	// Hash is the algorithm of the digests that are signed. 0 means the one that
	// the package demands, SHA-256 where it demands none.
	Hash Hash
	// Jobs is how many signatures are made or verified at once; more are made where
	// the Signer asks for more.
	Jobs int
	// Progress, if not nil, is told how many more files and bytes were read.
	Progress func(files int, bytes int64)
}

// Sign reads the payload of p, checks it against the digests that the package
// records, and returns the manifest of its file signatures by key, with a signed
// statement where the format carries one. Control files are always signed.
//
// A file that begins like a package statement is refused: version 2 signatures
// are over bare digests, so a signature over that file would be one over the
// statement that it holds.
func Sign(ctx context.Context, p Package, key *Signer, o Options) (*Manifest, error) {
	o, err := o.settled(p)
	if err != nil {
		return nil, err
	}
	return signFiles(ctx, p, key, o, func(ctx context.Context, each func(*digested) error) error {
		return walkSelected(ctx, p, o, each)
	})
}

// signFiles signs by key the files that walk hands on, and returns their manifest with
// a statement. o is settled.
func signFiles(ctx context.Context, p Package, key *Signer, o Options, walk func(ctx context.Context, each func(*digested) error) error) (*Manifest, error) {
	var files []*digested
	b := newBatch(ctx, max(o.Jobs, key.Jobs))
	err := walk(b.ctx, func(d *digested) error {
		files = append(files, d)
		// The links of an inode share one attribute, and a key that is no software
		// key signs the same digest differently each time.
		i := d.inode
		if i.queued {
			return nil
		}
		i.queued = true
		return b.add(func() (err error) {
			i.value, err = key.SignDigest(o.Hash, i.digest)
			return err
		})
	})
	if failed := b.wait(); failed != nil {
		err = failed // the cause; walk only saw the batch stop
	}
	if err != nil {
		return nil, err
	}
	m := new(Manifest)
	for _, d := range files {
		e := Entry{Path: d.path, Value: d.inode.value}
		if d.control {
			m.Control = append(m.Control, e)
		} else {
			m.Files = append(m.Files, e)
		}
	}
	m.Sort()
	if m.Statement, err = state(ctx, p, o); err != nil || m.Statement == nil {
		return m, err
	}
	m.Statement.AddSignatures(m)
	if err := m.Statement.Sign(key); err != nil {
		return nil, err
	}
	return m, nil
}

// settled returns o with the hash and the selection by which p is signed.
func (o Options) settled(p Package) (Options, error) {
	var err error
	if o.Hash, err = o.HashFor(p.Info()); err != nil {
		return o, err
	}
	if _, ok := p.(Stated); ok && o.Paths != nil {
		return o, errors.New("the statement of a package holds the rules of a selection, not paths")
	}
	// The statement can be read back in one form only.
	o.Selection, err = NewSelection(o.Selection.Select, o.Selection.Exclude)
	return o, err
}

// walkSelected reads every file of p and hands on those that have to be signed, which
// is the one place that decides what is. o is settled.
func walkSelected(ctx context.Context, p Package, o Options, each func(*digested) error) error {
	return walk(ctx, p, o, func(*File) Hash { return o.Hash }, func(d *digested) error {
		if d.recorded != "" {
			return fmt.Errorf("%q: %s: the package is damaged, build it again", d.path, d.recorded)
		}
		if !d.selected {
			return nil
		}
		if d.beginsLikeStatement() {
			return fmt.Errorf("%q begins with %q, as only a package statement may: leave it out with --exclude or change it", d.path, statementFamily)
		}
		return each(d)
	})
}

// state returns the statement of p, which lacks the digests of the file signatures and
// the signature; nil where the format has none. o is settled.
func state(ctx context.Context, p Package, o Options) (*Statement, error) {
	stated, ok := p.(Stated)
	if !ok {
		return nil, nil
	}
	s, err := stated.Statement(ctx)
	if err != nil {
		return nil, err
	}
	s.Selection, s.Hash = o.Selection, o.Hash
	return s, nil
}

// HashFor returns the algorithm by which a package is signed. It is an error when
// the package, or what is safe, does not allow the one that o asks for.
func (o Options) HashFor(info Info) (Hash, error) {
	h := o.Hash
	if h == 0 {
		h = info.FileHash
	}
	if h == 0 {
		h = SHA256
	}
	if info.FileHash != 0 && h != info.FileHash {
		return 0, fmt.Errorf("its file digests are %s, so it cannot be signed with %s: leave the hash out", info.FileHash, h)
	}
	if !h.Strong() {
		return 0, fmt.Errorf("%s digests are not safe to sign: use sha256, sha384 or sha512 (an RPM has to be rebuilt with such file digests)", h)
	}
	return h, nil
}
