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
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Errors that say why an attribute could not be read or set. They are wrapped with
// the file and the reason.
var (
	// ErrUnsupported says that no attribute can be set there at all: the file
	// system knows none, or the process may not (security.* takes CAP_SYS_ADMIN in
	// the initial user namespace).
	ErrUnsupported = errors.New("extended attributes are not supported here")
	// ErrNoSpace says that the file system has no room for the attribute.
	ErrNoSpace = errors.New("no space for an extended attribute")
	// ErrNotRegular says that a name belongs to something that is no regular file.
	ErrNotRegular = errors.New("not a regular file")
)

// A Root is a folder that stands for "/": names are looked up below it, and
// absolute links lead from it. Its methods may be called concurrently.
type Root struct {
	dir  string
	file *os.File
}

// OpenRoot opens the folder dir.
func OpenRoot(dir string) (*Root, error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Root{dir: dir, file: f}, nil
}

// Close releases the folder. Files that were opened stay usable.
func (r *Root) Close() error { return r.file.Close() }

// Dir returns the name that the root was opened by.
func (r *Root) Dir() string { return r.dir }

// Name returns what a person would call the file path, for messages.
func (r *Root) Name(path string) string {
	return strings.TrimSuffix(r.dir, "/") + "/" + strings.TrimPrefix(path, "/")
}

// Open returns the regular file at path. Links among its folders are followed below
// the root, as a package manager does; a link in the last component is not. It
// does not open the file for reading, so that the kernel does not appraise it.
// The error is [ErrNotRegular], or wraps fs.ErrNotExist and what else the system
// said.
func (r *Root) Open(path string) (*File, error) {
	f, err := r.OpenAny(path)
	if err != nil {
		return nil, err
	}
	if f.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: r.Name(path), Err: ErrNotRegular}
	}
	return f, nil
}

// OpenAny is Open for a file of any kind.
func (r *Root) OpenAny(path string) (*File, error) {
	fd, err := r.openat(path, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	f := &File{fd: fd, name: r.Name(path)}
	if err := unix.Fstat(fd, &f.stat); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "stat", Path: f.name, Err: err}
	}
	return f, nil
}

// OpenFolder opens the folder path for reading its names. A link in the last
// component is followed below the root.
func (r *Root) OpenFolder(path string) (*os.File, error) {
	fd, err := r.openat(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), r.Name(path)), nil
}

// Readlink returns what the link at path leads to; its folders are resolved below
// the root.
func (r *Root) Readlink(path string) (string, error) {
	f, err := r.OpenAny(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(f.fd, "", buf)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: f.name, Err: err}
	}
	return string(buf[:n]), nil
}

func (r *Root) openat(name string, flags uint64) (int, error) {
	relative := strings.TrimLeft(path.Clean("/"+name), "/")
	if relative == "" {
		relative = "."
	}
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(int(r.file.Fd()), relative, &how)
		// EAGAIN: a folder was renamed while the kernel resolved "..".
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil {
			return -1, &fs.PathError{Op: "open", Path: r.Name(name), Err: err}
		}
		return fd, nil
	}
}

// A File is one inode. It must be closed.
type File struct {
	fd   int
	name string
	stat unix.Stat_t
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
	file, err := os.OpenFile(f.magic(), unix.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	return file, nil
}

// magic is the only name by which the attributes of an O_PATH handle can be
// reached.
func (f *File) magic() string { return "/proc/self/fd/" + strconv.Itoa(f.fd) }

// Get returns the value of the attribute, nil when there is none.
func (f *File) Get(attribute string) ([]byte, error) {
	for buf := make([]byte, 1024); ; {
		n, err := unix.Getxattr(f.magic(), attribute, buf)
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
	err := unix.Setxattr(f.magic(), attribute, value, 0)
	if err == unix.ENOENT {
		// Without /proc only an ordinary descriptor can carry the call.
		err = errNoProc
	}
	return f.wrap("set", attribute, err)
}

// Remove removes the attribute; none is no error.
func (f *File) Remove(attribute string) error {
	err := unix.Removexattr(f.magic(), attribute)
	if err == unix.ENODATA {
		return nil
	}
	return f.wrap("remove", attribute, err)
}

var errNoProc = errors.New("/proc is not mounted")

func (f *File) wrap(op, attribute string, err error) error {
	if err == nil {
		return nil
	}
	kind := err
	switch err {
	case unix.EOPNOTSUPP:
		kind = fmt.Errorf("%w: the file system does not take %s", ErrUnsupported, attribute)
	case unix.EPERM:
		kind = fmt.Errorf("%w: %s takes CAP_SYS_ADMIN outside any container", ErrUnsupported, attribute)
	case unix.ENOSPC, unix.EDQUOT, unix.E2BIG:
		kind = fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return fmt.Errorf("%s: cannot %s %s: %w", f.name, op, attribute, kind)
}
