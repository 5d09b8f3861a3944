package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/imaseal/imaseal/scripts/kernellab/plan"
)

// A row sums up the records of one case on one kernel.
type row struct {
	kernel                  string
	number                  int
	checks, allowed, denied int
	wrong                   int
}

// A results file holds all records of a run, a line of JSON each.
type results struct {
	records []plan.Record
	file    *os.File
}

// openResults begins a file of records in dir, beside those of older runs.
func openResults(dir string) (*results, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(dir, time.Now().UTC().Format("20060102T150405Z")+".jsonl"))
	return &results{file: f}, err
}

func (r *results) add(rec plan.Record) {
	r.records = append(r.records, rec)
	// A disk that is full must not hide a verdict; Close tells.
	json.NewEncoder(r.file).Encode(rec)
}

// rows sums up, in the order of the cases.
func (r *results) rows() []row {
	var rows []row
	for _, rec := range r.records {
		i := slices.IndexFunc(rows, func(w row) bool { return w.kernel == rec.Kernel && w.number == rec.Case })
		if i < 0 {
			rows = append(rows, row{kernel: rec.Kernel, number: rec.Case})
			i = len(rows) - 1
		}
		w := &rows[i]
		w.checks++
		switch {
		case rec.Seen == plan.Allowed:
			w.allowed++
		case rec.Seen == plan.Denied:
			w.denied++
		}
		if !rec.OK() {
			w.wrong++
		}
	}
	slices.SortFunc(rows, func(a, b row) int {
		return strings.Compare(fmt.Sprintf("%02d %s", a.number, a.kernel), fmt.Sprintf("%02d %s", b.number, b.kernel))
	})
	return rows
}

// print shows the table, and before it each record that is not as expected. It
// returns how many those are.
func (r *results) print(w io.Writer) (wrong int) {
	for _, rec := range r.records {
		if rec.OK() {
			continue
		}
		wrong++
		fmt.Fprintf(w, "case %d, kernel %s: %s: expected %s, seen: %s\n", rec.Case, rec.Kernel, rec.ID, rec.Expect, rec.Seen)
		for _, line := range append(rec.Audit, strings.Split(strings.TrimSpace(rec.Output), "\n")...) {
			if line != "" {
				fmt.Fprintf(w, "    %s\n", line)
			}
		}
	}
	table := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(table, "case\tkernel\tchecks\tallowed\tdenied\tnot as expected\n")
	for _, row := range r.rows() {
		fmt.Fprintf(table, "%d %s\t%s\t%d\t%d\t%d\t%d\n", row.number, caseTitle(row.number), row.kernel, row.checks, row.allowed, row.denied, row.wrong)
	}
	table.Flush()
	for _, line := range r.told() {
		fmt.Fprintln(w, line)
	}
	return wrong
}

// told returns what the records tell in words, and how many verdicts on labels were
// compared.
func (r *results) told() (lines []string) {
	labels := map[string]int{}
	var kernels []string
	for _, rec := range r.records {
		if rec.Told != "" {
			lines = append(lines, fmt.Sprintf("case %d, kernel %s: %s: %s", rec.Case, rec.Kernel, rec.ID, rec.Told))
		}
		if strings.HasPrefix(rec.ID, labelID) {
			if labels[rec.Kernel]++; labels[rec.Kernel] == 1 {
				kernels = append(kernels, rec.Kernel)
			}
		}
	}
	for _, k := range kernels {
		lines = append(lines, fmt.Sprintf("case 2, kernel %s: its verdict and imaseal's were compared for %d labels", k, labels[k]))
	}
	return lines
}

// writeMarkdown writes the table as docs/verification.md has it, beside the records.
func (r *results) writeMarkdown() (file string, err error) {
	var b strings.Builder
	fmt.Fprintf(&b, "| case | kernel | checks | allowed | denied | not as expected |\n|---|---|---|---|---|---|\n")
	for _, row := range r.rows() {
		fmt.Fprintf(&b, "| %d %s | %s | %d | %d | %d | %d |\n", row.number, caseTitle(row.number), row.kernel, row.checks, row.allowed, row.denied, row.wrong)
	}
	b.WriteString("\n")
	for _, line := range r.told() {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	file = strings.TrimSuffix(r.file.Name(), ".jsonl") + ".md"
	return file, os.WriteFile(file, []byte(b.String()), 0o644)
}
