package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/keys/ca"
)

type keysIssueOptions struct {
	name, out, dir string
	days           int
	others         []string
	ca             caFlags
	passphrase     passphraseFlags
}

func newKeysIssueCommand() *cobra.Command {
	var o keysIssueOptions
	cmd := &cobra.Command{
		Use:   "issue --ca-key KEY REQUEST|PUBLICKEY|KEY",
		Short: "Issue a certificate for a key that exists",
		Long: strings.TrimSpace(`
Has the CA issue a certificate for a key that is kept elsewhere. The key is named by a
certificate request (PKCS#10, whose signature must hold), by a file with a public key
(as openssl pkey -pubout writes it), or by a key reference such as pkcs11:…, of which
only the public key is read.

The certificate is for digital signatures, and for nothing else: of a request only the
public key and the name are taken, and the name not if there is --name. It is written
in PEM, ending in .crt, and as kernels load it, ending in .der; files are not
overwritten. Keys that no kernel takes are refused. A key id that another key has
already, by a certificate beside the new one or in a folder of --others, is warned of:
kernels find keys by these four bytes only.`) + "\n" + exitStatusHelp,
		Example: examples(
			`imaseal keys issue --ca-key ca/ca.key --ca-cert ca/ca.crt release-2.csr`,
			`imaseal keys issue --ca-key ca/ca.key --ca-cert ca/ca.crt --name "Example release 2" --out certs/release-2.crt public.pem`),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("name one certificate request, public key or key; " + cmd.CommandPath() + " --help has examples")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runKeysIssue(cmd, &o, args[0]) },
	}
	fl := cmd.Flags()
	fl.StringVar(&o.name, "name", "", "`NAME` in the certificate (default: that of the request)")
	fl.IntVar(&o.days, "days", ca.DefaultDays, "how many `days` the certificate is valid")
	fl.StringVar(&o.out, "out", "", "`FILE` for the certificate (default: called as the request, ending in .crt)")
	fl.StringVar(&o.dir, "dir", "", "folder `DIR` for the certificate, called as the request")
	addOthers(cmd, &o.others)
	o.ca.add(cmd)
	o.passphrase.add(cmd)
	cmd.MarkFlagsMutuallyExclusive("out", "dir")
	if err := cmd.MarkFlagRequired("ca-key"); err != nil {
		panic(err)
	}
	return cmd
}

func addOthers(cmd *cobra.Command, others *[]string) {
	cmd.Flags().StringArrayVar(others, "others", nil, "warn when a certificate in folder `DIR` has the new one's key id, too")
}

func runKeysIssue(cmd *cobra.Command, o *keysIssueOptions, ref string) (err error) {
	if o.days < 1 {
		return fmt.Errorf("--days %d: a certificate is valid for at least 1", o.days)
	}
	path, err := o.path(ref)
	if err != nil {
		return err
	}
	out := (&outputFlags{}).open(cmd)
	source := o.passphrase.source()
	request, err := ca.LoadRequest(cmd.Context(), ref, keys.OpenOptions{Passphrase: source, Note: func(text string) { out.note("%s", text) }})
	if err != nil {
		return err
	}
	authority, err := o.ca.open(cmd.Context(), out, source)
	if err != nil {
		return err
	}
	defer closing(authority, &err)
	made, err := authority.Issue(cmd.Context(), ca.IssueOptions{
		Request: request, Name: o.name, Days: o.days, Out: path, Others: o.others, Now: time.Now(),
	})
	if err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	for _, warning := range made.Warnings {
		out.warn("%s", warning)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), `Issued a certificate (%s, %s) for %q,
valid %s, key id %s.

Next:
- Take %[1]s to where packages are signed:
    imaseal sign --key KEY --cert %[1]s PKG...
- Load %[2]s on target machines before anything is signed by the key.
`, made.Cert, made.DER, made.Certificate.Subject, validity(made.Certificate), made.KeyID)
	return err
}

// path is where the certificate goes.
func (o *keysIssueOptions) path(ref string) (string, error) {
	if o.out != "" {
		return o.out, nil
	}
	file, ok := keys.FileOf(ref)
	if !ok {
		return "", errors.New("the key is in no file after which the certificate could be called: use --out")
	}
	if o.dir != "" {
		return filepath.Join(o.dir, filepath.Base(file)), nil
	}
	return file, nil
}

// closing closes what was open when a function returns.
func closing(c io.Closer, err *error) {
	*err = errors.Join(*err, c.Close())
}
