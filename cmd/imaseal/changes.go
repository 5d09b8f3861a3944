package main

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/imaseal/imaseal/deb"
	"github.com/imaseal/imaseal/internal/atomicfile"
	"github.com/imaseal/imaseal/keys"
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
	problems    []sign.Finding // what did not fit before anything was done
	err         error          // it could not be read
}

// addChanges puts the .changes file c, and the packages that it lists, on the
// list.
func (e *expansion) addChanges(c candidate) error {
	dest, err := e.dest(c.path, c.rel)
	if err != nil {
		return err
	}
	t := &changesTarget{path: c.path, dest: dest}
	e.list.changes = append(e.list.changes, t)
	if t.err = t.read(); t.err != nil {
		// The packages it may list stay untouched: a folder names them through it.
		e.hide(filepath.Dir(c.path))
		return nil
	}
	for _, f := range t.changes.Files() {
		if !isPackageName(f.Name) {
			continue
		}
		path := filepath.Join(filepath.Dir(c.path), f.Name)
		if _, err := os.Stat(path); err != nil {
			continue // check reports it
		}
		before := len(e.list.targets)
		if err := e.add(path, filepath.Join(filepath.Dir(c.rel), f.Name), true); err != nil {
			return err
		}
		if len(e.list.targets) > before {
			e.list.targets[before].changes = t
		}
	}
	return nil
}

// hide keeps the packages in dir from being worked on past a .changes that could
// not be read.
func (e *expansion) hide(dir string) {
	e.found = slices.DeleteFunc(slices.Clone(e.found), func(c candidate) bool {
		return !c.changes && c.within && filepath.Dir(c.path) == dir
	})
}

func (t *changesTarget) read() error {
	text, err := readBounded(t.path)
	if err != nil {
		return err
	}
	if text, t.clearSigned, err = keys.UnwrapClearSigned(text); err != nil {
		return err
	}
	t.changes, err = deb.ParseChanges(text)
	return err
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
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
// them. finished, if not nil, is asked whether a package that differs is one that
// an earlier, interrupted run has finished.
func (l *worklist) checkChanges(ctx context.Context, finished func(ctx context.Context, path string, want deb.ChangesFile) bool) {
	for _, t := range l.changes {
		if t.err != nil {
			continue
		}
		for _, want := range t.changes.Files() {
			path := filepath.Join(filepath.Dir(t.path), want.Name)
			have, err := sumFile(path)
			switch {
			case err != nil:
				t.problems = append(t.problems, sign.Finding{Path: want.Name, Reason: sign.ReasonDigestMismatch, Detail: err.Error()})
			case have == want:
			case finished != nil && isPackageName(want.Name) && finished(ctx, path, want):
			default:
				t.problems = append(t.problems, sign.Finding{Path: want.Name, Reason: sign.ReasonDigestMismatch,
					Detail: fmt.Sprintf("size or checksums are not those in the .changes file (sha256 %s, listed %s)", have.SHA256, want.SHA256)})
			}
		}
	}
}

// dropBroken takes the packages of every .changes that did not fit off the list,
// before anything is written.
func (l *worklist) dropBroken() {
	l.targets = slices.DeleteFunc(l.targets, func(t target) bool {
		return t.changes != nil && len(t.changes.problems) > 0
	})
}

// sumFile returns the size and checksums of the file at path, under its base name.
func sumFile(path string) (deb.ChangesFile, error) {
	f, err := os.Open(path)
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

// finishedAlready reports whether the package at path is signed by this key and,
// unsigned, is the very file that the .changes file lists.
func (s *signing) finishedAlready(ctx context.Context, path string, want deb.ChangesFile) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	pkg, err := openPackage(f, openOptions{jobs: 1})
	if err != nil {
		return false
	}
	if done, err := s.alreadySigned(ctx, pkg, 1); err != nil || !done {
		return false
	}
	original, err := sum(want.Name, func(w io.Writer) error { return pkg.Write(ctx, w, nil, sign.WriteOptions{}) })
	if err != nil || original != want {
		return false
	}
	s.out.note("%s: signed by an earlier run that was interrupted; completing it", path)
	return true
}

// changesOptions say how .changes files are rewritten.
type changesOptions struct {
	openPGP   *keys.OpenPGPKey // signs them anew
	buildinfo bool             // rewrite the checksums in the .buildinfo too
}

// finishChanges rewrites each .changes file whose packages are finished, and
// returns results with one for each added.
func (l *worklist) finishChanges(ctx context.Context, out *output, results []*result, o changesOptions) []*result {
	failed := map[string]bool{}
	for _, r := range results {
		failed[r.Path] = r.Verdict != verdictOK
	}
	for _, t := range l.changes {
		r := t.result()
		results = append(results, r)
		if len(t.problems) > 0 {
			r.fail(errors.New("the files are not those that it lists, so nothing was done: build again, or name the packages themselves"))
		}
		if r.Verdict != verdictOK {
			continue
		}
		incomplete := slices.ContainsFunc(l.targets, func(p target) bool { return p.changes == t && failed[p.path] })
		if incomplete || ctx.Err() != nil {
			r.fail(errors.New("not rewritten, because not all its packages are finished: run the same command again to complete it"))
			continue
		}
		if err := t.finish(ctx, out, l.targets, o, r); err != nil {
			r.fail(fmt.Errorf("%w; its packages are finished: run the same command again to complete it", err))
		}
	}
	return results
}

// result starts the result for the .changes file itself, with what did not fit.
func (t *changesTarget) result() *result {
	r := newResult(t.path)
	r.Package, r.Format, r.Action = filepath.Base(t.path), "changes", "ok"
	if t.err != nil {
		return r.fail(t.err)
	}
	for _, p := range t.problems {
		r.find(p)
	}
	return r
}

// finish writes the .changes file with the sizes and checksums of the finished
// packages, and takes along to another folder what else it lists.
func (t *changesTarget) finish(ctx context.Context, out *output, targets []target, o changesOptions, r *result) error {
	dests := map[string]string{} // base name to finished package
	for _, p := range targets {
		if p.changes == t {
			dests[filepath.Base(p.path)] = p.dest
		}
	}
	before := t.changes.Bytes()
	for _, f := range t.changes.Files() {
		if dest, ok := dests[f.Name]; ok {
			if err := t.update(dest); err != nil {
				return err
			}
		}
	}
	for _, f := range t.changes.Files() {
		if _, done := dests[f.Name]; done {
			continue
		}
		if err := t.takeAlong(ctx, f.Name, dests, o.buildinfo); err != nil {
			return err
		}
	}
	text := t.changes.Bytes()
	if bytes.Equal(before, text) {
		r.Action = "unchanged"
		if t.dest == t.path {
			return nil
		}
		var err error
		if text, err = readBounded(t.path); err != nil { // its own signature still holds
			return err
		}
	} else {
		r.Action = "rewritten"
		if o.openPGP != nil {
			var err error
			if text, err = o.openPGP.ClearSign(ctx, text); err != nil {
				return err
			}
		} else if t.clearSigned {
			out.warn("%s: its OpenPGP signature no longer holds and was taken off; sign it again, or use --openpgp-key", t.path)
		}
	}
	if t.dest != t.path {
		r.Output = t.dest
	}
	return writeLike(ctx, t.path, t.dest, text)
}

func (t *changesTarget) update(path string) error {
	have, err := sumFile(path)
	if err != nil {
		return err
	}
	return t.changes.Update(have)
}

// takeAlong brings a listed file that is no package to the folder of the .changes
// file; a .buildinfo is rewritten on the way when that is wanted.
func (t *changesTarget) takeAlong(ctx context.Context, name string, dests map[string]string, buildinfo bool) error {
	from := filepath.Join(filepath.Dir(t.path), name)
	to := filepath.Join(filepath.Dir(t.dest), name)
	if filepath.Ext(name) == ".buildinfo" && buildinfo {
		text, err := readBounded(from)
		if err != nil {
			return err
		}
		if text, _, err = keys.UnwrapClearSigned(text); err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		info, err := deb.ParseBuildinfo(text)
		if err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		for _, f := range info.Files() {
			dest, ok := dests[f.Name]
			if !ok {
				continue
			}
			have, err := sumFile(dest)
			if err != nil {
				return err
			}
			if err := info.Update(have); err != nil {
				return fmt.Errorf("%s: %w", from, err)
			}
		}
		if err := writeLike(ctx, from, to, info.Bytes()); err != nil {
			return err
		}
		return t.update(to)
	}
	if from == to {
		return nil
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	return copyPackage(ctx, f, target{path: from, dest: to})
}

// writeLike writes text to dest atomically, with the mode of the file like.
func writeLike(ctx context.Context, like, dest string, text []byte) error {
	f, err := os.Open(like)
	if err != nil {
		return err
	}
	defer f.Close()
	return atomicfile.Write(ctx, dest, func(w *os.File) error {
		_, err := w.Write(text)
		return err
	}, atomicfile.Options{Like: f})
}

// copyPackage copies the open file f to t.dest atomically.
func copyPackage(ctx context.Context, f *os.File, t target) error {
	return atomicfile.Write(ctx, t.dest, func(w *os.File) error {
		_, err := io.Copy(w, f)
		return err
	}, atomicfile.Options{Like: f})
}
