package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/deb"
	"github.com/imaseal/imaseal/sign"
)

type signOptions struct {
	targets  targetFlags
	out      outputFlags
	key      signingKeyFlags
	selects  []string
	excludes []string
	hash     string
	sigv     int
	rewrite  rewriteFlags
}

func newSignCommand() *cobra.Command {
	var o signOptions
	cmd := &cobra.Command{
		Use:   "sign --key KEY --cert CERT PKG...",
		Short: "Sign every file of packages",
		Long: strings.TrimSpace(`
Signs the files inside each PKG: a .deb, .udeb, .ddeb or .rpm file, a .changes
file (its packages are signed, then its sizes and checksums are rewritten), or a
folder with all packages beneath it. Packages are rewritten in place, atomically,
unless --output is given; imaseal unsign gives the original bytes back.

A GLOB of --select and --exclude is an installed absolute path in which ** stands
for any number of folders; exclude wins. The rule "exec" selects ELF files, #!
scripts, files with an x bit and kernel modules. Maintainer scripts are always
signed.

A package that this key has signed already, with this selection, is left as it is.`) + "\n" + exitStatusHelp,
		Example: examples(
			`imaseal sign --key keys/signing.key --cert keys/signing.crt hello_2.10-3_amd64.deb`,
			`imaseal sign --key keys/signing.key --cert keys/signing.crt --output signed build/`,
			`imaseal sign --key keys/signing.key --cert keys/signing.crt --select exec --exclude '/usr/share/doc/**' --output programs build/`),
		Args: somePackages,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runSign(cmd.Context(), o.out.open(cmd), &o, args)
		},
	}
	fl := cmd.Flags()
	o.key.add(cmd)
	fl.StringArrayVar(&o.selects, "select", nil, "sign files that match `RULE`: all, exec or a GLOB; may be repeated (default all)")
	fl.StringArrayVar(&o.excludes, "exclude", nil, "do not sign files that match `GLOB`; may be repeated")
	fl.StringVar(&o.hash, "hash", "", "digest `ALGORITHM`: sha256, sha384 or sha512 (default sha256; an RPM's is that of its header)")
	fl.IntVar(&o.sigv, "sigv", 2, "`version` of the file signatures")
	o.rewrite.add(cmd, "replace file signatures that are there, and in an RPM an OpenPGP signature")
	completeWith(cmd, "select", sign.SelectAll, sign.SelectExec)
	completeWith(cmd, "hash", "sha256", "sha384", "sha512")
	o.targets.addOutput(cmd)
	o.targets.addJobs(cmd)
	o.out.add(cmd)
	return cmd
}

// A signing is what runSign has worked out of the flags.
type signing struct {
	rewriting
	targets   *targetFlags
	signer    *signingKey
	trusted   *sign.TrustedKeys // the signer's own key
	selection sign.Selection
	hash      sign.Hash
}

func runSign(ctx context.Context, out *output, o *signOptions, args []string) error {
	s, err := o.prepare(ctx, out)
	if err != nil {
		return err
	}
	defer s.signer.close()
	results, err := s.run(ctx, s.targets, args, s.signedFrom, s.one)
	if err != nil {
		return err
	}
	return out.print(results)
}

func (o *signOptions) prepare(ctx context.Context, out *output) (*signing, error) {
	switch o.sigv {
	case 2:
	case 3:
		return nil, errors.New("--sigv 3 is not built yet; only Linux 7.1 and later take version 3: use --sigv 2, which every kernel takes")
	default:
		return nil, fmt.Errorf("--sigv %d: there are versions 2 and 3", o.sigv)
	}
	s := &signing{targets: &o.targets, trusted: new(sign.TrustedKeys)}
	var err error
	if s.selection, err = sign.NewSelection(o.selects, o.excludes); err != nil {
		return nil, err
	}
	if o.hash != "" {
		if s.hash, err = sign.ParseHash(o.hash); err != nil {
			return nil, err
		}
	}
	passphrase := o.key.passphrase.source()
	if s.signer, err = o.key.open(ctx, out, passphrase); err != nil {
		return nil, err
	}
	if err = s.trusted.Add(s.signer.KeyID(), s.signer.Public()); err == nil {
		s.rewriting, err = o.rewrite.open(ctx, out, passphrase)
	}
	if err != nil {
		return nil, errors.Join(err, s.signer.close())
	}
	return s, nil
}

// one signs one package.
func (s *signing) one(ctx context.Context, t *target, jobs int, p *packageProgress) *result {
	f, pkg, r := s.openTarget(t, jobs)
	if pkg == nil {
		return r
	}
	defer f.Close()
	p.expect(pkg.Info().InstalledSize)
	done, err := s.alreadySigned(ctx, pkg, jobs, p.add)
	if err != nil {
		return r.fail(err)
	}
	var m *sign.Manifest
	if done {
		r.Action = "already signed"
		m, err = pkg.Manifest()
	} else {
		r.Action = "signed"
		p.again()
		m, err = s.sign(ctx, pkg, jobs, p, t)
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
	r.finished(t, m, s.signer.KeyID())
	return r
}

// finished tells of a package that carries m now, all by one key.
func (r *result) finished(t *target, m *sign.Manifest, by sign.KeyID) {
	r.Signed = len(m.Files) + len(m.Control)
	r.KeyIDs = append(r.KeyIDs, by.String())
	if t.dest != t.path {
		r.Output = t.dest
	}
}

func (s *signing) sign(ctx context.Context, pkg sign.Package, jobs int, p *packageProgress, t *target) (*sign.Manifest, error) {
	if err := pkg.CanWrite(new(sign.Manifest), s.writeOptions(t)); err != nil {
		return nil, err
	}
	return sign.Sign(ctx, pkg, s.signer.Signer, sign.Options{Selection: s.selection, Hash: s.hash, Jobs: jobs, Progress: p.add})
}

// signedFrom reports whether pkg is signed by this key and was made from the file want.
func (s *signing) signedFrom(ctx context.Context, pkg sign.Package, want deb.ChangesFile) bool {
	if done, err := s.alreadySigned(ctx, pkg, s.targets.jobs, nil); err != nil || !done {
		return false
	}
	original, err := sum(want.Name, func(w io.Writer) error { return pkg.Write(ctx, w, nil, sign.WriteOptions{}) })
	return err == nil && original == want
}

// alreadySigned reports whether pkg carries just what signing it would give it.
// It is an error when it carries other file signatures and --force is not given.
func (s *signing) alreadySigned(ctx context.Context, pkg sign.Package, jobs int, progress func(files int, bytes int64)) (bool, error) {
	m, malformed := pkg.Manifest()
	if m == nil && malformed == nil {
		return false, nil
	}
	differs := ""
	if malformed == nil {
		var err error
		if differs, err = s.difference(ctx, pkg, m, jobs, progress); err != nil {
			return false, err
		}
		if differs == "" {
			return s.openPGP == nil || s.openPGP.Signed(pkg.OpenPGP()), nil
		}
	}
	if s.force {
		return false, nil
	}
	if malformed != nil {
		return false, fmt.Errorf("it carries malformed file signatures (%w): use --force to replace them", malformed)
	}
	return false, fmt.Errorf("it carries other file signatures (%s), by another key or of another selection: use --force to replace them", differs)
}

// difference returns the first thing in which the file signatures that pkg carries
// are not just what signing would make; nothing where they are.
func (s *signing) difference(ctx context.Context, pkg sign.Package, m *sign.Manifest, jobs int, progress func(int, int64)) (string, error) {
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

// signatureTime is the time that OpenPGP signatures state: SOURCE_DATE_EPOCH where
// that is set, so that signing again gives the same bytes.
func signatureTime() (time.Time, error) {
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		return time.Now(), nil
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil || seconds < 0 {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH %q is no number of seconds", epoch)
	}
	return time.Unix(seconds, 0), nil
}
