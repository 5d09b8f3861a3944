package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/internal/atomicfile"
)

var (
	errBusy = errors.New("other processes hold its lock all the time")
	// errForeign is never replaced by anything of ours.
	errForeign = errors.New("not a signature cache, and it is left as it is: name another file")
)

const (
	shared    = unix.LOCK_SH
	exclusive = unix.LOCK_EX
)

// openOurs opens a cache that may be damaged, or an empty file. Anything else is an
// error: what is at path may be somebody's data, a pipe that nobody writes to, or a
// link that somebody laid.
func openOurs(path string, flag int) (*os.File, fs.FileInfo, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, nil, hint(err)
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("cache %s: it is a %s: name a file, or a name that is not there yet", path, kind(info.Mode()))
	}
	f, err := os.OpenFile(path, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, hint(err)
	}
	if info, err = f.Stat(); err == nil {
		err = checkOurs(f, info)
	}
	if err != nil {
		f.Close()
		return nil, nil, wrap(path, err)
	}
	return f, info, nil
}

// hint says what to do about an error of the system.
func hint(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("cache: %w: name a file of your own", err)
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("cache: %w: name a file in a folder", err)
	}
	return fmt.Errorf("cache: %w", err)
}

func kind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "folder"
	case mode&fs.ModeSymlink != 0:
		return "symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		return "named pipe"
	case mode&fs.ModeSocket != 0:
		return "socket"
	default:
		return "device"
	}
}

func checkOurs(f *os.File, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return errors.New("it is no regular file any more")
	}
	if info.Size() == 0 {
		return nil
	}
	var page [metaSize]byte
	foreign := false
	for i := range int64(2) {
		// What is left of a file that was cut off is zero in page.
		if n, _ := f.ReadAt(page[:], i*pageSize); n >= brandOffset+len(brand) && branded(page[:]) {
			return nil
		}
		_, _, sound := parseMeta(page[:])
		foreign = foreign || sound // another program's database
	}
	if foreign || !remains(f, info.Size()) {
		return errForeign
	}
	return nil
}

// remains reports whether f, which has no meta page any more, has a page that only this
// package writes: then it is damaged, and not somebody's data.
func remains(f *os.File, size int64) bool {
	// As many are looked at, so that a large file of somebody else's costs little.
	const most = 1024
	p := pages{f, uint64(min(size/pageSize, most))}
	buffer := make([]byte, pageSize)
	for id := uint64(2); id < p.high; id++ {
		if n, err := p.node(id, buffer); err == nil && n.leaf && n.hasEntries() {
			return true
		}
	}
	return false
}

// hasEntries reports whether all that is in a leaf is entries, in a generation's page or
// inline in the root.
func (n node) hasEntries() bool {
	entries := 0
	entry := func(key, value []byte, flags uint32) error {
		entries++
		_, err := parseEntry(key, value, flags)
		return err
	}
	err := n.checkLeaf(nil, nil, func(key, value []byte, flags uint32) error {
		if flags != flagBucket {
			return entry(key, value, flags)
		}
		g, err := parseGeneration(key, value, flags)
		if err != nil || g.root != 0 {
			return err
		}
		inline, err := g.inlineLeaf()
		if err != nil {
			return err
		}
		return inline.checkLeaf(nil, nil, entry)
	})
	return err == nil && entries > 0
}

// writtenByOthers returns why the file is only read; "" where it may be written.
func writtenByOthers(info fs.FileInfo) string {
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case ok && int(stat.Uid) != os.Geteuid():
		return fmt.Sprintf("it belongs to user %d", stat.Uid)
	case info.Mode()&0o022 != 0:
		return "its mode lets others write to it (chmod go-w)"
	}
	return ""
}

// create makes an empty cache where there is nothing. That another process is
// faster is no error.
func create(path string) error {
	err := atomicfile.Write(context.Background(), path, func(f *os.File) error {
		_, err := f.Write(emptyFile())
		return err
	}, atomicfile.Options{NoReplace: true, Mode: 0o600})
	switch {
	case err == nil:
		return nil
	case exists(path):
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("cache: %w: make the folder first", err)
	}
	return hint(err)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// lock takes the lock of f that bbolt takes too, or fails with errBusy.
func lock(f *os.File, how int, patience time.Duration) error {
	until := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("locking: %w", err)
		case time.Now().After(until):
			return errBusy
		}
		time.Sleep(pause)
	}
}

func unlock(f *os.File) { unix.Flock(int(f.Fd()), unix.LOCK_UN) }

// withLock calls work with the file at path, locked as how says. Who waited for the
// lock may have got that of a file that another process has replaced meanwhile, and
// waits again.
func withLock(path string, flag, how int, patience time.Duration, work func(f *os.File, info fs.FileInfo) error) error {
	for range 10 {
		again := false
		err := func() error {
			f, info, err := openOurs(path, flag)
			if err != nil {
				return err
			}
			defer f.Close() // and with it goes the lock
			if err := lock(f, how, patience); err != nil {
				return err
			}
			at, err := os.Lstat(path)
			if err != nil || !os.SameFile(info, at) {
				again = true
				return err
			}
			if info, err = f.Stat(); err != nil { // it may have grown
				return err
			}
			return work(f, info)
		}()
		if !again {
			return err
		}
	}
	return errBusy
}
