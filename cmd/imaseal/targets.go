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
	// changes are the .changes files that list the package.
	changes []*changesTarget
	err     error // why it cannot be worked on
	place   int   // of the argument that it comes from
	// opened is what the file was when open opened it.
	opened fs.FileInfo
}

// targetFlags are the flags of every verb that works on packages.
type targetFlags struct {
	jobs   int
	output string
}

func (f *targetFlags) addJobs(cmd *cobra.Command) {
	cmd.Flags().IntVarP(&f.jobs, "jobs", "j", runtime.NumCPU(), "`N` packages, and N signatures of a package, are worked on at once (default all cores)")
	cmd.Flags().Lookup("jobs").DefValue = "0" // the help must not depend on the machine
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
	targets []*target
	changes []*changesTarget
}

// expand turns the arguments into targets: packages, .changes files, and folders
// with all that is beneath them. A package that a .changes lists belongs to it.
// Nothing is named twice. An argument that cannot be looked at becomes a target
// with an error, so that all others are tried.
func (f *targetFlags) expand(out *output, args []string) (*worklist, error) {
	if f.jobs < 1 {
		return nil, fmt.Errorf("--jobs %d: at least 1 is needed", f.jobs)
	}
	e := &expansion{flags: f, out: out, seen: map[string]*target{}, dests: map[string]string{}}
	for _, arg := range args {
		info, err := os.Stat(arg)
		switch {
		case err != nil:
			e.broken(arg, err)
		case info.IsDir():
			e.folder(arg)
		default:
			e.file(arg, filepath.Base(arg), false)
		}
	}
	// The .changes come first, so that what they list is worked on through them.
	for _, c := range slices.Clone(e.found) {
		if c.changes {
			if err := e.addChanges(c); err != nil {
				return nil, err
			}
		}
	}
	for _, c := range e.found {
		if !c.changes {
			if _, err := e.add(c); err != nil {
				return nil, err
			}
		}
	}
	slices.SortStableFunc(e.list.targets, func(a, b *target) int { return a.place - b.place })
	return &e.list, nil
}

type expansion struct {
	flags *targetFlags
	out   *output
	found []candidate
	list  worklist
	seen  map[string]*target // by resolved path
	dests map[string]string  // destination to source
	place int
}

// A candidate is a file that looks like one to work on. rel is its path below
// --output.
type candidate struct {
	path, rel       string
	changes, within bool
	place           int
}

// folder finds what is beneath dir. Symbolic links to files are followed, those
// to folders are not.
func (e *expansion) folder(dir string) {
	before := e.place
	// The function returns no error but SkipDir, and so does WalkDir.
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			e.broken(path, err)
			return fs.SkipDir
		case d.IsDir() || !isPackageName(path) && filepath.Ext(path) != ".changes":
			return nil
		}
		info, err := os.Stat(path)
		if err != nil {
			e.broken(path, err)
			return nil
		}
		if !info.Mode().IsRegular() {
			return nil
		}
		if isSourceName(path) {
			e.out.note("%s: skipped, a source package installs nothing", path)
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			e.broken(path, err)
			return nil
		}
		e.file(path, rel, true)
		return nil
	})
	if e.place == before {
		e.broken(dir, errors.New("no .deb, .udeb, .ddeb, .rpm or .changes file is in this folder"))
	}
}

func (e *expansion) file(path, rel string, within bool) {
	e.place++
	e.found = append(e.found, candidate{path, rel, filepath.Ext(path) == ".changes", within, e.place})
}

func (e *expansion) broken(path string, err error) {
	e.place++
	e.list.targets = append(e.list.targets, &target{path: path, dest: path, err: err, place: e.place})
}

// add puts one package on the list, unless it is there, and returns it.
func (e *expansion) add(c candidate) (*target, error) {
	real, err := filepath.EvalSymlinks(c.path)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return nil, err
	}
	if t, ok := e.seen[real]; ok {
		return t, nil
	}
	dest, err := e.dest(c.path, c.rel)
	if err != nil {
		return nil, err
	}
	t := &target{path: c.path, dest: dest, within: c.within, place: c.place}
	e.seen[real] = t
	e.list.targets = append(e.list.targets, t)
	return t, nil
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
func (f *targetFlags) each(ctx context.Context, out *output, targets []*target, work func(ctx context.Context, t *target, jobs int, p *packageProgress) *result) []*result {
	side := min(f.jobs, max(len(targets), 1))
	perPackage := max(1, f.jobs/side)
	results := make([]*result, len(targets))
	progress := startProgress(out, len(targets))
	next := make(chan int)
	var workers sync.WaitGroup
	for range side {
		workers.Go(func() {
			for i := range next {
				p := progress.start(targets[i].path)
				results[i] = work(ctx, targets[i], perPackage, p)
				p.finish(results[i])
			}
		})
	}
	for i := range targets {
		if err := targets[i].err; err != nil {
			results[i] = newResult(targets[i].path).fail(err)
			continue
		}
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
