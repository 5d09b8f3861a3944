package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/keys/ca"
)

type keysRequestOptions struct {
	key, keyType, name, out string
	newKey, noPassphrase    bool
	passphrase              passphraseFlags
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
certificates with the key usage digitalSignature.

With --new-key the key is made, too, in the file that --key names: it and the CA's key
then never meet. Files are not overwritten.`) + "\n" + exitStatusHelp,
		Example: examples(
			`imaseal keys request --key keys/signing.key --name "Example release 2" --out release-2.csr`,
			`imaseal keys request --new-key --type rsa2048 --key keys/next.key --name "Example release 3" --passphrase-file passphrase --out release-3.csr`),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return runKeysRequest(cmd, &o) },
	}
	fl := cmd.Flags()
	fl.StringVar(&o.key, "key", "", "private `KEY`: a file or another key reference, such as pkcs11:… (required)")
	fl.BoolVar(&o.newKey, "new-key", false, "make the key, in the file that --key names")
	fl.StringVar(&o.keyType, "type", "", "`TYPE` of the new key: "+orList(keyTypeNames())+" (default p256)")
	fl.BoolVar(&o.noPassphrase, "no-passphrase", false, "store the new key unencrypted without asking")
	fl.StringVar(&o.name, "name", "imaseal", "`NAME` in the request")
	fl.StringVar(&o.out, "out", "", "`FILE` for the request (required)")
	o.passphrase.add(cmd)
	completeWith(cmd, "type", keyTypeNames()...)
	cmd.MarkFlagsMutuallyExclusive("no-passphrase", "passphrase-file", "passphrase-fd")
	for _, name := range []string{"key", "out"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
	return cmd
}

func runKeysRequest(cmd *cobra.Command, o *keysRequestOptions) (err error) {
	request := ca.RequestOptions{Type: o.keyType, Name: o.name, Out: o.out}
	source := o.passphrase.source()
	switch {
	case o.newKey:
		path, ok := keys.FileOf(o.key)
		if !ok {
			return errors.New("--new-key makes a key in a file: one on a token or in a service is made by its own tools")
		}
		request.NewKey = path
		if request.Passphrase, err = newPassphrase(&o.passphrase, source, o.noPassphrase, "Passphrase for the new key (empty for none): "); err != nil {
			return err
		}
		defer clear(request.Passphrase)
	case o.keyType != "" || o.noPassphrase:
		return errors.New("--type and --no-passphrase are for a new key: they go with --new-key")
	default:
		out := (&outputFlags{}).open(cmd)
		key, openErr := keys.Open(cmd.Context(), o.key, keys.OpenOptions{Passphrase: source, Note: func(text string) { out.note("%s", text) }})
		if openErr != nil {
			return openErr
		}
		defer closing(key, &err)
		if key.Note != "" {
			out.note("%s", key.Note)
		}
		request.Key = key
	}
	if err := ca.MakeRequest(cmd.Context(), request); err != nil {
		return err
	}
	made := "Made a certificate request (" + o.out + ")"
	if o.newKey {
		made = "Made a key (" + o.key + ") and a certificate request (" + o.out + ")"
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), `%s.

Next: where the CA is,
    imaseal keys issue --ca-key ca/ca.key --ca-cert ca/ca.crt %s
`, made, o.out)
	return err
}
