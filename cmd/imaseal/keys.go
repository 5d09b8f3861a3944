package main

import (
	"fmt"
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
--passphrase-file or --passphrase-fd. Existing files are never overwritten.`) + "\n" + exitStatusHelp,
		Example: strings.TrimSpace(`
  imaseal keys init --dir keys --no-passphrase
  imaseal keys init --dir keys --ca-dir /media/offline --type rsa2048 --name "Example release 1"`),
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
	o.passphrase.add(cmd)
	cmd.MarkFlagsMutuallyExclusive("no-passphrase", "passphrase-file", "passphrase-fd")
	if err := cmd.MarkFlagRequired("dir"); err != nil {
		panic(err)
	}
	return cmd
}

func runKeysInit(cmd *cobra.Command, o *keysInitOptions) error {
	var passphrase []byte
	if !o.noPassphrase {
		source := keys.NewPassphraseFromTerminal()
		if o.passphrase.file != "" || o.passphrase.fd >= 0 {
			source = o.passphrase.source()
		}
		var err error
		if passphrase, err = source("Passphrase for the new keys (empty for none): "); err != nil {
			return fmt.Errorf("%w; or use --no-passphrase", err)
		}
	}
	made, err := keys.Init(keys.InitOptions{
		Dir: o.dir, CADir: o.caDir, Type: o.keyType, Name: o.name, Days: o.days,
		Passphrase: passphrase, Now: time.Now(),
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), strings.TrimSpace(`
Made a CA (%[1]s, %[2]s)
and a signing key (%[3]s, %[4]s, %[5]s), key id %[6]s.

Next:
- Move %[1]s to a place that is not connected to anything. It is needed only to
  issue another signing certificate.
- Sign packages:
    imaseal sign --key %[3]s --cert %[4]s PKG...
- On a target machine, load %[5]s before the policy:
    Debian (keyring _ima, no CA needed):
      keyctl padd asymmetric "" $(keyctl newring _ima @u) < %[5]s
    kernels with a trusted keyring (.ima): %[2]s must be built into the kernel, or
    in the .machine keyring; then
      keyctl padd asymmetric "" %%keyring:.ima < %[5]s
`)+"\n", made.CAKey, made.CACert, made.SigningKey, made.SigningCert, made.SigningDER, made.KeyID)
	if strings.HasPrefix(o.keyType, "rsa") {
		return nil
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), `- Debian 12's stock kernel (6.1) verifies RSA only: for such machines make a key
  with --type rsa2048.`)
	return err
}
