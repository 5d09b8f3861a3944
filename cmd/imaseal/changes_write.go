package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/imaseal/imaseal/deb"
	"github.com/imaseal/imaseal/internal/atomicfile"
	"github.com/imaseal/imaseal/keys/openpgp"
)

// changesOptions say how .changes files are rewritten.
type changesOptions struct {
	openPGP   *openpgp.Key // signs those anew that were signed
	buildinfo bool         // rewrite the checksums in the .buildinfo too
	dryRun    bool         // write nothing
}

// finishChanges rewrites each .changes file whose packages are finished, and
// returns results with one for each added.
func (l *worklist) finishChanges(ctx context.Context, out *output, results []*result, o changesOptions) []*result {
	byPath := map[string]*result{}
	for _, r := range results {
		byPath[r.Path] = r
	}
	for _, t := range l.changes {
		r := t.misfit(t.result())
		results = append(results, r)
		complete, changed := ctx.Err() == nil, false
		for name, p := range t.packages {
			done := byPath[p.path]
			complete = complete && done != nil && done.Verdict == verdictOK
			changed = changed || done != nil && done.pending() || t.have[name].SHA256 != t.listed(name).SHA256
		}
		switch {
		case r.Verdict != verdictOK:
		case !complete:
			r.fail(errors.New("not rewritten, because not all its packages are finished: run the same command again to complete it"))
		case o.dryRun && changed:
			r.Action = "would rewrite"
		case o.dryRun:
			r.Action = "unchanged"
		default:
			if err := t.finish(ctx, out, o, r); err != nil {
				r.fail(fmt.Errorf("%w; its packages are finished: run the same command again to complete it", err))
			}
		}
	}
	return results
}

// result starts the result for the .changes file itself, with what did not fit.
func (t *changesTarget) result() *result {
	r := newResult(t.path)
	r.Package, r.Format = filepath.Base(t.path), formatChanges
	if t.err != nil {
		return r.fail(t.err)
	}
	for _, p := range t.problems {
		r.find(p)
	}
	return r
}

// misfit makes r an error where the files that are there are not those that are listed.
func (t *changesTarget) misfit(r *result) *result {
	if len(t.problems) > 0 {
		first := t.problems[0]
		r.fail(fmt.Errorf("the files are not those that it lists, so nothing was done (%s: %s): build again, or name the packages themselves", first.Path, first.Detail))
	}
	return r
}

// finish writes the .changes file with the sizes and checksums of the finished
// packages, and takes along to another folder what else it lists.
func (t *changesTarget) finish(ctx context.Context, out *output, o changesOptions, r *result) error {
	before := t.changes.Bytes()
	for _, f := range t.changes.Files() {
		var err error
		if p := t.packages[f.Name]; p != nil {
			err = update(t.changes, f.Name, p.dest)
		} else {
			err = t.takeAlong(ctx, out, f.Name, o.buildinfo)
		}
		if err != nil {
			return err
		}
	}
	text := t.changes.Bytes()
	r.Action = "rewritten"
	var err error
	switch {
	case bytes.Equal(before, text):
		r.Action = "unchanged"
		if t.dest == t.path {
			return nil
		}
		text, err = readBounded(t.path) // its own signature still holds
	case t.clearSigned && o.openPGP != nil:
		text, err = o.openPGP.ClearSign(ctx, text)
	case t.clearSigned:
		out.warn("%s: its OpenPGP signature no longer holds and was taken off; sign it again, or use --openpgp-key", t.path)
	}
	if err != nil {
		return err
	}
	if t.dest != t.path {
		r.Output = t.dest
	}
	return writeLike(ctx, t.path, t.dest, text)
}

// update makes list say of name the size and checksums of the file at path.
func update(list *deb.Changes, name, path string) error {
	have, err := sumFile(path)
	if err != nil {
		return err
	}
	have.Name = name
	return list.Update(have)
}

// takeAlong brings a listed file that is no package to the folder of the .changes
// file; a .buildinfo is rewritten on the way when that is wanted.
func (t *changesTarget) takeAlong(ctx context.Context, out *output, name string, buildinfo bool) error {
	from := t.pathOf(name)
	to := filepath.Join(filepath.Dir(t.dest), name)
	if isBuildinfo(name) && buildinfo {
		if err := t.writeBuildinfo(ctx, out, from, to); err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		return update(t.changes, name, to)
	}
	if from == to {
		return nil
	}
	f, err := openRegular(from)
	if err != nil {
		return err
	}
	defer f.Close()
	return copyFile(ctx, f, to)
}

func isBuildinfo(name string) bool { return filepath.Ext(name) == ".buildinfo" }

func readBuildinfo(path string) (info *deb.Changes, clearSigned bool, err error) {
	text, err := readBounded(path)
	if err != nil {
		return nil, false, err
	}
	if text, clearSigned, err = openpgp.UnwrapClearSigned(text); err != nil {
		return nil, false, err
	}
	info, err = deb.ParseBuildinfo(text)
	return info, clearSigned, err
}

// writeBuildinfo writes a .buildinfo with the checksums of the finished packages.
func (t *changesTarget) writeBuildinfo(ctx context.Context, out *output, from, to string) error {
	info, clearSigned, err := readBuildinfo(from)
	if err != nil {
		return err
	}
	for _, f := range info.Files() {
		if p := t.packages[f.Name]; p != nil {
			if err := update(info, f.Name, p.dest); err != nil {
				return err
			}
		}
	}
	if clearSigned {
		out.warn("%s: its OpenPGP signature no longer holds and was taken off", from)
	}
	return writeLike(ctx, from, to, info.Bytes())
}

// buildinfoFinished reports whether the .buildinfo at path has the checksums of the
// packages as they are and not as they were listed, as an interrupted run left it.
func (t *changesTarget) buildinfoFinished(path string) bool {
	info, _, err := readBuildinfo(path)
	if err != nil {
		return false
	}
	packages := 0
	for _, f := range info.Files() {
		if t.packages[f.Name] == nil {
			continue
		}
		packages++
		if f.SHA256 != t.have[f.Name].SHA256 || f.SHA256 == t.listed(f.Name).SHA256 {
			return false
		}
	}
	return packages > 0
}

// listed returns what the .changes file says of a file.
func (t *changesTarget) listed(name string) deb.ChangesFile {
	for _, f := range t.changes.Files() {
		if f.Name == name {
			return f
		}
	}
	return deb.ChangesFile{}
}

// writeLike writes text to dest atomically, with the mode of the file like.
func writeLike(ctx context.Context, like, dest string, text []byte) error {
	f, err := openRegular(like)
	if err != nil {
		return err
	}
	defer f.Close()
	return atomicfile.Write(ctx, dest, func(w *os.File) error {
		_, err := w.Write(text)
		return err
	}, atomicfile.Options{Like: f})
}

// copyFile copies the open file f to dest atomically.
func copyFile(ctx context.Context, f *os.File, dest string) error {
	return atomicfile.Write(ctx, dest, func(w *os.File) error {
		_, err := io.Copy(w, f)
		return err
	}, atomicfile.Options{Like: f})
}
