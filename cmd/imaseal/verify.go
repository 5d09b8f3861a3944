package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/keys/openpgp"
	"github.com/imaseal/imaseal/sign"
)

type verifyOptions struct {
	targets targetFlags
	out     outputFlags
	certs   []string
	cas     []string
	require []string
	keyring string
}

func newVerifyCommand() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify --cert CERT PKG...",
		Short: "Prove that every file of packages is signed by a trusted key",
		Long: strings.TrimSpace(`
Reads each PKG whole (a package, a .changes file or a folder) and judges every
file signature against the certificates, every file against its signature and the
digests that the package records, every file that should be signed and is not,
every signature for a file that is not there, and in a .deb the statement that
binds the signatures to the package. What should be signed is the selection that
the package records, everything where it records none.

Reasons: unsigned, unknown key ID, bad signature, digest mismatch, malformed,
wrong byte order, zero digest, stray; openpgp for the signature over the whole
package. A warning does not fail the package.`) + "\n" + exitStatusHelp,
		Example: examples(
			`imaseal verify --cert keys/signing.crt hello_2.10-3_amd64.deb`,
			`imaseal verify --cert keys/signing.crt --ca keys/ca.crt --json build/`),
		Args: somePackages,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runVerify(cmd.Context(), o.out.open(cmd), &o, args)
		},
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&o.certs, "cert", nil, "trust the keys of the certificates in `FILE`, PEM or DER, or of a pkcs11: URI; may be repeated (required)")
	fl.StringArrayVar(&o.cas, "ca", nil, "each certificate must be issued by one in `FILE`; may be repeated")
	fl.StringArrayVar(&o.require, "require", nil, "demand signatures by `RULE`, all or exec, whatever the package records; may be repeated")
	fl.StringVar(&o.keyring, "openpgp-keyring", "", "demand a whole-package OpenPGP signature by a key in `FILE`")
	completeWith(cmd, "require", sign.SelectAll, sign.SelectExec)
	o.targets.addJobs(cmd)
	o.out.add(cmd)
	if err := cmd.MarkFlagRequired("cert"); err != nil {
		panic(err)
	}
	return cmd
}

// A verifying is what runVerify has worked out of the flags.
type verifying struct {
	out     *output
	trusted *sign.TrustedKeys
	require sign.Selection
	keyring *openpgp.Keyring
}

func runVerify(ctx context.Context, out *output, o *verifyOptions, args []string) error {
	v := &verifying{out: out}
	var err error
	if v.trusted, err = loadTrusted(ctx, out, o.certs, o.cas); err != nil {
		return err
	}
	if len(o.require) > 0 {
		if v.require, err = sign.NewSelection(o.require, nil); err != nil {
			return err
		}
	}
	if o.keyring != "" {
		if v.keyring, err = openpgp.LoadKeyring(o.keyring); err != nil {
			return err
		}
	}
	list, err := o.targets.expand(out, args)
	if err != nil {
		return err
	}
	list.checkChanges(ctx, nil)
	results := o.targets.each(ctx, out, list.targets, v.one)
	for _, c := range list.changes {
		r := c.result()
		if c.err == nil {
			r.Action = actionVerified
		}
		results = append(results, r)
	}
	return out.print(results)
}

func loadAll(ctx context.Context, refs []string) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for _, ref := range refs {
		certs, err := keys.OpenCertificates(ctx, ref, keys.OpenOptions{})
		if err != nil {
			return nil, err
		}
		all = append(all, certs...)
	}
	return all, nil
}

// loadTrusted reads the certificates whose keys are trusted. Dates are only
// warned about: the kernel does not look at them.
func loadTrusted(ctx context.Context, out *output, certRefs, caRefs []string) (*sign.TrustedKeys, error) {
	cas, err := loadAll(ctx, caRefs)
	if err != nil {
		return nil, err
	}
	trusted := new(sign.TrustedKeys)
	for _, ref := range certRefs {
		certs, err := keys.OpenCertificates(ctx, ref, keys.OpenOptions{})
		if err != nil {
			return nil, err
		}
		for _, cert := range certs {
			if err := keys.CheckValidity(cert, time.Now()); err != nil {
				out.warn("%s: %v; kernels take it all the same", ref, err)
			}
			if len(cas) > 0 {
				if err := keys.ChainsTo(cert, cas); err != nil {
					return nil, fmt.Errorf("%s: %w", ref, err)
				}
			}
			if err := trusted.AddCertificate(cert); err != nil {
				return nil, fmt.Errorf("%s: %w", ref, err)
			}
		}
	}
	return trusted, nil
}

// one verifies one package.
func (v *verifying) one(ctx context.Context, t *target, jobs int, p *packageProgress) *result {
	r := newResult(t.path)
	f, pkg, err := t.open(openOptions{jobs: jobs})
	if err != nil {
		return r.fail(err)
	}
	if pkg == nil {
		v.out.noteSkipped(t)
		return nil
	}
	defer f.Close()
	r.Action = actionVerified
	r.describe(pkg.Info())
	p.expect(pkg.Info().InstalledSize)
	report, err := sign.Verify(ctx, pkg, v.trusted, sign.Options{Selection: v.require, Jobs: jobs, Progress: p.add})
	if err != nil {
		return r.fail(err)
	}
	r.report(report)
	if v.keyring != nil {
		v.checkOpenPGP(pkg, r)
	}
	return r
}

// checkOpenPGP demands that one of the whole-package signatures is by a key of
// the keyring, and that none by such a key is bad.
func (v *verifying) checkOpenPGP(pkg sign.Package, r *result) {
	sigs := pkg.OpenPGP()
	if len(sigs) == 0 {
		r.find(sign.Finding{Path: "package", Reason: sign.ReasonOpenPGP, Detail: "there is no OpenPGP signature over the whole package"})
		return
	}
	good := false
	var unknown []sign.Finding
	for _, sig := range sigs {
		finding := sign.Finding{Path: sig.Where, Reason: sign.ReasonOpenPGP}
		info, err := v.keyring.Verify(sig)
		switch {
		case err == nil:
			good = true
			if info.Warning != "" {
				finding.Reason, finding.Detail = sign.ReasonWarning, info.Warning
				r.find(finding)
			}
		case sig.Cleartext || errors.Is(err, openpgp.ErrUnknownKey):
			finding.Detail = err.Error()
			unknown = append(unknown, finding)
		default:
			finding.Detail = err.Error()
			r.find(finding)
		}
	}
	for _, f := range unknown {
		if good {
			f.Reason = sign.ReasonWarning
		}
		r.find(f)
	}
}
