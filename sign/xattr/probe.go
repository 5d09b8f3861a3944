package xattr

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Probe returns an error when this process cannot set the attribute anywhere below
// the root. It tries with a file that has no name, on the file system of the root
// folder; where there can be none, the first real file has to tell.
func (r *Root) Probe(attribute string, value []byte) error {
	fd, err := r.openat(".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_EXCL)
	if err != nil {
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EROFS) {
			return fmt.Errorf("%s: %s cannot be set below it: %w", r.dir, attribute, err)
		}
		return nil
	}
	f := &File{fd: fd, name: r.dir}
	defer f.Close()
	return f.Set(attribute, value)
}
