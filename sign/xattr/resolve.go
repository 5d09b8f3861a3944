package xattr

import (
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Resolve returns the one name that the folder path has below the root, without
// links: "usr/lib" for "lib" where /lib is a link to it. The root itself is "". It
// takes /proc.
func (r *Root) Resolve(path string) (string, error) {
	fd, err := r.openat(path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: r.Name(path), Err: err}
	}
	defer unix.Close(fd)
	top, err := nameOf(r.fd)
	if err != nil {
		return "", err
	}
	name, err := nameOf(fd)
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

// nameOf returns the name that the kernel has for an open folder.
func nameOf(fd int) (string, error) {
	name, err := os.Readlink(procSelf + strconv.Itoa(fd))
	if err != nil {
		// Not wrapped: it is not the folder that does not exist.
		return "", fmt.Errorf("what a folder is called without links is not to be known without /proc: %v", err)
	}
	return name, nil
}
