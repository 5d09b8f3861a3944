package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/imaseal/imaseal/sign"
)

// A result is what a verb has to say about one package. It is the object that
// --json prints, one on a line; docs/json.md describes it, and a golden test holds
// it.
type result struct {
	Path     string   `json:"path"`
	Package  string   `json:"package"`
	Version  string   `json:"version"`
	Arch     string   `json:"arch"`
	Format   string   `json:"format"`
	Action   string   `json:"action"`
	Output   string   `json:"output,omitempty"`
	Files    int      `json:"files"`
	Signed   int      `json:"signed"`
	KeyIDs   []string `json:"key_ids"`
	Verdict  string   `json:"verdict"`
	Error    string   `json:"error,omitempty"`
	Findings []found  `json:"findings"`
	keyError string   // what of Error the key said, which may be the same for many

	// Only inspect fills these.
	Details []detail       `json:"details,omitempty"`
	OpenPGP []openPGPFound `json:"openpgp,omitempty"`
	List    []listedFile   `json:"list,omitempty"`
}

// found is one finding. Path is the installed absolute path of a file, or the
// name of a control file or of a part of the package.
type found struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
	Detail string `json:"detail"`
}

type detail struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type openPGPFound struct {
	Where     string `json:"where"`
	KeyID     string `json:"key_id"`
	Algorithm string `json:"algorithm"`
	Time      string `json:"time"`
}

type listedFile struct {
	Path      string `json:"path"`
	Control   bool   `json:"control"`
	Signed    bool   `json:"signed"`
	KeyID     string `json:"key_id"`
	Hash      string `json:"hash"`
	Algorithm string `json:"algorithm"`
	Bytes     int    `json:"bytes"`
	Problem   string `json:"problem,omitempty"`
}

// The verdicts of a result.
const (
	verdictOK     = "ok"
	verdictFailed = "failed"
	verdictError  = "error"
)

// formatChanges is the format of a .changes file.
const formatChanges = "changes"

// actionVerified is what verify did; what came of it is the verdict.
const actionVerified = "verified"

// newResult starts the result for the package at path.
func newResult(path string) *result {
	return &result{Path: path, Verdict: verdictOK, KeyIDs: []string{}, Findings: []found{}}
}

func (r *result) describe(info sign.Info) {
	r.Package, r.Version, r.Arch = info.Name, info.Version, info.Arch
	r.Format = info.Format + " " + info.FormatVersion
}

// fail makes the verdict an error, unless it is one already.
func (r *result) fail(err error) *result {
	if r.Verdict != verdictError {
		if in, ok := err.(*fs.PathError); ok && in.Path == r.Path {
			err = in.Err // the result names the path
		}
		r.Verdict, r.Error, r.keyError = verdictError, err.Error(), keyErrorIn(err)
	}
	return r
}

// keyErrorIn returns what a key said that did not sign, "" if that is not why err is.
func keyErrorIn(err error) string {
	if key := (*sign.KeyError)(nil); errors.As(err, &key) {
		return key.Error()
	}
	return ""
}

// A keyFailures counts by its text what the key said that did not sign: a service that
// was given up says the same of all that is left.
type keyFailures map[string]int64

// line returns text, what is said of one thing; where the key said the same of several,
// one line of all of them for the first, and "" for the others.
func (k keyFailures) line(keyError, text, thing string) string {
	switch n := k[keyError]; {
	case keyError == "" || n == 1:
		return text
	case n > 1:
		k[keyError] = 0
		return keyError + ": " + plural(n, thing) + " left unsigned"
	}
	return ""
}

// report takes over what verification found.
func (r *result) report(report *sign.Report) {
	r.Files, r.Signed = report.Files, report.Signed
	for _, id := range report.KeyIDs {
		r.KeyIDs = append(r.KeyIDs, id.String())
	}
	for _, f := range report.Findings {
		r.find(f)
	}
}

func (r *result) find(f sign.Finding) {
	r.Findings = append(r.Findings, found{Path: f.Path, Reason: string(f.Reason), Detail: f.Detail})
	if f.Bad() && r.Verdict == verdictOK {
		r.Verdict = verdictFailed
	}
}

// outcome is the word for what came of the package.
func (r *result) outcome() string {
	if r.Verdict != verdictOK || r.Action == actionVerified || r.Action == actionChecked {
		return r.Verdict
	}
	return r.Action
}

// exitCodeOf returns nil when every result is good, otherwise the worst of them.
func exitCodeOf(results []*result) error {
	worst := exitOK
	for _, r := range results {
		switch {
		case r.Verdict == verdictError:
			return exitCode(exitError)
		case r.Verdict == verdictFailed:
			worst = exitFailed
		}
	}
	if worst == exitOK {
		return nil
	}
	return exitCode(worst)
}

// An output is where a verb writes: results to stdout, everything else to stderr.
// Its methods may be called concurrently.
type output struct {
	stdout, stderr io.Writer
	json, quiet    bool
	verbose        bool
	colour         bool
	terminal       bool // stderr is one, so progress is drawn

	mu      sync.Mutex
	holding bool     // bars are being drawn, so that lines have to wait
	held    []string // those lines
}

// outputFlags are the flags that every verb with results has.
type outputFlags struct{ json, quiet, verbose bool }

func (f *outputFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.json, "json", false, "print one JSON object a line for each package")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "print no progress and no notes, only results, warnings and errors")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "on a terminal, too, print a line for each finished package instead of bars")
}

func (f *outputFlags) open(cmd *cobra.Command) *output {
	return &output{
		stdout: cmd.OutOrStdout(), stderr: cmd.ErrOrStderr(),
		json: f.json, quiet: f.quiet, verbose: f.verbose,
		colour:   os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(cmd.OutOrStdout()),
		terminal: isTerminal(cmd.ErrOrStderr()),
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// note tells what a user should know and may ignore.
func (o *output) note(format string, args ...any) {
	if !o.quiet {
		o.warn(format, args...)
	}
}

// warn tells what a user must not miss. Names in it come from packages and folders, so
// it is shown as printable text.
func (o *output) warn(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	line := "imaseal: " + printableLines(fmt.Sprintf(format, args...)) + "\n"
	if o.holding {
		o.held = append(o.held, line)
		return
	}
	io.WriteString(o.stderr, line)
}

// hold keeps lines for stderr back until release, so that bars can be drawn there.
func (o *output) hold() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.holding = true
}

func (o *output) release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	io.WriteString(o.stderr, strings.Join(o.held, ""))
	o.holding, o.held = false, nil
}

// printJSON prints the results when --json was given, and reports whether it did.
func (o *output) printJSON(results []*result) (bool, error) {
	if !o.json {
		return false, nil
	}
	enc := json.NewEncoder(o.stdout)
	enc.SetEscapeHTML(false)
	for _, r := range results {
		if err := enc.Encode(r); err != nil {
			return true, err
		}
	}
	return true, nil
}

// printTable prints the results as a table, and what was found beneath it.
func (o *output) printTable(results []*result) error {
	t := tabwriter.NewWriter(o.stdout, 0, 0, 2, ' ', 0)
	head := "PACKAGE\tVERSION\tARCH\tFILES\tSIGNED\tKEY ID\tRESULT\n"
	for _, r := range results {
		if r.Package == "" {
			continue // it could not be opened
		}
		count := func(n int) string { return strconv.Itoa(n) }
		if r.Format == formatChanges {
			count = func(int) string { return "-" }
		}
		fmt.Fprintf(t, "%s%s\t%s\t%s\t%s\t%s\t%s\t%s\n", head, printable(r.Package), orDash(printable(r.Version)), orDash(printable(r.Arch)),
			count(r.Files), count(r.Signed), orDash(strings.Join(r.KeyIDs, ",")), o.paint(r))
		head = ""
	}
	if err := t.Flush(); err != nil {
		return err
	}
	failures := keyFailures{}
	for _, r := range results {
		failures[r.keyError]++
	}
	for _, r := range results {
		for _, f := range r.Findings {
			fmt.Fprintf(o.stdout, "%s: %s: %s%s\n", printable(r.Path), printable(f.Path), f.Reason, prefixed(": ", printable(f.Detail)))
		}
		if r.Error == "" {
			continue
		}
		if line := failures.line(r.keyError, r.Path+": "+r.Error, "package"); line != "" {
			o.warn("%s", printable(line))
		}
	}
	return nil
}

// print prints the results as the flags ask for, and returns the exit code.
func (o *output) print(results []*result) error {
	if done, err := o.printJSON(results); done || err != nil {
		return cmp.Or(err, exitCodeOf(results))
	}
	if err := o.printTable(results); err != nil {
		return err
	}
	return exitCodeOf(results)
}

// paint returns the last column. Colour stands only there, where tabwriter does
// not measure it.
func (o *output) paint(r *result) string {
	switch {
	case !o.colour:
		return r.outcome()
	case r.Verdict == verdictOK:
		return "\x1b[32m" + r.outcome() + "\x1b[0m"
	default:
		return "\x1b[31m" + r.outcome() + "\x1b[0m"
	}
}

// printable returns s with everything escaped that could confuse a terminal:
// names come from packages.
func printable(s string) string {
	clean := utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
	if clean {
		return s
	}
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
}

// printableLines is [printable] for a text that may have several lines.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = printable(line)
	}
	return strings.Join(lines, "\n")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}
