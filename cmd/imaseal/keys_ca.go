package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/keys/ca"
)

// caFlags say which CA issues certificates.
type caFlags struct {
	key, cert  string
	passphrase passphraseFlags
}

func (f *caFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.key, "ca-key", "", "private `KEY` of the CA: a file or another key reference, such as pkcs11:…")
	cmd.Flags().StringVar(&f.cert, "ca-cert", "", "`FILE` with the CA's certificate (default: the one that comes with its key)")
	f.passphrase.addFor(cmd, "ca-", "CA's passphrase, or its token's PIN,")
}

// source returns where to ask for the CA's passphrase: where its own flags say, else
// as for the other key. That one's passphrase is never tried as the PIN of a token,
// which counts wrong ones.
func (f *caFlags) source(other keys.Passphrase) keys.Passphrase {
	if f.passphrase.given() {
		return f.passphrase.source()
	}
	if _, ok := keys.FileOf(f.key); !ok {
		return keys.PassphraseFromTerminal()
	}
	return other
}

// open opens the CA. The caller closes it.
func (f *caFlags) open(ctx context.Context, out *output, other keys.Passphrase) (*ca.Authority, error) {
	note := func(text string) { out.note("%s", text) }
	authority, err := ca.Open(ctx, f.key, f.cert, keys.OpenOptions{Passphrase: f.source(other), Note: note}, time.Now())
	if err == nil && authority.Note != "" {
		note(authority.Note)
	}
	return authority, err
}

// newPassphrase asks for the passphrase of a new key, where it is to have one.
func newPassphrase(f *passphraseFlags, source keys.Passphrase, none bool, prompt string) ([]byte, error) {
	if none {
		return nil, nil
	}
	if !f.given() {
		source = keys.NewPassphraseFromTerminal()
	}
	passphrase, err := source(prompt)
	if err != nil {
		return nil, fmt.Errorf("%w; or use --no-passphrase", err)
	}
	return passphrase, nil
}
