package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/keys/kernel"
)

type keysShowOptions struct {
	cas, with  []string
	json       bool
	passphrase passphraseFlags
}

func newKeysShowCommand() *cobra.Command {
	var o keysShowOptions
	cmd := &cobra.Command{
		Use:   "show FILE|KEY...",
		Short: "Show keys and certificates as kernels see them",
		Long: strings.TrimSpace(`
Shows of each certificate what a kernel goes by, which kernels verify signatures by its
key, and what a trusted keyring (.ima) has against it: "refused" is not let in,
"useless" is let in and verifies nothing, "notice" is good to know. --ca says who is to
have issued it. Key ids are four bytes: those that collide, with one another or with a
certificate in a folder (--with), are told.

Of a private key the public half is shown. No passphrase is asked for where the
certificate stands beside it in the clear, by the same name: signing.crt beside
signing.key. KEY may be a token's or a service's, as for imaseal sign:

    imaseal keys show 'pkcs11:token=release;object=signing'`) + "\n\n" + tableHelp(kernel.KeyTypeHelp()) + "\n" + tableHelp(kernel.SignatureHelp()) + exitStatusHelp,
		Example: examples(
			`imaseal keys show keys/signing.crt`,
			`imaseal keys show --json --ca keys/ca.crt --with keys keys/signing.key`),
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runKeysShow(cmd, &o, args)
		},
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&o.cas, "ca", nil, "certificate `FILE` of the CA that is to have issued them; may be repeated")
	fl.StringArrayVar(&o.with, "with", nil, "look for collisions with the certificates in folder `DIR`, too; may be repeated")
	fl.BoolVar(&o.json, "json", false, "print one JSON object a line for each key")
	o.passphrase.add(cmd)
	return cmd
}

func runKeysShow(cmd *cobra.Command, o *keysShowOptions, args []string) error {
	if len(args) == 0 {
		return errors.New("name at least one certificate, key file or key reference; imaseal keys show --help has examples")
	}
	cas, err := loadAll(cmd.Context(), o.cas)
	if err != nil {
		return err
	}
	out := (&outputFlags{}).open(cmd)
	ask := o.passphrase.source()
	var cards, others []*keyCard
	card := func(to *[]*keyCard, found []keys.PublicKey) error {
		for _, key := range found {
			c, err := newKeyCard(key, kernel.Target{}, cas, time.Now())
			if err != nil {
				return err
			}
			*to = append(*to, c)
		}
		return nil
	}
	failed := false
	for _, ref := range args {
		found, err := keys.LookAt(cmd.Context(), ref, keys.OpenOptions{Passphrase: ask, Note: func(text string) { out.note("%s", text) }})
		if err == nil {
			err = card(&cards, found)
		}
		if err != nil {
			if cmd.Context().Err() != nil {
				return err
			}
			out.warn("%s", printable(err.Error()))
			failed = true
		}
	}
	for _, dir := range o.with {
		found, err := keys.CertificatesIn(dir)
		if err != nil {
			return err
		}
		if err := card(&others, found); err != nil {
			return err
		}
	}
	for _, c := range cards {
		if c.key.Note != "" {
			out.note("%s: %s", printable(c.Where), printable(c.key.Note))
		}
		for _, other := range append(others, cards...) {
			c.collides(other)
		}
	}
	if err := printCards(cmd, cards, o.json); err != nil {
		return err
	}
	if failed {
		return exitCode(exitError)
	}
	return nil
}

func printCards(cmd *cobra.Command, cards []*keyCard, asJSON bool) error {
	w := cmd.OutOrStdout()
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for i, c := range cards {
		if asJSON {
			if err := enc.Encode(c); err != nil {
				return err
			}
			continue
		}
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := c.print(w); err != nil {
			return err
		}
	}
	return nil
}
