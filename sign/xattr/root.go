package xattr

import (
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// A Root is a folder that stands for "/": names are looked up below it, and
// absolute links lead from it. Its methods may be called concurrently.
type Root struct {
	dir string
	fd  int
}

// OpenRoot opens the folder dir.
func OpenRoot(dir string) (*Root, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return &Root{dir: dir, fd: fd}, nil
}

// Close releases the folder. Files that were opened stay usable.
func (r *Root) Close() error { return unix.Close(r.fd) }

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
	return f.regular()
}

// OpenAny is Open for a file of any kind.
func (r *Root) OpenAny(path string) (*File, error) {
	return openFile(r, path, r.Name(path))
}

// OpenFolder opens the folder path for reading its names. A link in the last
// component is followed below the root.
func (r *Root) OpenFolder(path string) (*os.File, error) {
	fd, err := r.openat(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: r.Name(path), Err: err}
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

// A Folder is an open folder below a root. It must be closed.
type Folder struct {
	fd   int
	name string
}

// Folder opens the folder path for files that are in it. A link in the last
// component is followed below the root.
func (r *Root) Folder(path string) (*Folder, error) {
	fd, err := r.openat(path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: r.Name(path), Err: err}
	}
	return &Folder{fd, r.Name(path)}, nil
}

// Close releases the folder. Files that were opened stay usable.
func (d *Folder) Close() error { return unix.Close(d.fd) }

// Open is [Root.Open] for the file base of the folder, which must be on the same
// mount as the folder.
func (d *Folder) Open(base string) (*File, error) {
	f, err := openFile(d, base, strings.TrimSuffix(d.name, "/")+"/"+base)
	if err != nil {
		return nil, err
	}
	return f.regular()
}

func (d *Folder) openat(base string, flags uint64) (int, error) {
	if base == "" || base == "." || base == ".." || strings.Contains(base, "/") {
		return -1, unix.EINVAL
	}
	fd, err := openat2(d.fd, base, flags, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_XDEV|unix.RESOLVE_NO_SYMLINKS)
	if hidden(err) {
		fd, err = retry(func() (int, error) {
			return unix.Openat(d.fd, base, int(flags)|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		})
	}
	return fd, err
}

func (r *Root) openat(name string, flags uint64) (int, error) {
	relative := strings.TrimLeft(path.Clean("/"+name), "/")
	if relative == "" {
		relative = "."
	}
	fd, err := openat2(r.fd, relative, flags, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	if hidden(err) {
		return r.walk(relative, flags)
	}
	return fd, err
}

// hidden reports whether openat2 may be missing: kernels before 5.6 have none, and
// containers may forbid it, by either error.
func hidden(err error) bool { return err == unix.ENOSYS || err == unix.EPERM }

// noOpenat2 lets tests be a kernel before 5.6, or a container that hides openat2.
var noOpenat2 = false

func openat2(dir int, name string, flags, resolve uint64) (int, error) {
	if noOpenat2 {
		return -1, unix.ENOSYS
	}
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve}
	for {
		fd, err := unix.Openat2(dir, name, &how)
		// EAGAIN: a folder was renamed while the kernel resolved "..".
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// maxLinks is how many links Linux follows in one name.
const maxLinks = 40

// walk is openat2 with RESOLVE_IN_ROOT for systems without it: it opens folder after
// folder, and reads links itself.
func (r *Root) walk(relative string, flags uint64) (int, error) {
	stack := []int{r.fd} // the folders down to where the walk is
	defer func() {
		for _, fd := range stack[1:] {
			unix.Close(fd)
		}
	}()
	rest := strings.Split(relative, "/")
	for links := 0; ; {
		name := rest[0]
		rest = rest[1:]
		here := stack[len(stack)-1]
		last := len(rest) == 0
		if name == ".." || name == "" || name == "." {
			if name == ".." && len(stack) > 1 {
				unix.Close(here)
				stack = stack[:len(stack)-1]
			}
			if !last {
				continue
			}
			return openOnce(stack[len(stack)-1], ".", flags)
		}
		fd, err := openOnce(here, name, unix.O_PATH|unix.O_NOFOLLOW)
		if err != nil {
			return -1, err
		}
		var stat unix.Stat_t
		if err := unix.Fstat(fd, &stat); err != nil {
			unix.Close(fd)
			return -1, err
		}
		if stat.Mode&unix.S_IFMT != unix.S_IFLNK || last && flags&unix.O_NOFOLLOW != 0 {
			if !last {
				stack = append(stack, fd)
				continue
			}
			unix.Close(fd)
			return openOnce(here, name, flags|unix.O_NOFOLLOW)
		}
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, "", buf)
		unix.Close(fd)
		if err != nil {
			return -1, err
		}
		if links++; links > maxLinks {
			return -1, unix.ELOOP
		}
		target := string(buf[:n])
		if strings.HasPrefix(target, "/") {
			for _, fd := range stack[1:] {
				unix.Close(fd)
			}
			stack = stack[:1]
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
}

func openOnce(dir int, name string, flags uint64) (int, error) {
	return retry(func() (int, error) { return unix.Openat(dir, name, int(flags)|unix.O_CLOEXEC, 0) })
}
