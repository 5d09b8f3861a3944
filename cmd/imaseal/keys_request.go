package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys"
)

type keysRequestOptions struct {
	key, name, out string
	passphrase     passphraseFlags
}

func newKeysRequestCommand() *cobra.Command {
	var o keysRequestOptions
	cmd := &cobra.Command{
		Use:     "request --key KEY --out FILE",
		Aliases: []string{"csr"},
		Short:   "Make a certificate request for a key, for a CA that is elsewhere",
		Long: strings.TrimSpace(`
Makes a certificate request (PKCS#10, PEM) for a key in a file, on a token or in a
service. It holds the public key and a name, and is signed by the key. Take it to the
CA, and there give it to imaseal keys issue, or to another CA that can issue
certificates with the key usage digitalSignature. The file is not overwritten.`) + "\n" + exitStatusHelp,
		Example: examples(
			`imaseal keys request --key keys/signing.key --name "Example release 2" --out release-2.csr`),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return runKeysRequest(cmd, &o) },
	}
	fl := cmd.Flags()
	fl.StringVar(&o.key, "key", "", "private `KEY`: a file or another key reference, such as pkcs11:… (required)")
	fl.StringVar(&o.name, "name", "imaseal", "`NAME` in the request")
	fl.StringVar(&o.out, "out", "", "`FILE` for the request (required)")
	o.passphrase.add(cmd)
	for _, name := range []string{"key", "out"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
	return cmd
}

func runKeysRequest(cmd *cobra.Command, o *keysRequestOptions) (err error) {
	out := (&outputFlags{}).open(cmd)
	key, err := keys.Open(cmd.Context(), o.key, keys.OpenOptions{Passphrase: o.passphrase.source(), Note: func(text string) { out.note("%s", text) }})
	if err != nil {
		return err
	}
	defer closing(key, &err)
	if key.Note != "" {
		out.note("%s", key.Note)
	}
	if err := keys.MakeRequest(cmd.Context(), keys.RequestOptions{Key: key, Name: o.name, Out: o.out}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), `Made a certificate request (%s).

Next: where the CA is,
    imaseal keys issue --ca-key ca/ca.key --ca-cert ca/ca.crt %[1]s
`, o.out)
	return err
}
