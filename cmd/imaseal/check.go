package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/sign/installed"
)

type checkOptions struct {
	system  systemFlags
	out     outputFlags
	unowned bool
	revoked []string
}

func newCheckCommand() *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use:   "check [PACKAGE...] | check --revoked KEYID [PKG...]",
		Short: "Compare the files of an installed system with what was signed",
		Long: strings.TrimSpace(`
Reads every file of the installed PACKAGEs, of all when none is named, and judges
it by the signatures in the package manager's database: that the database is what
the package brought, that the file has the content that is signed under its name,
and that it carries a label (the attribute security.ima) that the kernel will take.

The kernel knows contents, not names: a signed /bin/sh that was copied over
/usr/sbin/sshd still runs. check says whose file it is. It also finds labels on
files that no package signs, maintainer scripts that were not in the package and,
with --unowned, programs that belong to no package.

Critical is what was not signed like this: wrong name, foreign file, digest
mismatch, bad signature, not a regular file, bad statement, malformed, unsigned
script. A problem is what the kernel may refuse: no label, missing, unknown key ID,
extra label, conffile locked, taken over (by a package that does not sign it),
unowned, changed meanwhile. A notice is as it may be and does not fail the check:
conffile edited, conffile deleted, other key, local signature, no label possible
(the content is right, the file system takes no labels).

--revoked finds what is still signed by a key that is to be given up, before the
kernel refuses it: on the system every file that carries such a label, wherever it
is, and every package whose signatures in the database are by that key; or, where
PKGs are named, package files, .changes files and folders, every package that
carries such a signature. The key is named by its id or by its certificate. Nothing
is verified. The command fails when there is any.`) + "\n" + exitStatusHelp,
		Example: examples(
			`imaseal check`,
			`imaseal check --cert keys/signing.crt openssh-server`,
			`imaseal check --root /srv/image --cert keys/signing.crt --unowned --json`,
			`imaseal check --revoked old/signing.crt`,
			`imaseal check --revoked 1a2b3c4d signed/`),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(o.revoked) > 0 {
				return runCheckRevoked(cmd, o.out.open(cmd), &o, args)
			}
			return runCheck(cmd.Context(), o.out.open(cmd), &o, args)
		},
	}
	o.system.add(cmd)
	o.system.addCerts(cmd)
	o.system.rpm.addKeyring(cmd)
	cmd.Flags().BoolVar(&o.unowned, "unowned", false, "also look in executable places (/usr, /opt, …) for programs of no package")
	cmd.Flags().StringArrayVar(&o.revoked, "revoked", nil, "find what is signed by `KEY`, a key id or a file with its certificate; may be repeated")
	o.system.addOutput(cmd, &o.out)
	return cmd
}

func runCheck(ctx context.Context, out *output, o *checkOptions, args []string) error {
	s, err := o.system.open(ctx)
	if err != nil {
		return err
	}
	defer s.Root.Close()
	trusted, err := o.system.trusted(ctx, out)
	if err != nil {
		return err
	}
	if o.system.rpm.unbound(s) {
		out.note("names and digests are taken from rpm's database on trust; --openpgp-keyring FILE verifies the signature over each package's header")
	}
	finish := systemProgress(out, s)
	result, err := s.Check(ctx, args, installed.CheckOptions{Keys: trusted, Conffiles: o.system.conffiles(out, s), Unowned: o.unowned})
	finish()
	if err != nil {
		return err
	}
	r := newSystemResult(actionChecked, s, result)
	defer func() {
		if r.has(installed.KindUnlabelled) {
			out.note("imaseal apply sets the labels that are missing")
		}
	}()
	return out.printSystem(r, "")
}
