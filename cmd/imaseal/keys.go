package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys"
)

func newKeysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Make signing keys and certificates",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newKeysInitCommand())
	return cmd
}

type keysInitOptions struct {
	dir, caDir, keyType, name string
	days                      int
	passphrase                passphraseFlags
	noPassphrase              bool
}

func newKeysInitCommand() *cobra.Command {
	var o keysInitOptions
	cmd := &cobra.Command{
		Use:   "init --dir DIR",
		Short: "Make a CA and a signing key with a certificate issued by it",
		Long: strings.TrimSpace(`
Makes ca.key, ca.crt, signing.key, signing.crt and signing.der (the certificate as
kernels load it). Keys are PKCS#8 PEM, mode 0600, encrypted with the passphrase: it
is asked for twice on the terminal, an empty one means none, unless it comes from
--passphrase-file or --passphrase-fd. Existing files are never overwritten; a CA
that is there already issues the certificate.`) + "\n" + exitStatusHelp,
		Example: examples(
			`imaseal keys init --dir keys --no-passphrase`,
			`imaseal keys init --dir keys/rsa --ca-dir keys/ca --type rsa2048 --name "Example release 1" --days 730 --passphrase-file passphrase`),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runKeysInit(cmd, &o)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&o.dir, "dir", "", "folder `DIR` for the signing key and its certificate (required)")
	fl.StringVar(&o.caDir, "ca-dir", "", "folder `DIR` for the CA's key (default: that of --dir)")
	fl.StringVar(&o.keyType, "type", "p256", "`TYPE` of both keys: p256, p384, rsa2048, rsa3072 or rsa4096")
	fl.StringVar(&o.name, "name", "imaseal", "`NAME` in the certificates")
	fl.IntVar(&o.days, "days", 3*365, "how many `days` the signing certificate is valid; the CA is for 20 years")
	fl.BoolVar(&o.noPassphrase, "no-passphrase", false, "store the keys unencrypted without asking")
	completeWith(cmd, "type", "p256", "p384", "rsa2048", "rsa3072", "rsa4096")
	o.passphrase.add(cmd)
	cmd.MarkFlagsMutuallyExclusive("no-passphrase", "passphrase-file", "passphrase-fd")
	if err := cmd.MarkFlagRequired("dir"); err != nil {
		panic(err)
	}
	return cmd
}

func runKeysInit(cmd *cobra.Command, o *keysInitOptions) error {
	if cmd.Flags().Changed("days") && o.days < 1 {
		return fmt.Errorf("--days %d: a certificate is valid for at least 1", o.days)
	}
	source := o.passphrase.source()
	ask := source
	if !o.passphrase.given() {
		ask = keys.NewPassphraseFromTerminal()
	}
	var passphrase []byte
	if !o.noPassphrase {
		var err error
		if passphrase, err = ask("Passphrase for the new keys (empty for none): "); err != nil {
			return fmt.Errorf("%w; or use --no-passphrase", err)
		}
	}
	made, err := keys.Init(cmd.Context(), keys.InitOptions{
		Dir: o.dir, CADir: o.caDir, Type: o.keyType, Name: o.name, Days: o.days,
		Passphrase: passphrase, CAPassphrase: source, Now: time.Now(),
	})
	if err != nil {
		return err
	}
	return printNext(cmd.OutOrStdout(), made, o.keyType)
}

// printNext tells what was made and what to do with it.
func printNext(w io.Writer, made *keys.InitResult, keyType string) error {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if made.CAFound {
		say("Used the CA that was there (%s, %s)", made.CAKey, made.CACert)
		say("and made a signing key (%s, %s, %s), key id %s.", made.SigningKey, made.SigningCert, made.SigningDER, made.KeyID)
	} else {
		say("Made a CA (%s, %s)", made.CAKey, made.CACert)
		say("and a signing key (%s, %s, %s), key id %s.", made.SigningKey, made.SigningCert, made.SigningDER, made.KeyID)
	}
	say("\nNext:")
	say("- Move %s offline, to a place that is not connected to anything. It is", made.CAKey)
	say("  needed only to issue another signing certificate.")
	say("- Sign packages:")
	say("    imaseal sign --key %s --cert %s PKG...", made.SigningKey, made.SigningCert)
	say("- On a target machine, load %s before the policy:", made.SigningDER)
	say("    Debian (keyring _ima, no CA needed):")
	say(`      keyctl padd asymmetric "" $(keyctl newring _ima @u) < %s`, made.SigningDER)
	say("    kernels with a trusted keyring (.ima): %s must be built into the kernel,", made.CACert)
	say("    or in the .machine keyring; then")
	say(`      keyctl padd asymmetric "" %%keyring:.ima < %s`, made.SigningDER)
	if !strings.HasPrefix(keyType, "rsa") {
		say("- Debian 12's stock kernel (6.1) verifies RSA only: for such machines make a key")
		say("  with --type rsa2048.")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
