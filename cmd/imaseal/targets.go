package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
)

// A target is one package file to work on.
type target struct {
	path string // as the user will know it
	dest string // where the finished package goes; equal to path in place
	// within says that the user named a folder that holds the package, or a
	// .changes that lists it, and not the package.
	within bool
	// changes is the .changes file that lists the package, if any.
	changes *changesTarget
}

// targetFlags are the flags of every verb that works on packages.
type targetFlags struct {
	jobs   int
	output string
}

func (f *targetFlags) addJobs(cmd *cobra.Command) {
	cmd.Flags().IntVarP(&f.jobs, "jobs", "j", runtime.NumCPU(), "`number` of packages, and of signatures of a package, worked on at once")
}

func (f *targetFlags) addOutput(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.output, "output", "", "write the finished packages to folder `DIR` instead of in place")
}

// isPackageName tells by the name what a folder is searched for.
func isPackageName(name string) bool {
	switch filepath.Ext(name) {
	case ".deb", ".udeb", ".ddeb", ".rpm":
		return true
	}
	return false
}

func isSourceName(name string) bool {
	return strings.HasSuffix(name, ".src.rpm") || strings.HasSuffix(name, ".nosrc.rpm")
}

// A worklist is what the arguments of a verb come to.
type worklist struct {
	targets []target
	changes []*changesTarget
}

// expand turns the arguments into targets: packages, .changes files, and folders
// with all that is beneath them. A package that a .changes lists belongs to it.
// Nothing is named twice.
func (f *targetFlags) expand(out *output, args []string) (*worklist, error) {
	e := &expansion{flags: f, out: out, seen: map[string]bool{}, dests: map[string]string{}}
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, err
		}
		if info.IsDir() {
			if err := e.folder(arg); err != nil {
				return nil, err
			}
			continue
		}
		e.file(arg, filepath.Base(arg), false)
	}
	// The .changes come first, so that what they list is worked on through them.
	for _, c := range e.found {
		if c.changes {
			if err := e.addChanges(c); err != nil {
				return nil, err
			}
		}
	}
	for _, c := range e.found {
		if !c.changes {
			if err := e.add(c.path, c.rel, c.within); err != nil {
				return nil, err
			}
		}
	}
	return &e.list, nil
}

type expansion struct {
	flags *targetFlags
	out   *output
	found []candidate
	list  worklist
	seen  map[string]bool   // resolved paths
	dests map[string]string // destination to source
}

type candidate struct {
	path, rel       string
	changes, within bool
}

// folder finds what is beneath dir. Symbolic links to files are followed, those
// to folders are not.
func (e *expansion) folder(dir string) error {
	before := len(e.found)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() || !isPackageName(path) && filepath.Ext(path) != ".changes" {
			return nil
		}
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			return err
		}
		if isSourceName(path) {
			e.out.note("%s: skipped, a source package installs nothing", path)
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		e.file(path, rel, true)
		return nil
	})
	if err == nil && len(e.found) == before {
		return fmt.Errorf("%s: no .deb, .udeb, .ddeb, .rpm or .changes file is in this folder", dir)
	}
	return err
}

func (e *expansion) file(path, rel string, within bool) {
	e.found = append(e.found, candidate{path: path, rel: rel, changes: filepath.Ext(path) == ".changes", within: within})
}

// add puts one package on the list.
func (e *expansion) add(path, rel string, within bool) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	if real, err = filepath.Abs(real); err != nil {
		return err
	}
	if e.seen[real] {
		return nil
	}
	e.seen[real] = true
	dest, err := e.dest(path, rel)
	if err != nil {
		return err
	}
	e.list.targets = append(e.list.targets, target{path: path, dest: dest, within: within})
	return nil
}

// dest returns where the finished copy of path goes.
func (e *expansion) dest(path, rel string) (string, error) {
	if e.flags.output == "" {
		return path, nil
	}
	dest := filepath.Join(e.flags.output, rel)
	if other, ok := e.dests[dest]; ok {
		return "", fmt.Errorf("%s and %s would both be written to %s", other, path, dest)
	}
	e.dests[dest] = path
	return dest, nil
}

// each runs work on every target, several at once, and returns the results in
// the order of the targets. perPackage is how many jobs are left for one package.
func (f *targetFlags) each(ctx context.Context, out *output, targets []target, work func(ctx context.Context, t target, jobs int, p *packageProgress) *result) []*result {
	jobs := max(f.jobs, 1)
	side := min(jobs, max(len(targets), 1))
	perPackage := max(1, jobs/side)
	results := make([]*result, len(targets))
	progress := startProgress(out, targets)
	next := make(chan int)
	var workers sync.WaitGroup
	for range side {
		workers.Go(func() {
			for i := range next {
				p := progress.start(targets[i])
				results[i] = work(ctx, targets[i], perPackage, p)
				p.finish(results[i])
			}
		})
	}
	for i := range targets {
		if ctx.Err() != nil {
			results[i] = newResult(targets[i].path).fail(errNotReached)
			continue
		}
		select {
		case next <- i:
		case <-ctx.Done():
			results[i] = newResult(targets[i].path).fail(errNotReached)
		}
	}
	close(next)
	workers.Wait()
	progress.close()
	return slices.DeleteFunc(results, func(r *result) bool { return r == nil })
}

var errNotReached = errors.New("not reached before the interruption: untouched")

// makeFolders makes the folders below --output that the finished packages go to.
func (l *worklist) makeFolders() error {
	dests := make([]string, 0, len(l.targets)+len(l.changes))
	for _, t := range l.targets {
		dests = append(dests, t.dest)
	}
	for _, c := range l.changes {
		dests = append(dests, c.dest)
	}
	for _, dest := range dests {
		if err := os.MkdirAll(filepath.Dir(dest), 0o777); err != nil {
			return err
		}
	}
	return nil
}
