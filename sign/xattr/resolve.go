package xattr

import (
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Resolve returns the one name that the folder path has below the root, without
// links: "usr/lib" for "lib" where /lib is a link to it. The root itself is "".
func (r *Root) Resolve(path string) (string, error) {
	fd, err := r.openat(path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: r.Name(path), Err: err}
	}
	defer unix.Close(fd)
	top, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(r.fd))
	if err != nil {
		return "", err
	}
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return "", err
	}
	rest, ok := strings.CutPrefix(name, strings.TrimSuffix(top, "/"))
	if !ok || rest != "" && rest[0] != '/' {
		// It was moved out of the root meanwhile.
		return "", &fs.PathError{Op: "resolve", Path: r.Name(path), Err: fs.ErrNotExist}
	}
	return strings.TrimPrefix(rest, "/"), nil
}
