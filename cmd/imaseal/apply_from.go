package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"github.com/imaseal/imaseal/deb/dpkg"
	"github.com/imaseal/imaseal/internal/atomicfile"
	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/installed"
	"github.com/imaseal/imaseal/sign/xattr"
)

// An adoption takes the signatures of signed packages for installed ones that are the
// same but unsigned.
type adoption struct {
	out      *output
	system   *installed.System
	database *dpkg.Database
	trusted  *sign.TrustedKeys
	replace  bool

	mu        sync.Mutex
	members   map[string][]dpkg.Member // to be written, by the ID of the package
	taken     map[string]taken         // what was taken, by the same
	names     []string                 // of the packages that are labelled afterwards
	elsewhere int                      // packages that are not installed in this version
	refused   []*installed.Report
	errs      []error
}

// taken is a package whose signatures were taken.
type taken struct {
	path      string
	statement []byte // that of one package can't be that of another, or by another key
}

// applyFrom is apply with signatures from packages.
func applyFrom(ctx context.Context, out *output, o *applyOptions, s *installed.System, options installed.ApplyOptions, only []string) (*installed.Result, error) {
	database, ok := s.Database.(*dpkg.Database)
	if !ok {
		return nil, errors.New("--from: rpm cannot add signatures to a package that is installed; install the signed one with rpm -U --replacepkgs")
	}
	a := &adoption{out: out, system: s, database: database, trusted: options.Keys, replace: o.replace, members: map[string][]dpkg.Member{}, taken: map[string]taken{}}
	if !o.dryRun {
		unlock, err := database.Lock()
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	if err := a.adoptAll(ctx, o, only); err != nil {
		return nil, err
	}
	result, err := a.apply(ctx, o, options)
	if err != nil {
		return nil, err
	}
	result.Reports = append(result.Reports, a.refused...)
	result.Errors = append(result.Errors, a.errs...)
	if a.elsewhere > 0 && len(only) == 0 {
		out.note("passed over, as not installed in this version: %s of --from", plural(int64(a.elsewhere), "package"))
	}
	return result, nil
}

// apply labels the files of the packages whose signatures were taken.
func (a *adoption) apply(ctx context.Context, o *applyOptions, options installed.ApplyOptions) (*installed.Result, error) {
	if len(a.names) == 0 {
		return &installed.Result{}, nil
	}
	defer systemProgress(a.out, a.system)()
	// Nothing is written before all of the package was found to be this build.
	try := options
	try.DryRun = true
	tried, err := a.system.Apply(ctx, a.names, try)
	if err != nil || o.dryRun {
		return tried, err
	}
	return a.finish(ctx, tried, options)
}

// adoptAll reads the packages that --from names.
func (a *adoption) adoptAll(ctx context.Context, o *applyOptions, only []string) error {
	wanted := map[string]bool{}
	for p, err := range a.database.Packages(ctx, only) {
		if err != nil {
			return err
		}
		wanted[p.ID()+" "+p.Version] = true
	}
	flags := targetFlags{jobs: o.system.jobs}
	list, err := flags.expand(a.out, o.from)
	if err != nil {
		return err
	}
	flags.each(ctx, a.out, list.targets, func(ctx context.Context, t *target, jobs int, p *packageProgress) *result {
		a.adopt(ctx, t, jobs, p, wanted)
		return nil
	})
	for _, t := range list.targets {
		if t.err != nil {
			a.errs = append(a.errs, fmt.Errorf("%s: %w", t.path, t.err))
		}
	}
	return ctx.Err()
}

// adopt verifies one package, and takes its signatures where it is installed.
func (a *adoption) adopt(ctx context.Context, t *target, jobs int, progress *packageProgress, wanted map[string]bool) {
	fail := func(err error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.errs = append(a.errs, fmt.Errorf("%s: %w", t.path, err))
	}
	f, pkg, err := t.open(openOptions{jobs: jobs})
	if err != nil {
		fail(err)
		return
	}
	if pkg == nil {
		return
	}
	defer f.Close()
	info := pkg.Info()
	p := &installed.Package{Format: info.Format, Name: info.Name, Version: info.Version, Arch: info.Arch}
	if info.Format != "deb" || !wanted[p.ID()+" "+p.Version] {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.elsewhere++
		return
	}
	progress.expect(info.InstalledSize)
	report, err := sign.Verify(ctx, pkg, a.trusted, sign.Options{Jobs: jobs, Progress: progress.add})
	if err != nil {
		fail(err)
		return
	}
	for _, finding := range report.Findings {
		if finding.Bad() {
			a.refuse(p, installed.KindStatement, fmt.Sprintf("%s does not verify: %s: %s%s", t.path, finding.Path, finding.Reason, prefixed(": ", finding.Detail)))
			return
		}
	}
	m, err := pkg.Manifest()
	if err != nil || m == nil {
		a.refuse(p, installed.KindStatement, t.path+" is not signed")
		return
	}
	if err := a.take(t.path, p.ID(), m); err != nil {
		a.refuse(p, installed.KindMismatch, t.path+": "+err.Error())
	}
}

// take takes the signatures of the package at path. Which of two that are signed
// differently is meant, nobody knows: those of the old key would undo a roll-over.
func (a *adoption) take(path, id string, m *sign.Manifest) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m.Statement == nil {
		return errors.New("it has no package statement")
	}
	if first, again := a.taken[id]; again {
		if !bytes.Equal(first.statement, m.Statement.Signature) {
			return fmt.Errorf("%s is the same package with other signatures: give --from only one of them", first.path)
		}
		return nil
	}
	members, err := a.database.Adopt(m, a.replace)
	switch {
	case err == nil:
		a.members[id] = members
	case !errors.Is(err, dpkg.ErrAdopted):
		return err
	}
	a.taken[id] = taken{path, m.Statement.Signature}
	a.names = append(a.names, id)
	return nil
}

// refuse reports a package whose signatures are not taken.
func (a *adoption) refuse(p *installed.Package, kind installed.Kind, detail string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refused = append(a.refused, &installed.Report{Package: p, Findings: []installed.Finding{{Package: p.ID(), Kind: kind, Detail: detail}}})
}

// finish writes the signatures of the packages that were found to be the same build,
// and labels their files.
func (a *adoption) finish(ctx context.Context, tried *installed.Result, options installed.ApplyOptions) (*installed.Result, error) {
	var names []string
	var left []*installed.Report
	for _, r := range tried.Reports {
		id := r.Package.ID()
		if !sameBuild(r) {
			r.Changed = 0
			left = append(left, r)
			continue
		}
		for _, m := range a.members[id] {
			if err := a.write(ctx, m); err != nil {
				return nil, err
			}
		}
		names = append(names, id)
	}
	result := &installed.Result{}
	if len(names) > 0 {
		var err error
		if result, err = a.system.Apply(ctx, names, options); err != nil {
			return nil, err
		}
	}
	result.Reports = append(result.Reports, left...)
	result.Errors = append(result.Errors, tried.Errors...)
	return result, nil
}

// sameBuild reports whether nothing speaks against the installed package being the one
// that was signed.
func sameBuild(r *installed.Report) bool {
	for _, f := range r.Findings {
		switch f.Kind {
		case installed.KindMismatch, installed.KindNotRegular, installed.KindMalformed, installed.KindStatement:
			return false
		}
	}
	return true
}

// write puts a member into the info database. A link in its place is no place for it.
func (a *adoption) write(ctx context.Context, m dpkg.Member) error {
	there, err := a.system.Root.Open(m.Folder + "/" + m.Name)
	switch {
	case err == nil:
		there.Close()
	case errors.Is(err, xattr.ErrNotRegular):
		return err
	}
	folder, err := a.system.Root.OpenFolder(m.Folder)
	if err != nil {
		return err
	}
	defer folder.Close()
	// By its descriptor the folder stays the one below the root.
	name := "/proc/self/fd/" + strconv.Itoa(int(folder.Fd())) + "/" + m.Name
	err = atomicfile.Write(ctx, name, func(f *os.File) error {
		_, err := f.Write(m.Content)
		return err
	}, atomicfile.Options{Mode: 0o644})
	if err != nil {
		return fmt.Errorf("%s: %w", a.system.Root.Name(m.Folder+"/"+m.Name), err)
	}
	return nil
}
