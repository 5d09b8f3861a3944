package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/split"
)

type embedOptions struct {
	targets    targetFlags
	out        outputFlags
	selected   selectionFlags
	rewrite    rewriteFlags
	passphrase passphraseFlags
	cert       string
}

func newEmbedCommand() *cobra.Command {
	var o embedOptions
	cmd := &cobra.Command{
		Use:   "embed --cert CERT RESPONSE PKG...",
		Short: "Put the signatures that a signing host made into packages",
		Long: strings.TrimSpace(`
Reads RESPONSE, which imaseal sign-digests made of the request for these packages
(- for stdin), and writes each PKG with its signatures, as imaseal sign would have
done with the key itself. A response is refused that was cut off or changed; that
is not about this very package file, or not about --select, --exclude and --hash as
they were given to imaseal digests; that lacks a signature or has one too many; or
of which a signature does not verify: the digests are computed from the package
once more. A package that is refused stays as it is.

Packages that the key has signed already, with this selection, are left as they are.`) + "\n" + exitStatusHelp,
		Example: examples(
			`imaseal embed --cert keys/signing.crt response build/`,
			`imaseal embed --cert keys/signing.crt --output signed response hello_2.10-3_amd64.deb`),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return errors.New("name the response, and then at least one package, .changes file or folder; " + cmd.CommandPath() + " --help has examples")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runEmbed(cmd.Context(), o.out.open(cmd), &o, cmd.InOrStdin(), args[0], args[1:])
		},
	}
	cmd.Flags().StringVar(&o.cert, "cert", "", "certificate of the key that signed, a `FILE` in PEM or DER, or a pkcs11: URI (required)")
	o.selected.add(cmd)
	o.passphrase.addFor(cmd, "", "key's passphrase")
	o.rewrite.add(cmd, "replace file signatures that are there, and in an RPM an OpenPGP signature")
	o.targets.addOutput(cmd)
	o.targets.addJobs(cmd)
	o.out.add(cmd)
	if err := cmd.MarkFlagRequired("cert"); err != nil {
		panic(err)
	}
	return cmd
}

// An embedding is what runEmbed has worked out of the flags.
type embedding struct {
	sealing
	response *split.Response

	mu   sync.Mutex
	used map[split.Identity]bool
}

func runEmbed(ctx context.Context, out *output, o *embedOptions, stdin io.Reader, from string, args []string) error {
	s := &embedding{used: map[split.Identity]bool{}}
	var err error
	if s.sealing, err = o.selected.open(&o.targets); err != nil {
		return err
	}
	passphrase := o.passphrase.source()
	if s.rewriting, err = o.rewrite.open(ctx, out, passphrase); err != nil {
		return err
	}
	s.manifest = s.embed
	if err := s.trustCertificate(ctx, o.cert, keys.OpenOptions{Passphrase: passphrase}); err != nil {
		return err
	}
	f, err := openResponse(ctx, from, stdin)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if s.response, err = split.OpenResponse(f, info.Size()); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	results, err := s.run(ctx, s.targets, args, s.signedFrom, s.one)
	if err != nil {
		return err
	}
	if left := s.response.Packages - len(s.used); left > 0 && len(s.used) > 0 {
		out.note("%s: %s of the response not named here", from, plural(int64(left), "package"))
	}
	return out.print(results)
}

// openResponse opens the response at path, or a copy of what stdin has.
func openResponse(ctx context.Context, path string, stdin io.Reader) (*os.File, error) {
	if path != "-" {
		return openRegular(path)
	}
	f, err := newSpool()
	if err != nil {
		return nil, err
	}
	err = interruptible(ctx, func() error {
		n, err := io.Copy(f, io.LimitReader(stdin, split.MaxResponse+1))
		if err == nil && n > split.MaxResponse {
			err = fmt.Errorf("stdin has more than %d bytes: this is no response", int64(split.MaxResponse))
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// embed takes the manifest of one package from the response.
func (s *embedding) embed(ctx context.Context, f *os.File, pkg sign.Package, jobs int, p *packageProgress) (sign.Package, *sign.Manifest, error) {
	pkg, id, err := s.identify(f, pkg, jobs)
	if err != nil {
		return nil, nil, err
	}
	m, err := s.response.Manifest(ctx, id, pkg, s.trusted, s.options(jobs, p))
	if err == nil {
		s.mu.Lock()
		s.used[id] = true
		s.mu.Unlock()
	}
	return pkg, m, err
}

// identify finds out by what the response knows the package: where by its header, it is
// opened anew, to be known by the digests there.
func (s *embedding) identify(f *os.File, pkg sign.Package, jobs int) (sign.Package, split.Identity, error) {
	if headed, ok := pkg.(sign.Headed); ok {
		if id := split.HeaderIdentity(headed); s.response.Has(id) {
			pkg, err := openPackage(f, openOptions{jobs: jobs, trustHeaderDigests: true, targetRPM: s.targetRPM})
			return pkg, id, err
		}
	}
	id, err := fileIdentity(f)
	return pkg, id, err
}
