// Package xattr reads and sets extended attributes on the files of a system, which
// may be mounted below another root, without following a link out of that root and
// without labelling another file than the one that was looked at.
//
// Start with [OpenRoot]. Every name is resolved once, by the kernel, to a [File]:
// a handle to one inode. What is looked at, hashed and labelled through it is that
// inode, whatever happens to the name meanwhile.
package xattr

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Errors that say why an attribute could not be read or set. They are wrapped with
// the file and the reason.
var (
	// ErrUnsupported says that no attribute can be set there at all: the file
	// system knows none, or the process may not (security.* takes CAP_SYS_ADMIN in
	// the initial user namespace).
	ErrUnsupported = errors.New("extended attributes are not supported here")
	// ErrFileSystem is the ErrUnsupported of a file system, such as vfat, that takes
	// no such attribute from anybody.
	ErrFileSystem = fmt.Errorf("%w: the file system takes none", ErrUnsupported)
	// ErrNoSpace says that the file system has no room for the attribute.
	ErrNoSpace = errors.New("no space for an extended attribute")
	// ErrNotRegular says that a name belongs to something that is no regular file.
	ErrNotRegular = errors.New("not a regular file")
	// ErrReplaced says that a name belongs to another inode now than when it was
	// opened. It is met only where there is no /proc.
	ErrReplaced = errors.New("replaced while it was looked at")
)

// A File is one inode. It must be closed.
type File struct {
	fd   int
	name string // for messages
	stat unix.Stat_t

	// Where the inode was found, for systems without /proc.
	folder folder
	path   string
}

// folder is where a File can be opened once more.
type folder interface {
	openat(path string, flags uint64) (int, error)
}

// openFile opens the file of any kind at path. It does not open it for reading, so
// that the kernel does not appraise it.
func openFile(in folder, path, name string) (*File, error) {
	fd, err := in.openat(path, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f := &File{fd: fd, name: name, folder: in, path: path}
	if err := unix.Fstat(fd, &f.stat); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return f, nil
}

// regular closes f if it is no regular file.
func (f *File) regular() (*File, error) {
	if f.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: f.name, Err: ErrNotRegular}
	}
	return f, nil
}

// Close releases the handle.
func (f *File) Close() error { return unix.Close(f.fd) }

// Name returns the name by which the file was opened.
func (f *File) Name() string { return f.name }

// Stat returns what the inode was when it was opened. The caller must not change
// it.
func (f *File) Stat() *unix.Stat_t { return &f.stat }

// Changed reports whether the content may have been written since the file was
// opened: another size, or another time of modification.
func (f *File) Changed() (bool, error) {
	var now unix.Stat_t
	if err := unix.Fstat(f.fd, &now); err != nil {
		return false, &fs.PathError{Op: "stat", Path: f.name, Err: err}
	}
	return now.Size != f.stat.Size || now.Mtim != f.stat.Mtim, nil
}

// Reader opens the inode for reading. The kernel may appraise it and refuse.
func (f *File) Reader() (*os.File, error) {
	fd, err := f.descriptor()
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: f.name, Err: err}
	}
	return os.NewFile(uintptr(fd), f.name), nil
}

// procSelf is where the kernel shows the process its own descriptors. Tests hide it.
var procSelf = "/proc/self/fd/"

// magic is the only name by which the attributes of an O_PATH handle can be
// reached.
func (f *File) magic() string { return procSelf + strconv.Itoa(f.fd) }

// descriptor returns an ordinary descriptor of the inode. Without /proc its name has
// to be opened once more, and may lead elsewhere by now.
func (f *File) descriptor() (int, error) {
	// O_NONBLOCK: a named pipe has nobody at its other end.
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := retry(func() (int, error) { return unix.Open(f.magic(), flags, 0) })
	if err != unix.ENOENT {
		return fd, err
	}
	if fd, err = f.folder.openat(f.path, flags|unix.O_NOFOLLOW); err != nil {
		return -1, err
	}
	var now unix.Stat_t
	if err = unix.Fstat(fd, &now); err == nil && (now.Dev != f.stat.Dev || now.Ino != f.stat.Ino) {
		err = ErrReplaced
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// do calls byName, or byDescriptor where there is no /proc to name the inode by.
func (f *File) do(byName func(string) error, byDescriptor func(int) error) error {
	err := byName(f.magic())
	if err != unix.ENOENT {
		return err
	}
	fd, err := f.descriptor()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return byDescriptor(fd)
}

// Get returns the value of the attribute, nil when there is none.
func (f *File) Get(attribute string) ([]byte, error) {
	for buf := make([]byte, 1024); ; {
		n := 0
		err := f.do(
			func(name string) (err error) { n, err = unix.Getxattr(name, attribute, buf); return err },
			func(fd int) (err error) { n, err = unix.Fgetxattr(fd, attribute, buf); return err })
		switch {
		case err == nil:
			return buf[:n:n], nil
		case err == unix.ENODATA:
			return nil, nil
		case err == unix.ERANGE && len(buf) < 64<<10:
			buf = make([]byte, 64<<10)
			continue
		}
		return nil, f.wrap("read", attribute, err)
	}
}

// Set sets the attribute.
func (f *File) Set(attribute string, value []byte) error {
	return f.wrap("set", attribute, f.do(
		func(name string) error { return unix.Setxattr(name, attribute, value, 0) },
		func(fd int) error { return unix.Fsetxattr(fd, attribute, value, 0) }))
}

// Remove removes the attribute; none is no error.
func (f *File) Remove(attribute string) error {
	err := f.do(
		func(name string) error { return unix.Removexattr(name, attribute) },
		func(fd int) error { return unix.Fremovexattr(fd, attribute) })
	if err == unix.ENODATA {
		return nil
	}
	return f.wrap("remove", attribute, err)
}

func (f *File) wrap(op, attribute string, err error) error {
	if err == nil {
		return nil
	}
	kind := err
	switch err {
	case unix.EOPNOTSUPP:
		kind = ErrFileSystem
	case unix.EPERM:
		kind = fmt.Errorf("%w: %s takes CAP_SYS_ADMIN outside any container, and a file that is not immutable", ErrUnsupported, attribute)
	case unix.ENOSPC, unix.EDQUOT, unix.E2BIG:
		kind = fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return fmt.Errorf("%s: cannot %s %s: %w", f.name, op, attribute, kind)
}

// retry calls f until no signal interrupts it.
func retry(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}
