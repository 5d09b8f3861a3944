package installed

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/sign/xattr"
)

func TestApplyFollowsNoLinkOutOfTheRoot(t *testing.T) {
	s := newScene(t)
	s.install("a", map[string]string{"usr/bin/a": "A", "usr/lib/x/b": "B", "opt/gone": "G"})
	outside := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(outside, name), []byte(strings.ToUpper(name)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(path string) {
		if err := os.RemoveAll(filepath.Join(s.dir, path)); err != nil {
			t.Fatal(err)
		}
	}
	remove("usr/bin/a")
	remove("usr/lib/x")
	remove("opt/gone")
	for from, to := range map[string]string{"usr/bin/a": filepath.Join(outside, "a"), "usr/lib/x": outside} {
		if err := os.Symlink(to, filepath.Join(s.dir, from)); err != nil {
			t.Fatal(err)
		}
	}
	r := s.apply(ApplyOptions{Keys: s.keys})
	wantFindings(t, r, "not a regular file /usr/bin/a", "missing /usr/lib/x/b", "missing /opt/gone")
	if d := detailOf(t, r, "/usr/bin/a"); !strings.Contains(d, outside) {
		t.Errorf("the detail does not say where the link leads: %q", d)
	}
	s.dir = outside
	if s.label("a") != nil || s.label("b") != nil {
		t.Error("a file outside the root was labelled")
	}
}

func TestApplyFollowsLinksBelowTheRoot(t *testing.T) {
	s := newScene(t)
	s.install("a", map[string]string{"lib/a.so": "A"})
	for _, err := range []error{
		os.MkdirAll(filepath.Join(s.dir, "usr"), 0o755),
		os.Rename(filepath.Join(s.dir, "lib"), filepath.Join(s.dir, "usr/lib")),
		os.Symlink("/usr/lib", filepath.Join(s.dir, "lib")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	wantFindings(t, s.apply(ApplyOptions{Keys: s.keys}))
	if s.label("usr/lib/a.so") == nil {
		t.Error("the file behind /lib was not labelled")
	}
}

func TestApplyNoticesAWriterWhileReading(t *testing.T) {
	s := newScene(t)
	content := strings.Repeat("x", 600<<10) // more than a worker's buffer
	s.install("a", map[string]string{"usr/bin/a": content})
	sys := s.system()
	written := false
	sys.Progress = func(_ int, bytes int64) {
		if bytes > 0 && !written {
			written = true
			f, err := os.OpenFile(filepath.Join(s.dir, "usr/bin/a"), os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if _, err := f.WriteString("evil"); err != nil {
				t.Error(err)
			}
		}
	}
	r, err := sys.Apply(context.Background(), nil, ApplyOptions{Keys: s.keys})
	if err != nil {
		t.Fatal(err)
	}
	if !written {
		t.Fatal("the test wrote nothing")
	}
	wantFindings(t, r, "changed meanwhile /usr/bin/a")
	if s.label("usr/bin/a") != nil {
		t.Error("labelled all the same")
	}
}

func TestSetLabelIsTakenBack(t *testing.T) {
	for _, old := range []string{"", "old"} {
		s := newScene(t)
		s.write("a", "A", 0o755)
		var before []byte
		if old != "" {
			before = signed(t, newKey(t, 0x22222222), old)
			s.setLabel("a", before)
		}
		root, err := xattr.OpenRoot(s.dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		f, err := root.Open("a")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		s.write("a", "AA", 0o755)
		if err := setLabel(f, before, signed(t, s.key, "A")); !errors.Is(err, errChanging) {
			t.Errorf("error %v", err)
		}
		if got := s.label("a"); !bytes.Equal(got, before) {
			t.Errorf("label %x, want the old one %x", got, before)
		}
	}
}

func TestApplyLabelsTheInodeThatWasRead(t *testing.T) {
	s := newScene(t)
	content := strings.Repeat("x", 600<<10)
	s.install("a", map[string]string{"usr/bin/a": content})
	sys := s.system()
	name := filepath.Join(s.dir, "usr/bin/a")
	swapped := false
	sys.Progress = func(_ int, bytes int64) {
		if bytes > 0 && !swapped {
			swapped = true
			if err := errors.Join(os.Rename(name, name+".old"), os.WriteFile(name, []byte("evil"), 0o755)); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := sys.Apply(context.Background(), nil, ApplyOptions{Keys: s.keys}); err != nil {
		t.Fatal(err)
	}
	if !swapped || s.label("usr/bin/a") != nil {
		t.Error("the file that took the name was labelled")
	}
	if s.label("usr/bin/a.old") == nil {
		t.Error("the inode that was read was not labelled")
	}
}

func TestApplyUnderAttack(t *testing.T) {
	s := newScene(t)
	s.install("a", map[string]string{"usr/lib/x/b": "B", "usr/bin/a": "A"})
	outside := t.TempDir()
	for name, content := range map[string]string{"b": "B", "a": "A"} {
		if err := os.WriteFile(filepath.Join(outside, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	in := func(path string) string { return filepath.Join(s.dir, path) }
	if err := errors.Join(os.Symlink(outside, in("usr/lib/y")), os.Symlink(filepath.Join(outside, "a"), in("usr/bin/z"))); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		swaps := 0
		defer func() { done <- swaps }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, pair := range [][2]string{{"usr/lib/x", "usr/lib/y"}, {"usr/bin/a", "usr/bin/z"}} {
				if err := unix.Renameat2(unix.AT_FDCWD, in(pair[0]), unix.AT_FDCWD, in(pair[1]), unix.RENAME_EXCHANGE); err == nil {
					swaps++
				}
			}
		}
	}()
	set := 0
	for range 100 {
		for _, r := range s.apply(ApplyOptions{Keys: s.keys}).Reports {
			set += r.Changed
		}
		s.clear(ClearOptions{})
	}
	close(stop)
	if swaps := <-done; swaps < 100 || set < 10 {
		t.Skipf("only %d exchanges and %d labels: this file system is no place for the test", swaps, set)
	}
	s.dir = outside
	if s.label("a") != nil || s.label("b") != nil {
		t.Error("a file outside the root was labelled")
	}
}
