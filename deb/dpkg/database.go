package dpkg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/installed"
	"github.com/imaseal/imaseal/sign/xattr"
)

// AdminDir is where dpkg keeps its database, relative to the root, and StatusFile the
// list of its packages.
const (
	AdminDir   = "var/lib/dpkg"
	StatusFile = AdminDir + "/status"
)

// Bounds in bytes on dpkg's own files; Debian's largest installations are far below.
const (
	maxStatus = 256 << 20
	maxList   = 128 << 20
)

// A Database is dpkg's list of the packages that are installed below a root. It
// implements [installed.Database].
type Database struct {
	root       *xattr.Root
	records    []record
	diversions *Diversions
	// info has the members of each package in the info database, by what their names
	// begin with: the package, and the architecture where several may be installed.
	info map[string][]string
	// filters say which files dpkg was told to leave out.
	filters []filter
	// adopted are members that are not on the disk yet, by path.
	adopted map[string][]byte
}

// Installed reports whether dpkg has packages below the root.
func Installed(root *xattr.Root) bool {
	f, err := root.Open(StatusFile)
	if err != nil {
		return false
	}
	defer f.Close()
	return f.Stat().Size > 0
}

// OpenDatabase reads dpkg's status file and what else concerns all packages.
func OpenDatabase(root *xattr.Root) (*Database, error) {
	d := &Database{root: root, filters: dpkgFilters(root.Dir(), "", nil)}
	text, err := d.read(StatusFile, maxStatus)
	if err != nil {
		return nil, err
	}
	if d.records, err = parseStatus(text); err != nil {
		return nil, fmt.Errorf("%s: %w", root.Name(StatusFile), err)
	}
	if err := d.readUpdates(); err != nil {
		return nil, err
	}
	d.records = slices.DeleteFunc(d.records, func(r record) bool { return !r.unpacked() })
	text, err = d.read(path.Join(AdminDir, diversionsFile), maxList)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if d.diversions, err = readDiversions(bytes.NewReader(text)); err != nil {
		return nil, fmt.Errorf("%s: %w", root.Name(path.Join(AdminDir, diversionsFile)), err)
	}
	return d, d.listInfo()
}

// readUpdates applies the journal that dpkg leaves when it is interrupted: files with
// numbers for names, each with the newest state of a package.
func (d *Database) readUpdates() error {
	names, err := d.names(path.Join(AdminDir, "updates"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if strings.Trim(name, "0123456789") != "" {
			continue
		}
		file := path.Join(AdminDir, "updates", name)
		text, err := d.read(file, maxStatus)
		if err != nil {
			return err
		}
		newer, err := parseStatus(text)
		if err != nil {
			return fmt.Errorf("%s: %w", d.root.Name(file), err)
		}
		for _, r := range newer {
			if i := slices.IndexFunc(d.records, func(o record) bool { return o.sameAs(&r) }); i >= 0 {
				d.records[i] = r
			} else {
				d.records = append(d.records, r)
			}
		}
	}
	return nil
}

// listInfo lists the info database once; a folder with ten thousands of names is
// slow to search for each package.
func (d *Database) listInfo() error {
	names, err := d.names(path.Join(AdminDir, "info"))
	if err != nil {
		return err
	}
	d.info = map[string][]string{}
	for _, name := range names {
		// A member has no dot in its name, a package may.
		if i := strings.LastIndexByte(name, '.'); i > 0 {
			d.info[name[:i]] = append(d.info[name[:i]], name[i+1:])
		}
	}
	for _, members := range d.info {
		slices.Sort(members)
	}
	return nil
}

// Packages yields the installed packages in the order of dpkg's status file, those
// called names when there are any: "libc6" stands for every architecture of it,
// "libc6:i386" for one.
func (d *Database) Packages(ctx context.Context, names []string) iter.Seq2[*installed.Package, error] {
	return func(yield func(*installed.Package, error) bool) {
		there := make(map[string]bool, len(d.records))
		for i := range d.records {
			r := &d.records[i]
			there[r.name], there[r.name+":"+r.arch] = true, true
		}
		wanted := make(map[string]bool, len(names))
		for _, name := range names {
			wanted[name] = true
			if !there[name] && !yield(nil, fmt.Errorf("package %s is not installed", name)) {
				return
			}
		}
		for i := range d.records {
			r := &d.records[i]
			if ctx.Err() != nil {
				yield(nil, ctx.Err())
				return
			}
			if len(names) > 0 && !wanted[r.name] && !wanted[r.name+":"+r.arch] {
				continue
			}
			p, err := d.open(r)
			if err != nil {
				err = fmt.Errorf("%s: %w", r.name, err)
			}
			if !yield(p, err) {
				return
			}
		}
	}
}

// Names returns the names of the installed packages, sorted, each once.
func (d *Database) Names() []string {
	var names []string
	for _, r := range d.records {
		names = append(names, r.name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// infoName returns what the names of the package's info files begin with.
func (d *Database) infoName(r *record) string {
	if qualified := r.name + ":" + r.arch; r.same && (len(d.info[qualified]) > 0 || len(d.info[r.name]) == 0) {
		return qualified
	}
	return r.name // as it was for all packages before dpkg 1.16.2
}

// member returns where the info database keeps a member of the package, relative to
// the root.
func (d *Database) member(r *record, name string) string {
	return path.Join(AdminDir, "info", d.infoName(r)+"."+name)
}

// open reads all that the database knows of one package.
func (d *Database) open(r *record) (*installed.Package, error) {
	p := &installed.Package{Format: "deb", Name: r.name, Version: r.version, Arch: r.arch}
	list, err := d.readMember(r, "list", maxList)
	if err != nil {
		return p, err
	}
	names, err := parseList(list)
	if err != nil {
		return p, fmt.Errorf("%s: %w", d.root.Name(d.member(r, "list")), err)
	}
	sums, err := d.readMember(r, "md5sums", maxList)
	if err != nil {
		return p, err
	}
	s := &signatures{database: d, record: r}
	p.Signed, p.Malformed = s.read()
	if p.Signed && p.Malformed == nil {
		p.Verify = s.verify
	}
	d.list(p, r, names, parseMD5Sums(sums), s)
	return p, nil
}

// list fills the files of the package in: those of the file list, those that the
// signatures name besides, as a list can be shortened, and the maintainer scripts.
func (d *Database) list(p *installed.Package, r *record, names []string, sums map[string][]byte, s *signatures) {
	// Of a signed package the member conffiles is signed; in the status file any file
	// could be called one that an administrator may edit.
	conffiles := make(map[string][]byte, len(r.conffiles))
	for name := range s.conffiles {
		conffiles[name] = nil
	}
	for _, c := range r.conffiles {
		if s.conffiles == nil || s.conffiles[c.path] {
			conffiles[c.path] = c.md5
		}
	}
	p.Files = make([]installed.File, 0, len(names)+len(s.control))
	add := func(name string, value []byte, unlisted bool) {
		f := installed.File{Path: d.diversions.Name(name, r.name), Value: value, Unlisted: unlisted}
		if digest, ok := conffiles[name]; ok {
			f.Config, f.Optional, f.Digest = true, true, digest
			f.Path = conffileTarget(d.root, f.Path)
		} else {
			f.Digest = sums[name]
		}
		if f.Digest != nil {
			f.Hash = sign.MD5
		}
		f.Optional = f.Optional || excluded(d.filters, name)
		if f.Path != name {
			f.Shipped = name
		}
		p.Files = append(p.Files, f)
	}
	listed := make(map[string]bool, len(names))
	for _, name := range names {
		listed[name] = true
		add(name, s.payload[name], false)
	}
	for _, e := range s.entries {
		if !listed[e.Path] {
			add(e.Path, e.Value, true)
		}
	}
	if r.name == HookOwner && d.diversions.by[below(NamePath)].pkg == HookOwner {
		// Where every dpkg uses the hook, it has dpkg-deb's name besides its own.
		for _, f := range p.Files {
			if f.Path == below(hookPath) {
				f.Path, f.Shipped = below(NamePath), below(hookPath)
				p.Files = append(p.Files, f)
				break
			}
		}
	}
	for _, name := range d.info[d.infoName(r)] {
		if value := s.control[name]; value != nil || isScript(name) {
			p.Files = append(p.Files, installed.File{Path: d.member(r, name), Shipped: name, Value: value, Script: true})
		}
	}
}

// readMember reads a member from the info database; nothing where there is none.
func (d *Database) readMember(r *record, name string, most int64) ([]byte, error) {
	if !slices.Contains(d.info[d.infoName(r)], name) {
		return nil, nil
	}
	if content, ok := d.adopted[d.member(r, name)]; ok {
		return content, nil
	}
	return d.read(d.member(r, name), most)
}

func (d *Database) read(name string, most int64) ([]byte, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size := f.Stat().Size; size > most {
		return nil, fmt.Errorf("%s: %d bytes are more than the %d that are taken", f.Name(), size, most)
	}
	r, err := f.Reader()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b := bytes.NewBuffer(make([]byte, 0, f.Stat().Size+bytes.MinRead))
	if _, err := b.ReadFrom(io.LimitReader(r, most+1)); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if int64(b.Len()) > most {
		return nil, fmt.Errorf("%s: more than the %d bytes that are taken", f.Name(), most)
	}
	return b.Bytes(), nil
}

func (d *Database) names(folder string) ([]string, error) {
	f, err := d.root.OpenFolder(folder)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}
