package main

import (
	"context"
	"crypto"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/deb"
	"github.com/imaseal/imaseal/sign"
)

// selectionFlags say which files of packages are signed, and by which digests.
type selectionFlags struct {
	selects, excludes []string
	hash              string
}

func (f *selectionFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringArrayVar(&f.selects, "select", nil, "sign files that match `RULE`: all, exec or a GLOB; may be repeated (default all)")
	fl.StringArrayVar(&f.excludes, "exclude", nil, "do not sign files that match `GLOB`; may be repeated")
	fl.StringVar(&f.hash, "hash", "", "digest `ALGORITHM`: sha256, sha384 or sha512 (default sha256; an RPM's is that of its header)")
	completeWith(cmd, "select", sign.SelectAll, sign.SelectExec)
	completeWith(cmd, "hash", "sha256", "sha384", "sha512")
}

// open checks the flags.
func (f *selectionFlags) open(targets *targetFlags) (sealing, error) {
	s := sealing{targets: targets, trusted: new(sign.TrustedKeys)}
	var err error
	if s.selection, err = sign.NewSelection(f.selects, f.excludes); err != nil {
		return s, err
	}
	if f.hash != "" {
		s.hash, err = sign.ParseHash(f.hash)
	}
	return s, err
}

// A sealing is how packages are to be signed, whoever holds the key.
type sealing struct {
	rewriting
	targets   *targetFlags
	trusted   *sign.TrustedKeys // the key that signs, where it is known
	selection sign.Selection
	hash      sign.Hash
	keyID     sign.KeyID // of the key in trusted
	// manifest makes the manifest of a package, and returns the package that it is to be
	// written with.
	manifest func(ctx context.Context, f *os.File, pkg sign.Package, jobs int, p *packageProgress) (sign.Package, *sign.Manifest, error)
}

// trust says which key signs.
func (s *sealing) trust(id sign.KeyID, pub crypto.PublicKey) error {
	s.keyID = id
	return s.trusted.Add(id, pub)
}

// options say how a package is read.
func (s *sealing) options(jobs int, p *packageProgress) sign.Options {
	return sign.Options{Selection: s.selection, Hash: s.hash, Jobs: jobs, Progress: p.add}
}

// one makes one package a signed one.
func (s *sealing) one(ctx context.Context, t *target, jobs int, p *packageProgress) *result {
	f, pkg, r := s.openTarget(t, jobs)
	if pkg == nil {
		return r
	}
	defer f.Close()
	p.expect(pkg.Info().InstalledSize)
	m, err := s.carried(ctx, pkg, jobs, p.add)
	if err != nil {
		return r.fail(err)
	}
	done := m != nil && s.hasOpenPGP(pkg)
	if done {
		r.Action = "already signed"
	} else {
		r.Action = "signed"
		err = pkg.CanWrite(new(sign.Manifest), s.writeOptions(t))
		if err == nil && m == nil {
			p.again()
			pkg, m, err = s.manifest(ctx, f, pkg, jobs, p)
		}
	}
	if err != nil {
		return r.fail(err)
	}
	r.Files = int(p.files.Load())
	if done {
		err = s.leave(ctx, t, f)
	} else {
		if s.dryRun {
			r.Action = "would sign"
		}
		err = s.write(ctx, t, f, pkg, m, s.writeOptions(t))
	}
	if err != nil {
		return r.fail(err)
	}
	r.finished(t, m, s.keyID)
	return r
}

// signedFrom reports whether pkg is signed by the key and was made from the file want.
func (s *sealing) signedFrom(ctx context.Context, pkg sign.Package, want deb.ChangesFile) bool {
	if m, err := s.carried(ctx, pkg, s.targets.jobs, nil); err != nil || m == nil || !s.hasOpenPGP(pkg) {
		return false
	}
	original, err := sum(want.Name, func(w io.Writer) error { return pkg.Write(ctx, w, nil, sign.WriteOptions{}) })
	return err == nil && original == want
}

// carried returns the manifest that pkg carries, where it is just what signing would
// give it, and nil where it is to be signed. It is an error when it carries other file
// signatures and --force is not given.
func (s *sealing) carried(ctx context.Context, pkg sign.Package, jobs int, progress func(files int, bytes int64)) (*sign.Manifest, error) {
	m, malformed := pkg.Manifest()
	if m == nil && malformed == nil {
		return nil, nil
	}
	differs := ""
	if malformed == nil {
		var err error
		if differs, err = s.difference(ctx, pkg, m, jobs, progress); err != nil || differs == "" {
			return m, err
		}
	}
	if s.force {
		return nil, nil
	}
	if malformed != nil {
		return nil, fmt.Errorf("it carries malformed file signatures (%w): use --force to replace them", malformed)
	}
	return nil, fmt.Errorf("it carries other file signatures (%s), by another key or of another selection: use --force to replace them", differs)
}

// difference returns the first thing in which the file signatures that pkg carries
// are not just what signing would make; nothing where they are.
func (s *sealing) difference(ctx context.Context, pkg sign.Package, m *sign.Manifest, jobs int, progress func(int, int64)) (string, error) {
	want, err := sign.Options{Hash: s.hash}.HashFor(pkg.Info())
	if err != nil {
		return "", err
	}
	if m.Statement != nil && (m.Statement.Hash != want || !m.Statement.Selection.Equal(s.selection)) {
		return "package statement: another hash or selection", nil
	}
	report, err := sign.Verify(ctx, pkg, s.trusted, sign.Options{Selection: s.selection, Jobs: jobs, Progress: progress})
	if err != nil {
		return "", err
	}
	for _, f := range report.Findings {
		if f.Bad() {
			return fmt.Sprintf("%s: %s%s", f.Path, f.Reason, prefixed(": ", f.Detail)), nil
		}
	}
	if report.Extra > 0 {
		return fmt.Sprintf("of files that are not selected: %d", report.Extra), nil
	}
	return "", nil
}
