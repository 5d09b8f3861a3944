package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys/ca"
)

type keysRenewOptions struct {
	newKey, noPassphrase bool
	keyType, name, out   string
	days                 int
	others               []string
	ca                   caFlags
	passphrase           passphraseFlags
}

func newKeysRenewCommand() *cobra.Command {
	var o keysRenewOptions
	cmd := &cobra.Command{
		Use:   "renew --ca-key KEY CERTIFICATE",
		Short: "Make a new certificate for the same key, or for a new one",
		Long: strings.TrimSpace(`
Makes a certificate that takes the place of CERTIFICATE. It is for the same key, which
need not be at hand: with the same subject key identifier, and so the same key id, so
that every file signature stays valid. With --new-key it is for a new key pair, whose
signatures need the new certificate on every machine first.

The old files stay as they are, as what they signed does. The new ones are called like
them with a number, signing-2.crt and signing-2.der for signing.crt, or as --out says;
none is overwritten.

The CA's own certificate is renewed in the same way: its key and name stay, so all that
it issued chains to the new one, too.`) + "\n" + exitStatusHelp,
		Example: examples(
			`imaseal keys renew --ca-key ca/ca.key --ca-cert ca/ca.crt keys/signing.crt`,
			`imaseal keys renew --new-key --type rsa4096 --passphrase-file passphrase --ca-key ca/ca.key --ca-cert ca/ca.crt keys/signing.crt`),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("name the one certificate that is renewed; " + cmd.CommandPath() + " --help has examples")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runKeysRenew(cmd, &o, args[0]) },
	}
	fl := cmd.Flags()
	fl.BoolVar(&o.newKey, "new-key", false, "make a new key pair, too")
	fl.StringVar(&o.keyType, "type", "", "`TYPE` of the new key: "+orList(keyTypeNames())+" (default: that of the old one)")
	fl.StringVar(&o.name, "name", "", "`NAME` in the new certificate (default: that in the old one)")
	fl.IntVar(&o.days, "days", 0, fmt.Sprintf("how many `days` the new certificate is valid (default %d, three years; of a CA %d)", ca.DefaultDays, ca.DefaultCADays))
	fl.StringVar(&o.out, "out", "", "what the new files are called, as `FILE` without an ending")
	fl.BoolVar(&o.noPassphrase, "no-passphrase", false, "store the new key unencrypted without asking")
	completeWith(cmd, "type", keyTypeNames()...)
	addOthers(cmd, &o.others)
	o.ca.add(cmd)
	o.passphrase.addFor(cmd, "", "key's passphrase")
	cmd.MarkFlagsMutuallyExclusive("no-passphrase", "passphrase-file", "passphrase-fd")
	if err := cmd.MarkFlagRequired("ca-key"); err != nil {
		panic(err)
	}
	return cmd
}

func runKeysRenew(cmd *cobra.Command, o *keysRenewOptions, path string) (err error) {
	if cmd.Flags().Changed("days") && o.days < 1 {
		return fmt.Errorf("--days %d: a certificate is valid for at least 1", o.days)
	}
	out := (&outputFlags{}).open(cmd)
	source := o.passphrase.source()
	authority, err := o.ca.open(cmd.Context(), out, source)
	if err != nil {
		return err
	}
	defer closing(authority, &err)
	passphrase, err := newPassphrase(&o.passphrase, source, o.noPassphrase || !o.newKey, "Passphrase for the new key (empty for none): ")
	if err != nil {
		return err
	}
	defer clear(passphrase)
	made, err := authority.Renew(cmd.Context(), ca.RenewOptions{
		Old: path, NewKey: o.newKey, Type: o.keyType, Passphrase: passphrase,
		Name: o.name, Days: o.days, Out: o.out, Others: o.others, Now: time.Now(),
	})
	if err != nil {
		return err
	}
	for _, warning := range made.Warnings {
		out.warn("%s", warning)
	}
	return printRenewed(cmd.OutOrStdout(), path, made)
}

// printRenewed shows the old certificate and the new one, and says what to do next.
func printRenewed(w io.Writer, path string, made *ca.Renewed) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Renewed the certificate of %q.\n\n", made.Certificate.Subject)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\tOLD\tNEW\n")
	fmt.Fprintf(t, "certificate\t%s\t%s, %s\n", path, made.Cert, made.DER)
	if made.Key != "" {
		fmt.Fprintf(t, "key\t\t%s\n", made.Key)
	}
	fmt.Fprintf(t, "valid\t%s\t%s\n", validity(made.Old), validity(made.Certificate))
	fmt.Fprintf(t, "key id\t%s\t%s\n", made.OldKeyID, made.KeyID)
	if err := t.Flush(); err != nil {
		return err
	}
	b.WriteString("\nNext:\n")
	switch {
	case made.Old.IsCA:
		fmt.Fprintf(&b, `- Issue with the new certificate: --ca-cert %s. What was issued before chains to
  either of them.
`, made.Cert)
	case made.Key == "":
		fmt.Fprintf(&b, `- The key is the same, and signatures stay valid. Sign on with the new certificate:
    imaseal sign --key KEY --cert %s PKG...
- Kernels do not look at dates, so machines may keep the old certificate; imaseal
  verify and check do: give them the new one.
    imaseal keys install --root DIR --cert %[1]s
`, made.Cert)
	default:
		fmt.Fprintf(&b, `- Load %s on every machine, beside the old certificate, before the first
  package that is signed by the new key is installed:
    imaseal keys install --root DIR --cert %s
- Then sign by it, and sign again what the old key signed:
    imaseal sign --key %s --cert %[2]s PKG...
    imaseal resign --from-cert %[5]s --key %[3]s --cert %[2]s FOLDER
- Only when no machine has a file left that is signed by %[4]s, take its
  certificate away: imaseal check --revoked %[4]s finds them.
`, made.DER, made.Cert, made.Key, made.OldKeyID, path)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// validity shows from when to when a certificate is valid.
func validity(cert *x509.Certificate) string {
	return cert.NotBefore.UTC().Format(time.DateOnly) + " to " + cert.NotAfter.UTC().Format(time.DateOnly)
}
