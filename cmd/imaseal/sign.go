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

	"github.com/imaseal/imaseal/internal/atomicfile"
	"github.com/imaseal/imaseal/keys"
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

	openPGPKey      string
	dropOpenPGP     bool
	force           bool
	dryRun          bool
	trustHeader     bool
	targetRPM       string
	updateBuildinfo bool
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
	fl.StringVar(&o.openPGPKey, "openpgp-key", "", "also sign the whole package with the OpenPGP `KEY`: a file, or gpg:FINGERPRINT")
	fl.BoolVar(&o.dropOpenPGP, "drop-openpgp-signature", false, "let signatures of a whole .deb go, which no longer hold")
	fl.BoolVar(&o.force, "force", false, "replace file signatures that are there, and in an RPM an OpenPGP signature")
	fl.BoolVar(&o.dryRun, "dry-run", false, "do everything but write")
	fl.BoolVar(&o.trustHeader, "trust-header-digests", false, "sign the digests in an RPM's header without reading its payload")
	fl.StringVar(&o.targetRPM, "target-rpm", "", "refuse an RPM whose signatures rpm `VERSION` could not read")
	fl.BoolVar(&o.updateBuildinfo, "update-buildinfo", false, "rewrite the checksums in the .buildinfo too")
	completeWith(cmd, "select", sign.SelectAll, sign.SelectExec)
	completeWith(cmd, "hash", "sha256", "sha384", "sha512")
	o.targets.addOutput(cmd)
	o.targets.addJobs(cmd)
	o.out.add(cmd)
	return cmd
}

// A signing is what runSign has worked out of the flags.
type signing struct {
	*signOptions
	out       *output
	signer    *signingKey
	trusted   *sign.TrustedKeys // the signer's own key
	selection sign.Selection
	hash      sign.Hash
	openPGP   *keys.OpenPGPKey
}

func runSign(ctx context.Context, out *output, o *signOptions, args []string) error {
	s, err := o.prepare(ctx, out)
	if err != nil {
		return err
	}
	defer s.signer.close()
	list, err := o.targets.expand(out, args)
	if err != nil {
		return err
	}
	list.checkChanges(ctx, s.finishedAlready)
	list.dropBroken()
	if !o.dryRun {
		if err := list.makeFolders(); err != nil {
			return err
		}
	}
	results := o.targets.each(ctx, out, list.targets, s.one)
	return out.print(list.finishChanges(ctx, out, results, changesOptions{
		openPGP: s.openPGP, buildinfo: o.updateBuildinfo, dryRun: o.dryRun,
	}))
}

func (o *signOptions) prepare(ctx context.Context, out *output) (*signing, error) {
	switch o.sigv {
	case 2:
	case 3:
		return nil, errors.New("--sigv 3 is not built yet; only Linux 7.1 and later take version 3: use --sigv 2, which every kernel takes")
	default:
		return nil, fmt.Errorf("--sigv %d: there are versions 2 and 3", o.sigv)
	}
	s := &signing{signOptions: o, out: out, trusted: new(sign.TrustedKeys)}
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
	if err = s.trusted.Add(s.signer.KeyID(), s.signer.Public()); err != nil {
		return nil, err
	}
	if o.openPGPKey != "" {
		now, err := signatureTime()
		if err != nil {
			return nil, err
		}
		if s.openPGP, err = keys.OpenPGPSigner(ctx, o.openPGPKey, passphrase, now); err != nil {
			return nil, err
		}
		if s.openPGP.Note != "" {
			out.note("%s", s.openPGP.Note)
		}
	}
	return s, nil
}

// one signs one package.
func (s *signing) one(ctx context.Context, t *target, jobs int, p *packageProgress) *result {
	r := newResult(t.path)
	f, err := openRegular(t.path)
	if err != nil {
		return r.fail(err)
	}
	defer f.Close()
	pkg, err := openPackage(f, openOptions{jobs: jobs, trustHeaderDigests: s.trustHeader, targetRPM: s.targetRPM})
	if errors.Is(err, errSourcePackage) && t.within {
		s.out.note("%s: skipped, a source package installs nothing", t.path)
		return nil
	}
	if err != nil {
		return r.fail(err)
	}
	r.describe(pkg.Info())
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
	write := func(w io.Writer) error { return pkg.Write(ctx, w, m, s.writeOptions(t)) }
	switch {
	case s.dryRun && !done:
		r.Action = "would sign"
		err = write(io.Discard) // what writing would refuse, and warn of, counts
	case s.dryRun || done && t.dest == t.path:
	case done:
		err = copyFile(ctx, f, t.dest)
	default:
		err = atomicfile.Write(ctx, t.dest, func(w *os.File) error { return write(w) }, atomicfile.Options{Like: f})
	}
	if err != nil {
		return r.fail(err)
	}
	r.Signed = len(m.Files) + len(m.Control)
	r.KeyIDs = append(r.KeyIDs, s.signer.KeyID().String())
	if t.dest != t.path {
		r.Output = t.dest
	}
	return r
}

func (s *signing) sign(ctx context.Context, pkg sign.Package, jobs int, p *packageProgress, t *target) (*sign.Manifest, error) {
	if err := pkg.CanWrite(new(sign.Manifest), s.writeOptions(t)); err != nil {
		return nil, err
	}
	return sign.Sign(ctx, pkg, s.signer.Signer, sign.Options{Selection: s.selection, Hash: s.hash, Jobs: jobs, Progress: p.add})
}

func (s *signing) writeOptions(t *target) sign.WriteOptions {
	o := sign.WriteOptions{
		DropOpenPGP: s.dropOpenPGP,
		Force:       s.force,
		Warn:        func(text string) { s.out.warn("%s: %s", t.path, text) },
	}
	if s.openPGP != nil {
		o.OpenPGP = s.openPGP.Detach
	}
	return o
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
