package auditlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// A Log is an open log file. Several processes may append to the same file.
type Log struct {
	f    *os.File
	path string
}

// errTorn says that the last line of a log has no end, as after a power loss while it
// was written.
var errTorn = errors.New("its last line is torn")

// Open opens the log at path for appending, makes it with mode 0600 where it is not
// there, and checks that its last line is one that can be continued. The caller
// closes it.
func Open(path string) (*Log, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	l := &Log{f: f, path: path}
	if err := l.prepare(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

func (l *Log) prepare() error {
	info, err := l.f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return &fs.PathError{Op: "open", Path: l.path, Err: errors.New("the audit log must be a regular file")}
	}
	// Its name must outlive a power loss as well as its lines.
	dir, err := os.Open(filepath.Dir(l.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return err
	}
	return l.locked(func() error {
		_, _, err := l.last()
		return err
	})
}

// locked runs f while no other process appends.
func (l *Log) locked(f func() error) error {
	if err := lock(l.f, syscall.LOCK_EX); err != nil {
		return err
	}
	err := f()
	return errors.Join(err, lock(l.f, syscall.LOCK_UN))
}

// lock is flock(2), which waits.
func lock(f *os.File, how int) error {
	for {
		switch err := syscall.Flock(int(f.Fd()), how); err {
		case nil:
			return nil
		case syscall.EINTR:
		default:
			return &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
	}
}

// last returns the last entry and the hash of its line; of an empty log nil and
// origin.
func (l *Log) last() (*Entry, string, error) {
	info, err := l.f.Stat()
	if err != nil {
		return nil, "", err
	}
	size := info.Size()
	if size == 0 {
		return nil, origin, nil
	}
	tail := make([]byte, min(size, 2*maxLine))
	if _, err := l.f.ReadAt(tail, size-int64(len(tail))); err != nil && err != io.EOF {
		return nil, "", err
	}
	if tail[len(tail)-1] != '\n' {
		whole := size - int64(len(tail)) + int64(bytes.LastIndexByte(tail, '\n')) + 1
		return nil, "", l.damaged(fmt.Errorf("%w. Nothing was released for it. %s", errTorn, tornAdvice(l.path, whole)))
	}
	tail = tail[:len(tail)-1]
	start := bytes.LastIndexByte(tail, '\n')
	if start < 0 && int64(len(tail))+1 < size {
		return nil, "", l.damaged(fmt.Errorf("its last line has more than %d bytes", maxLine))
	}
	line := tail[start+1:]
	e, err := parse(line)
	if err != nil {
		return nil, "", l.damaged(fmt.Errorf("its last line cannot be continued: %w", err))
	}
	return e, hashOf(line), nil
}

func (l *Log) damaged(err error) error {
	return fmt.Errorf("audit log %s: %w; imaseal log verify looks at all of it", l.path, err)
}

// tornAdvice says what to do with a log whose lines are whole up to offset whole.
func tornAdvice(path string, whole int64) string {
	return fmt.Sprintf("Keep a copy of the log, then cut the part of a line off: truncate -s %d %s", whole, path)
}

// Append adds an entry for e to the end of the chain, and returns it with what it was
// given, and the hash of its line, the new head. When it returns without an error the
// entry is on the disk.
func (l *Log) Append(e Entry) (*Entry, string, error) {
	head := ""
	err := l.locked(func() error {
		before, previous, err := l.last()
		if err != nil {
			return err
		}
		e.Sequence, e.Previous = 1, previous
		if before != nil {
			e.Sequence = before.Sequence + 1
		}
		e.Time = time.Now().UTC().Format(time.RFC3339)
		e.clean()
		line, err := e.marshal()
		if err != nil {
			return err
		}
		if _, err := parse(line); err != nil {
			return fmt.Errorf("an entry that could not be read back: %w", err)
		}
		head = hashOf(line)
		return l.write(append(line, '\n'))
	})
	if err != nil {
		return nil, "", err
	}
	return &e, head, nil
}

// write adds line to the file and waits for the disk. What was written of a line that
// does not fit is taken off again: it is known to be this one.
func (l *Log) write(line []byte) error {
	info, err := l.f.Stat()
	if err != nil {
		return err
	}
	if _, err := l.f.Write(line); err != nil {
		return errors.Join(err, l.f.Truncate(info.Size()))
	}
	return l.f.Sync()
}

// Close closes the file.
func (l *Log) Close() error { return l.f.Close() }
