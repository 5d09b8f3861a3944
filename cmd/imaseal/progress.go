package main

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progressDelay is how long work may take before anything is drawn.
const progressDelay = time.Second

// A progress tells on stderr how far the work is. On a terminal it draws bars, one
// for each package in work and one for all. Elsewhere, and with --verbose, it
// writes a line for each package as it is finished. With --quiet it is silent.
type progress struct {
	out      *output
	packages int
	bars     *mpb.Progress // nil: none are drawn
	all      *mpb.Bar      // nil: there is one package only

	finished, files, bytes atomic.Int64
}

func startProgress(out *output, packages int) *progress {
	p := &progress{out: out, packages: packages}
	if out.quiet || out.verbose || out.json || !out.terminal {
		return p
	}
	out.hold()
	start := make(chan any)
	time.AfterFunc(progressDelay, func() { close(start) })
	p.bars = mpb.New(mpb.WithOutput(out.stderr), mpb.WithWidth(40), mpb.WithRenderDelay(start))
	if packages > 1 {
		p.all = p.bars.AddBar(int64(packages),
			mpb.BarPriority(1<<30),
			mpb.PrependDecorators(decor.Name("total", decor.WCSyncSpaceR)),
			mpb.AppendDecorators(
				decor.CountersNoUnit("%d of %d packages, "),
				decor.Any(func(decor.Statistics) string { return amount(p.files.Load(), p.bytes.Load()) })))
	}
	return p
}

// close ends the drawing.
func (p *progress) close() {
	if p.bars == nil {
		return
	}
	if p.all != nil {
		p.all.Abort(true)
	}
	p.bars.Wait()
	p.out.release()
}

// A packageProgress is the part of one package in the progress.
type packageProgress struct {
	of           *progress
	path         string
	bar          *mpb.Bar
	files, bytes atomic.Int64
}

func (p *progress) start(path string) *packageProgress {
	return &packageProgress{of: p, path: path}
}

// expect says how many bytes are to be read; 0 when nobody knows.
func (p *packageProgress) expect(bytes int64) {
	if p.of.bars == nil {
		return
	}
	// A bar that begins with a total ends by itself when that is reached; what a
	// package says of its size is not exact.
	p.bar = p.of.bars.AddBar(0,
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(printable(filepath.Base(p.path)), decor.WCSyncSpaceR)),
		mpb.AppendDecorators(
			decor.Any(func(decor.Statistics) string { return plural(p.files.Load(), "file") + ", " }),
			decor.CountersKibiByte("% .1f of % .1f")))
	p.bar.SetTotal(bytes, false)
}

// add says that so many more files and bytes were read.
func (p *packageProgress) add(files int, bytes int64) {
	p.files.Add(int64(files))
	p.bytes.Add(bytes)
	p.of.files.Add(int64(files))
	p.of.bytes.Add(bytes)
	if p.bar != nil {
		p.bar.IncrInt64(bytes)
	}
}

// again says that the package is read once more, from its beginning.
func (p *packageProgress) again() {
	p.of.files.Add(-p.files.Swap(0))
	p.of.bytes.Add(-p.bytes.Swap(0))
	if p.bar != nil {
		p.bar.SetCurrent(0)
	}
}

// finish ends the package's part. r is nil when the package was skipped.
func (p *packageProgress) finish(r *result) {
	n := p.of.finished.Add(1)
	if p.bar != nil {
		p.bar.Abort(true)
	}
	if p.of.all != nil {
		p.of.all.Increment()
	}
	out := p.of.out
	// An error has a line of its own at the end.
	if r == nil || r.Verdict == verdictError || out.terminal && !out.verbose {
		return
	}
	count := ""
	if p.of.packages > 1 {
		count = fmt.Sprintf("%d of %d: ", n, p.of.packages)
	}
	out.note("%s%s: %s%s", count, printable(p.path), r.outcome(), prefixed(", ", amount(p.files.Load(), p.bytes.Load())))
}

// amount says how much was read, "" for nothing.
func amount(files, bytes int64) string {
	if files == 0 {
		return ""
	}
	size := fmt.Sprintf("% .1f", decor.SizeB1024(bytes))
	if bytes < 1<<10 {
		size = plural(bytes, "byte")
	}
	return plural(files, "file") + ", " + size
}

func plural(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
