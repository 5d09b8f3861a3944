package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/keys/ca"
	"github.com/imaseal/imaseal/keys/kernel"
)

func newKeysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Make, renew, look at and install signing keys and certificates",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(
		newKeysInitCommand(),
		newKeysRequestCommand(),
		newKeysIssueCommand(),
		newKeysRenewCommand(),
		newKeysShowCommand(),
		newKeysCheckCommand(),
		newKeysExportCommand(),
		newKeysInstallCommand(),
	)
	return cmd
}

// keyTypeNames are what --type takes.
func keyTypeNames() (names []string) {
	for _, t := range kernel.KeyTypes() {
		names = append(names, t.Name)
	}
	return names
}

// tableHelp sets a table apart in a help text, so that a man page keeps its lines.
func tableHelp(table string) string {
	return "    " + strings.ReplaceAll(strings.TrimSuffix(table, "\n"), "\n", "\n    ") + "\n"
}

// orList writes words as in a sentence.
func orList(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

type keysInitOptions struct {
	dir, caDir, keyType, name string
	signingKeys               []string
	days, caDays              int
	ca                        caFlags
	passphrase                passphraseFlags
	noPassphrase              bool
}

func newKeysInitCommand() *cobra.Command {
	var o keysInitOptions
	cmd := &cobra.Command{
		Use:   "init --dir DIR",
		Short: "Make a CA and signing keys with certificates issued by it",
		Long: strings.TrimSpace(`
Makes the CA's ca.key and ca.crt, and signing.key, signing.crt and signing.der (the
certificate as kernels load it). With --signing-key, which can be repeated, a key is
called so instead: one for each release, or for each team.

The CA may be apart: in a folder on a medium that is taken away (--ca-dir), or a key
that exists already, on a token for example (--ca-key); one that has no certificate
yet gets it, in the file of --ca-cert. A CA that is there issues the certificates.

Keys are PKCS#8 PEM, mode 0600, encrypted with the passphrase: it is asked for twice
on the terminal, an empty one means none, unless it comes from --passphrase-file or
--passphrase-fd. The CA's passphrase is another secret: it is asked for on its own, or
comes from --ca-passphrase-file or --ca-passphrase-fd; where only the first are given
it is the same. They never give the PIN of a CA's token.

Existing files are never overwritten. When a run is killed, the same command finishes
what it began.

Which kernels verify signatures by which type of key:`) + "\n\n" + tableHelp(kernel.KeyTypeHelp()) + exitStatusHelp,
		Example: examples(
			`imaseal keys init --dir keys --no-passphrase`,
			`imaseal keys init --dir keys/rsa --ca-dir keys/ca --type rsa2048 --name "Example release 1" --days 730 --passphrase-file passphrase`,
			`imaseal keys init --dir keys/releases --ca-dir keys/ca --name Example --signing-key trixie --signing-key forky --passphrase-file passphrase`),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runKeysInit(cmd, &o)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&o.dir, "dir", "", "folder `DIR` for the signing keys and their certificates (required)")
	fl.StringVar(&o.caDir, "ca-dir", "", "folder `DIR` for the CA's key (default: that of --dir)")
	fl.StringArrayVar(&o.signingKeys, "signing-key", nil, "`NAME` of a signing key's files; repeat it for several (default signing)")
	fl.StringVar(&o.keyType, "type", "p256", "`TYPE` of the new keys: "+orList(keyTypeNames()))
	fl.StringVar(&o.name, "name", "imaseal", "`NAME` in the certificates")
	fl.IntVar(&o.days, "days", ca.DefaultDays, "how many `days` the signing certificates are valid")
	fl.IntVar(&o.caDays, "ca-days", ca.DefaultCADays, "how many `days` the certificate of a new CA is valid")
	fl.BoolVar(&o.noPassphrase, "no-passphrase", false, "store the keys unencrypted without asking")
	completeWith(cmd, "type", keyTypeNames()...)
	o.ca.add(cmd)
	o.passphrase.addFor(cmd, "", "key's passphrase")
	cmd.MarkFlagsMutuallyExclusive("no-passphrase", "passphrase-file", "passphrase-fd")
	cmd.MarkFlagsMutuallyExclusive("ca-dir", "ca-key")
	if err := cmd.MarkFlagRequired("dir"); err != nil {
		panic(err)
	}
	return cmd
}

func runKeysInit(cmd *cobra.Command, o *keysInitOptions) error {
	for flag, days := range map[string]int{"days": o.days, "ca-days": o.caDays} {
		if days < 1 {
			return fmt.Errorf("--%s %d: a certificate is valid for at least 1", flag, days)
		}
	}
	out := (&outputFlags{}).open(cmd)
	source := o.passphrase.source()
	passphrase, err := newPassphrase(&o.passphrase, source, o.noPassphrase, "Passphrase for the new keys (empty for none): ")
	if err != nil {
		return err
	}
	defer clear(passphrase)
	ofCA := o.ca.source(source)
	options := ca.InitOptions{
		Dir: o.dir, CADir: o.caDir, CAKey: o.ca.key, CACert: o.ca.cert, SigningKeys: o.signingKeys,
		Type: o.keyType, Name: o.name, Days: o.days, CADays: o.caDays,
		Passphrase: passphrase, CAPassphrase: ofCA, Now: time.Now(),
	}
	if o.ca.passphrase.given() {
		options.NewCAPassphrase = ofCA
	} else if !o.passphrase.given() && !o.noPassphrase {
		options.NewCAPassphrase = keys.NewPassphraseFromTerminal()
	}
	made, err := ca.Init(cmd.Context(), options)
	if err != nil {
		return err
	}
	if made.Note != "" {
		out.note("%s", made.Note)
	}
	for _, warning := range made.Warnings {
		out.warn("%s", warning)
	}
	return printNext(cmd.OutOrStdout(), made, o.keyType)
}

// printNext tells what was made and what to do with it.
func printNext(w io.Writer, made *ca.InitResult, keyType string) error {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if len(made.Finished) > 0 {
		say("Finished what an interrupted run had begun: %s", strings.Join(made.Finished, ", "))
	}
	caFiles := made.CAKey
	if made.CACert != "" {
		caFiles += ", " + made.CACert
	}
	switch {
	case made.CACertMade:
		say("Made a certificate for the CA's key (%s)", caFiles)
	case made.CAFound:
		say("Used the CA that was there (%s)", caFiles)
	default:
		say("Made a CA (%s)", caFiles)
	}
	for i, k := range made.Signing {
		end := ""
		if i == len(made.Signing)-1 {
			end = "."
		}
		verb := ""
		if made.CAFound && !made.CACertMade {
			verb = "made "
		}
		say("and %sa signing key (%s, %s, %s), key id %s%s", verb, k.Key, k.Cert, k.DER, k.KeyID, end)
	}
	first := made.Signing[0]
	say("\nNext:")
	if _, ok := keys.FileOf(made.CAKey); ok {
		say("- Move %s offline, to a place that is not connected to anything. It is", made.CAKey)
		say("  needed only to issue another signing certificate.")
	}
	say("- Sign packages:")
	say("    imaseal sign --key %s --cert %s PKG...", first.Key, first.Cert)
	say("- On a target machine, load %s before the policy:", first.DER)
	say("    Debian (keyring _ima, no CA needed):")
	say(`      keyctl padd asymmetric "" $(keyctl newring _ima @u) < %s`, first.DER)
	cert := made.CACert
	if cert == "" {
		cert = "the CA's certificate"
	}
	say("    kernels with a trusted keyring (.ima): %s must be built into the kernel,", cert)
	say("    or in the .machine keyring; then")
	say(`      keyctl padd asymmetric "" %%keyring:.ima < %s`, first.DER)
	say("  So that it is loaded at each boot, and to hear whether the kernel verifies by it:")
	say("    imaseal keys install --root / --cert %s", first.Cert)
	say("    imaseal keys check %s", first.Cert)
	if !strings.HasPrefix(keyType, "rsa") {
		say("- Debian 12's stock kernel (6.1) verifies RSA only: for such machines make a key")
		say("  with --type rsa2048.")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
