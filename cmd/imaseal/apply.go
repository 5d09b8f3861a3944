package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys/kernel"
	"github.com/imaseal/imaseal/sign/installed"
)

type applyOptions struct {
	system  systemFlags
	out     outputFlags
	from    []string
	replace bool
	dryRun  bool
}

func newApplyCommand() *cobra.Command {
	var o applyOptions
	cmd := &cobra.Command{
		Use:   "apply [PACKAGE...]",
		Short: "Label the files of an installed system with their packages' signatures",
		Long: strings.TrimSpace(`
Sets the signatures that the package manager's database holds as labels (the
attribute security.ima) on the files of the installed PACKAGEs, of all when none is
named: what is missing. Run it again to go on after an interruption.

--replace also replaces labels by another key, for rolling a system over to a new
one: each in one step, so that no file is without a label for a moment, and only
by a signature that verifies by a certificate over the present content. On the
running system a label stays when the kernel's keyring lacks the new key. With
--from the signatures in the database are replaced, too.

Every file is read, one that is labelled already, too. With certificates the
package's statement and each signature are verified; without any, the content is
compared with the digest in the package manager's database, and what has none there,
such as maintainer scripts, is left out. What does not match is reported and not
labelled. Conffiles are labelled when they are executable, unless label-conffiles in
/etc/imaseal/install.conf says otherwise.

RPMs are read from rpm's database where there is none of dpkg, or with --rpm, and
their %config files are labelled as rpm's plugin does it. What binds names to
contents there is the OpenPGP signature over a package's header, which
--openpgp-keyring demands. rpm-plugin-ima labels files before they have their names,
which no apply can.

--from takes signatures from signed packages for a system on which the same
packages are installed unsigned: where name, version and architecture match, the
package is verified and its signatures are put into the database first.`) + "\n" + exitStatusHelp,
		Example: examples(
			`imaseal apply --cert keys/signing.crt`,
			`imaseal apply --root /srv/image --cert keys/signing.crt`,
			`imaseal apply --cert keys/signing.crt --from signed/`,
			`imaseal apply --replace --from signed/`,
			`imaseal apply --replace --dry-run openssh-server`),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.system.rpm.stdin = cmd.InOrStdin()
			return runApply(cmd.Context(), o.out.open(cmd), &o, args)
		},
	}
	o.system.add(cmd)
	o.system.addCerts(cmd)
	fl := cmd.Flags()
	o.system.rpm.addKeyring(cmd)
	o.system.rpm.addFilesFrom(cmd)
	fl.StringArrayVar(&o.from, "from", nil, "take signatures from the signed packages `PKG`, files or folders; may be repeated")
	fl.BoolVar(&o.replace, "replace", false, "replace labels by another key, and with --from signatures in the database")
	fl.BoolVar(&o.dryRun, "dry-run", false, "do everything but write")
	o.system.addOutput(cmd, &o.out)
	return cmd
}

func runApply(ctx context.Context, out *output, o *applyOptions, args []string) error {
	if o.system.rpm.filesFrom != "" && len(args) > 0 {
		return errors.New("--files-from says which packages are meant: name none")
	}
	s, err := o.system.open(ctx)
	if err != nil {
		return err
	}
	defer s.Root.Close()
	trusted, err := o.system.trusted(ctx, out)
	if errors.Is(err, errNoCertificate) && len(o.from) == 0 && len(o.system.cas) == 0 {
		out.note("no certificate given, nor one in /etc/imaseal/certs: contents are compared with the digests of the package database")
	} else if err != nil {
		return err
	}
	config := o.system.config(out)
	options := installed.ApplyOptions{
		Keys: trusted, Replace: o.replace, DryRun: o.dryRun,
		Conffiles:   o.system.conffiles(out, s),
		UnknownKeys: len(o.system.certs) == 0 && config.UnknownKey != "refuse",
	}
	if o.replace && filepath.Clean(o.system.root) == "/" {
		if rings, err := kernel.ReadKeyrings(); err == nil {
			options.Finds = rings.Finds()
		}
	}
	var result *installed.Result
	if len(o.from) > 0 {
		result, err = applyFrom(ctx, out, o, s, options, args)
	} else {
		finish := systemProgress(out, s)
		result, err = s.Apply(ctx, args, options)
		finish()
	}
	if err != nil {
		return err
	}
	action, column := "applied", "SET"
	if o.dryRun {
		action, column = "would apply", "WOULD SET"
	}
	return out.printSystem(newSystemResult(action, s, result), column)
}
