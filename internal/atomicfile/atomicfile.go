// Package atomicfile is the one way in which imaseal replaces a file: whoever
// looks at its name sees the old content or the new, never a part, also after a
// crash. Start with [Write].
package atomicfile

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Options say what the new file is like. The zero value is a new file with mode
// 0644 that may replace another.
type Options struct {
	// Like, if not nil, is the open file whose mode, owner and times the new one
	// gets. The owner is kept where the process may set it.
	Like *os.File
	// NoReplace makes it an error that the file is there already.
	NoReplace bool
	// Mode, if not 0, holds the permission bits where Like is nil.
	Mode fs.FileMode
}

// Write replaces the file at path by what fill writes. A path that is a symbolic
// link stays one: what it points to is replaced.
//
// The new content goes to a temporary file in the same folder, which is synced and
// renamed. It is removed on every error and when ctx is cancelled before the
// rename; one that a killed process left is removed by the next Write to the same
// path, which tells it from that of a running process by its lock.
func Write(ctx context.Context, path string, fill func(f *os.File) error, o Options) (err error) {
	target, err := resolve(path)
	if err != nil {
		return err
	}
	dir, base := filepath.Split(target)
	if dir == "" {
		dir = "."
	}
	sweep(dir, base)
	f, err := createLocked(dir, base)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
		f.Close() // frees the lock, after the name is gone
	}()
	if err := fill(f); err != nil {
		return err
	}
	if err := o.apply(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if o.NoReplace {
		if err := os.Link(f.Name(), target); err != nil {
			return err
		}
		os.Remove(f.Name())
	} else if err := os.Rename(f.Name(), target); err != nil {
		return err
	}
	return syncDir(dir)
}

// resolve follows symbolic links, also to a file that is not there yet.
func resolve(path string) (string, error) {
	for range 40 {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return path, nil
		}
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			return path, nil
		}
		link, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(path), link)
		}
		path = link
	}
	return "", &fs.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
}

func (o Options) apply(f *os.File) error {
	if o.Like == nil {
		return f.Chmod(cmp.Or(o.Mode, 0o644))
	}
	info, err := o.Like.Stat()
	if err != nil {
		return err
	}
	stat := info.Sys().(*syscall.Stat_t)
	// Owner first: changing it may clear set-id bits. Only root may give files
	// away; for everybody else the new file is their own, as with an editor.
	if err := f.Chown(int(stat.Uid), int(stat.Gid)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if err := f.Chmod(info.Mode()); err != nil {
		return err
	}
	times := []unix.Timespec{unix.Timespec(stat.Atim), unix.Timespec(stat.Mtim)}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), times, 0); err != nil {
		return os.Chtimes(f.Name(), info.ModTime(), info.ModTime())
	}
	return nil
}

// A temporary is called .BASE.imaseal-RANDOM.tmp, where BASE is cut so that the
// whole is a legal name.
const (
	marker = ".imaseal-"
	suffix = ".tmp"
	// maxName is NAME_MAX of Linux.
	maxName = 255
)

func prefixOf(base string) string {
	random := len(rand.Text())
	room := maxName - len(marker) - random - len(suffix) - 1
	return "." + base[:min(len(base), room)] + marker
}

// createLocked makes a temporary beside base and takes its lock. Between the two
// a sweeping process may remove it; then another one is made.
func createLocked(dir, base string) (*os.File, error) {
	for range 100 {
		name := filepath.Join(dir, prefixOf(base)+rand.Text()+suffix)
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil && sameFile(f, name) {
			return f, nil
		} else if err != nil && err != unix.EWOULDBLOCK {
			os.Remove(name)
			f.Close()
			return nil, &fs.PathError{Op: "flock", Path: name, Err: err}
		}
		f.Close()
	}
	return nil, fmt.Errorf("%s: no temporary file could be kept: another process removes them", dir)
}

func sameFile(f *os.File, name string) bool {
	have, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(name)
	return err == nil && os.SameFile(have, named)
}

// sweep removes the temporaries for base that nobody holds. What it can't remove
// is left: it harms nobody.
func sweep(dir, base string) {
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	prefix := prefixOf(base)
	for {
		names, err := d.Readdirnames(1024)
		for _, name := range names {
			if strings.HasPrefix(name, prefix) && strings.HasSuffix(name, suffix) {
				removeStale(filepath.Join(dir, name))
			}
		}
		if err != nil {
			return
		}
	}
}

func removeStale(name string) {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && sameFile(f, name) {
		os.Remove(name)
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	// Some file systems can't sync a folder; then nothing better can be done.
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}
