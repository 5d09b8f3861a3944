package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What another program writes in the place of a package, while it is worked on, is
// neither lost nor mixed up with what was there.
func TestAPackageThatIsWrittenMeanwhileIsLeftAlone(t *testing.T) {
	original, err := os.ReadFile(filepath.Join("..", "..", "testdata", "packages", "hello_1_all.deb"))
	if err != nil {
		t.Fatal(err)
	}
	same := append([]byte{}, original...)
	same[len(same)-1]++
	overwrite := func(content []byte) func(path string) error {
		return func(path string) error {
			return errors.Join(os.WriteFile(path, content, 0o644), os.Chtimes(path, time.Time{}, time.Unix(1, 0)))
		}
	}
	for _, test := range []struct {
		name      string
		meanwhile func(path string) error
		elsewhere bool // there is an --output
		left      string
	}{
		{"nothing", func(string) error { return nil }, false, ""},
		{"the mode is changed", func(path string) error { return os.Chmod(path, 0o600) }, false, ""},
		{"shorter, in place", overwrite([]byte("short")), false, "short"},
		{"shorter, in place, with --output", overwrite([]byte("short")), true, "short"},
		{"as long, in place", overwrite(same), false, string(same)},
		{"renamed to its name", func(path string) error {
			return errors.Join(os.WriteFile(path+".new", []byte("new"), 0o644), os.Rename(path+".new", path))
		}, false, "new"},
		{"renamed to its name by another run", func(path string) error {
			return errors.Join(os.WriteFile(path+".new", []byte("signed"), 0o644), os.Rename(path+".new", path))
		}, false, "signed"},
		{"removed", os.Remove, false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "p.deb")
			if err := os.WriteFile(path, original, 0o644); err != nil {
				t.Fatal(err)
			}
			target := &target{path: path, dest: path}
			if test.elsewhere {
				target.dest = filepath.Join(dir, "out.deb")
			}
			f, _, err := target.open(openOptions{jobs: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			err = target.replace(t.Context(), f, func(w io.Writer) error {
				_, err := io.WriteString(w, "signed")
				return errors.Join(err, test.meanwhile(path))
			})
			want := test.left
			if want == "" && test.name != "removed" {
				want = "signed"
			}
			now, _ := os.ReadFile(path)
			if (err == nil) != (want == "signed") || string(now) != want {
				t.Errorf("%v, and %.20q is left", err, now)
			}
			if _, err := os.Lstat(target.dest); test.elsewhere && err == nil {
				t.Error("there is an output")
			}
		})
	}
}
