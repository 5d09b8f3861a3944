package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/deb"
	"github.com/imaseal/imaseal/sign"
)

type resignOptions struct {
	targets    targetFlags
	out        outputFlags
	key        signingKeyFlags
	rewrite    rewriteFlags
	fromKeyIDs []string
	fromCerts  []string
	unverified bool
}

func newResignCommand() *cobra.Command {
	var o resignOptions
	cmd := &cobra.Command{
		Use:   "resign --from-cert OLD --key KEY --cert CERT PKG...",
		Short: "Replace the file signatures of one key in packages by those of another",
		Long: strings.TrimSpace(`
Rolls each PKG (a package, a .changes file or a folder with all packages beneath it)
over from an old key to another one: where all file signatures are by the old key,
the very files that they are for are signed by --key, with the same selection and
hash. An unsigned package, and one signed by other keys, is left alone and listed;
one of which only some signatures are by the old key is refused. Packages are
rewritten in place, atomically, unless --output is given, and imaseal unsign still
gives the bytes back that the builder made.

What is signed by --key already is verified and left as it is: after an
interruption run the same command again.

The old key is that of --from-cert. Every signature is verified by it before
anything is signed, as imaseal verify does it. A key id is a mere label: whoever may
write to the archive can put it on anything, and the new signature would vouch for
that. Where there is no certificate any more, --from-keyid with --unverified takes
the label's word: that the package is whole and carries signatures for all files of
its selection is still looked at, who made them is not. When the old key is in wrong
hands, its signatures say nothing either: sign the builders' packages instead.`) + "\n" + exitStatusHelp,
		Example: examples(
			`imaseal resign --from-cert keys/signing.crt --key next/signing.key --cert next/signing.crt --dry-run build/`,
			`imaseal resign --from-cert keys/signing.crt --key next/signing.key --cert next/signing.crt --output rolled build/`,
			`imaseal resign --from-cert keys/signing.crt --key next/signing.key --cert next/signing.crt build/`),
		Args: somePackages,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runResign(cmd.Context(), o.out.open(cmd), &o, args)
		},
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&o.fromCerts, "from-cert", nil, "replace signatures that verify by a certificate in `FILE`, PEM or DER; may be repeated")
	fl.StringArrayVar(&o.fromKeyIDs, "from-keyid", nil, "replace only signatures of the key id `HEX`; may be repeated (default those of --from-cert)")
	fl.BoolVar(&o.unverified, "unverified", false, "believe the key ids, without --from-cert")
	o.key.add(cmd)
	o.rewrite.addTrustHeader(cmd)
	o.rewrite.add(cmd, "rewrite an RPM though unsign cannot give it back then: its signature header is laid out oddly, or has an OpenPGP signature that --openpgp-key replaces")
	cmd.MarkFlagsMutuallyExclusive("from-cert", "unverified")
	o.targets.addOutput(cmd)
	o.targets.addJobs(cmd)
	o.out.add(cmd)
	return cmd
}

// What resign did, as the results say it.
const (
	actionResigned      = "resigned"
	actionWouldResign   = "would resign"
	actionAlreadySigned = "already signed"
	actionNotSigned     = "not signed"
	actionOtherKey      = "other key"
	actionRefused       = "refused"
)

// reasonMixed says that the signatures of a package are by several keys of which not
// all are replaced.
const reasonMixed sign.Reason = "mixed keys"

// A resigning is what runResign has worked out of the flags.
type resigning struct {
	rewriting
	signer *signingKey
	from   map[sign.KeyID]bool
	// trusted are the signer's own key and, unless unverified, the old ones.
	trusted    *sign.TrustedKeys
	unverified bool
}

func runResign(ctx context.Context, out *output, o *resignOptions, args []string) error {
	s, err := o.prepare(ctx, out)
	if err != nil {
		return err
	}
	defer s.signer.close()
	results, err := s.run(ctx, &o.targets, args, func(ctx context.Context, pkg sign.Package, want deb.ChangesFile) bool {
		return s.finishedFor(ctx, pkg, want, o.targets.jobs)
	}, s.one)
	if err != nil {
		return err
	}
	code := out.print(results)
	if !out.json {
		fmt.Fprintln(out.stdout, s.summary(results))
	}
	return code
}

func (o *resignOptions) prepare(ctx context.Context, out *output) (*resigning, error) {
	s := &resigning{trusted: new(sign.TrustedKeys), unverified: o.unverified, from: map[sign.KeyID]bool{}}
	if err := s.setFrom(ctx, out, o); err != nil {
		return nil, err
	}
	passphrase := o.key.passphrase.source()
	var err error
	if s.signer, err = o.key.open(ctx, out, passphrase); err != nil {
		return nil, err
	}
	id := s.signer.KeyID()
	if s.from[id] {
		err = fmt.Errorf("--key and the old key have the same key id, %s: give another key; a kernel finds only one of two that share an id", id)
	}
	if err == nil {
		err = s.trusted.Add(id, s.signer.Public())
	}
	if err == nil {
		s.rewriting, err = o.rewrite.open(ctx, out, passphrase)
	}
	if err != nil {
		return nil, errors.Join(err, s.signer.close())
	}
	return s, nil
}

// setFrom works out whose signatures are replaced.
func (s *resigning) setFrom(ctx context.Context, out *output, o *resignOptions) error {
	given := map[sign.KeyID]bool{}
	for _, text := range o.fromKeyIDs {
		id, err := sign.ParseKeyID(text)
		if err != nil {
			return fmt.Errorf("--from-keyid: %w", err)
		}
		given[id] = true
	}
	if len(o.fromCerts) == 0 {
		switch {
		case len(given) == 0:
			return errors.New("whose signatures are replaced? Give --from-cert, the certificate of the old key")
		case !o.unverified:
			return errors.New("without the old key's certificate its signatures can't be verified, and whatever carries its key id would be signed: give --from-cert, or --unverified to sign all the same")
		}
		out.warn("--unverified: who made the old signatures is not verified; the new ones vouch for whatever carries their key id")
		s.from = given
		return nil
	}
	var err error
	if s.trusted, err = loadTrusted(ctx, out, o.fromCerts, nil); err != nil {
		return err
	}
	for _, id := range s.trusted.KeyIDs() {
		s.from[id] = true
	}
	for id := range given {
		if !s.from[id] {
			return fmt.Errorf("--from-keyid %s: no certificate of --from-cert has it; those have %s", id, keyIDList(s.from))
		}
	}
	if len(given) > 0 {
		s.from = given
	}
	return nil
}

func keyIDList(ids map[sign.KeyID]bool) string {
	var list []string
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		list = append(list, id.String())
	}
	return strings.Join(list, ", ")
}

// one rolls one package over.
func (s *resigning) one(ctx context.Context, t *target, jobs int, p *packageProgress) *result {
	f, pkg, r := s.openTarget(t, jobs)
	if pkg == nil {
		return r
	}
	defer f.Close()
	m, err := pkg.Manifest()
	if err != nil {
		return r.refuse(sign.Finding{Path: "file signatures", Reason: sign.ReasonMalformed, Detail: err.Error()})
	}
	if m == nil {
		m = new(sign.Manifest)
	}
	count := m.CountByKey()
	for _, id := range m.KeyIDs() {
		r.KeyIDs = append(r.KeyIDs, id.String())
	}
	r.Signed = len(m.Files) + len(m.Control)
	r.Files = r.Signed // as far as is known: packages that stay as they are are not read
	own, old := count[s.signer.KeyID()] > 0, slices.ContainsFunc(m.KeyIDs(), func(id sign.KeyID) bool { return s.from[id] })
	strange := slices.ContainsFunc(m.KeyIDs(), func(id sign.KeyID) bool { return id != s.signer.KeyID() && !s.from[id] })
	switch {
	case !own && !old:
		r.Action = actionOtherKey
		if len(count) == 0 {
			r.Action = actionNotSigned
		}
		if t.dest != t.path {
			r.Output = t.dest
		}
		if err := s.leave(ctx, t, f); err != nil {
			return r.fail(err)
		}
		return r
	case strange:
		return r.refuse(sign.Finding{Path: "package", Reason: reasonMixed, Detail: mixture(count)})
	}
	p.expect(pkg.Info().InstalledSize)
	var bad []sign.Finding
	if !old && s.hasOpenPGP(pkg) {
		r.Action = actionAlreadySigned
		if bad, err = s.verify(ctx, pkg, m, jobs, p.add); err == nil && len(bad) == 0 {
			err = s.leave(ctx, t, f)
		}
	} else {
		if r.Action = actionResigned; s.dryRun {
			r.Action = actionWouldResign
		}
		m, bad, err = s.resign(ctx, t, f, pkg, m, jobs, p)
	}
	r.Files = int(p.files.Load())
	switch {
	case err != nil:
		return r.fail(err)
	case len(bad) > 0:
		return r.refuse(bad...)
	}
	r.KeyIDs = nil
	r.finished(t, m, s.signer.KeyID())
	return r
}

// mixture says how many signatures are by which key.
func mixture(count map[sign.KeyID]int) string {
	var parts []string
	for _, id := range slices.Sorted(maps.Keys(count)) {
		parts = append(parts, fmt.Sprintf("%d by %s", count[id], id))
	}
	return "signatures: " + strings.Join(parts, ", ") + "; sign it with sign --force, or resign it with the certificates of all old keys"
}

// refuse makes the result that of a package which is left alone because something in
// it is not good.
func (r *result) refuse(findings ...sign.Finding) *result {
	r.Action = actionRefused
	for _, f := range findings {
		r.find(f)
	}
	return r
}

// verify returns what is bad about the signatures m, which pkg carries.
func (s *resigning) verify(ctx context.Context, pkg sign.Package, m *sign.Manifest, jobs int, progress func(int, int64)) ([]sign.Finding, error) {
	o := m.Again()
	o.Jobs, o.Progress = jobs, progress
	report, err := sign.Verify(ctx, pkg, s.trusted, o)
	if err != nil {
		return nil, err
	}
	return s.bad(report), nil
}

// accepts reports whether a finding does not count.
func (s *resigning) accepts(f sign.Finding) bool {
	return s.unverified && f.Reason == sign.ReasonUnknownKey
}

// bad returns the findings that count.
func (s *resigning) bad(report *sign.Report) []sign.Finding {
	return slices.DeleteFunc(report.Findings, func(f sign.Finding) bool { return !f.Bad() || s.accepts(f) })
}

// resign verifies what m signs, signs it and writes the package; where something is bad
// it does neither.
func (s *resigning) resign(ctx context.Context, t *target, f *os.File, pkg sign.Package, m *sign.Manifest, jobs int, p *packageProgress) (*sign.Manifest, []sign.Finding, error) {
	write := s.writeOptions(t)
	write.Replace = true
	if write.OpenPGP != nil && s.hasOpenPGP(pkg) && pkg.CanWrite(m, sign.WriteOptions{Replace: true}) == nil {
		write.OpenPGP = nil // the signature that it has goes on holding
	}
	if err := pkg.CanWrite(m, write); err != nil {
		return nil, nil, err
	}
	m, report, err := sign.Resign(ctx, pkg, s.signer.Signer, s.trusted, sign.Options{Jobs: jobs, Progress: p.add}, s.accepts)
	if err != nil {
		return nil, nil, err
	}
	if m == nil {
		return nil, s.bad(report), nil
	}
	return m, nil, s.write(ctx, t, f, pkg, m, write)
}

// finishedFor reports whether pkg is what an earlier run made of the file want: wholly
// signed by this key, and the package of that name. What it was with the signatures of
// the old key, which its .changes lists, only that key could tell.
func (s *resigning) finishedFor(ctx context.Context, pkg sign.Package, want deb.ChangesFile, jobs int) bool {
	info := pkg.Info()
	_, version, epoch := strings.Cut(info.Version, ":")
	if !epoch {
		version = info.Version
	}
	name := info.Name + "_" + version + "_" + info.Arch
	m, err := pkg.Manifest()
	if err != nil || m == nil || name+filepath.Ext(want.Name) != want.Name {
		return false
	}
	if ids := m.KeyIDs(); len(ids) != 1 || ids[0] != s.signer.KeyID() || !s.hasOpenPGP(pkg) {
		return false
	}
	bad, err := s.verify(ctx, pkg, m, jobs, nil)
	return err == nil && len(bad) == 0
}

// summary says how many packages came to what.
func (s *resigning) summary(results []*result) string {
	count := map[string]int{}
	for _, r := range results {
		switch {
		case r.Format == formatChanges:
		case r.Verdict == verdictError:
			count[verdictError]++
		default:
			count[r.Action]++
		}
	}
	done, text := count[actionResigned], "%s resigned by key %s"
	if s.dryRun {
		done, text = count[actionWouldResign], "%s would be resigned by key %s"
	}
	text = fmt.Sprintf(text, plural(int64(done), "package"), s.signer.KeyID())
	for _, c := range []struct{ action, said string }{
		{actionAlreadySigned, "already signed by it"}, {actionOtherKey, "by other keys"}, {actionNotSigned, "not signed"},
		{actionRefused, "refused"}, {verdictError, "failed"},
	} {
		if n := count[c.action]; n > 0 {
			text += fmt.Sprintf(", %d %s", n, c.said)
		}
	}
	return text
}
