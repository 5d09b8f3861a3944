package installed

import (
	"hash/maphash"
	"path"
)

// owners know which packages own a name. Several may: instances of a package for
// several architectures share files.
type owners struct {
	system *System
	byName map[string][]owner
	// folders remembers what the kernel says a folder is called without links, so
	// that /lib/x and /usr/lib/x are the same name where /lib is a link.
	folders map[string]string
}

// An owner is a file as one package has it.
type owner struct {
	pkg  *Package
	file *File
}

// ownersOf lists the files of all packages.
func (s *System) ownersOf(lists ...[]*Package) *owners {
	o := &owners{system: s, byName: map[string][]owner{}, folders: map[string]string{}}
	for _, packages := range lists {
		for _, p := range packages {
			for i := range p.Files {
				name := o.name(p.Files[i].Path)
				o.byName[name] = append(o.byName[name], owner{p, &p.Files[i]})
			}
		}
	}
	return o
}

// name returns the one name that stands for path.
func (o *owners) name(p string) string {
	folder, base := path.Split(p)
	real, known := o.folders[folder]
	if !known {
		var err error
		if real, err = o.system.Root.Resolve(folder); err != nil {
			real = path.Clean(folder) // it is not there, and so has no other name
		}
		if real != "" {
			real += "/"
		}
		o.folders[folder] = real
	}
	if real == folder {
		return p
	}
	return real + base
}

// of returns who owns path. It must not be called before all names are known.
func (o *owners) of(p string) []owner { return o.byName[o.peek(p)] }

// peek is name without remembering, for several goroutines at once.
func (o *owners) peek(p string) string {
	folder, base := path.Split(p)
	if real, known := o.folders[folder]; known {
		return real + base
	}
	return p
}

// values returns the signatures that the packages have for path.
func (o *owners) values(p string) [][]byte {
	var values [][]byte
	for _, owner := range o.of(p) {
		if owner.file.Value != nil && !owner.file.Unlisted {
			values = append(values, owner.file.Value)
		}
	}
	return values
}

// taken returns the package that took over a file which its own package does not list
// any more; one that signs it, if there is such.
func (o *owners) taken(f *File) (by owner, ok bool) {
	if !f.Unlisted {
		return owner{}, false
	}
	for _, other := range o.of(f.Path) {
		if !other.file.Unlisted && (!ok || by.file.Value == nil) {
			by, ok = other, true
		}
	}
	return by, ok
}

// An index finds the file of a package by its signature.
type index struct {
	seed  maphash.Seed
	files map[uint64]owner
}

func (o *owners) index(lists ...[]*Package) *index {
	x := &index{seed: maphash.MakeSeed(), files: map[uint64]owner{}}
	for _, packages := range lists {
		for _, p := range packages {
			for i := range p.Files {
				f := &p.Files[i]
				if f.Value == nil {
					continue
				}
				// Of files with the same content the first one is named.
				if key := maphash.Bytes(x.seed, f.Value); x.files[key].file == nil {
					x.files[key] = owner{p, f}
				}
			}
		}
	}
	return x
}

// find returns a file that carries the signature.
func (x *index) find(value []byte) (owner, bool) {
	o := x.files[maphash.Bytes(x.seed, value)]
	return o, o.file != nil && among(value, [][]byte{o.file.Value})
}
