package xattr

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	outside := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "usr/lib/x"), 0o755),
		os.Symlink("usr/lib", filepath.Join(dir, "lib")),
		os.Symlink("/usr/../lib", filepath.Join(dir, "absolute")),
		os.Symlink(outside, filepath.Join(dir, "out")),
		os.Symlink("loop", filepath.Join(dir, "loop")),
		os.WriteFile(filepath.Join(dir, "file"), nil, 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for path, want := range map[string]string{
		"": "", "/": "", ".": "", "usr/lib": "usr/lib", "lib": "usr/lib", "/lib/x/": "usr/lib/x", "absolute/x": "usr/lib/x", "../lib": "usr/lib",
	} {
		if got, err := root.Resolve(path); err != nil || got != want {
			t.Errorf("%q is %q, %v, want %q", path, got, err, want)
		}
	}
	for path, want := range map[string]error{"out": fs.ErrNotExist, "none": fs.ErrNotExist, "loop": unix.ELOOP, "file": unix.ENOTDIR} {
		if got, err := root.Resolve(path); !errors.Is(err, want) {
			t.Errorf("%q is %q, %v, want %v", path, got, err, want)
		}
	}
	was := procSelf
	procSelf = "/nonexistent/"
	defer func() { procSelf = was }()
	if _, err := root.Resolve("lib"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without /proc: %v", err)
	}
}

func TestProbe(t *testing.T) {
	root, err := OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := root.Probe("user.test", []byte("x")); err != nil && !errors.Is(err, ErrUnsupported) {
		t.Errorf("user.test: %v", err)
	}
	if err := root.Probe("nonsense", []byte("x")); !errors.Is(err, ErrUnsupported) {
		t.Errorf("an attribute of no namespace: %v", err)
	}
	if names, err := os.ReadDir(root.Dir()); err != nil || len(names) > 0 {
		t.Errorf("files are left: %v, %v", names, err)
	}
}
