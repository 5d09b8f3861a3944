package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/scripts/kernellab/plan"
)

// The quick laboratory: an enforcing kernel runs what is signed, refuses what is not,
// and gives every mutated label the verdict that imaseal gives it.
func TestKernelAndImasealAgree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: a root file system with labels can't be made")
	}
	if _, err := exec.LookPath("debootstrap"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("no debootstrap, and CI must not do without a kernel")
		}
		t.Skip("no debootstrap: scripts/test installs what is needed")
	}
	l, err := newLab()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	l.log = t.Output()
	k, err := l.umlKernel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := openResults(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer r.file.Close()
	for _, b := range []boot{{}, {alone: 9}} {
		if err := l.runOn(t.Context(), k, b, []string{"1", "2", "4", "5", "8", "9", "10"}, r); err != nil {
			t.Fatal(err)
		}
	}
	var table bytes.Buffer
	if wrong := r.print(&table); wrong != 0 {
		t.Errorf("%d checks were not as expected", wrong)
	}
	t.Log("\n" + table.String())
	// How much has to have been seen of each verdict, so that nothing was left out.
	least := map[int][2]int{1: {36, 0}, 2: {15, 5000}, 4: {5, 2}, 5: {0, 1}, 8: {1, 0}, 9: {24, 13}, 10: {25, 15}}
	for _, row := range r.rows() {
		if want := least[row.number]; row.allowed < want[0] || row.denied < want[1] {
			t.Errorf("case %d: %d allowed and %d denied, at least %d and %d were expected", row.number, row.allowed, row.denied, want[0], want[1])
		}
		delete(least, row.number)
	}
	if len(least) > 0 {
		t.Errorf("cases without a record: %v", least)
	}
}

// A check that does not come out as expected is shown and counted.
func TestResults(t *testing.T) {
	r, err := openResults(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer r.file.Close()
	r.add(plan.Record{Kernel: "6.1", Case: 1, ID: "good", Expect: plan.Allowed, Seen: plan.Allowed})
	r.add(plan.Record{Kernel: "6.1", Case: 1, ID: "bad", Expect: plan.Denied, Seen: plan.Allowed, Audit: []string{"a line"}})
	r.add(plan.Record{Kernel: "6.1", Case: 2, ID: labelID + "p256 cut", Expect: plan.Denied, Seen: plan.Denied})
	r.add(plan.Record{Kernel: "6.1", Case: 8, ID: "measured", Expect: plan.Allowed, Seen: plan.Allowed, Told: "7 of 7"})
	r.add(plan.Record{Kernel: "6.1", Case: 1, ID: "broken", Expect: plan.Denied, Seen: "no such file"})
	var out bytes.Buffer
	if wrong := r.print(&out); wrong != 2 {
		t.Errorf("%d are wrong, not 2", wrong)
	}
	for _, want := range []string{"bad: expected denied, seen: allowed\n    a line\n", "broken: expected denied, seen: no such file"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "good") {
		t.Errorf("what is as expected is shown:\n%s", out.String())
	}
	file, err := r.writeMarkdown()
	if err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile(file)
	for _, want := range []string{
		"| 1 what is signed runs | 6.1 | 3 | 2 | 0 | 2 |\n",
		"\n\n- case 8, kernel 6.1: measured: 7 of 7\n- case 2, kernel 6.1: its verdict and imaseal's were compared for 1 labels\n",
	} {
		if err != nil || !strings.Contains(string(table), want) {
			t.Errorf("%q is not in the table: %s, %v", want, table, err)
		}
	}
	text, err := os.ReadFile(r.file.Name())
	if err != nil || strings.Count(string(text), "\n") != 5 {
		t.Errorf("the file of records: %v\n%s", err, text)
	}
}

// The console of an emulated machine begins with control characters, has lines of
// the kernel among the records, and ends lines with a carriage return.
func TestReadRecords(t *testing.T) {
	console := "\x1b[2Jbooting\r\n\x1b[0m.LAB: {\"id\":\"one\"}\r\n[ 1.0] a line\nLAB: {broken\nLAB: {\"id\":\"two\"}"
	var ids []string
	n, rest := readRecords(strings.NewReader(console), func(r plan.Record) { ids = append(ids, r.ID) })
	if n != 2 || !slices.Equal(ids, []string{"one", "two"}) {
		t.Errorf("%d records: %q", n, ids)
	}
	for _, want := range []string{"booting", "a line", "{broken"} {
		if !strings.Contains(rest, want) {
			t.Errorf("%q is not in the rest %q", want, rest)
		}
	}
}

// What fails leaves nothing that is taken for complete.
func TestMade(t *testing.T) {
	l := &lab{cache: t.TempDir(), log: io.Discard}
	fail := func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "half"), nil, 0o644); err != nil {
			return err
		}
		return fmt.Errorf("no space")
	}
	if _, err := l.made("thing", fail); err == nil || !strings.Contains(err.Error(), "making thing: no space") {
		t.Errorf("the error is %v", err)
	}
	// A process that was killed leaves its half.
	if err := os.MkdirAll(filepath.Join(l.cache, "thing.half", "old"), 0o755); err != nil {
		t.Fatal(err)
	}
	calls := 0
	fill := func(dir string) error {
		calls++
		return os.WriteFile(filepath.Join(dir, "whole"), nil, 0o644)
	}
	for range 2 {
		dir, err := l.made("thing", fill)
		if err != nil {
			t.Fatal(err)
		}
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(names) != 1 || filepath.Base(names[0]) != "whole" {
			t.Errorf("it holds %q, %v", names, err)
		}
	}
	if calls != 1 {
		t.Errorf("it was made %d times", calls)
	}
}

// cpio reads the initramfs that we write.
func TestInitramfs(t *testing.T) {
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("no cpio")
	}
	file := filepath.Join(t.TempDir(), "initramfs")
	if err := writeInitramfs(file, map[string][]byte{"/init": []byte("program"), "/lab/deep/file": []byte("1")}); err != nil {
		t.Fatal(err)
	}
	archive, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	dir := t.TempDir()
	cmd := exec.Command("cpio", "-idm", "--quiet")
	cmd.Dir, cmd.Stdin = dir, archive
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	for name, want := range map[string]string{"init": "program", "lab/deep/file": "1"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v", name, got, err)
		}
	}
}
