package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/sign"
)

// passphraseFlags say where a passphrase or a PIN comes from. It is never an argument:
// those are visible to every user of the machine.
type passphraseFlags struct {
	file string
	fd   int
}

func (f *passphraseFlags) add(cmd *cobra.Command) {
	f.addFor(cmd, "", "key's passphrase, or its token's PIN,")
}

// addFor adds the flags --PREFIXpassphrase-file and -fd for the secret that the help
// calls what.
func (f *passphraseFlags) addFor(cmd *cobra.Command, prefix, what string) {
	file, fd := prefix+"passphrase-file", prefix+"passphrase-fd"
	cmd.Flags().StringVar(&f.file, file, "", "read the "+what+" from the first line of `FILE`")
	cmd.Flags().IntVar(&f.fd, fd, -1, "read the "+what+" from file descriptor `N`")
	cmd.Flags().Lookup(fd).DefValue = "0" // -1 is none, which the help need not show
	cmd.MarkFlagsMutuallyExclusive(file, fd)
}

// given reports whether a file or a descriptor is named.
func (f *passphraseFlags) given() bool { return f.file != "" || f.fd >= 0 }

// source returns where to ask: the file or descriptor, else the terminal. It is to
// be called once: a descriptor can be read but once, and its source remembers.
func (f *passphraseFlags) source() keys.Passphrase {
	switch {
	case f.file != "":
		return keys.PassphraseFromFile(f.file)
	case f.fd >= 0:
		return keys.PassphraseFromFD(f.fd)
	default:
		return keys.PassphraseFromTerminal()
	}
}

// signingKeyFlags say which key signs files.
type signingKeyFlags struct {
	key, cert, keyID string
	allowExpired     bool
	jobs             int
	patience         time.Duration
	passphrase       passphraseFlags
	cache            cacheFlags
}

// A signingKey is a key that signs files, with what it was checked against.
type signingKey struct {
	*sign.Signer
	cert *x509.Certificate // nil when there is none
	key  *keys.Key
	done func() // nil when there is no cache
}

// close writes the cache and lets go of a token, or of the connection to a service.
func (k *signingKey) close() error {
	if k.done != nil {
		k.done()
	}
	return k.key.Close()
}

func (f *signingKeyFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.key, "key", "", "private `KEY` that signs the files: a PEM or DER file, a pkcs11: URI, hashivault://NAME, awskms://, gcpkms://, azurekms:// or exec:PROGRAM (required)")
	cmd.Flags().StringVar(&f.cert, "cert", "", "certificate of the key, a `FILE` in PEM or DER, or a pkcs11: URI; gives the key id (default the one in the file of the key, or on its token)")
	cmd.Flags().StringVar(&f.keyID, "keyid", "", "key id in `HEX`, where it is not the certificate's")
	cmd.Flags().BoolVar(&f.allowExpired, "allow-expired", false, "sign though the certificate is expired or not yet valid")
	cmd.Flags().IntVar(&f.jobs, "sign-jobs", 0, "ask a token or a service for `N` signatures at once (default what fits it)")
	cmd.Flags().DurationVar(&f.patience, "sign-patience", 0, "give a service up that fails for `TIME` on end, such as 10m (default 2m)")
	f.passphrase.add(cmd)
	f.cache.add(cmd)
	if err := cmd.MarkFlagRequired("key"); err != nil {
		panic(err)
	}
}

// open opens the key and checks it against the certificate. The caller closes it.
func (f *signingKeyFlags) open(ctx context.Context, out *output, p keys.Passphrase) (*signingKey, error) {
	if f.jobs < 0 {
		return nil, fmt.Errorf("--sign-jobs %d: at least 1 is needed", f.jobs)
	}
	if f.patience < 0 {
		return nil, fmt.Errorf("--sign-patience %s: it must be above 0", f.patience)
	}
	open := keys.OpenOptions{Passphrase: p, Jobs: f.jobs, Patience: f.patience, Note: func(text string) { out.note("%s", text) }}
	kept, err := f.cache.open(out) // before a PIN is asked for
	if err != nil {
		return nil, err
	}
	key, err := keys.Open(ctx, f.key, open)
	if err != nil {
		kept.Close()
		return nil, err
	}
	k, err := f.check(ctx, key, open, out)
	if err != nil {
		kept.Close()
		return nil, errors.Join(err, key.Close())
	}
	if kept != nil {
		f.cache.serve(kept, k.Signer, key.Signer, out)
		k.done = func() {
			kept.Close()
			f.cache.sumUp(k.Signer, out)
		}
	}
	return k, nil
}

func (f *signingKeyFlags) check(ctx context.Context, key *keys.Key, o keys.OpenOptions, out *output) (*signingKey, error) {
	if key.Note != "" {
		out.note("%s", key.Note)
	}
	cert, err := f.certificate(ctx, key, o, out)
	if err != nil {
		return nil, err
	}
	id, warning, err := keys.KeyID(cert, key.Public())
	if err != nil {
		return nil, err
	}
	if warning != "" {
		out.warn("%s", warning)
	}
	if f.keyID != "" {
		given, err := sign.ParseKeyID(f.keyID)
		if err != nil {
			return nil, err
		}
		if given != id {
			out.warn("--keyid %s is not the key's own, %s: the kernel finds the key only under the id of its certificate", given, id)
		}
		id = given
	}
	signer, err := sign.NewSigner(key.Signer, id)
	if err != nil {
		return nil, err
	}
	signer.Jobs = key.Jobs
	return &signingKey{Signer: signer, cert: cert, key: key}, nil
}

// certificate returns the key's certificate, nil when there is none.
func (f *signingKeyFlags) certificate(ctx context.Context, key *keys.Key, o keys.OpenOptions, out *output) (*x509.Certificate, error) {
	cert := key.Certificate
	where := f.key
	if f.cert != "" {
		certs, err := keys.OpenCertificates(ctx, f.cert, o)
		if err != nil {
			return nil, err
		}
		cert, where = certs[0], f.cert
	}
	if cert == nil {
		out.warn("no --cert given: whether the key belongs to a valid certificate was not checked")
		return nil, nil
	}
	if err := keys.Match(cert, key.Public()); err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	if err := keys.CheckValidity(cert, time.Now()); err != nil {
		if !f.allowExpired {
			return nil, fmt.Errorf("%s: %w; use --allow-expired to sign all the same", where, err)
		}
		out.warn("%s: %v", where, err)
	}
	return cert, nil
}
