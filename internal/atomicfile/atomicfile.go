// Package atomicfile is the one way in which imaseal replaces a file: whoever
// looks at its name sees the old content or the new, never a part, also after a
// crash. Start with [Write].
//
// The new content is a new file. It is on the disk before it gets the name, so a
// crash leaves one of the two whole, if the file system's rename is atomic, as on
// all with a journal. An error after the rename, of syncing the folder, means that
// the new file is there but that a crash could bring back the old one.
//
// Kept, when asked for, are the mode with an access control list, and owner and group
// as far as the process may set them. Not kept are:
//   - the times: apt-ftparchive, createrepo_c and rsync take a file of an old time, some
//     also of its old size, for one that they know;
//   - other names of the old file: a hard link goes on to have the old content;
//   - other extended attributes, as they may describe the old content, such as
//     security.ima or a checksum. The system gives security labels as to any new file;
//   - locks and open descriptors, which stay with the old file.
package atomicfile

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Options say what the new file is like. The zero value is a new file with mode
// 0644 that may replace another.
type Options struct {
	// Like, if not nil, is the open file whose mode and owner the new one gets. The
	// owner and the group are kept where the process may set them.
	Like *os.File
	// NoReplace makes it an error that the file is there already.
	NoReplace bool
	// NoFollow replaces a symbolic link at the path by the file, in place of what it
	// leads to: for a folder in which somebody else may make links.
	NoFollow bool
	// Mode, if not 0, holds the permission bits where Like is nil.
	Mode fs.FileMode
}

// Write replaces the file at path by what fill writes. A path that is a symbolic
// link stays one: what it points to is replaced, unless the options say otherwise. Only
// a regular file is replaced, or the link itself.
//
// The new content goes to a temporary file in the same folder, which is synced and
// renamed. It is removed on every error and when ctx is cancelled before the
// rename; one that a killed process left is removed by the next Write to the same
// path, which tells it from that of a running process by its lock.
func Write(ctx context.Context, path string, fill func(f *os.File) error, o Options) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	target, err := resolve(path, o.NoFollow)
	if err != nil {
		return err
	}
	dir, base := filepath.Split(target)
	if base == "" {
		return &fs.PathError{Op: "open", Path: path, Err: syscall.ENOENT}
	}
	sweep(dir, base)
	f, err := createLocked(dir, base)
	if err != nil {
		return err
	}
	defer func() { // also when fill panics
		os.Remove(f.Name()) // not there any more when it was renamed
		f.Close()           // frees the lock, after the name is gone
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
		// Not every file system has a rename that replaces nothing. The temporary
		// name goes when all is done; left by a crash it is the next Write's to remove.
		if err := os.Link(f.Name(), target); err != nil {
			return err
		}
	} else if err := os.Rename(f.Name(), target); err != nil {
		return err
	}
	return SyncDir(dir)
}

// maxLinks is how many symbolic links Linux follows for a name.
const maxLinks = 40

// resolve follows symbolic links, also to a file that is not there yet, unless a link
// itself is to be replaced.
func resolve(path string, noFollow bool) (string, error) {
	for range maxLinks + 1 {
		info, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return path, nil
		case err != nil:
			return "", err
		case info.Mode().IsRegular(), noFollow && info.Mode()&fs.ModeSymlink != 0:
			return path, nil
		case info.Mode()&fs.ModeSymlink == 0:
			return "", &fs.PathError{Op: "replace", Path: path, Err: errors.New("not a regular file")}
		}
		link, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(link) {
			// Nothing is cleaned: in a folder that is a link itself ".." is not
			// where the link stands.
			dir, _ := filepath.Split(path)
			link = dir + link
		}
		path = link
	}
	return "", &fs.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
}

// openDir opens the folder as filepath.Split gives it.
func openDir(dir string) (*os.File, error) {
	if dir == "" {
		dir = "."
	}
	return os.Open(dir)
}

// SyncDir puts the names in the folder dir on the disk, where the file system can and the
// folder may be read. "" is the current folder.
func SyncDir(dir string) error {
	d, err := openDir(dir)
	if errors.Is(err, fs.ErrPermission) {
		return nil // one may write to it without reading it
	}
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
