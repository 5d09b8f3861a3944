package dpkg

import (
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// openPlain opens a file that an administrator keeps, a link to one included, for
// reading. It does not wait for the other end of a named pipe.
func openPlain(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
