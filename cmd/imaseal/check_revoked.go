package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/installed"
)

// runCheckRevoked is check --revoked: it finds what is still signed by keys.
func runCheckRevoked(cmd *cobra.Command, out *output, o *checkOptions, args []string) error {
	ids, err := readRevoked(o.revoked)
	if err != nil {
		return err
	}
	for _, flag := range []string{"cert", "ca", "unowned", "openpgp-keyring"} {
		if cmd.Flags().Changed(flag) {
			return fmt.Errorf("--%s goes with verifying, which --revoked does not: leave it out", flag)
		}
	}
	if len(args) == 0 {
		return systemRevoked(cmd.Context(), out, o, ids)
	}
	for _, flag := range []string{"root", "rpm", "rpm-db"} {
		if cmd.Flags().Changed(flag) {
			return fmt.Errorf("--%s is about a system, and with --revoked packages are named as files: leave one of them out", flag)
		}
	}
	return packagesRevoked(cmd.Context(), out, o, ids, args)
}

// readRevoked reads the values of --revoked. What can be a key id is one; a file of
// such a name is given as ./NAME.
func readRevoked(values []string) (map[sign.KeyID]bool, error) {
	ids := map[sign.KeyID]bool{}
	for _, value := range values {
		if id, err := sign.ParseKeyID(value); err == nil {
			ids[id] = true
			continue
		}
		certs, err := keys.LoadCertificates(value)
		if err != nil {
			return nil, fmt.Errorf("--revoked %s: neither a key id of up to eight hexadecimal digits nor a certificate: %w", value, err)
		}
		for _, cert := range certs {
			id, err := sign.KeyIDFromCertificate(cert)
			if err != nil {
				return nil, fmt.Errorf("--revoked %s: %w", value, err)
			}
			ids[id] = true
		}
	}
	return ids, nil
}

func systemRevoked(ctx context.Context, out *output, o *checkOptions, ids map[sign.KeyID]bool) error {
	s, err := o.system.open(ctx)
	if err != nil {
		return err
	}
	defer s.Root.Close()
	finish := systemProgress(out, s)
	found, err := s.Revoked(ctx, ids)
	finish()
	if err != nil {
		return err
	}
	r := newSystemResult(actionChecked, s, &found.Result)
	r.Format, r.Packages, r.Signed, r.Files, r.Labelled = found.Format, found.Packages, found.Signed, found.Files, found.Labelled
	if out.json {
		return out.printSystem(r, "")
	}
	out.printSystemFindings(r.Findings)
	for _, e := range r.Errors {
		out.warn("%s", printable(e))
	}
	files, packages := 0, 0
	for _, f := range r.Findings {
		switch {
		case f.Reason != string(installed.KindRevoked):
		case f.Path == "":
			packages++
		default:
			files++
		}
	}
	fmt.Fprintf(out.stdout, "signed by %s: %d of %s, and in the database %d of %s\n", ofKeys(ids),
		files, plural(int64(found.Files), "file"), packages, plural(int64(found.Signed), "signed package"))
	if files+packages > 0 {
		out.note("the kernel will refuse these files when it no longer trusts the key: install the packages signed by another key, or imaseal apply --replace --from FOLDER with packages that imaseal resign made; sign files of no package with imaseal sign-file")
	}
	o.tellCertificates(out, ids, files+packages == 0 && r.Verdict == verdictOK)
	return r.exit()
}

// tellCertificates names the certificates of the keys that the system keeps.
func (o *checkOptions) tellCertificates(out *output, ids map[sign.KeyID]bool, unused bool) {
	kept, err := o.system.keptCertificates()
	if err != nil {
		out.warn("%v", err)
		return
	}
	for _, file := range kept {
		certs, err := keys.LoadCertificates(file)
		if err != nil {
			out.warn("%v", err)
			continue
		}
		for _, cert := range certs {
			id, err := sign.KeyIDFromCertificate(cert)
			switch {
			case err != nil || !ids[id]:
			case unused:
				out.note("nothing needs %s any more, the certificate of key %s: remove it, make the initramfs anew and boot", printable(file), id)
			default:
				out.note("keep %s, the certificate of key %s, until nothing is signed by it", printable(file), id)
			}
		}
	}
}

func ofKeys(ids map[sign.KeyID]bool) string {
	return map[bool]string{true: "key ", false: "keys "}[len(ids) == 1] + keyIDList(ids)
}

func packagesRevoked(ctx context.Context, out *output, o *checkOptions, ids map[sign.KeyID]bool, args []string) error {
	targets := targetFlags{jobs: o.system.jobs}
	list, err := targets.expand(out, args)
	if err != nil {
		return err
	}
	results := targets.each(ctx, out, list.targets, func(_ context.Context, t *target, jobs int, _ *packageProgress) *result {
		return packageRevoked(t, jobs, ids)
	})
	for _, c := range list.changes {
		if c.err != nil {
			results = append(results, c.result())
		}
	}
	if done, err := out.printJSON(results); done || err != nil {
		return cmp.Or(err, exitCodeOf(results))
	}
	// Of an archive those are shown that there is something to say of.
	var shown []*result
	signed := 0
	for _, r := range results {
		if slices.ContainsFunc(r.Findings, func(f found) bool { return f.Reason == string(reasonRevoked) }) {
			signed++
		}
		if r.Verdict != verdictOK || out.verbose {
			shown = append(shown, r)
		}
	}
	if err := out.printTable(shown); err != nil {
		return err
	}
	fmt.Fprintf(out.stdout, "signed by %s: %d of %s\n", ofKeys(ids), signed, plural(int64(len(results)), "package"))
	if signed > 0 {
		out.note("imaseal resign replaces the signatures of one key by those of another")
	}
	return exitCodeOf(results)
}

// reasonRevoked is of a package that is signed by one of the keys.
const reasonRevoked = sign.Reason(installed.KindRevoked)

// packageRevoked looks for the keys among the signatures of one package, of which
// nothing but its head is read.
func packageRevoked(t *target, jobs int, ids map[sign.KeyID]bool) *result {
	r := newResult(t.path)
	f, pkg, err := t.open(openOptions{jobs: jobs})
	if err != nil {
		return r.fail(err)
	}
	if pkg == nil {
		return nil
	}
	defer f.Close()
	r.Action = actionChecked
	r.describe(pkg.Info())
	m, err := pkg.Manifest()
	if err != nil {
		r.find(sign.Finding{Path: "file signatures", Reason: sign.ReasonMalformed, Detail: err.Error()})
	}
	if m == nil {
		return r
	}
	r.Signed = len(m.Files) + len(m.Control)
	r.Files = r.Signed
	count := m.CountByKey()
	for _, id := range m.KeyIDs() {
		r.KeyIDs = append(r.KeyIDs, id.String())
		if ids[id] {
			r.find(sign.Finding{Path: "package", Reason: reasonRevoked, Detail: plural(int64(count[id]), "signature") + " by key " + id.String()})
		}
	}
	return r
}

// actionChecked is what check did; what came of it is the verdict.
const actionChecked = "checked"
