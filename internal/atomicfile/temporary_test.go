package atomicfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTemporariesOfKilledProcessesAreRemoved(t *testing.T) {
	for name, env := range map[string]string{
		"while it wrote":                       "",
		"when it was a read-only file already": asReadOnly + "=1",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "f")
			write(t, path, "old")
			w := startWriter(t, path, env)
			w.kill(t)
			mustHold(t, dir, "f", filepath.Base(w.temporary))
			mustHave(t, path, "old")
			if err := Write(t.Context(), path, content("new"), Options{}); err != nil {
				t.Fatal(err)
			}
			mustHold(t, dir, "f")
			mustHave(t, path, "new")
		})
	}
}

// A process without the rights of root must be able to remove its own.
func TestTemporaryOfAReadOnlyFileIsRemovedWithoutRoot(t *testing.T) {
	dir := t.TempDir()
	name := stale(dir, "f")
	write(t, name, "")
	if err := os.Chmod(name, 0o400); err != nil {
		t.Fatal(err)
	}
	asUser(t, dir, func() { sweep(dir+"/", "f") })
	mustHold(t, dir)
}

func TestTemporariesOfRunningProcessesAreLeft(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	write(t, path, "old")
	w := startWriter(t, path)
	for range 3 {
		if err := Write(t.Context(), path, content("new"), Options{}); err != nil {
			t.Fatal(err)
		}
	}
	mustHold(t, dir, "f", filepath.Base(w.temporary))
	mustHave(t, path, "new")
	w.in.Close() // now it finishes
	if err := w.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	mustHold(t, dir, "f")
	mustHave(t, path, "of a process that was killed\n")
}

func TestSweepLeavesWhatIsNotAStaleTemporary(t *testing.T) {
	const random = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	left := []string{
		"f", ".f", ".f.imaseal-", ".f.imaseal-.tmp",
		".f.imaseal-" + random,
		".f.imaseal-" + random + ".tmp.bak",
		".f.imaseal-" + random + "A.tmp",
		".f.imaseal-" + random[1:] + ".tmp",
		".f.imaseal-" + strings.ToLower(random) + ".tmp",
		".f.imaseal-" + random[:25] + "1.tmp",
		"f.imaseal-" + random + ".tmp",
		".g.imaseal-" + random + ".tmp",                            // of another file
		".ff.imaseal-" + random + ".tmp",                           // of another file
		".f.imaseal-" + random + ".tmp.imaseal-" + random + ".tmp", // of a file that is called like a temporary
	}
	dir := t.TempDir()
	for _, name := range left {
		write(t, filepath.Join(dir, name), "")
	}
	gone := stale(dir, "f")
	write(t, gone, "")
	sweep(dir+"/", "f")
	mustHold(t, dir, left...)
}

func TestSweepOpensRegularFilesOnly(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	write(t, outside, "kept")
	for name, create := range map[string]func(name string) error{
		"a link to a file": func(name string) error { return os.Symlink(outside, name) },
		"a dangling link":  func(name string) error { return os.Symlink("nowhere", name) },
		"a folder":         func(name string) error { return os.Mkdir(name, 0o755) },
		"a fifo":           func(name string) error { return syscall.Mkfifo(name, 0o644) },
		"a socket":         func(name string) error { return syscall.Mknod(name, syscall.S_IFSOCK|0o644, 0) },
		"a link to a fifo": func(name string) error {
			return errors.Join(syscall.Mkfifo(name+"p", 0o644), os.Symlink(name+"p", name))
		},
		"a character device":    func(name string) error { return syscall.Mknod(name, syscall.S_IFCHR|0o644, 1<<8|3) },
		"a device of no driver": func(name string) error { return syscall.Mknod(name, syscall.S_IFBLK|0o644, 0xfff) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := stale(dir, "f")
			if err := create(path); errors.Is(err, fs.ErrPermission) {
				t.Skip("needs root")
			} else if err != nil {
				t.Fatal(err)
			}
			opened := watchOpens(t, dir)
			before := names(t, dir)
			sweep(dir+"/", "f")
			mustHold(t, dir, before...)
			mustHave(t, outside, "kept")
			if got := opened(); strings.Contains(got, filepath.Base(path)) {
				t.Errorf("it was opened")
			}
		})
	}
}

// watchOpens returns a function that says, with NULs, what in the folder was opened
// since.
func watchOpens(t *testing.T, dir string) func() string {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	return func() string {
		buf := make([]byte, 64<<10)
		n, err := unix.Read(fd, buf)
		if err != nil && err != unix.EAGAIN {
			t.Fatal(err)
		}
		return string(bytes.Clone(buf[:max(0, n)]))
	}
}

func TestSweepFindsTheStaleOneAmongMany(t *testing.T) {
	dir := t.TempDir()
	var left []string
	for _, r := range "abcdefghij" {
		for i := range 300 {
			name := string(r) + strings.Repeat("x", i%200) + string(rune('a'+i/200))
			left = append(left, name)
			write(t, filepath.Join(dir, name), "")
		}
	}
	write(t, stale(dir, "f"), "")
	sweep(dir+"/", "f")
	mustHold(t, dir, left...)
}

// The temporaries of two long names can share a prefix. Nobody's is removed.
func TestLongNamesWithOneBeginningDoNotDisturb(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, strings.Repeat("n", 254)+"a"), filepath.Join(dir, strings.Repeat("n", 254)+"b")
	err := Write(t.Context(), a, func(f *os.File) error {
		if err := Write(t.Context(), b, content("b"), Options{}); err != nil {
			return err
		}
		return content("a")(f)
	}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	mustHave(t, a, "a")
	mustHave(t, b, "b")
	mustHold(t, dir, filepath.Base(a), filepath.Base(b))
}

func TestWriteToAFolderThatMayNotBeRead(t *testing.T) {
	dir := t.TempDir()
	asUser(t, dir, func() {
		if err := os.Chmod(dir, 0o300); err != nil {
			t.Fatal(err)
		}
		if err := Write(t.Context(), dir+"/f", content("new"), Options{}); err != nil {
			t.Error(err)
		}
		os.Chmod(dir, 0o700)
	})
	mustHold(t, dir, "f")
}

func TestWriteToAFolderThatMayNotBeWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	write(t, path, "old")
	asUser(t, dir, func() {
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		if err := Write(t.Context(), path, content("new"), Options{}); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("error %v, want %v", err, fs.ErrPermission)
		}
		os.Chmod(dir, 0o700)
	})
	mustHave(t, path, "old")
	mustHold(t, dir, "f")
}
