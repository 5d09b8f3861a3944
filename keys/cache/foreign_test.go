package cache

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/imaseal/imaseal/sign"
)

// What is not a cache of ours is an error, at once, and stays as it is.
func TestForeignFiles(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(path string) error
		says string
	}{
		{"a text", func(p string) error { return os.WriteFile(p, []byte("my only copy\n"), 0o600) }, "not a signature cache"},
		{"a large file", func(p string) error { return os.WriteFile(p, make([]byte, 1<<20), 0o600) }, "not a signature cache"},
		{"another program's database", func(p string) error {
			db, err := bbolt.Open(p, 0o600, nil)
			if err != nil {
				return err
			}
			return db.Close()
		}, "not a signature cache"},
		{"a database of another program, with what could be ours", func(p string) error {
			return otherDatabase(p, entryKey(someone, sign.SHA256, digest(sign.SHA256, 1)), newValue(time.Now(), signature(1, 256)))
		}, "not a signature cache"},
		{"a database of another program, without its meta pages", func(p string) error {
			err := otherDatabase(p, []byte("key"), []byte("value"))
			if err != nil {
				return err
			}
			file, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			clear(file[:2*pageSize])
			return os.WriteFile(p, file, 0o600)
		}, "not a signature cache"},
		{"the beginning of one of ours", func(p string) error { return os.WriteFile(p, emptyFile()[:47], 0o600) }, "not a signature cache"},
		{"a folder", func(p string) error { return os.Mkdir(p, 0o700) }, "folder"},
		{"a link to nothing", func(p string) error { return os.Symlink("nothing", p) }, "symbolic link"},
		{"a link to a cache", func(p string) error {
			if err := os.WriteFile(p+".real", emptyFile(), 0o600); err != nil {
				return err
			}
			return os.Symlink(p+".real", p)
		}, "symbolic link"},
		{"a pipe", func(p string) error { return syscall.Mkfifo(p, 0o600) }, "named pipe"},
		{"a socket", func(p string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p, Net: "unix"})
			if err != nil {
				return err
			}
			l.SetUnlinkOnClose(false)
			return l.Close()
		}, "socket"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "c") // a socket's path is short
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			path := filepath.Join(dir, "cache")
			if err := test.make(path); err != nil {
				t.Fatal(err)
			}
			before, _ := os.Lstat(path)
			for what, use := range map[string]func() error{
				"Open":   func() error { _, err := Open(path, Options{}); return err },
				"Stats":  func() error { _, err := Stats(path); return err },
				"Trim":   func() error { _, _, err := Trim(path, TrimOptions{}); return err },
				"Verify": func() error { _, err := Verify(t.Context(), path, nil, true); return err },
			} {
				err := use()
				if err == nil || !strings.Contains(err.Error(), test.says) || strings.Count(err.Error(), path) != 1 {
					t.Errorf("%s: %v", what, err)
				}
			}
			after, err := os.Lstat(path)
			if err != nil || !os.SameFile(before, after) || before.Size() != after.Size() || !before.ModTime().Equal(after.ModTime()) {
				t.Errorf("it was touched: %v", err)
			}
		})
	}
}

// otherDatabase makes a bbolt database with one entry.
func otherDatabase(path string, key, value []byte) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: pageSize})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket(generationName(1))
		if err != nil {
			return err
		}
		return b.Put(key, value)
	})
	return errors.Join(err, db.Close())
}

func TestPathsThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{
		filepath.Join(dir, "no", "cache"):   "make the folder first",
		filepath.Join(dir, "file", "cache"): "name a file in a folder",
		"":                                  "no such file",
	} {
		if c, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), says) {
			c.Close()
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestAnEmptyFileBecomesACache(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	if err := os.WriteFile(path, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Stats(path); err != nil {
		t.Error(err)
	}
	fill(t, path, Options{}, 0, 10, 512)
	c := open(t, path, Options{})
	if n := found(t, c, 0, 10, 512); n != 10 {
		t.Errorf("%d of 10", n)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// A file that others may write is read only: who ignores the lock could end this
// process while bbolt writes.
func TestFilesOfOthersAreReadOnly(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(path string) error
		says   string
	}{
		{"a mode for the group", func(p string) error { return os.Chmod(p, 0o660) }, "chmod"},
		{"a mode for all", func(p string) error { return os.Chmod(p, 0o602) }, "chmod"},
		{"another owner", func(p string) error { return os.Chown(p, 12345, -1) }, "belongs to user 12345"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "cache")
			fill(t, path, Options{}, 0, 10, 512)
			if err := test.change(path); err != nil {
				t.Skip(err) // only root gives files away
			}
			var noted []string
			o := Options{Note: func(text string) { noted = append(noted, text) }}
			fill(t, path, o, 10, 20, 512)
			c := open(t, path, o)
			if n := found(t, c, 0, 20, 512); n != 10 {
				t.Errorf("%d are found, of 10 that were there", n)
			}
			if len(noted) != 2 || !strings.Contains(noted[0], test.says) {
				t.Errorf("noted: %q", noted)
			}
		})
	}
}

func TestAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=200k"); err != nil {
		t.Skipf("mounting a small tmpfs: %v", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	path := filepath.Join(dir, "cache")
	fill(t, path, Options{}, 0, 20, 512)
	var noted []string
	c := open(t, path, Options{Note: func(text string) { noted = append(noted, text) }})
	for i := 1000; i < 3000; i++ {
		c.Remember(someone, sign.SHA256, digest(sign.SHA256, i), signature(i, 512))
	}
	c.Close()
	if len(noted) != 1 || !strings.Contains(noted[0], "no space left") {
		t.Errorf("noted: %q", noted)
	}
	c = open(t, path, Options{})
	if n := found(t, c, 0, 20, 512); n != 20 {
		t.Errorf("%d of 20 are left that were there before the disk was full", n)
	}
	c.Close()
	full, err := os.Create(filepath.Join(dir, "full"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = full.Write(make([]byte, pageSize))
	}
	full.Close()
	if _, err := Open(filepath.Join(dir, "new"), Options{}); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("a new one on a full disk: %v", err)
	}
	if err := os.Truncate(path, 2*pageSize); err != nil {
		t.Fatal(err)
	}
	noted = nil
	fill(t, path, Options{Note: func(text string) { noted = append(noted, text) }}, 0, 20, 512)
	if len(noted) != 1 && len(noted) != 2 {
		t.Errorf("noted: %q", noted)
	}
}
