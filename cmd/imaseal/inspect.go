package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys/openpgp"
	"github.com/imaseal/imaseal/sign"
)

type inspectOptions struct {
	targets targetFlags
	out     outputFlags
	files   bool
}

func newInspectCommand() *cobra.Command {
	var o inspectOptions
	cmd := &cobra.Command{
		Use:   "inspect PKG...",
		Short: "Show what signatures packages carry",
		Long: strings.TrimSpace(`
Shows format, compression, files, file signatures with their key ids and
algorithms, what they add to the size, OpenPGP signatures over the whole package,
and what is odd. It needs no certificate and proves nothing: that is
imaseal verify.

A PKG may be a package, a folder with packages, or a .changes file, which stands for
the packages that it lists.`) + "\n" + exitStatusHelp,
		Example: examples(
			`imaseal inspect hello_2.10-3_amd64.deb`,
			`imaseal inspect --files --json build/`),
		Args: somePackages,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runInspect(cmd.Context(), o.out.open(cmd), &o, args)
		},
	}
	cmd.Flags().BoolVar(&o.files, "files", false, "list each file with its signature")
	o.targets.addJobs(cmd)
	o.out.add(cmd)
	return cmd
}

func runInspect(ctx context.Context, out *output, o *inspectOptions, args []string) error {
	list, err := o.targets.expand(out, args)
	if err != nil {
		return err
	}
	results := o.targets.each(ctx, out, list.targets, func(ctx context.Context, t *target, jobs int, p *packageProgress) *result {
		return inspectOne(ctx, t, jobs, p, o.files)
	})
	for _, c := range list.changes {
		if c.err != nil {
			results = append(results, c.result())
		}
	}
	if done, err := out.printJSON(results); done || err != nil {
		return cmp.Or(err, exitCodeOf(results))
	}
	for i, r := range results {
		if i > 0 {
			fmt.Fprintln(out.stdout)
		}
		if err := out.printInspection(r); err != nil {
			return err
		}
	}
	return exitCodeOf(results)
}

func inspectOne(ctx context.Context, t *target, jobs int, p *packageProgress, list bool) *result {
	r := newResult(t.path)
	f, pkg, err := t.open(openOptions{jobs: jobs})
	if err != nil {
		return r.fail(err)
	}
	if pkg == nil {
		return nil
	}
	defer f.Close()
	r.Action = "inspected"
	r.describe(pkg.Info())
	p.expect(pkg.Info().InstalledSize)
	m, err := pkg.Manifest()
	if err != nil {
		r.find(sign.Finding{Path: "file signatures", Reason: sign.ReasonMalformed, Detail: err.Error()})
	}
	if m == nil {
		m = new(sign.Manifest)
	}
	if err := r.listFiles(ctx, pkg, m, p); err != nil {
		return r.fail(err)
	}
	for _, d := range pkg.Details() {
		r.Details = append(r.Details, detail(d))
	}
	if s := m.Statement; s != nil {
		r.Details = append(r.Details, detail{"statement", "selects " + strings.Join(s.Selection.Select, " ") + prefixed(", excludes ", strings.Join(s.Selection.Exclude, " "))})
	}
	r.summarise()
	if !list {
		r.List = nil
	}
	for _, sig := range pkg.OpenPGP() {
		r.openPGP(sig)
	}
	for _, a := range pkg.Anomalies() {
		r.find(a)
	}
	return r
}

// listFiles walks the package and lists every file with its signature.
func (r *result) listFiles(ctx context.Context, pkg sign.Package, m *sign.Manifest, p *packageProgress) error {
	index := func(entries []sign.Entry) map[string][]byte {
		values := make(map[string][]byte, len(entries))
		for _, e := range entries {
			values[e.Path] = e.Value
		}
		return values
	}
	payload, control := index(m.Files), index(m.Control)
	for f, err := range pkg.Files(ctx) {
		if err != nil {
			return err
		}
		l := listedFile{Path: "/" + f.Path, Control: f.Control}
		from := payload
		if f.Control {
			l.Path, from = f.Path, control
		}
		value, signed := from[f.Path]
		delete(from, f.Path)
		if signed {
			l.describe(value)
			r.Signed++
		}
		r.Files++
		r.List = append(r.List, l)
		p.add(1, f.Size)
	}
	for _, left := range []map[string][]byte{control, payload} {
		for _, path := range slices.Sorted(maps.Keys(left)) {
			r.find(sign.Finding{Path: path, Reason: sign.ReasonStray, Detail: "signed, but the package has no such regular file"})
		}
	}
	return nil
}

func (l *listedFile) describe(value []byte) {
	l.Signed, l.Bytes = true, len(value)
	s, err := sign.ParseSignature(value)
	if err != nil {
		l.Problem = err.Error()
		return
	}
	l.KeyID, l.Hash, l.Algorithm = s.KeyID.String(), s.Hash.String(), s.Algorithm()
}

// summarise counts the signatures by key id and algorithm.
func (r *result) summarise() {
	counts := map[string]int{}
	ids := map[string]bool{}
	for _, l := range r.List {
		switch {
		case l.Problem != "":
			counts["malformed"]++
		case l.Signed:
			ids[l.KeyID] = true
			counts[fmt.Sprintf("key %s, %s, %s", l.KeyID, l.Algorithm, l.Hash)]++
		}
	}
	r.KeyIDs = append(r.KeyIDs, slices.Sorted(maps.Keys(ids))...)
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		r.Details = append(r.Details, detail{"file signatures", fmt.Sprintf("%d by %s", counts[kind], kind)})
	}
}

func (r *result) openPGP(sig sign.OpenPGPSignature) {
	infos, err := openpgp.Describe(sig.Packet)
	if err != nil {
		r.find(sign.Finding{Path: sig.Where, Reason: sign.ReasonOpenPGP, Detail: err.Error()})
		return
	}
	for _, i := range infos {
		r.OpenPGP = append(r.OpenPGP, openPGPFound{Where: sig.Where, KeyID: i.KeyID, Algorithm: i.Algorithm, Time: i.Created.UTC().Format(time.RFC3339)})
	}
}

// printInspection prints one package for a person.
func (o *output) printInspection(r *result) error {
	if r.Error != "" {
		o.warn("%s: %s", printable(r.Path), printable(r.Error))
		if r.Package == "" || r.Format == formatChanges {
			return nil
		}
	}
	fmt.Fprintln(o.stdout, printable(r.Path))
	t := tabwriter.NewWriter(o.stdout, 0, 0, 2, ' ', 0)
	row := func(name, value string) { fmt.Fprintf(t, "  %s:\t%s\n", name, printable(value)) }
	row("package", r.Package+" "+r.Version+" "+r.Arch)
	row("format", r.Format)
	row("files", fmt.Sprintf("%d, of which %d signed", r.Files, r.Signed))
	for _, d := range r.Details {
		row(d.Name, d.Value)
	}
	for _, s := range r.OpenPGP {
		row("OpenPGP signature", fmt.Sprintf("%s by key %s, %s, %s", s.Where, s.KeyID, s.Algorithm, s.Time))
	}
	for _, f := range r.Findings {
		row(f.Reason, f.Path+prefixed(": ", f.Detail))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(r.List) == 0 {
		return nil
	}
	t = tabwriter.NewWriter(o.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  KEY ID\tHASH\tALGORITHM\tBYTES\tFILE")
	for _, l := range r.List {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%d\t%s\n", orDash(l.KeyID), orDash(l.Hash), orDash(l.Algorithm), l.Bytes,
			printable(l.Path)+prefixed(" ", printable(l.Problem)))
	}
	return t.Flush()
}
