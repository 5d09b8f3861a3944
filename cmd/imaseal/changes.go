package main

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/imaseal/imaseal/deb"
	"github.com/imaseal/imaseal/keys/openpgp"
	"github.com/imaseal/imaseal/sign"
)

// maxChanges bounds a .changes or .buildinfo file; Debian's largest have a few
// hundred KiB.
const maxChanges = 16 << 20

// A changesTarget is a .changes file whose packages are worked on. The file itself
// is rewritten last, so that an interruption leaves one that does not fit, which
// running the same command again completes.
type changesTarget struct {
	path, dest  string
	changes     *deb.Changes
	clearSigned bool
	packages    map[string]*target         // by the name that is listed
	have        map[string]deb.ChangesFile // what was there before anything was done
	problems    []sign.Finding             // what of that did not fit
	err         error                      // it could not be read
}

// addChanges puts the .changes file c, and the packages that it lists, on the
// list.
func (e *expansion) addChanges(c candidate) error {
	dest, err := e.dest(c.path, c.rel)
	if err != nil {
		return err
	}
	t := &changesTarget{path: c.path, dest: dest, packages: map[string]*target{}, have: map[string]deb.ChangesFile{}}
	e.list.changes = append(e.list.changes, t)
	if t.err = t.read(); t.err != nil {
		// The packages it may list stay untouched: a folder names them through it.
		e.hide(filepath.Dir(c.path))
		return nil
	}
	for _, f := range t.changes.Files() {
		path := t.pathOf(f.Name)
		if _, err := os.Stat(path); err != nil || !isPackageName(f.Name) {
			continue // that one is missing, checkChanges reports
		}
		p, err := e.add(candidate{path: path, rel: filepath.Join(filepath.Dir(c.rel), f.Name), within: true, place: c.place})
		if err != nil {
			return err
		}
		p.changes = append(p.changes, t)
		t.packages[f.Name] = p
	}
	return nil
}

// pathOf returns the path of a file that the .changes file lists.
func (t *changesTarget) pathOf(name string) string { return filepath.Join(filepath.Dir(t.path), name) }

// hide keeps the packages in dir from being worked on past a .changes that could
// not be read.
func (e *expansion) hide(dir string) {
	e.found = slices.DeleteFunc(e.found, func(c candidate) bool {
		return !c.changes && c.within && filepath.Dir(c.path) == dir
	})
}

func (t *changesTarget) read() error {
	text, err := readBounded(t.path)
	if err != nil {
		return err
	}
	if text, t.clearSigned, err = openpgp.UnwrapClearSigned(text); err != nil {
		return err
	}
	t.changes, err = deb.ParseChanges(text)
	return err
}

func readBounded(path string) ([]byte, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxChanges+1))
	if err == nil && len(text) > maxChanges {
		err = fmt.Errorf("more than %d MiB: this is no .changes file", maxChanges>>20)
	}
	return text, err
}

// checkChanges compares the files that each .changes lists with what it says of
// them. finished, if not nil, is asked whether a file that differs is one that an
// earlier, interrupted run has finished.
func (l *worklist) checkChanges(ctx context.Context, finished func(ctx context.Context, t *changesTarget, want deb.ChangesFile) bool) {
	for _, t := range l.changes {
		if t.err != nil {
			continue
		}
		files := t.changes.Files()
		for _, want := range files {
			have, err := sumFile(t.pathOf(want.Name))
			if err != nil {
				t.problems = append(t.problems, sign.Finding{Path: want.Name, Reason: sign.ReasonDigestMismatch, Detail: err.Error()})
			}
			t.have[want.Name] = have
		}
		for _, want := range files {
			have := t.have[want.Name]
			if have == want || have.Name == "" || finished != nil && finished(ctx, t, want) {
				continue
			}
			t.problems = append(t.problems, sign.Finding{Path: want.Name, Reason: sign.ReasonDigestMismatch,
				Detail: fmt.Sprintf("size or checksums are not those in the .changes file (sha256 %s, listed %s)", have.SHA256, want.SHA256)})
		}
	}
}

// dropBroken takes the packages of every .changes that did not fit off the list,
// before anything is written.
func (l *worklist) dropBroken() {
	l.targets = slices.DeleteFunc(l.targets, func(p *target) bool {
		return slices.ContainsFunc(p.changes, func(t *changesTarget) bool { return len(t.problems) > 0 })
	})
}

// sumFile returns the size and checksums of the file at path, under its base name.
func sumFile(path string) (deb.ChangesFile, error) {
	f, err := openRegular(path)
	if err != nil {
		return deb.ChangesFile{}, err
	}
	defer f.Close()
	return sum(filepath.Base(path), func(w io.Writer) error {
		_, err := io.Copy(w, f)
		return err
	})
}

// sum returns the size and checksums of what write writes.
func sum(name string, write func(io.Writer) error) (deb.ChangesFile, error) {
	m, s1, s256 := md5.New(), sha1.New(), sha256.New()
	var n countingWriter
	if err := write(io.MultiWriter(m, s1, s256, &n)); err != nil {
		return deb.ChangesFile{}, err
	}
	return deb.ChangesFile{
		Name: name, Size: int64(n),
		MD5: hex.EncodeToString(m.Sum(nil)), SHA1: hex.EncodeToString(s1.Sum(nil)), SHA256: hex.EncodeToString(s256.Sum(nil)),
	}, nil
}

type countingWriter int64

func (n *countingWriter) Write(p []byte) (int, error) {
	*n += countingWriter(len(p))
	return len(p), nil
}
