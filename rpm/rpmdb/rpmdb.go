// Package rpmdb reads the database of installed packages that rpm keeps, and knows
// what rpm's own plugin for file signatures does. Start with [Open], whose [DB] is an
// installed.Database, and [PluginState].
//
// The database is read by the stock program rpm, whose formats (sqlite, ndb) are its
// own affair. What rpm prints is taken as data only where it cannot be mistaken:
// names of files are read from the package's main header, byte for byte, and not
// from a line of text (query.go, record.go).
package rpmdb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/xattr"
)

// dbPlaces are the folders, relative to the root, in which rpm has its database
// where its configuration names no other: Fedora and SUSE, then the older one.
var dbPlaces = []string{"usr/lib/sysimage/rpm", "var/lib/rpm"}

// A backend is a kind of database by rpm's name for it, and the file by which it is
// told. rpm reads the last where it was built to.
type backend struct{ name, file string }

var backends = []backend{{"sqlite", "rpmdb.sqlite"}, {"ndb", "Packages.db"}, {"bdb_ro", "Packages"}}

// Options say how a database is read. The zero value will do.
type Options struct {
	// RPM is the program; empty means the one in PATH.
	RPM string
	// Folder is that of the database below the root; empty means where rpm's
	// configuration, or a usual place, has one.
	Folder string
	// OpenPGP, if not nil, reports whether a signature over the main header of a
	// package is good and by a trusted key. It is what binds the names of an RPM to
	// their contents.
	OpenPGP func(sign.OpenPGPSignature) error
}

// A DB is rpm's database of installed packages.
type DB struct {
	rpm     string
	folder  string // with its root
	backend backend
	verify  func(sign.OpenPGPSignature) error
	// openPGP says that this rpm knows the tag of format 6.
	openPGP bool
	// allConfig says that rpm's plugin labels every %config file here.
	allConfig bool
}

// Open finds the database below root. The error wraps fs.ErrNotExist when there is
// none. rpm itself would make an empty one, and so is asked only where one was found.
func Open(ctx context.Context, root *xattr.Root, o Options) (*DB, error) {
	db := &DB{rpm: o.RPM, verify: o.OpenPGP}
	if db.rpm == "" {
		var err error
		if db.rpm, err = exec.LookPath("rpm"); err != nil {
			return nil, fmt.Errorf("%w: the database of installed RPMs is read by rpm itself: install it", err)
		}
	}
	configured, err := evaluate(ctx, db.rpm, nil, []string{"%{?_dbpath}", "%{?_db_backend}", "%{?" + configFilesMacro + "}"})
	if err != nil {
		return nil, err
	}
	db.allConfig = path.Clean(root.Dir()) == "/" && isNumberTrue(configured[2])
	places := dbPlaces
	switch {
	case o.Folder != "":
		places = []string{o.Folder}
	case path.IsAbs(configured[0]):
		places = toFront(places, strings.TrimPrefix(configured[0], "/"))
	}
	kinds := backends
	for _, b := range backends {
		if b.name == configured[1] { // where one was converted, both may be there
			kinds = toFront(kinds, b)
		}
	}
	if db.folder, db.backend, err = find(root, places, kinds); err != nil {
		return nil, err
	}
	tags, err := command(ctx, db.rpm, "--querytags").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --querytags: %w%s", db.rpm, err, said(err))
	}
	db.openPGP = slices.Contains(strings.Fields(string(tags)), "OPENPGP")
	return db, nil
}

// toFront returns list with x as its first, and x nowhere else.
func toFront[T comparable](list []T, x T) []T {
	return append([]T{x}, slices.DeleteFunc(slices.Clone(list), func(y T) bool { return y == x })...)
}

// find returns the first of the places below root that has a database, and of what
// kind it is. Two different ones are an error below another root than "/": the rpm
// that we run knows what this machine uses, not what that root does.
func find(root *xattr.Root, places []string, kinds []backend) (string, backend, error) {
	type database struct {
		folder string
		kind   backend
	}
	var found []database
	for _, place := range places {
		folder, kind, err := resolve(root, place, kinds)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", kind, fmt.Errorf("rpm's database: %w", err)
		}
		if d := (database{folder, kind}); !slices.Contains(found, d) {
			found = append(found, d)
		}
	}
	switch {
	case len(found) == 0:
		var tried []string
		for _, place := range places {
			tried = append(tried, root.Name(place))
		}
		return "", backend{}, fmt.Errorf("%w: no rpm database in %s", fs.ErrNotExist, strings.Join(tried, ", "))
	case len(found) > 1 && path.Clean(root.Dir()) != "/":
		return "", backend{}, fmt.Errorf("there are two rpm databases, in %s and in %s: say which to read", found[0].folder, found[1].folder)
	}
	return found[0].folder, found[0].kind, nil
}

// resolve returns the folder place below root, where that has a database. Its name is
// one without links, as those that rpm follows lead out of another root than "/".
func resolve(root *xattr.Root, place string, kinds []backend) (string, backend, error) {
	for _, kind := range kinds {
		f, err := root.Open(path.Join(place, kind.file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", kind, err
		}
		f.Close()
		folder := place
		if path.Clean(root.Dir()) != "/" {
			if folder, err = root.Resolve(place); err != nil {
				return "", kind, fmt.Errorf("%s: %v; is /proc mounted?", root.Name(place), err)
			}
		}
		folder, err = filepath.Abs(root.Name(folder)) // rpm takes no other
		return folder, kind, err
	}
	return "", backend{}, fs.ErrNotExist
}

// command returns a call of rpm whose messages do not depend on the language.
func command(ctx context.Context, rpm string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, rpm, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "LANGUAGE=")
	return cmd
}

// said returns what a program that failed wrote to stderr, for the end of a message.
func said(err error) string {
	var exit *exec.ExitError
	if !errors.As(err, &exit) || len(bytes.TrimSpace(exit.Stderr)) == 0 {
		return ""
	}
	return ": " + string(bytes.TrimSpace(exit.Stderr))
}
