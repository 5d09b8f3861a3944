package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign/installed"
	"github.com/imaseal/imaseal/sign/xattr"
)

// resultOf makes the result of a system of n signed packages; those of bad have a
// finding of that kind.
func resultOf(t *testing.T, n int, bad map[int]installed.Kind) *systemResult {
	t.Helper()
	root, err := xattr.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	r := &installed.Result{}
	for i := range n {
		p := &installed.Package{Format: "deb", Name: fmt.Sprintf("p%02d", i), Version: "1", Arch: "all", Signed: true}
		report := &installed.Report{Package: p, Files: 2, Labelled: 2}
		if kind, ok := bad[i]; ok {
			report.Findings = []installed.Finding{{Package: p.ID(), Path: "/usr/bin/x\x1b[2J", Kind: kind, Detail: "because"}}
		}
		r.Reports = append(r.Reports, report)
	}
	return newSystemResult("checked", &installed.System{Root: root}, r)
}

// TestSystemTable: a few packages are all shown, of many those that there is something
// to say of; with --verbose all.
func TestSystemTable(t *testing.T) {
	for name, c := range map[string]struct {
		n       int
		bad     map[int]installed.Kind
		verbose bool
		shown   int
		want    string
	}{
		"few":           {20, nil, false, 20, "20 signed packages           40     40        ok\n"},
		"many":          {21, nil, false, 0, "(21 more)                                     ok\n"},
		"many, verbose": {21, nil, true, 21, "21 signed packages           42     42        ok\n"},
		"one is bad":    {30, map[int]installed.Kind{7: installed.KindWrongName}, false, 1, "p07:all             1        2      2         1 critical\n"},
		"a notice":      {30, map[int]installed.Kind{7: installed.KindEdited}, false, 0, "30 signed packages           60     60        ok, 1 notice\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			r := resultOf(t, c.n, c.bad)
			if err := (&output{stdout: &b, verbose: c.verbose}).printSystemTable(r, ""); err != nil {
				t.Fatal(err)
			}
			if got := strings.Count(b.String(), ":all"); got != c.shown || !strings.Contains(b.String(), c.want) {
				t.Errorf("%d packages are shown, want %d and %q:\n%s", got, c.shown, c.want, &b)
			}
		})
	}
}

func TestSystemFindingsAreSortedAndPrintable(t *testing.T) {
	var stdout, stderr bytes.Buffer
	r := resultOf(t, 4, map[int]installed.Kind{0: installed.KindEdited, 1: installed.KindUnlabelled, 2: installed.KindError, 3: installed.KindWrongName})
	err := (&output{stdout: &stdout, stderr: &stderr}).printSystem(r, "")
	if code, _ := codeOf(err); code != exitError {
		t.Errorf("exit code %d", code)
	}
	_, findings, _ := strings.Cut(stdout.String(), "signed packages")
	_, findings, _ = strings.Cut(findings, "\n")
	const want = `error: /usr/bin/x\x1b[2J (p02:all): because
critical: /usr/bin/x\x1b[2J (p03:all): wrong name: because
problem: /usr/bin/x\x1b[2J (p01:all): no label: because
notice: /usr/bin/x\x1b[2J (p00:all): conffile edited: because
`
	if findings != want {
		t.Errorf("findings\n%s\nwant\n%s", findings, want)
	}
}

// TestSystemExitCodes: an error beats a failure, and a notice is neither.
func TestSystemExitCodes(t *testing.T) {
	for kind, want := range map[installed.Kind]int{
		"": exitOK, installed.KindEdited: exitOK, installed.KindUnlabelled: exitFailed, installed.KindWrongName: exitFailed, installed.KindError: exitError,
	} {
		bad := map[int]installed.Kind{1: kind}
		if kind == "" {
			bad = nil
		}
		if code, _ := codeOf(resultOf(t, 2, bad).exit()); code != want {
			t.Errorf("%q: exit code %d, want %d", kind, code, want)
		}
	}
}
