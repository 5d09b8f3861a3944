package xattr

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const attribute = "user.imaseal-test"

// everywhere runs a test with what Linux has, without openat2 and without /proc.
func everywhere(t *testing.T, test func(*testing.T)) {
	t.Run("as it is", test)
	t.Run("without openat2", func(t *testing.T) {
		noOpenat2 = true
		defer func() { noOpenat2 = false }()
		test(t)
	})
	t.Run("without proc", func(t *testing.T) {
		was := procSelf
		procSelf = "/nonexistent/"
		defer func() { procSelf = was }()
		test(t)
	})
}

// tree makes a root with files and links, and a file outside of it.
func tree(t *testing.T) (root *Root, outside string) {
	t.Helper()
	top := t.TempDir()
	dir := filepath.Join(top, "root")
	for _, d := range []string{"usr/lib", "etc/deep", "home"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	outside = filepath.Join(top, "outside")
	for name, body := range map[string]string{outside: "outside", dir + "/usr/lib/file": "inside", dir + "/etc/conf": "conf"} {
		if err := os.WriteFile(name, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{
		"lib": "usr/lib", "abs": "/usr/lib", "out": "../../..", "up": "../outside", "loop": "loop",
		"link": "usr/lib/file", "etc/deep/conf": "../conf", "away": top, "chain": "abs",
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root, outside
}

func TestOpenFollowsLinksBelowTheRootOnly(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		root, _ := tree(t)
		for path, want := range map[string]string{
			"usr/lib/file": "inside", "/usr/lib/file": "inside", "lib/file": "inside", "abs/file": "inside",
			"chain/file": "inside", "out/usr/lib/file": "inside", "lib/../../usr/lib/file": "inside",
			"../../usr/lib/file": "inside", "etc/./conf": "conf", "etc/deep/../conf": "conf",
		} {
			f, err := root.Open(path)
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			r, err := f.Reader()
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if got, err := io.ReadAll(r); string(got) != want || err != nil {
				t.Errorf("%s: %q, %v", path, got, err)
			}
			r.Close()
			f.Close()
		}
		for path, want := range map[string]error{
			"link": ErrNotRegular, "up": ErrNotRegular, "pipe": ErrNotRegular, "usr": ErrNotRegular, ".": ErrNotRegular,
			"none": fs.ErrNotExist, "none/file": fs.ErrNotExist, "away/outside": fs.ErrNotExist,
			"usr/lib/file/x": unix.ENOTDIR, "loop/x": unix.ELOOP, "etc/deep/conf": ErrNotRegular,
		} {
			f, err := root.Open(path)
			if !errors.Is(err, want) {
				t.Errorf("%s: %v is not %v", path, err, want)
			}
			if err == nil {
				f.Close()
			} else if !strings.Contains(err.Error(), root.Dir()) {
				t.Errorf("%v does not name the file", err)
			}
		}
	})
}

func TestFolderHoldsToItsFiles(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		root, _ := tree(t)
		d, err := root.Folder("abs")
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		f, err := d.Open("file")
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		for _, base := range []string{"", ".", "..", "../lib/file", "none", "/etc/conf"} {
			if f, err := d.Open(base); err == nil {
				f.Close()
				t.Errorf("%q was opened", base)
			}
		}
		top, err := root.Folder("")
		if err != nil {
			t.Fatal(err)
		}
		defer top.Close()
		if _, err := top.Open("link"); err == nil {
			t.Error("a link was opened")
		}
		if _, err := root.Folder("usr/lib/file"); !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("a file as a folder: %v", err)
		}
	})
}

// A file that is mounted over another is not the folder's.
func TestFolderHoldsToItsMount(t *testing.T) {
	root, outside := tree(t)
	name := filepath.Join(root.Dir(), "usr/lib/file")
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with its namespace
		if unix.Unshare(unix.CLONE_NEWNS) != nil || unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") != nil ||
			unix.Mount(outside, name, "", unix.MS_BIND, "") != nil {
			done <- errors.ErrUnsupported
			return
		}
		// Opened before, the root would be that of the other namespace.
		here, err := OpenRoot(root.Dir())
		if err != nil {
			done <- err
			return
		}
		defer here.Close()
		d, err := here.Folder("usr/lib")
		if err == nil {
			_, err = d.Open("file")
			d.Close()
		}
		done <- err
	}()
	switch err := <-done; err {
	case errors.ErrUnsupported:
		t.Skip("needs a mount namespace")
	default:
		if !errors.Is(err, unix.EXDEV) {
			t.Errorf("what is mounted over the file was opened: %v", err)
		}
	}
}

func TestAttributesOfOneInode(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		root, outside := tree(t)
		f, err := root.Open("usr/lib/file")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if v, err := f.Get(attribute); v != nil || err != nil {
			t.Fatalf("%q, %v", v, err)
		}
		if err := f.Remove(attribute); err != nil {
			t.Error(err)
		}
		want := bytes.Repeat([]byte("v"), 2000)
		if err := f.Set(attribute, want); errors.Is(err, ErrUnsupported) {
			t.Skip("the file system of the temporary folder takes no attributes")
		} else if err != nil {
			t.Fatal(err)
		}
		if v, err := f.Get(attribute); !bytes.Equal(v, want) || err != nil {
			t.Errorf("%.10q, %v", v, err)
		}
		// The name leads to another file now: the handle does not, or says so.
		name := filepath.Join(root.Dir(), "usr/lib/file")
		if err := os.Rename(name, name+".old"); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(outside, name); err != nil {
			t.Fatal(err)
		}
		if err := f.Set(attribute, []byte("new")); err != nil && !errors.Is(err, ErrReplaced) {
			t.Error(err)
		}
		if n, err := unix.Getxattr(outside, attribute, nil); err != unix.ENODATA {
			t.Errorf("the file outside has an attribute of %d bytes, %v", n, err)
		}
		// A link that takes the place of the file is not followed.
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(outside, name); err != nil {
			t.Fatal(err)
		}
		_ = f.Set(attribute, []byte("newer"))
		if _, err := unix.Getxattr(outside, attribute, nil); err != unix.ENODATA {
			t.Errorf("the file outside has an attribute: %v", err)
		}
	})
}

func TestChanged(t *testing.T) {
	root, _ := tree(t)
	f, err := root.Open("etc/conf")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if changed, err := f.Changed(); changed || err != nil {
		t.Errorf("%v, %v", changed, err)
	}
	if err := os.WriteFile(f.Name(), []byte("longer than before"), 0o644); err != nil {
		t.Fatal(err)
	}
	if changed, err := f.Changed(); !changed || err != nil {
		t.Errorf("%v, %v", changed, err)
	}
}

func TestErrorsSayWhy(t *testing.T) {
	f := &File{name: "/a/file"}
	for err, want := range map[error]error{
		unix.EOPNOTSUPP: ErrUnsupported, unix.EPERM: ErrUnsupported, unix.ENOSPC: ErrNoSpace, unix.EDQUOT: ErrNoSpace,
		unix.E2BIG: ErrNoSpace, unix.EIO: unix.EIO,
	} {
		got := f.wrap("set", "security.ima", err)
		if !errors.Is(got, want) || !strings.HasPrefix(got.Error(), "/a/file: cannot set security.ima: ") {
			t.Errorf("%v became %v", err, got)
		}
	}
	if errors.Is(f.wrap("set", "security.ima", unix.EPERM), ErrFileSystem) || !errors.Is(f.wrap("set", "security.ima", unix.EOPNOTSUPP), ErrFileSystem) {
		t.Error("what the file system does not take is not told from what the process may not")
	}
	if f.wrap("set", "security.ima", nil) != nil {
		t.Error("success is an error")
	}
}
