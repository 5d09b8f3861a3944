package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/sign/auditlog"
)

func newLogCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "log",
		Short: "Check the audit log of a signing host",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newLogVerifyCommand())
	return cmd
}

type logVerifyOptions struct {
	head string
	json bool
}

func newLogVerifyCommand() *cobra.Command {
	var o logVerifyOptions
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Prove that no line of an audit log was changed, taken out or put in",
		Long: strings.TrimSpace(`
Reads the audit log FILE that imaseal sign-digests --log writes. Every line has the
hash of the line before it, so a change is found by the line that follows. What the
log alone cannot show is that lines are missing at its end, or that somebody who may
write the file has made all of it anew: note the head, which this command and
sign-digests print, at another place, and compare with --head. Later lines do not
disturb the comparison.`) + "\n" + exitStatusHelp,
		Example: examples(
			`imaseal log verify audit.log`),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("name one audit log; " + cmd.CommandPath() + " --help has examples")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runLogVerify(cmd.OutOrStdout(), cmd.ErrOrStderr(), &o, args[0])
		},
	}
	cmd.Flags().StringVar(&o.head, "head", "", "demand that a line has the `HASH` that was noted earlier")
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object")
	return cmd
}

// A logResult is what --json prints; docs/json.md describes it.
type logResult struct {
	Path    string `json:"path"`
	Entries int64  `json:"entries"`
	Head    string `json:"head"`
	NotedAt int64  `json:"noted_at,omitempty"`
	First   string `json:"first,omitempty"`
	Last    string `json:"last,omitempty"`
	Signed  int64  `json:"signed"`
	Refused int64  `json:"refused"`
	Failed  int64  `json:"failed"`
	Digests int64  `json:"digests"`
	Verdict string `json:"verdict"`
	Line    int64  `json:"line,omitempty"`
	Error   string `json:"error,omitempty"`
}

func runLogVerify(stdout, stderr io.Writer, o *logVerifyOptions, path string) error {
	if o.head != "" && !auditlog.IsHead(o.head) {
		return fmt.Errorf("--head %q: a head has 64 lower-case hexadecimal digits", o.head)
	}
	f, err := openRegular(path)
	if err != nil {
		return err
	}
	defer f.Close()
	s, err := auditlog.VerifyFile(f, o.head)
	r := logResult{
		Path: path, Entries: s.Entries, Head: s.Head, NotedAt: s.NotedAt, First: s.First, Last: s.Last,
		Signed: s.Signed, Refused: s.Refused, Failed: s.Failed, Digests: s.Digests, Verdict: verdictOK,
	}
	var broken *auditlog.BrokenError
	switch {
	case err == nil:
	case errors.As(err, &broken):
		r.Verdict, r.Line, r.Error = verdictFailed, broken.Line, err.Error()
	default:
		return err
	}
	if o.json {
		enc := json.NewEncoder(stdout)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(r); err != nil {
			return err
		}
	} else if err := r.print(stdout); err != nil {
		return err
	}
	if broken == nil {
		return nil
	}
	if !o.json {
		fmt.Fprintf(stderr, "imaseal: %s: %s\n", printable(path), printable(r.Error))
		if advice := s.Advice(path, err); advice != "" {
			fmt.Fprintf(stderr, "imaseal: %s\n", advice)
		}
	}
	return exitCode(exitFailed)
}

// print tells what holds.
func (r *logResult) print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: entries that hold: %d; signed %d (%d digests), refused %d, failed %d\n", printable(r.Path), r.Entries, r.Signed, r.Digests, r.Refused, r.Failed)
	if r.Entries > 0 {
		fmt.Fprintf(&b, "from %s to %s\nhead %s\n", r.First, r.Last, r.Head)
	}
	if r.NotedAt > 0 {
		fmt.Fprintf(&b, "the head that was noted is that of line %d\n", r.NotedAt)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
