package atomicfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestWriteReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	write(t, path, "old")
	before, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	err = Write(t.Context(), path, func(f *os.File) error {
		mustHave(t, path, "old") // until all is written
		return content("new")(f)
	}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	mustHave(t, path, "new")
	mustHold(t, dir, "f")
	old := make([]byte, 8)
	if n, _ := before.ReadAt(old, 0); string(old[:n]) != "old" {
		t.Errorf("who had the file open sees %q", old[:n])
	}
}

func TestWriteModeOfANewFile(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	for _, test := range []struct {
		name       string
		mode, want fs.FileMode
	}{
		{"is 0644 whatever the umask", 0, 0o644},
		{"is that of the options", 0o600, 0o600},
		{"can be more than the umask allows", 0o755, 0o755},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			if err := Write(t.Context(), path, content("new"), Options{Mode: test.mode}); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != test.want {
				t.Errorf("mode %v, want %v", info.Mode(), test.want)
			}
		})
	}
}

func TestTemporariesAreForTheirOwnerOnly(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	err := Write(t.Context(), filepath.Join(t.TempDir(), "f"), func(f *os.File) error {
		info, err := f.Stat()
		if err == nil && info.Mode() != 0o600 {
			t.Errorf("mode %v", info.Mode())
		}
		return err
	}, Options{})
	if err != nil {
		t.Fatal(err)
	}
}

// Every path is relative to a folder that the test goes to, so that the tests see
// also what is done with a path without a folder.
func TestWriteFollowsPaths(t *testing.T) {
	for _, test := range []struct {
		name    string
		links   [][2]string // name, target
		path    string
		changed string // the file that has the new content
	}{
		{"a plain name", nil, "f", "f"},
		{"a name in a folder", nil, "a/b/f", "a/b/f"},
		{"a name with ..", nil, "a/../f", "f"},
		{"a link", [][2]string{{"l", "f"}}, "l", "f"},
		{"a link into a folder", [][2]string{{"l", "a/b/f"}}, "l", "a/b/f"},
		{"a link of a folder upwards", [][2]string{{"a/l", "../f"}}, "a/l", "f"},
		{"an absolute link", [][2]string{{"l", "/a/f"}}, "l", "a/f"},
		{"a chain of links", [][2]string{{"l", "a/l"}, {"a/l", "b/l"}, {"a/b/l", "f"}}, "l", "a/b/f"},
		{"a file in a linked folder", [][2]string{{"d", "a/b"}}, "d/f", "a/b/f"},
		{"a link upwards in a linked folder", [][2]string{{"d", "a/b"}, {"a/b/l", "../f"}}, "d/l", "a/f"},
		{".. behind a linked folder", [][2]string{{"d", "a/b"}}, "d/../f", "a/f"},
		{"a dangling link", [][2]string{{"l", "a/new"}}, "l", "a/new"},
		{"a file that is not there", nil, "a/new", "a/new"},
		{"a longest chain", longChain(40), "l40", "f"},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			t.Chdir(root)
			if err := os.MkdirAll("a/b", 0o755); err != nil {
				t.Fatal(err)
			}
			files := map[string]string{"f": "old", "a/f": "old", "a/b/f": "old"}
			for name, old := range files {
				write(t, name, old)
			}
			for _, l := range test.links {
				target := l[1]
				if filepath.IsAbs(target) {
					target = root + target
				}
				if err := os.Symlink(target, l[0]); err != nil {
					t.Fatal(err)
				}
			}
			err := Write(t.Context(), test.path, func(f *os.File) error {
				if beside := filepath.Join(filepath.Dir(test.changed), filepath.Base(f.Name())); !sameFile(f, beside) {
					t.Errorf("the temporary is %s, not beside %s", f.Name(), test.changed)
				}
				return content("new")(f)
			}, Options{})
			if err != nil {
				t.Fatal(err)
			}
			files[test.changed] = "new"
			for name, want := range files {
				mustHave(t, name, want)
			}
			for _, l := range test.links {
				if info, err := os.Lstat(l[0]); err != nil || info.Mode()&fs.ModeSymlink == 0 {
					t.Errorf("%s is no link any more", l[0])
				}
			}
		})
	}
}

func TestWriteReplacesALink(t *testing.T) {
	t.Chdir(t.TempDir())
	for link, target := range map[string]string{"l": "f", "dangling": "away", "loop": "loop", "folder": "."} {
		if err := errors.Join(os.WriteFile("f", []byte("old"), 0o644), os.Symlink(target, link)); err != nil {
			t.Fatal(err)
		}
		if err := Write(t.Context(), link, content("new"), Options{NoFollow: true}); err != nil {
			t.Fatal(err)
		}
		mustHave(t, link, "new")
		mustHave(t, "f", "old")
		if info, err := os.Lstat(link); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s is still a link", link)
		}
		if _, err := os.Lstat("away"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the link was followed: %v", err)
		}
	}
}

// longChain is as many links as Linux follows.
func longChain(n int) (links [][2]string) {
	links = append(links, [2]string{"l1", "f"})
	for i := 2; i <= n; i++ {
		links = append(links, [2]string{fmt.Sprintf("l%d", i), fmt.Sprintf("l%d", i-1)})
	}
	return links
}

func TestWriteRefuses(t *testing.T) {
	mkdir := func(name string) error { return os.Mkdir(name, 0o755) }
	for _, test := range []struct {
		name string
		make func() error
		path string
		o    Options
		want error  // nil: any
		text string // in the error
	}{
		{"a loop of links", func() error { return errors.Join(os.Symlink("b", "a"), os.Symlink("a", "b")) }, "a", Options{}, syscall.ELOOP, ""},
		{"a link to itself", func() error { return os.Symlink("a", "a") }, "a", Options{}, syscall.ELOOP, ""},
		{"a folder", func() error { return mkdir("d") }, "d", Options{}, nil, "d: not a regular file"},
		{"a folder with a slash", func() error { return mkdir("d") }, "d/", Options{}, nil, "not a regular file"},
		{"a link to a folder", func() error { return errors.Join(mkdir("d"), os.Symlink("d", "l")) }, "l", Options{}, nil, "not a regular file"},
		// A device of the test's own: code that is broken would replace that of the system.
		{"a link to a device", func() error {
			return errors.Join(syscall.Mknod("null", syscall.S_IFCHR|0o666, 1<<8|3), os.Symlink("null", "l"))
		}, "l", Options{}, nil, "null: not a regular file"},
		{"a fifo", func() error { return syscall.Mkfifo("p", 0o644) }, "p", Options{}, nil, "not a regular file"},
		{"a fifo where no link is followed", func() error { return syscall.Mkfifo("p", 0o644) }, "p", Options{NoFollow: true}, nil, "not a regular file"},
		{"a folder that is not there", func() error { return nil }, "d/f", Options{}, fs.ErrNotExist, ""},
		{"a missing name with a slash", func() error { return mkdir("d") }, "d/f/", Options{}, fs.ErrNotExist, ""},
		{"no name", func() error { return nil }, "", Options{}, fs.ErrNotExist, ""},
		{"a folder that is a file", func() error { return os.WriteFile("f", nil, 0o644) }, "f/f", Options{}, syscall.ENOTDIR, ""},
		{"a name of 256 bytes", func() error { return nil }, strings.Repeat("n", 256), Options{}, syscall.ENAMETOOLONG, ""},
		{"a file that is there", func() error { return os.WriteFile("f", nil, 0o644) }, "f", Options{NoReplace: true}, fs.ErrExist, ""},
		{"what a link points to", func() error { return errors.Join(os.WriteFile("f", nil, 0o644), os.Symlink("f", "l")) }, "l", Options{NoReplace: true}, fs.ErrExist, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			t.Chdir(dir)
			if err := test.make(); errors.Is(err, fs.ErrPermission) {
				t.Skip("needs root")
			} else if err != nil {
				t.Fatal(err)
			}
			before := names(t, dir)
			err := Write(t.Context(), test.path, func(f *os.File) error {
				if !test.o.NoReplace {
					t.Error("it was only refused after the work")
				}
				return content("new")(f)
			}, test.o)
			if err == nil {
				t.Fatal("it was replaced")
			}
			if test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("error %q, want one of %v %s", err, test.want, test.text)
			}
			mustHold(t, dir, before...)
			if data, err := os.ReadFile("f"); err == nil && len(data) != 0 {
				t.Errorf("the file has %q", data)
			}
		})
	}
}

func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestWriteNoReplaceCreates(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := Write(t.Context(), path, content("new"), Options{NoReplace: true}); err != nil {
		t.Fatal(err)
	}
	mustHave(t, path, "new")
	mustHold(t, dir, "f")
}

func TestWriteOnNamesThatAreOdd(t *testing.T) {
	for name, base := range map[string]string{
		"the longest":       strings.Repeat("n", 255),
		"glob characters":   "a[b]*?{c}\\",
		"a newline":         "a\nb",
		"no UTF-8":          "a\xff",
		"a leading dot":     ".a",
		"a leading dash":    "-a",
		"like a temporary":  ".f.imaseal-ABCDEFGHIJKLMNOPQRSTUVWXYZ.tmp",
		"cut within a rune": strings.Repeat("ä", 127),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, base)
			write(t, path, "old")
			write(t, stale(dir, base), "of a killed process")
			if err := Write(t.Context(), path, content("new"), Options{}); err != nil {
				t.Fatal(err)
			}
			mustHave(t, path, "new")
			mustHold(t, dir, base)
		})
	}
}

func TestWriteThatFailsLeavesTheOriginal(t *testing.T) {
	broken := errors.New("broken")
	ctx, cancel := context.WithCancel(t.Context())
	for _, test := range []struct {
		name string
		ctx  context.Context
		fill func(f *os.File) error
		like func(f *os.File) *os.File
		want error
	}{
		{"in fill", t.Context(), func(f *os.File) error { f.WriteString("half"); return broken }, nil, broken},
		{"as the file to be like is closed", t.Context(), content("new"), func(f *os.File) *os.File { f.Close(); return f }, os.ErrClosed},
		{"as fill closed the file", t.Context(), func(f *os.File) error { return f.Close() }, nil, os.ErrClosed},
		{"as it was cancelled in fill", ctx, func(f *os.File) error { cancel(); return content("new")(f) }, nil, context.Canceled},
		// From here on ctx is cancelled.
		{"as it was cancelled before", ctx, func(f *os.File) error { t.Error("fill was called"); return nil }, nil, context.Canceled},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "f")
			write(t, path, "old")
			var o Options
			if test.like != nil {
				f, err := os.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				o.Like = test.like(f)
			}
			if err := Write(test.ctx, path, test.fill, o); !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			mustHave(t, path, "old")
			mustHold(t, dir, "f")
		})
	}
}

func TestWriteThatPanicsLeavesTheOriginal(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	write(t, path, "old")
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		Write(t.Context(), path, func(*os.File) error { panic("a bug") }, Options{})
	}()
	mustHave(t, path, "old")
	mustHold(t, dir, "f")
}

func TestWriteOnAFullDisk(t *testing.T) {
	dir := small(t, 256<<10)
	path := filepath.Join(dir, "f")
	write(t, path, strings.Repeat("o", 100<<10))
	err := Write(t.Context(), path, content(strings.Repeat("n", 200<<10)), Options{})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v, want %v", err, syscall.ENOSPC)
	}
	mustHave(t, path, strings.Repeat("o", 100<<10))
	mustHold(t, dir, "f")
	// The space is free again.
	if err := Write(t.Context(), path, content(strings.Repeat("n", 100<<10)), Options{}); err != nil {
		t.Error(err)
	}
}

func TestWriteOnAReadOnlyFileSystem(t *testing.T) {
	dir := small(t, 64<<10)
	path := filepath.Join(dir, "f")
	write(t, path, "old")
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := Write(t.Context(), path, content("new"), Options{}); !errors.Is(err, syscall.EROFS) {
		t.Errorf("error %v, want %v", err, syscall.EROFS)
	}
	mustHave(t, path, "old")
	mustHold(t, dir, "f")
}

func TestConcurrentWritersLeaveOneWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	write(t, path, "old")
	const writers, size = 8, 64 << 10
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() {
			for range 5 {
				err := Write(context.Background(), path, content(strings.Repeat(string('a'+rune(i)), size)), Options{})
				if err != nil {
					t.Error(err)
				}
				data, err := os.ReadFile(path)
				if err != nil || len(data) != size || strings.Trim(string(data), string(data[:1])) != "" {
					t.Errorf("a mixture of %d bytes: %v", len(data), err)
				}
			}
		})
	}
	group.Wait()
	mustHold(t, dir, "f")
}
