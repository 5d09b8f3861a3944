package installed

import (
	"bytes"
	"context"
	"errors"
	"path"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/xattr"
)

// executablePlaces are the folders from which programs and libraries are run,
// hier(7). Those of a merged /usr are reached once.
var executablePlaces = []string{
	"bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt",
	"usr/bin", "usr/sbin", "usr/games", "usr/lib", "usr/lib32", "usr/lib64", "usr/libx32", "usr/libexec", "usr/local",
}

// unowned looks for executable files in executable places that belong to no
// package, and that no trusted key signed.
func (c *checking) unowned(ctx context.Context) (*Report, error) {
	report := &Report{Package: new(Package)}
	var tasks []task
	seen := map[string]bool{}
	for _, place := range executablePlaces {
		folder, err := c.system.Root.Resolve(place)
		if absent(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		err = c.walk(ctx, folder, seen, func(name string) {
			tasks = append(tasks, task{report: report, file: &File{Path: name}})
		})
		if err != nil && !absent(err) {
			return nil, err
		}
	}
	err := c.system.run(ctx, tasks, c.stranger)
	report.Package = nil
	return report, err
}

// walk hands out the regular files beneath folder that no package owns. Links are
// not followed.
func (c *checking) walk(ctx context.Context, folder string, seen map[string]bool, each func(string)) error {
	if seen[folder] {
		return nil
	}
	seen[folder] = true
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := c.system.Root.OpenFolder(folder)
	if err != nil {
		return err
	}
	entries, err := list(f)
	f.Close()
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(folder, e.Name())
		switch {
		case e.IsDir():
			if err := c.walk(ctx, name, seen, each); err != nil && !absent(err) {
				return err
			}
		case e.Type().IsRegular() && len(c.owners.byName[name]) == 0:
			each(name)
		}
	}
	return nil
}

// stranger judges a file that belongs to no package.
func (c *checking) stranger(w *worker, t *task) {
	f, err := c.system.Root.Open(t.file.Path)
	switch {
	case absent(err), errors.Is(err, xattr.ErrNotRegular):
		return
	case err != nil:
		t.find(KindError, reason(err, c.system.Root, t.file.Path))
		return
	}
	defer f.Close()
	label, err := f.Get(sign.XattrName)
	if err != nil && !errors.Is(err, xattr.ErrUnsupported) {
		t.find(KindError, reason(err, c.system.Root, t.file.Path))
		return
	}
	if !isSignature(label) {
		if executable(f) || beginsLikeProgram(f) {
			t.counted = true
			t.find(KindUnowned, "no package owns it, and it carries no signature")
		}
		return
	}
	t.counted = true
	l, err := c.look(w, t.file, f, label)
	if err != nil {
		t.find(KindError, reason(err, c.system.Root, t.file.Path))
		return
	}
	switch o, ok := c.index.find(label); {
	case ok && l.labelBy == nil:
		t.find(KindWrongName, isFile(l, o))
	case l.labelBy == nil:
		t.labelled = true
		t.find(KindLocal, "signed by key "+keyOf(label)+"; no package owns it")
	default:
		t.find(KindUnowned, "no package owns it, and its signature does not hold: "+l.labelBy.Error())
	}
}

// beginsLikeProgram reports whether f is an ELF file or a script.
func beginsLikeProgram(f *xattr.File) bool {
	head, err := headOf(f)
	if err != nil {
		return true // the kernel refuses to let it be read: worth telling
	}
	return bytes.HasPrefix(head, []byte("#!")) || bytes.HasPrefix(head, []byte("\x7fELF"))
}
