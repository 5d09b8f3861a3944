package main

import (
	"context"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/split"
)

type digestsOptions struct {
	targets  targetFlags
	out      outputFlags
	selected selectionFlags
	rewrite  rewriteFlags // of which only the flags that are added count
	cert     string
	output   string
}

func newDigestsCommand() *cobra.Command {
	var o digestsOptions
	cmd := &cobra.Command{
		Use:   "digests PKG... > REQUEST",
		Short: "Ask a signing host for signatures: write what of packages has to be signed",
		Long: strings.TrimSpace(`
Reads each PKG (a package, a .changes file or a folder) as imaseal sign does, and
writes one request for all of them to stdout, or to --output: of each package its
identity, the lines of its statement, and path and digest of every file and script
to sign. imaseal sign-digests signs it on a host that has the key and does not see
the packages; imaseal embed puts what comes back into the packages. The request
depends on the packages and on --select, --exclude and --hash only. When one
package cannot be read nothing is written.

With --cert, packages that this key has signed already, with this selection, are
left out. Without it, or with other file signatures, a signed package is an error
unless --force is given.

With --trust-header-digests an RPM is known by its header, and its payload is not
read: a package of any size costs its header.`) + "\n" + exitStatusHelp,
		Example: examples(
			`imaseal digests build/ > request`,
			`imaseal digests --cert keys/signing.crt --select exec --output request hello_2.10-3_amd64.deb`),
		Args: somePackages,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runDigests(cmd.Context(), o.out.open(cmd), &o, args)
		},
	}
	fl := cmd.Flags()
	o.selected.add(cmd)
	fl.StringVar(&o.cert, "cert", "", "leave out what the key of the certificate in `FILE` has signed already")
	fl.BoolVar(&o.rewrite.force, "force", false, "ask for signatures of packages that carry others")
	o.rewrite.addTrustHeader(cmd)
	fl.StringVar(&o.output, "output", "", "write the request to `FILE`, at once or not at all, and the results to stdout")
	o.targets.addJobs(cmd)
	o.out.add(cmd)
	return cmd
}

// A requesting is what runDigests has worked out of the flags.
type requesting struct {
	sealing
	builder *split.Builder
}

func runDigests(ctx context.Context, out *output, o *digestsOptions, args []string) error {
	stdout, err := out.yieldStdout(o.output)
	if err != nil {
		return err
	}
	s := new(requesting)
	if s.sealing, err = o.selected.open(&o.targets); err != nil {
		return err
	}
	s.rewriting = rewriting{rewriteFlags: &o.rewrite, out: out, headerOnly: o.rewrite.trustHeader}
	if o.cert != "" {
		if err := s.trustCertificate(ctx, o.cert, keys.OpenOptions{}); err != nil {
			return err
		}
	}
	spool, err := newSpool()
	if err != nil {
		return err
	}
	defer spool.Close()
	s.builder = split.NewBuilder(spool)
	results, err := s.all(ctx, args)
	if err != nil {
		return err
	}
	if err := out.print(results); err != nil {
		out.warn("no request was written")
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.write(ctx, stdout, o.output)
}

// all looks at every package. Of .changes files only what is wrong with them counts.
func (s *requesting) all(ctx context.Context, args []string) ([]*result, error) {
	list, err := s.targets.expand(s.out, args)
	if err != nil {
		return nil, err
	}
	list.checkChanges(ctx, nil)
	list.dropBroken()
	results := s.targets.each(ctx, s.out, list.targets, s.one)
	for _, t := range list.changes {
		if r := t.result(); r.Verdict != verdictOK {
			results = append(results, t.misfit(r))
		}
	}
	return results, nil
}

// one adds one package to the request.
func (s *requesting) one(ctx context.Context, t *target, jobs int, p *packageProgress) *result {
	f, pkg, r := s.openTarget(t, jobs)
	if pkg == nil {
		return r
	}
	defer f.Close()
	p.expect(pkg.Info().InstalledSize)
	m, err := s.carried(ctx, pkg, jobs, p.add)
	if err != nil {
		return r.fail(err)
	}
	if m != nil {
		r.Action, r.Files = "already signed", int(p.files.Load())
		r.finished(t, m, s.keyID)
		return r
	}
	p.again()
	// A package that could not be written later need not be signed.
	if err := pkg.CanWrite(new(sign.Manifest), sign.WriteOptions{DropOpenPGP: true, Force: s.force}); err != nil {
		return r.fail(err)
	}
	d, err := sign.DigestsOf(ctx, pkg, s.options(jobs, p))
	if err != nil {
		return r.fail(err)
	}
	id, err := s.identity(f, pkg)
	if err != nil {
		return r.fail(err)
	}
	if err := s.builder.Add(pkg.Info(), id, d); err != nil {
		return r.fail(err)
	}
	r.Action, r.Files = "requested", int(p.files.Load())
	r.Details = append(r.Details, detail{"digests", strconv.Itoa(len(d.Files) + len(d.Control))})
	return r
}

// identity returns the identity of a package: that of its header where nothing else
// of it was read.
func (s *requesting) identity(f *os.File, pkg sign.Package) (split.Identity, error) {
	if headed, ok := pkg.(sign.Headed); ok && s.trustHeader {
		return split.HeaderIdentity(headed), nil
	}
	return fileIdentity(f)
}

// write writes the request.
func (s *requesting) write(ctx context.Context, stdout io.Writer, path string) error {
	var packages, digests int
	err := writeOut(ctx, stdout, path, func(w io.Writer) (err error) {
		packages, digests, err = s.builder.Write(w)
		return err
	})
	if err != nil {
		return err
	}
	s.out.note("a request for %s, %s in all", plural(int64(packages), "package"), plural(int64(digests), "digest"))
	return nil
}
