package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/internal/atomicfile"
	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/sign/split"
)

// What the verbs of split signing share: digests and sign-digests make one file, which
// goes to stdout; embed reads one.

// fileIdentity returns the identity of the whole file f.
func fileIdentity(f *os.File) (split.Identity, error) {
	info, err := f.Stat()
	if err != nil {
		return split.Identity{}, err
	}
	return split.FileIdentity(io.NewSectionReader(f, 0, info.Size()))
}

// trustCertificate says that the key of the certificate that ref names signs.
func (s *sealing) trustCertificate(ctx context.Context, ref string, o keys.OpenOptions) error {
	certs, err := keys.OpenCertificates(ctx, ref, o)
	if err != nil {
		return err
	}
	id, warning, err := keys.KeyID(certs[0], certs[0].PublicKey)
	if err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	if warning != "" {
		s.out.warn("%s", warning)
	}
	if err := keys.CheckValidity(certs[0], time.Now()); err != nil {
		s.out.warn("%s: %v", ref, err) // kernels do not look at dates
	}
	return s.trust(id, certs[0].PublicKey)
}

// yieldStdout returns stdout for the file that the verb makes, and sends the results to
// stderr, unless the file goes to path. That its folder is missing shows before anything
// is read or signed.
func (o *output) yieldStdout(path string) (io.Writer, error) {
	stdout := o.stdout
	if path == "" {
		if o.json {
			return nil, errors.New("--json needs --output, as stdout has the file that is made")
		}
		o.stdout, o.colour = o.stderr, false
		return stdout, nil
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("--output %s: its folder: %w", path, err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("--output %s: %s is no folder", path, filepath.Dir(path))
	}
	return stdout, nil
}

// writeOut writes what fill writes to the file at path, atomically, or to stdout where
// path is empty.
func writeOut(ctx context.Context, stdout io.Writer, path string, fill func(io.Writer) error) error {
	if path == "" {
		return fill(stdout)
	}
	return atomicfile.Write(ctx, path, func(f *os.File) error { return fill(f) }, atomicfile.Options{})
}

// newSpool makes a temporary file that has no name, so that nothing of it is left
// whatever happens. What split signing spools is no secret.
func newSpool() (*os.File, error) {
	if fd, err := unix.Open(os.TempDir(), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600); err == nil {
		return os.NewFile(uintptr(fd), os.TempDir()), nil
	}
	f, err := os.CreateTemp("", "imaseal-*") // where the file system knows no such files
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// interruptible runs f, which may wait for another process, until ctx ends. f is then
// left behind, and nothing that it uses may be looked at.
func interruptible(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
