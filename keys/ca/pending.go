package ca

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/internal/atomicfile"
	"github.com/imaseal/imaseal/keys"
)

// How a set of files comes into a folder so that a killed process does no harm:
// they are written and synced, with a list of them, in a folder of their own,
// stagingName, of which nothing counts. Its rename to pendingName makes the set
// complete. Then they are moved out, one after another, each by a rename that replaces
// nothing. Whoever comes next removes a staging folder, and moves out what is left in
// a pending one: no key is ever overwritten or lost. The folder is locked meanwhile, so
// that nobody takes the work of a running process for that of a killed one.
const (
	stagingName = ".imaseal-keys.tmp"
	pendingName = ".imaseal-keys"
	// listName is the list, a name on a line.
	listName = ".imaseal-keys.list"
	// maxPendingNames bounds the names in it.
	maxPendingNames = 1000
)

// A pendingFolder is a folder into which a set of files comes.
type pendingFolder struct {
	dir   string
	lock  *os.File // the folder itself
	files []newFile
	state string   // stagingName, pendingName or, before and after, ""
	moved []string // the paths of files that have come out of the pending folder
}

// openPending opens dir, locks it and finishes what was interrupted there, which
// finished names.
func openPending(dir string) (p *pendingFolder, finished []string, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	p = &pendingFolder{dir: dir, lock: f}
	if err := lockFolder(f); err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("%s: %w", dir, err)
	}
	if finished, err = p.finish(); err != nil {
		p.close()
		return nil, nil, err
	}
	return p, finished, nil
}

// lockPatience is how long the lock of another run is waited for, which holds it only
// while it writes.
const lockPatience = 2 * time.Second

func lockFolder(f *os.File) error {
	for end := time.Now().Add(lockPatience); ; time.Sleep(20 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("it cannot be locked: %w", err)
		case time.Now().After(end):
			return errors.New("another imaseal is making keys there: wait for its end")
		}
	}
}

func (p *pendingFolder) close() {
	// A child that is just being started has a copy of the descriptor for a moment.
	unix.Flock(int(p.lock.Fd()), unix.LOCK_UN)
	p.lock.Close()
}

// finishPending completes the set of files that a killed process left in dir, if
// any, and returns the paths of those that it put in place. A folder that is not
// there needs nothing.
func finishPending(dir string) ([]string, error) {
	left := false
	for _, name := range []string{stagingName, pendingName} {
		there, err := exists(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		left = left || there
	}
	if !left {
		return nil, nil
	}
	p, finished, err := openPending(dir)
	if err != nil {
		return nil, err
	}
	p.close()
	return finished, nil
}

// finishBefore finishes what was interrupted in the folder of a file that is to be
// made. That there was something is an error: it may be the very file.
func finishBefore(path string) error {
	finished, err := finishPending(filepath.Dir(path))
	if err != nil || len(finished) == 0 {
		return err
	}
	return fmt.Errorf("an earlier run was interrupted, and what it made is in place only now: %s: use it, or run this command again for something else", strings.Join(finished, ", "))
}

// folderOf returns the folder dir among those that are open, however it was named,
// or opens it.
func folderOf(dir string, open *[]*pendingFolder) (*pendingFolder, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	for _, p := range *open {
		if known, err := p.lock.Stat(); err == nil && os.SameFile(info, known) {
			return p, nil
		}
	}
	p, _, err := openPending(dir)
	if err != nil {
		return nil, err
	}
	*open = append(*open, p)
	return p, nil
}

// add takes a file whose name is still free.
func (p *pendingFolder) add(f newFile) error {
	path := filepath.Join(p.dir, filepath.Base(f.path))
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s was made meanwhile, by another run perhaps, and is not overwritten: look at it, and run this command again: %w", f.path, fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	p.files = append(p.files, f)
	return nil
}

func (p *pendingFolder) staging() string { return filepath.Join(p.dir, stagingName) }
func (p *pendingFolder) pending() string { return filepath.Join(p.dir, pendingName) }

// stage writes the files where they do not count yet.
func (p *pendingFolder) stage() error {
	if err := os.Mkdir(p.staging(), 0o700); err != nil {
		return err
	}
	p.state = stagingName
	var list []byte
	for _, f := range p.files {
		name := filepath.Base(f.path)
		if err := writeNew(filepath.Join(p.staging(), name), f.mode, f.data); err != nil {
			return err
		}
		list = append(list, name+"\n"...)
	}
	if err := writeNew(filepath.Join(p.staging(), listName), 0o600, list); err != nil {
		return err
	}
	return atomicfile.SyncDir(p.staging())
}

// writeNew writes a file that is not there yet, onto the disk.
func writeNew(path string, mode fs.FileMode, data []byte) error {
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	if err == nil {
		err = w.Sync()
	}
	return errors.Join(err, w.Close())
}

// complete makes what was staged one that finishPending finishes.
func (p *pendingFolder) complete() error {
	if err := os.Rename(p.staging(), p.pending()); err != nil {
		return err
	}
	p.state = pendingName
	return atomicfile.SyncDir(p.dir)
}

// place moves the files out of the pending folder, and removes that.
func (p *pendingFolder) place() error {
	names, err := p.list()
	if err != nil {
		return err
	}
	for _, name := range names {
		from, path := filepath.Join(p.pending(), name), filepath.Join(p.dir, name)
		// One that is there no more was moved before the process was killed.
		if there, err := exists(from); err != nil {
			return err
		} else if there {
			if err := moveNew(from, path); err != nil {
				return err
			}
		}
		p.moved = append(p.moved, path)
	}
	if err := atomicfile.SyncDir(p.dir); err != nil {
		return err
	}
	p.state = ""
	if err := os.Remove(filepath.Join(p.pending(), listName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Remove(p.pending())
}

// list returns the names of the files that are to be in place. There are none when
// the process was killed at its last step.
func (p *pendingFolder) list() ([]string, error) {
	data, _, err := keys.ReadPrivateKeyFile(filepath.Join(p.pending(), listName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	if len(names) > maxPendingNames {
		return nil, fmt.Errorf("%s names %d files, more than %d", listName, len(names), maxPendingNames)
	}
	for _, name := range names {
		if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
			return nil, fmt.Errorf("%s names a file %q", listName, name)
		}
	}
	return names, nil
}

// undo removes what was made. It is for the process that made it only.
func (p *pendingFolder) undo() {
	for _, path := range p.moved {
		os.Remove(path)
	}
	if p.state != "" {
		os.RemoveAll(filepath.Join(p.dir, p.state))
	}
}

// finish removes what was staged by a process that was killed, and puts in place
// what it had completed.
func (p *pendingFolder) finish() ([]string, error) {
	if there, err := p.own(p.staging()); err != nil {
		return nil, err
	} else if there {
		if err := os.RemoveAll(p.staging()); err != nil {
			return nil, err
		}
	}
	if there, err := p.own(p.pending()); err != nil || !there {
		return nil, err
	}
	if err := p.place(); err != nil {
		return nil, fmt.Errorf("finishing what was interrupted (%s holds new keys: look at it, and move or remove what is in the way): %w", p.pending(), err)
	}
	finished := p.moved
	p.moved = nil // so that undo leaves them
	return finished, nil
}

// own reports whether the folder at path is there. One that another user could have
// put there is an error: its keys are not ours.
func (p *pendingFolder) own(path string) (bool, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return false, fmt.Errorf("%s is in the way: imaseal keeps new keys in a folder of that name, but this one is not yours alone: remove it", path)
	}
	return true, nil
}

// moveNew renames a file, never over another one.
func moveNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if !slices.Contains([]error{unix.EINVAL, unix.ENOSYS, unix.ENOTSUP}, err) {
		if err != nil {
			return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
		}
		return nil
	}
	return linkNew(from, to)
}

// linkNew does the same on a file system that has no such rename. A process killed
// between the two steps leaves one file of two names, which is no other file.
func linkNew(from, to string) error {
	if err := os.Link(from, to); err != nil {
		old, errOld := os.Lstat(from)
		there, errThere := os.Lstat(to)
		if errOld != nil || errThere != nil || !os.SameFile(old, there) {
			return err
		}
	}
	return os.Remove(from)
}
