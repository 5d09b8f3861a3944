package dpkgtar

import (
	"archive/tar"
	"fmt"
	"path"
	"strings"
)

// Bounds of the payload, far above the largest package of Debian (some 100,000
// files). They keep a hostile archive of nothing but headers from filling memory.
// The size of files has no bound: they are streamed, and dpkg would store them.
const (
	MaxEntries   = 1 << 18
	MaxNameBytes = 24 << 20
)

// implied is the kind of a folder that was not listed but has something in it.
const implied = 'i'

// Entries remember what an archive has had, to refuse what dpkg would resolve in
// a way that nobody else does: a name that stands there twice, a name beneath a
// symbolic link, a hard link to a file that is not the package's.
//
// The zero value is ready.
type Entries struct {
	kinds    map[string]byte   // path to type flag
	carriers map[string]string // hard link to the regular file that it is a name of
	bytes    int
}

// Add checks one more entry. Of a hard link it returns the path of the file that
// carries the content.
func (e *Entries) Add(name string, kind byte, linkname string) (link string, err error) {
	if e.kinds == nil {
		e.kinds, e.carriers = map[string]byte{}, map[string]string{}
	}
	if err := e.count(name); err != nil {
		return "", err
	}
	before, twice := e.kinds[name]
	if twice && (before != implied || name == "") {
		return "", fmt.Errorf("%q stands there twice", "./"+name)
	}
	if twice && kind != tar.TypeDir {
		return "", fmt.Errorf("%q is no folder, but something that came before is in it", name)
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		above, ok := e.kinds[dir]
		if ok && above != tar.TypeDir && above != implied {
			return "", fmt.Errorf("%q is beneath %q, which is no folder", name, dir)
		}
		if ok {
			break // what is above it was checked when it came
		}
		if err := e.count(dir); err != nil {
			return "", err
		}
		e.kinds[dir] = implied
	}
	e.kinds[name] = kind
	if kind != tar.TypeLink {
		return "", nil
	}
	link = strings.TrimPrefix(linkname, "./")
	if carrier, ok := e.carriers[link]; ok {
		link = carrier
	}
	if link == name || e.kinds[link] != tar.TypeReg {
		return "", fmt.Errorf("%q is a hard link to %q, which is no regular file that came before it: dpkg would link to a file outside the package", name, linkname)
	}
	e.carriers[name] = link
	return link, nil
}

// Has reports whether the archive has had an entry of that name.
func (e *Entries) Has(name string) bool {
	kind, ok := e.kinds[name]
	return ok && kind != implied
}

func (e *Entries) count(name string) error {
	e.bytes += len(name)
	if len(e.kinds) >= MaxEntries || e.bytes > MaxNameBytes {
		return fmt.Errorf("more than %d entries, or more than %d bytes of names", MaxEntries, MaxNameBytes)
	}
	return nil
}
