package installed

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/imaseal/imaseal/sign/xattr"
)

// A System is an installed system: the files below a root, and the database of the
// packages that they come from. Start with [System.Check], [System.Apply] or
// [System.Clear].
type System struct {
	Root     *xattr.Root
	Database Database
	// Jobs is how many files are worked on at once; 0 stands for 1.
	Jobs int
	// Expect, if not nil, is told how many files there are to be worked on, before
	// Progress, if not nil, is told how many more files and bytes were read.
	Expect   func(files int)
	Progress func(files int, bytes int64)
}

// A Result is what was found or done.
type Result struct {
	// Reports are in the order of the database, one for each package; the last may
	// be without a package, for files that belong to none.
	Reports []*Report
	// Errors say what could not be read: packages that are not installed, a database
	// that is damaged.
	Errors []error
}

// A Report is about one package.
type Report struct {
	Package *Package // nil: files that belong to no package
	// Files is how many of the package's files are there and have to carry a label;
	// Labelled how many of them do, and rightly; Changed how many labels were set or
	// removed.
	Files, Labelled, Changed int
	Findings                 []Finding
}

func (r *Report) find(path string, kind Kind, detail string) {
	f := Finding{Path: path, Kind: kind, Detail: detail}
	if r.Package != nil {
		f.Package = r.Package.ID()
	}
	r.Findings = append(r.Findings, f)
}

// ID returns the name by which the package can be told from all others that are
// installed.
func (p *Package) ID() string {
	if p.Arch == "" {
		return p.Name
	}
	return p.Name + ":" + p.Arch
}

// A packageKey tells packages apart. There may be several versions of a kernel.
type packageKey struct{ name, version, arch string }

func (p *Package) key() packageKey { return packageKey{p.Name, p.Version, p.Arch} }

// read collects the packages called names, all when there are none. Packages that
// could not be read are not among them.
func (s *System) read(ctx context.Context, names []string) (packages []*Package, errs []error, err error) {
	for p, err := range s.Database.Packages(ctx, names) {
		switch {
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case err != nil:
			errs = append(errs, err)
		default:
			packages = append(packages, p)
		}
	}
	return packages, errs, ctx.Err()
}

// choose is read, and returns besides the packages that were not chosen and may share
// files with those that were; where all were chosen there are none.
func (s *System) choose(ctx context.Context, names []string) (selected, others []*Package, errs []error, err error) {
	if selected, errs, err = s.read(ctx, names); err != nil || len(names) == 0 {
		return selected, nil, errs, err
	}
	others, err = s.others(ctx, selected)
	return selected, others, errs, err
}

// others returns the installed packages that may share files with a selected one and
// are not selected: those of its name, for other architectures, any other RPM, and any
// package at all where one may have taken a file over.
func (s *System) others(ctx context.Context, selected []*Package) ([]*Package, error) {
	var names []string
	known := map[packageKey]bool{}
	every := false
	for _, p := range selected {
		names = append(names, p.Name)
		known[p.key()] = true
		every = every || p.Format == "rpm" || slices.ContainsFunc(p.Files, func(f File) bool { return f.Unlisted })
	}
	if len(names) == 0 {
		return nil, nil
	}
	if every {
		names = nil
	}
	all, _, err := s.read(ctx, names)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(p *Package) bool { return known[p.key()] }), nil
}

// A task is one file of a package to be worked on, and what came of it. Workers
// write to their own tasks only.
type task struct {
	report *Report
	file   *File
	// recordedOnly says that no key is trusted to judge the file by, only the digest
	// that the database records.
	recordedOnly bool

	counted, labelled, changed bool
	unknown                    string // the key id of a signature whose key is not trusted
	findings                   []Finding
}

func (t *task) find(kind Kind, detail string) {
	t.findings = append(t.findings, Finding{Package: t.report.Package.ID(), Path: t.file.Shown(), Kind: kind, Detail: detail})
}

// run works on the tasks, several at once, and adds what came of them to their
// reports, in the order of the tasks.
func (s *System) run(ctx context.Context, tasks []task, work func(*worker, *task)) error {
	if s.Expect != nil {
		s.Expect(len(tasks))
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	for range max(1, s.Jobs) {
		workers.Go(func() {
			w := newWorker(ctx, s.Progress)
			for {
				i := int(next.Add(1)) - 1
				if i >= len(tasks) || ctx.Err() != nil {
					return
				}
				work(w, &tasks[i])
				w.progress(1, 0)
			}
		})
	}
	workers.Wait()
	for i := range tasks {
		tasks[i].add()
	}
	return ctx.Err()
}

func (t *task) add() {
	r := t.report
	for _, c := range []struct {
		is bool
		to *int
	}{{t.counted, &r.Files}, {t.labelled, &r.Labelled}, {t.changed, &r.Changed}} {
		if c.is {
			*c.to++
		}
	}
	r.Findings = append(r.Findings, t.findings...)
}

var errChanging = errors.New("it was written to while it was read")
