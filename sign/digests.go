package sign

import (
	"context"
	"slices"
	"strings"
)

// A FileDigest is a file that has to be signed, and the digest that its signature is
// over.
type FileDigest struct {
	Path   string // a [File.Path]
	Digest []byte
	// Inode is not 0 where the package has other names for the same file, hard links:
	// all names of one have the same number. They are numbered from 1 in the order of
	// the list, and their signatures must be equal.
	Inode int
}

// Digests are what of a package has to be signed, for who holds the key and must not
// see the package.
type Digests struct {
	// Selection and Hash are those by which the package is signed, neither empty.
	Selection Selection
	Hash      Hash
	// Files and Control are sorted as those of a [Manifest] are.
	Files, Control []FileDigest
	// Statement lacks the digests of the file signatures, see [Statement.AddSignatures],
	// and the signature. Nil in a format that has none.
	Statement *Statement
}

// DigestsOf reads p as [Sign] does, refuses what that refuses, and returns what it
// would sign.
func DigestsOf(ctx context.Context, p Package, o Options) (*Digests, error) {
	o, err := o.settled(p)
	if err != nil {
		return nil, err
	}
	var files []*digested
	names := map[*digested]int{} // of an inode
	err = walkSelected(ctx, p, o, func(d *digested) error {
		files = append(files, d)
		names[d.inode]++
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(files, func(a, b *digested) int { return strings.Compare(a.path, b.path) })
	s := &Digests{Selection: o.Selection, Hash: o.Hash}
	number := map[*digested]int{}
	for _, d := range files {
		f := FileDigest{Path: d.path, Digest: d.digest}
		if names[d.inode] > 1 {
			if number[d.inode] == 0 {
				number[d.inode] = len(number) + 1
			}
			f.Inode = number[d.inode]
		}
		if d.control {
			s.Control = append(s.Control, f)
		} else {
			s.Files = append(s.Files, f)
		}
	}
	s.Statement, err = state(ctx, p, o)
	return s, err
}
