package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/imaseal/imaseal/deb"
	"github.com/imaseal/imaseal/rpm"
	"github.com/imaseal/imaseal/sign"
)

// openOptions say how a package is read.
type openOptions struct {
	jobs               int
	trustHeaderDigests bool
	headerOnly         bool // of an RPM nothing but the header is read, unless it is written
	targetRPM          string
}

// errSourcePackage says that a package installs nothing.
var errSourcePackage = errors.New("this is a source package: nothing in it is installed, so there is nothing to sign; sign the packages built from it")

// openRegular opens the file at path, which must be a regular one. Opening a named
// pipe would otherwise wait for a writer.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openPackage is the one place that tells a .deb from an RPM. The caller closes f
// when it is done with the package.
func openPackage(f *os.File, o openOptions) (sign.Package, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var magic [8]byte
	if _, err := f.ReadAt(magic[:], 0); err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case string(magic[:]) == "!<arch>\n":
		return deb.Open(f, info.Size(), deb.Options{Jobs: o.jobs})
	case string(magic[:4]) == "\xed\xab\xee\xdb":
		p, err := rpm.Open(f, info.Size(), rpm.Options{Jobs: o.jobs, TrustHeaderDigests: o.trustHeaderDigests, HeaderOnly: o.headerOnly, TargetVersion: o.targetRPM})
		if err != nil {
			return nil, err
		}
		if p.IsSource() {
			return nil, errSourcePackage
		}
		return p, nil
	default:
		return nil, fmt.Errorf("neither a .deb nor an RPM: it begins with %q", magic[:])
	}
}

// open opens the package of t. Where that is a source package in a folder, which is
// passed over, there is neither a package nor an error. The caller closes the file of a
// package.
func (t *target) open(o openOptions) (*os.File, sign.Package, error) {
	f, err := openRegular(t.path)
	if err != nil {
		return nil, nil, err
	}
	var pkg sign.Package
	if t.opened, err = f.Stat(); err == nil {
		pkg, err = openPackage(f, o)
	}
	if err != nil {
		f.Close()
		if errors.Is(err, errSourcePackage) && t.within {
			err = nil
		}
		return nil, nil, err
	}
	return f, pkg, nil
}

// noteSkipped says why nothing was done for a source package in a folder.
func (o *output) noteSkipped(t *target) {
	o.note("%s: skipped, a source package installs nothing", t.path)
}
