package atomicfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A temporary is called .BASE.imaseal-RANDOM.tmp, where BASE is cut so that the
// whole is a legal name.
const (
	marker = ".imaseal-"
	suffix = ".tmp"
	// maxName is what the shortest of Linux' file systems, eCryptfs, takes.
	maxName = 143
	// randomSize is the length of rand.Text, which promises no length but 128 bits
	// in base32.
	randomSize = 26
	base32     = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
)

func prefixOf(base string) string {
	const room = maxName - len(".") - len(marker) - randomSize - len(suffix)
	return "." + base[:min(len(base), room)] + marker
}

// isTemporary reports whether a file in the folder is one of ours with the prefix.
func isTemporary(name, prefix string) bool {
	random, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return false
	}
	random, ok = strings.CutSuffix(random, suffix)
	return ok && len(random) == randomSize && strings.Trim(random, base32) == ""
}

// createLocked makes a temporary beside base and takes its lock. Between the two
// a sweeping process may remove it; then another one is made.
func createLocked(dir, base string) (*os.File, error) {
	for range 100 {
		name := dir + prefixOf(base) + rand.Text()[:randomSize] + suffix
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
	d, err := openDir(dir)
	if err != nil {
		return
	}
	defer d.Close()
	prefix := prefixOf(base)
	for {
		names, err := d.Readdirnames(1024)
		for _, name := range names {
			if isTemporary(name, prefix) {
				removeStale(dir + name)
			}
		}
		if err != nil {
			return
		}
	}
}

func removeStale(name string) {
	// Opening anything else, a device for one, might do something.
	if info, err := os.Lstat(name); err != nil || !info.Mode().IsRegular() {
		return
	}
	const flags = unix.O_NOFOLLOW | unix.O_NONBLOCK
	f, err := os.OpenFile(name, os.O_RDWR|flags, 0)
	if errors.Is(err, fs.ErrPermission) {
		f, err = os.OpenFile(name, os.O_RDONLY|flags, 0) // it had the mode of a read-only file already
	}
	if err != nil {
		return
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && sameFile(f, name) {
		os.Remove(name)
	}
}
