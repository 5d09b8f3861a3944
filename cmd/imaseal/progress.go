package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progressDelay is how long work may take before anything is drawn.
const progressDelay = time.Second

// A progress draws bars on a terminal: one for each package in work and one for
// all. Where stderr is no terminal it draws nothing.
type progress struct {
	out   *output
	bars  *mpb.Progress
	total *mpb.Bar
	many  bool
}

func startProgress(out *output, targets []target) *progress {
	p := &progress{out: out, many: len(targets) > 1}
	if out.quiet || !out.terminal {
		return p
	}
	start := make(chan any)
	time.AfterFunc(progressDelay, func() { close(start) })
	p.bars = mpb.New(mpb.WithOutput(out.stderr), mpb.WithWidth(40), mpb.WithRenderDelay(start))
	if p.many {
		p.total = p.bars.AddBar(int64(len(targets)),
			mpb.BarPriority(1<<30),
			mpb.PrependDecorators(decor.Name("total", decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.CountersNoUnit("%d of %d packages")))
	}
	return p
}

// A packageProgress is the part of one package in the progress.
type packageProgress struct {
	of    *progress
	path  string
	bar   *mpb.Bar
	files int
}

func (p *progress) start(t target) *packageProgress {
	return &packageProgress{of: p, path: t.path}
}

// expect says how many bytes are to be read; 0 when nobody knows.
func (p *packageProgress) expect(bytes int64) {
	if p.of.bars == nil {
		return
	}
	p.bar = p.of.bars.AddBar(bytes,
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(printable(filepath.Base(p.path)), decor.WCSyncSpaceR)),
		mpb.AppendDecorators(
			decor.Any(func(decor.Statistics) string { return fmt.Sprintf("%d files, ", p.files) }),
			decor.CountersKibiByte("% .1f of % .1f")))
}

// add says that so many more files and bytes were read.
func (p *packageProgress) add(files int, bytes int64) {
	p.files += files
	if p.bar != nil {
		p.bar.IncrInt64(bytes)
	}
}

// finish ends the package's part, and tells of its result where no bar does.
func (p *packageProgress) finish(r *result) {
	if p.bar != nil {
		p.bar.Abort(true)
	}
	if p.of.total != nil {
		p.of.total.Increment()
	}
	if p.of.bars == nil && p.of.out.verbose {
		word := r.Action
		if r.Verdict != verdictOK {
			word = r.Verdict
		}
		p.of.out.note("%s: %s", printable(p.path), word)
	}
}

func (p *progress) close() {
	if p.bars == nil {
		return
	}
	if p.total != nil {
		p.total.Abort(true)
	}
	p.bars.Wait()
}
