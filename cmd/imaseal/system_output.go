package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/imaseal/imaseal/sign/installed"
)

// A systemResult is what a verb has to say about an installed system. It is the one
// object that --json prints; docs/json.md describes it.
type systemResult struct {
	Action   string          `json:"action"`
	Root     string          `json:"root"`
	Format   string          `json:"format"`
	Packages int             `json:"packages"`
	Signed   int             `json:"signed"`
	Files    int             `json:"files"`
	Labelled int             `json:"labelled"`
	Changed  int             `json:"changed"`
	Verdict  string          `json:"verdict"`
	Errors   []string        `json:"errors"`
	Findings []systemFinding `json:"findings"`
	List     []systemPackage `json:"list"`
}

type systemFinding struct {
	Severity string `json:"severity"`
	Reason   string `json:"reason"`
	Package  string `json:"package"`
	Path     string `json:"path"`
	Detail   string `json:"detail"`

	severity installed.Severity
}

// A systemPackage is one installed package.
type systemPackage struct {
	Package  string   `json:"package"`
	Version  string   `json:"version"`
	Arch     string   `json:"arch"`
	Signed   bool     `json:"signed"`
	Files    int      `json:"files"`
	Labelled int      `json:"labelled"`
	Changed  int      `json:"changed"`
	KeyIDs   []string `json:"key_ids"`
	Verdict  string   `json:"verdict"`

	counts [installed.Failure + 1]int // of findings, by severity
}

// newSystemResult makes the result of a verb that did action.
func newSystemResult(action string, s *installed.System, result *installed.Result) *systemResult {
	r := &systemResult{Action: action, Root: s.Root.Dir(), Verdict: verdictOK, Errors: []string{}, Findings: []systemFinding{}, List: []systemPackage{}}
	for _, err := range result.Errors {
		r.Errors = append(r.Errors, err.Error())
		r.Verdict = verdictError
	}
	for _, report := range result.Reports {
		var counts [installed.Failure + 1]int
		for _, f := range report.Findings {
			severity := f.Kind.Severity()
			counts[severity]++
			r.Findings = append(r.Findings, systemFinding{severity.String(), string(f.Kind), f.Package, f.Path, f.Detail, severity})
		}
		verdict := verdictOf(counts)
		r.Verdict = worseVerdict(r.Verdict, verdict)
		p := report.Package
		if p == nil {
			continue
		}
		r.Format = p.Format
		r.Packages++
		if p.Signed {
			r.Signed++
			r.Files += report.Files
			r.Labelled += report.Labelled
			r.Changed += report.Changed
		}
		ids := []string{}
		for _, id := range p.KeyIDs() {
			ids = append(ids, id.String())
		}
		r.List = append(r.List, systemPackage{p.Name, p.Version, p.Arch, p.Signed, report.Files, report.Labelled, report.Changed, ids, verdict, counts})
	}
	slices.SortStableFunc(r.Findings, func(a, b systemFinding) int { return cmp.Compare(b.severity, a.severity) })
	return r
}

func verdictOf(counts [installed.Failure + 1]int) string {
	switch {
	case counts[installed.Failure] > 0:
		return verdictError
	case counts[installed.Critical]+counts[installed.Problem] > 0:
		return verdictFailed
	default:
		return verdictOK
	}
}

func worseVerdict(a, b string) string {
	for _, v := range []string{verdictError, verdictFailed} {
		if a == v || b == v {
			return v
		}
	}
	return verdictOK
}

// has reports whether there is a finding of that kind.
func (r *systemResult) has(kind installed.Kind) bool {
	return slices.ContainsFunc(r.Findings, func(f systemFinding) bool { return f.Reason == string(kind) })
}

// exit returns the exit code that the result stands for.
func (r *systemResult) exit() error {
	return exitCodeOf([]*result{{Verdict: r.Verdict}})
}

// printSystem prints the result as the flags ask for, and returns the exit code.
// changed is the head of the column that says what was changed, "" for none.
func (o *output) printSystem(r *systemResult, changed string) error {
	if o.json {
		enc := json.NewEncoder(o.stdout)
		enc.SetEscapeHTML(false)
		return cmp.Or(enc.Encode(r), r.exit())
	}
	if len(r.List) > 0 {
		if err := o.printSystemTable(r, changed); err != nil {
			return err
		}
	}
	o.printSystemFindings(r.Findings)
	for _, e := range r.Errors {
		o.warn("%s", printable(e))
	}
	return r.exit()
}

// shownPackages is how many packages are shown that there is nothing to say of.
const shownPackages = 20

func (o *output) printSystemTable(r *systemResult, changed string) error {
	t := tabwriter.NewWriter(o.stdout, 0, 0, 2, ' ', 0)
	row := func(name, version string, files, labelled, change any, outcome string) {
		middle := ""
		if changed != "" {
			middle = fmt.Sprintf("%v\t", change)
		}
		fmt.Fprintf(t, "%s\t%s\t%v\t%v\t%s%s\n", name, version, files, labelled, middle, outcome)
	}
	row("PACKAGE", "VERSION", "FILES", "LABELLED", changed, "RESULT")
	left := 0
	var all [installed.Failure + 1]int
	for i := range r.List {
		p := &r.List[i]
		for s, n := range p.counts {
			all[s] += n
		}
		switch {
		case !p.Signed && p.Verdict == verdictOK && r.Packages > 1:
			continue
		case r.Signed > shownPackages && !o.verbose && p.Verdict == verdictOK:
			left++
			continue
		}
		outcome := countsText(p.counts)
		if !p.Signed && p.Verdict == verdictOK {
			outcome = "not signed"
		}
		row(printable(p.Package)+prefixed(":", printable(p.Arch)), printable(p.Version), p.Files, p.Labelled, p.Changed, o.paintVerdict(p.Verdict, outcome))
	}
	if left > 0 {
		row(fmt.Sprintf("(%d more)", left), "", "", "", "", o.paintVerdict(verdictOK, "ok"))
	}
	if r.Packages > 1 {
		for _, f := range r.Findings {
			if f.Package == "" {
				all[f.severity]++
			}
		}
		row(plural(int64(r.Signed), "signed package"), "", r.Files, r.Labelled, r.Changed, o.paintVerdict(r.Verdict, countsText(all)))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if n := r.Packages - r.Signed; n > 0 && r.Packages > 1 {
		fmt.Fprintf(o.stdout, "%s not signed\n", map[bool]string{true: "1 package is", false: fmt.Sprintf("%d packages are", n)}[n == 1])
	}
	return nil
}

// countsText says what was found, worst first.
func countsText(counts [installed.Failure + 1]int) string {
	var parts []string
	for s := installed.Failure; s >= installed.Notice; s-- {
		if n := counts[s]; n > 0 && s == installed.Critical {
			parts = append(parts, fmt.Sprintf("%d critical", n))
		} else if n > 0 {
			parts = append(parts, plural(int64(n), s.String()))
		}
	}
	if counts[installed.Failure]+counts[installed.Critical]+counts[installed.Problem] == 0 {
		parts = append([]string{"ok"}, parts...)
	}
	return strings.Join(parts, ", ")
}

// shownFindings is how many findings of a kind are printed for a package.
const shownFindings = 4

// printSystemFindings prints the findings. Many of a kind, in one package, are
// counted, lest the one that matters is lost among them.
func (o *output) printSystemFindings(findings []systemFinding) {
	type group struct{ pkg, reason string }
	count := map[group]int{}
	for _, f := range findings {
		count[group{f.Package, f.Reason}]++
	}
	printed := map[group]int{}
	for _, f := range findings {
		g := group{f.Package, f.Reason}
		n := printed[g]
		printed[g]++
		if n >= shownFindings && count[g] > shownFindings+1 && !o.verbose {
			if n == shownFindings {
				fmt.Fprintf(o.stdout, "%s: %s: %s: %d more like this; --verbose lists them\n", f.Severity, printable(f.Package), f.Reason, count[g]-n)
			}
			continue
		}
		where := printable(f.Path)
		switch {
		case f.Path == "":
			where = printable(f.Package)
		case f.Package != "":
			where += " (" + printable(f.Package) + ")"
		}
		reason := f.Reason + ": "
		if f.severity == installed.Failure {
			reason = "" // it would say "error" again
		}
		fmt.Fprintf(o.stdout, "%s: %s: %s\n", f.Severity, where, strings.TrimSuffix(reason+printable(f.Detail), ": "))
	}
}

// systemProgress draws how far the work on a system is, in a bar for each time that
// its files are gone through.
func systemProgress(out *output, s *installed.System) (finish func()) {
	p := startProgress(out, 1)
	if p.bars == nil {
		return p.close
	}
	var bar *mpb.Bar
	end := func() {
		if bar != nil {
			bar.Abort(true)
		}
	}
	s.Expect = func(files int) {
		end()
		bar = p.bars.AddBar(int64(files), mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(printable(s.Root.Dir()), decor.WCSyncSpaceR)),
			mpb.AppendDecorators(
				decor.CountersNoUnit("%d of %d files, "),
				decor.Any(func(decor.Statistics) string { return fmt.Sprintf("% .1f", decor.SizeB1024(p.bytes.Load())) })))
	}
	s.Progress = func(files int, bytes int64) {
		p.bytes.Add(bytes)
		bar.IncrBy(files)
	}
	return func() {
		end()
		p.close()
	}
}

// paintVerdict colours text. Colour stands only in the last column, where tabwriter
// does not measure it.
func (o *output) paintVerdict(verdict, text string) string {
	switch {
	case !o.colour:
		return text
	case verdict == verdictOK:
		return "\x1b[32m" + text + "\x1b[0m"
	default:
		return "\x1b[31m" + text + "\x1b[0m"
	}
}
