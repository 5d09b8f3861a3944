package dpkg

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/installed"
	"github.com/imaseal/imaseal/sign/xattr"
)

// unpackedSuffix is what dpkg adds to the name of a file until the whole package is
// unpacked, the DPKGNEWEXT of lib/dpkg/dpkg.h.
const unpackedSuffix = ".dpkg-new"

// Reasons why a file got no label.
const (
	reasonUnsupported = "attributes are not supported"
	reasonConffile    = "conffile"
	reasonExcluded    = "path-exclude"
	reasonReplaced    = "belongs to another package, which replaces it"
	reasonOtherLabel  = "shared, and labelled with another key"
	reasonEdited      = "shared conffile that was edited"
)

// An installation is the system that dpkg unpacks a package onto.
type installation struct {
	*hook
	seal       *seal
	on         *xattr.Root
	diversions *Diversions
	overrides  map[string]statoverride
	accounts   *accounts
	shared     map[string]bool // files of other instances of the package

	// unsupported says why labels could not be set, where that may be.
	unsupported error
	filters     *[]filter // of dpkg, once they are needed
	// missing are the targets of which dpkg made no new file.
	missing []*target

	folder     *xattr.Folder // the last one, of the name folderName
	folderName string
}

// openInstallation reads what dpkg knows of the system, and would do to the names and
// modes of the package's files.
func (h *hook) openInstallation(s *seal) (*installation, error) {
	on, err := xattr.OpenRoot(h.root)
	if err != nil {
		return nil, err
	}
	in := &installation{hook: h, seal: s, on: on, diversions: new(Diversions), accounts: openAccounts(h.root, h.system)}
	err = readList(h.adminDir, diversionsFile, func(r io.Reader) (err error) {
		in.diversions, err = readDiversions(r)
		return err
	})
	if err == nil {
		err = readList(h.adminDir, statoverrideFile, func(r io.Reader) (err error) {
			in.overrides, err = readStatoverrides(r)
			return err
		})
	}
	if err == nil && s.shared {
		in.shared, err = otherInstances(h.adminDir, s)
	}
	if err != nil {
		on.Close()
		return nil, err
	}
	return in, nil
}

func (in *installation) close() {
	if in.folder != nil {
		in.folder.Close()
	}
	in.on.Close()
}

// label labels every file of the payload that has a signature.
func (in *installation) label(p *payload) error {
	for i := range p.targets {
		t := &p.targets[i]
		if t.value == nil {
			continue
		}
		if in.isLeftConffile(t) {
			for _, path := range t.names() {
				in.out.skip(path, reasonConffile)
			}
			continue
		}
		if err := in.labelTarget(t); err != nil {
			return err
		}
	}
	return in.explain()
}

// names returns all names of the inode.
func (t *target) names() []string { return append([]string{t.path}, t.links...) }

// isLeftConffile reports whether the file is a conffile that gets no label.
func (in *installation) isLeftConffile(t *target) bool {
	if len(in.seal.conffiles) == 0 || in.config.LabelConffiles == installed.ConffilesAll {
		return false
	}
	isConffile := in.seal.conffiles[t.path]
	for _, path := range t.links {
		isConffile = isConffile || in.seal.conffiles[path]
	}
	mode := t.mode
	if o, ok := in.overrides[t.last()]; ok {
		mode = o.mode
	}
	return isConffile && (in.config.LabelConffiles == installed.ConffilesNone || mode&0o111 == 0)
}

// labelTarget labels one inode, when it is the one that dpkg just made of the archive.
func (in *installation) labelTarget(t *target) error {
	f, err := in.openNew(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		in.missing = append(in.missing, t)
		return nil
	}
	if err == nil {
		defer f.Close()
		err = in.check(f.Stat(), t)
	}
	if err != nil {
		// Somebody else's file may lie where dpkg had nothing to extract.
		if in.isExcluded(t.path) {
			in.out.skip(t.path, reasonExcluded)
			return nil
		}
		return fmt.Errorf("%s: %w", shown(t.path), err)
	}
	names := 1
	for _, link := range t.links {
		err := in.sameInode(f, link)
		if errors.Is(err, fs.ErrNotExist) && in.isExcluded(link) {
			in.out.skip(link, reasonExcluded)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", shown(link), err)
		}
		names++
	}
	if n := int(f.Stat().Nlink); n != names {
		return fmt.Errorf("%s has %d names, but the package gives it %d", f.Name(), n, names)
	}
	if in.seal.conffiles[t.path] {
		in.labelKept(t)
	}
	return in.set(f, t, names)
}

// sameInode reports whether the new file at path is a name of f.
func (in *installation) sameInode(f *xattr.File, path string) error {
	link, err := in.openNew(path)
	if err != nil {
		return err
	}
	defer link.Close()
	if link.Stat().Dev != f.Stat().Dev || link.Stat().Ino != f.Stat().Ino {
		return fmt.Errorf("%s is not the hard link that the package has", link.Name())
	}
	return nil
}

// set sets the label of f, which is names files of the package.
func (in *installation) set(f *xattr.File, t *target, names int) error {
	err := f.Set(sign.XattrName, t.value)
	if errors.Is(err, xattr.ErrUnsupported) && in.config.Unsupported == Warn {
		in.unsupported = err
		for range names {
			in.out.skip(t.path, reasonUnsupported)
		}
		return nil
	}
	if err != nil {
		return err
	}
	in.out.Labelled += names
	return nil
}

// openNew opens what dpkg has made of the file at path of the package.
func (in *installation) openNew(path string) (*xattr.File, error) {
	name := in.diversions.Name(path, in.seal.name)
	f, err := in.open(name + unpackedSuffix)
	if errors.Is(err, fs.ErrNotExist) && in.seal.conffiles[path] {
		if target := in.conffileTarget(name); target != name {
			return in.open(target + unpackedSuffix)
		}
	}
	return f, err
}

// open opens a regular file by its folder, which is kept for the next one.
func (in *installation) open(name string) (*xattr.File, error) {
	folder, base := path.Split(name)
	if in.folder == nil || folder != in.folderName {
		if in.folder != nil {
			in.folder.Close()
			in.folder = nil
		}
		found, err := in.on.Folder(folder)
		if errors.Is(err, unix.ENOTDIR) {
			err = &fs.PathError{Op: "open", Path: in.on.Name(name), Err: fs.ErrNotExist}
		}
		if err != nil {
			return nil, err
		}
		in.folder, in.folderName = found, folder
	}
	return in.folder.Open(base)
}

// conffileTarget returns where dpkg keeps the conffile name.
func (in *installation) conffileTarget(name string) string { return conffileTarget(in.on, name) }

// check reports whether an inode is the one that dpkg made of t.
func (in *installation) check(stat *unix.Stat_t, t *target) error {
	differ := func(what string, is, want any) error {
		return fmt.Errorf("%s%s is not the file of the package: %s %v instead of %v", shown(t.path), unpackedSuffix, what, is, want)
	}
	if stat.Size != t.size {
		return differ("size", stat.Size, t.size)
	}
	// Times that not every file system can store are not compared.
	if t.modTime >= 0 && t.modTime < 1<<31 && int64(stat.Mtim.Sec) != t.modTime {
		return differ("time", stat.Mtim.Sec, t.modTime)
	}
	if euid := os.Geteuid(); euid != 0 {
		// dpkg that is not root can give files to nobody else, and goes on.
		if int(stat.Uid) != euid {
			return differ("owner", stat.Uid, euid)
		}
		return nil
	}
	user, group, mode := t.user, t.group, t.mode
	if o, ok := in.overrides[t.last()]; ok {
		user, group, mode = o.user, o.group, o.mode
	}
	if !in.accounts.isUser(stat.Uid, user, t.uid) {
		return differ("owner", stat.Uid, owner(user, t.uid))
	}
	if !in.accounts.isGroup(stat.Gid, group, t.gid) {
		return differ("group", stat.Gid, owner(group, t.gid))
	}
	if is := int64(stat.Mode & 0o7777); is != mode {
		return differ("mode", fmt.Sprintf("%04o", is), fmt.Sprintf("%04o", mode))
	}
	return nil
}

// owner says whom a file is to belong to.
func owner(name string, number int64) string {
	if name == "" {
		return strconv.FormatInt(number, 10)
	}
	return name
}
