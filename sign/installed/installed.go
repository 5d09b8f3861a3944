// Package installed knows the labels of an installed system: which file has to
// carry which file signature, and how they are set, checked and removed.
//
// It knows no package manager: deb/dpkg and rpm/rpmdb read their databases and hand
// out a [Package] after the other, which is all that is needed. Start with [System],
// which has the verbs, and [FileSigner] for files of no package. "Label" is short
// for the extended attribute [sign.XattrName] of a file.
package installed

import (
	"context"
	"iter"

	"github.com/imaseal/imaseal/sign"
)

// A Database is the list of installed packages that a package manager keeps.
type Database interface {
	// Packages yields the installed packages called names, all of them when there
	// are no names. A name may carry an architecture, "libc6:i386". A name that is
	// not installed is an error; after an error about one package the walk may go
	// on to the next, and its Package says which.
	Packages(ctx context.Context, names []string) iter.Seq2[*Package, error]
}

// A Package is an installed package.
type Package struct {
	Format  string // "deb" or "rpm"
	Name    string
	Version string
	Arch    string
	// Files are the regular files that the package installed, and its maintainer
	// scripts, as the database lists them; those of another kind may be among them
	// where the database does not tell.
	Files []File
	// Signed says that the database holds signatures of this package. Where it is
	// false, no File has a Value.
	Signed bool
	// Malformed says why signatures that the database holds can't be used: they
	// can't be read, or belong to another package or version.
	Malformed error
	// Verify reports whether a trusted key bound the signatures to the names and to
	// this package. Nil where the format has nothing of the kind.
	Verify func(*sign.TrustedKeys) error
}

// A File is a file of an installed package.
type File struct {
	// Path is where it is on the system, relative to the root, diversions applied.
	Path string
	// Shipped is its path in the package, where that is another.
	Shipped string
	// Value is the file signature that the package carries for it, nil when none.
	Value []byte
	// Digest is the digest that the database records, by Hash; nil when none.
	Digest []byte
	Hash   sign.Hash
	// Config says that an administrator may edit the file: a conffile, %config.
	Config bool
	// Script says that it is a maintainer script, which the package manager keeps
	// beside its database. Such files have no name of their own to protect.
	Script bool
	// Unlisted says that the package signs the file, but that the database does not
	// list it any more: another package took it over, or the list was shortened.
	Unlisted bool
	// Optional says that the file may be missing, as %ghost and excluded files.
	Optional bool
}

// Shown returns the path for a person, with a leading slash.
func (f *File) Shown() string { return "/" + f.Path }
