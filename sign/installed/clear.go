package installed

import (
	"context"
	"errors"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/xattr"
)

// ClearOptions say how labels are removed.
type ClearOptions struct {
	// DryRun says that everything is done but removing labels.
	DryRun bool
}

// Clear removes the labels of the installed packages called names, all when there
// are none: those that are just what the database carries for the file, and no
// others. A label that another installed package carries for the file too, which is
// not selected, stays.
func (s *System) Clear(ctx context.Context, names []string, o ClearOptions) (*Result, error) {
	selected, others, errs, err := s.choose(ctx, names)
	if err != nil {
		return nil, err
	}
	stay, all := s.ownersOf(others), s.ownersOf(selected, others)
	result := &Result{Errors: errs}
	var tasks []task
	for _, p := range selected {
		report := &Report{Package: p}
		result.Reports = append(result.Reports, report)
		if p.Malformed != nil {
			report.find("", KindMalformed, p.Malformed.Error())
		}
		for i := range p.Files {
			if _, taken := all.taken(&p.Files[i]); p.Files[i].Value != nil && !taken {
				tasks = append(tasks, task{report: report, file: &p.Files[i]})
			}
		}
	}
	if len(tasks) > 0 && !o.DryRun {
		if err := s.Root.Probe(sign.XattrName, tasks[0].file.Value); err != nil {
			return nil, err
		}
	}
	return result, s.run(ctx, tasks, func(_ *worker, t *task) { s.clear(t, stay, o) })
}

// clear removes the label of one file.
func (s *System) clear(t *task, stay *owners, o ClearOptions) {
	f, err := s.Root.Open(t.file.Path)
	switch {
	case err == nil:
		defer f.Close()
	case absent(err), errors.Is(err, xattr.ErrNotRegular):
		return
	default:
		t.find(KindError, reason(err, s.Root, t.file.Path))
		return
	}
	t.counted = true
	label, err := f.Get(sign.XattrName)
	switch {
	case errors.Is(err, xattr.ErrUnsupported):
		return
	case err != nil:
		t.find(KindError, reason(err, s.Root, t.file.Path))
		return
	case label == nil:
		return
	case !among(label, [][]byte{t.file.Value}):
		if isSignature(label) {
			t.labelled = true
			t.find(KindOtherKey, "left alone: its signature, by key "+keyOf(label)+", is not the one of the package")
		}
		return
	case among(label, stay.values(t.file.Path)):
		t.labelled = true
		return
	}
	if !o.DryRun {
		if err := f.Remove(sign.XattrName); err != nil {
			t.find(KindError, reason(err, s.Root, t.file.Path))
			return
		}
	}
	t.changed = true
}
