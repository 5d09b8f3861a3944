package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/sign"
)

type signOptions struct {
	targets  targetFlags
	out      outputFlags
	key      signingKeyFlags
	selected selectionFlags
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
	o.selected.add(cmd)
	fl.IntVar(&o.sigv, "sigv", 2, "`version` of the file signatures")
	o.rewrite.addTrustHeader(cmd)
	o.rewrite.add(cmd, "replace file signatures that are there, and in an RPM an OpenPGP signature")
	o.targets.addOutput(cmd)
	o.targets.addJobs(cmd)
	o.out.add(cmd)
	return cmd
}

// A signing is what runSign has worked out of the flags.
type signing struct {
	sealing
	signer *signingKey
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
	s := new(signing)
	var err error
	if s.sealing, err = o.selected.open(&o.targets); err != nil {
		return nil, err
	}
	passphrase := o.key.passphrase.source()
	if s.signer, err = o.key.open(ctx, out, passphrase); err != nil {
		return nil, err
	}
	s.manifest = s.sign
	if err = s.trust(s.signer.KeyID(), s.signer.Public()); err == nil {
		s.rewriting, err = o.rewrite.open(ctx, out, passphrase)
	}
	if err != nil {
		return nil, errors.Join(err, s.signer.close())
	}
	return s, nil
}

// finished tells of a package that carries m now, all by one key.
func (r *result) finished(t *target, m *sign.Manifest, by sign.KeyID) {
	r.Signed = len(m.Files) + len(m.Control)
	r.KeyIDs = append(r.KeyIDs, by.String())
	if t.dest != t.path {
		r.Output = t.dest
	}
}

// sign signs one package.
func (s *signing) sign(ctx context.Context, _ *os.File, pkg sign.Package, jobs int, p *packageProgress) (sign.Package, *sign.Manifest, error) {
	m, err := sign.Sign(ctx, pkg, s.signer.Signer, s.options(jobs, p))
	return pkg, m, err
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
