package dpkg

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/deb/dpkgtar"
	"github.com/imaseal/imaseal/sign"
)

// A Member is a file of the info database.
type Member struct {
	// Folder and Name say where it belongs; the folder is relative to the root.
	Folder, Name string
	Content      []byte
}

// Adopt takes the signatures m, of a package that is installed as it was before it was
// signed, for those of the installed one. From then on [Database.Packages] yields the
// package with them, as if it had been installed signed; on the disk nothing has
// changed until the members that are returned are written.
//
// The statement of m must have been verified. Adopt compares it with what the info
// database has of the package, so that signatures of another build of the same
// version are refused. ErrAdopted says that the same signatures are there already;
// other ones are refused unless replace is set.
func (d *Database) Adopt(m *sign.Manifest, replace bool) ([]Member, error) {
	st := m.Statement
	if st == nil {
		return nil, errors.New("the package has no statement")
	}
	r := d.record(st)
	if r == nil {
		return nil, fmt.Errorf("%w: %s %s %s", errNotInstalled, st.Package, st.Version, st.Arch)
	}
	text, err := st.MarshalText()
	if err != nil {
		return nil, err
	}
	content := map[string][]byte{
		dpkgtar.PayloadSignatures: sign.FormatAttributes(m.Files),
		dpkgtar.ControlSignatures: sign.FormatAttributes(m.Control),
		dpkgtar.StatementName:     text,
	}
	s := &signatures{database: d, record: r, statement: st, control: byPath(m.Control)}
	if err := s.compareAll(ourMembers); err != nil {
		return nil, fmt.Errorf("the installed package is another build: %w", err)
	}
	there, same := 0, 0
	for _, name := range ourMembers {
		old, err := d.readMember(r, name, dpkgtar.MaxControl)
		if err != nil {
			return nil, err
		}
		if old != nil {
			there++
		}
		if old != nil && string(old) == string(content[name]) {
			same++
		}
	}
	switch {
	case same == len(ourMembers):
		return nil, ErrAdopted
	case there > 0 && !replace && !d.torn(r, content):
		return nil, errors.New("it has other signatures already; --replace takes these")
	}
	return d.overlay(r, content), nil
}

// Errors of [Database.Adopt].
var (
	errNotInstalled = errors.New("this version is not installed")
	ErrAdopted      = errors.New("its signatures are there already")
)

// torn reports whether some of the members are there, and none is another: an earlier
// run did not come to its end.
func (d *Database) torn(r *record, content map[string][]byte) bool {
	for name, want := range content {
		old, err := d.readMember(r, name, dpkgtar.MaxControl)
		if err != nil || old != nil && string(old) != string(want) {
			return false
		}
	}
	return true
}

// overlay puts the members into what is known of the info database. The statement
// comes last, so that what a crash leaves is no signed package.
func (d *Database) overlay(r *record, content map[string][]byte) []Member {
	if d.adopted == nil {
		d.adopted = map[string][]byte{}
	}
	var members []Member
	for _, name := range []string{dpkgtar.PayloadSignatures, dpkgtar.ControlSignatures, dpkgtar.StatementName} {
		d.adopted[d.member(r, name)] = content[name]
		info := d.infoName(r)
		if !slices.Contains(d.info[info], name) {
			d.info[info] = append(d.info[info], name)
		}
		members = append(members, Member{Folder: AdminDir + "/info", Name: info + "." + name, Content: content[name]})
	}
	return members
}

// record returns what is installed of the package that st states, nil when nothing.
func (d *Database) record(st *sign.Statement) *record {
	for i := range d.records {
		r := &d.records[i]
		if r.name == st.Package && r.version == st.Version && r.arch == st.Arch {
			return r
		}
	}
	return nil
}

// Lock keeps dpkg, and the programs that use it, from changing the database until the
// returned function is called. It does not wait for one that is at work.
func (d *Database) Lock() (unlock func(), err error) {
	var held []int
	unlock = func() {
		for _, fd := range held {
			unix.Close(fd)
		}
	}
	folder, err := d.root.OpenFolder(AdminDir)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	// In this order apt and dpkg take them, lib/dpkg/dbmodify.c.
	for _, name := range []string{"lock-frontend", "lock"} {
		fd, err := unix.Openat(int(folder.Fd()), name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o640)
		if err != nil {
			unlock()
			return nil, &fs.PathError{Op: "open", Path: d.root.Name(AdminDir + "/" + name), Err: err}
		}
		held = append(held, fd)
		lock := unix.Flock_t{Type: unix.F_WRLCK}
		if err := unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &lock); err != nil {
			unlock()
			return nil, fmt.Errorf("%s: wait until dpkg or apt has finished: %w", d.root.Name(AdminDir+"/"+name), err)
		}
	}
	return unlock, nil
}
