package main

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/deb"
	"github.com/imaseal/imaseal/internal/atomicfile"
	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/keys/openpgp"
	"github.com/imaseal/imaseal/sign"
)

// rewriteFlags say how packages with new file signatures are written. Every verb that
// signs packages has them.
type rewriteFlags struct {
	openPGPKey      string
	dropOpenPGP     bool
	force           bool
	dryRun          bool
	trustHeader     bool
	targetRPM       string
	updateBuildinfo bool
}

// add adds the flags; force says what --force does.
func (f *rewriteFlags) add(cmd *cobra.Command, force string) {
	fl := cmd.Flags()
	fl.StringVar(&f.openPGPKey, "openpgp-key", "", "also sign the whole package with the OpenPGP `KEY`: a file, or gpg:FINGERPRINT")
	fl.BoolVar(&f.dropOpenPGP, "drop-openpgp-signature", false, "let signatures of a whole .deb go, which no longer hold")
	fl.BoolVar(&f.force, "force", false, force)
	fl.BoolVar(&f.dryRun, "dry-run", false, "do everything but write")
	fl.StringVar(&f.targetRPM, "target-rpm", "", "refuse an RPM whose signatures rpm `VERSION` could not read")
	fl.BoolVar(&f.updateBuildinfo, "update-buildinfo", false, "rewrite the checksums in the .buildinfo too")
}

// addTrustHeader adds the flag of verbs that compute digests.
func (f *rewriteFlags) addTrustHeader(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.trustHeader, "trust-header-digests", false, "sign the digests in an RPM's header without reading its payload")
}

// A rewriting is what a verb that signs packages has worked out of the flags.
type rewriting struct {
	*rewriteFlags
	out     *output
	openPGP *openpgp.Key // nil: packages as a whole are not signed
	// headerOnly leaves the payload of an RPM unread, as nothing is written.
	headerOnly bool
}

// open opens the OpenPGP key, where one is named.
func (f *rewriteFlags) open(ctx context.Context, out *output, passphrase keys.Passphrase) (rewriting, error) {
	w := rewriting{rewriteFlags: f, out: out}
	if f.openPGPKey == "" {
		return w, nil
	}
	now, err := signatureTime()
	if err != nil {
		return w, err
	}
	if w.openPGP, err = openpgp.Open(ctx, f.openPGPKey, passphrase, now); err != nil {
		return w, err
	}
	if w.openPGP.Note != "" {
		out.note("%s", w.openPGP.Note)
	}
	return w, nil
}

// openTarget opens the package of t, and begins its result. Where the package is nil
// there is nothing to be done, and the result says why; it is nil, too, for a source
// package in a folder. The caller closes the file.
func (w *rewriting) openTarget(t *target, jobs int) (*os.File, sign.Package, *result) {
	r := newResult(t.path)
	f, pkg, err := t.open(openOptions{jobs: jobs, trustHeaderDigests: w.trustHeader, headerOnly: w.headerOnly, targetRPM: w.targetRPM})
	if err != nil {
		return nil, nil, r.fail(err)
	}
	if pkg == nil {
		w.out.noteSkipped(t)
		return nil, nil, nil
	}
	r.describe(pkg.Info())
	return f, pkg, r
}

// write writes the package of t with the manifest m.
func (w *rewriting) write(ctx context.Context, t *target, f *os.File, pkg sign.Package, m *sign.Manifest, o sign.WriteOptions) error {
	if w.dryRun {
		return pkg.Write(ctx, io.Discard, m, o) // what writing would refuse, and warn of, counts
	}
	return t.replace(ctx, f, func(w io.Writer) error { return pkg.Write(ctx, w, m, o) })
}

// replace puts what fill writes in the place of the package of t, which is open in f, or
// into its --output. A builder may write the package anew meanwhile: then what was read
// of it need not fit together, and what is there now stays. What another run of the same
// command made of it is welcome.
func (t *target) replace(ctx context.Context, f *os.File, fill func(w io.Writer) error) error {
	return atomicfile.Write(ctx, t.dest, func(w *os.File) error {
		if err := fill(w); err != nil {
			return err
		}
		now, err := f.Stat()
		if err != nil {
			return err
		}
		if now.Size() != t.opened.Size() || !now.ModTime().Equal(t.opened.ModTime()) {
			return errReplaced
		}
		if t.dest != t.path {
			return nil
		}
		if now, err = os.Stat(t.path); err != nil || os.SameFile(now, t.opened) {
			return err
		}
		return sameContent(w, t.path)
	}, atomicfile.Options{Like: f})
}

// sameContent returns errReplaced unless the file at path holds what f does.
func sameContent(f *os.File, path string) error {
	ours, err := sum(filepath.Base(path), func(w io.Writer) error {
		_, err := io.Copy(w, io.NewSectionReader(f, 0, math.MaxInt64))
		return err
	})
	if err != nil {
		return err
	}
	theirs, err := sumFile(path)
	if err == nil && theirs != ours {
		err = errReplaced
	}
	return err
}

var errReplaced = errors.New("another program wrote it anew while it was worked on, and it was left alone: run this again when that program has finished")

// hasOpenPGP reports whether the package has the OpenPGP signature that is asked for,
// if one is.
func (w *rewriting) hasOpenPGP(pkg sign.Package) bool {
	return w.openPGP == nil || w.openPGP.Signed(pkg.OpenPGP())
}

// leave leaves the package of t as it is, which is a copy where there is an --output.
func (w *rewriting) leave(ctx context.Context, t *target, f *os.File) error {
	if w.dryRun || t.dest == t.path {
		return nil
	}
	return t.copy(ctx, f)
}

// copy puts the package of t, which is open in f, into its --output.
func (t *target) copy(ctx context.Context, f *os.File) error {
	return t.replace(ctx, f, func(w io.Writer) error {
		_, err := io.Copy(w, f)
		return err
	})
}

func (w *rewriting) writeOptions(t *target) sign.WriteOptions {
	o := sign.WriteOptions{
		DropOpenPGP: w.dropOpenPGP,
		Force:       w.force,
		Warn:        func(text string) { w.out.warn("%s: %s", t.path, text) },
	}
	if w.openPGP != nil {
		o.OpenPGP = w.openPGP.Detach
	}
	return o
}

// run works on the packages that the arguments come to, by one, and then rewrites
// their .changes files. finished reports whether a package that is not the file want,
// which its .changes lists, is one that an earlier run of the same command made of it.
func (w *rewriting) run(ctx context.Context, targets *targetFlags, args []string,
	finished func(ctx context.Context, pkg sign.Package, want deb.ChangesFile) bool,
	one func(ctx context.Context, t *target, jobs int, p *packageProgress) *result,
) ([]*result, error) {
	list, err := targets.expand(w.out, args)
	if err != nil {
		return nil, err
	}
	list.checkChanges(ctx, func(ctx context.Context, t *changesTarget, want deb.ChangesFile) bool {
		return w.finishedAlready(ctx, t, want, targets.jobs, finished)
	})
	list.dropBroken()
	if !w.dryRun {
		if err := list.makeFolders(); err != nil {
			return nil, err
		}
	}
	results := targets.each(ctx, w.out, list.targets, one)
	return list.finishChanges(ctx, w.out, results, changesOptions{
		openPGP: w.openPGP, buildinfo: w.updateBuildinfo, dryRun: w.dryRun,
	}), nil
}

// finishedAlready reports whether a listed file that differs is one that an
// earlier run of the same command has finished: a package, or a .buildinfo with the
// checksums of such packages.
func (w *rewriting) finishedAlready(ctx context.Context, t *changesTarget, want deb.ChangesFile, jobs int,
	finished func(context.Context, sign.Package, deb.ChangesFile) bool,
) bool {
	path := t.pathOf(want.Name)
	switch {
	case isPackageName(want.Name) && w.packageFinished(ctx, path, want, jobs, finished):
	case isBuildinfo(want.Name) && w.updateBuildinfo && t.buildinfoFinished(path):
	default:
		return false
	}
	w.out.note("%s: finished by an earlier run that was interrupted; completing it", path)
	return true
}

func (w *rewriting) packageFinished(ctx context.Context, path string, want deb.ChangesFile, jobs int,
	finished func(context.Context, sign.Package, deb.ChangesFile) bool,
) bool {
	f, err := openRegular(path)
	if err != nil {
		return false
	}
	defer f.Close()
	pkg, err := openPackage(f, openOptions{jobs: jobs})
	return err == nil && finished(ctx, pkg, want)
}

// pending reports whether a dry run left something to be done.
func (r *result) pending() bool { return strings.HasPrefix(r.Action, "would ") }
