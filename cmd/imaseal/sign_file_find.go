package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/xattr"
)

// A foundFile is a file that sign-file was told of, or found.
type foundFile struct {
	name  string // for a person
	root  *xattr.Root
	path  string // below root
	named bool   // it was named itself, and not found
	err   error
}

// foundFiles are what the arguments of sign-file come to. The names beneath a folder
// are looked up below that folder, so that nobody who may write there can lead out of
// it.
type foundFiles struct {
	list  []foundFile
	roots map[string]*xattr.Root
	seen  map[string]bool
}

// findFiles turns the arguments into files. What can't be found becomes a file with an
// error, so that all others are tried.
func findFiles(ctx context.Context, args []string, recursive bool) *foundFiles {
	f := &foundFiles{roots: map[string]*xattr.Root{}, seen: map[string]bool{}}
	for _, arg := range args {
		if err := f.add(ctx, arg, recursive); err != nil {
			f.list = append(f.list, foundFile{name: arg, err: err})
		}
	}
	return f
}

func (f *foundFiles) close() {
	for _, r := range f.roots {
		r.Close()
	}
}

func (f *foundFiles) add(ctx context.Context, arg string, recursive bool) error {
	name, err := filepath.Abs(arg)
	if err != nil {
		return err
	}
	info, err := os.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && strings.ContainsAny(arg, "*?["):
		return f.glob(ctx, name)
	case err != nil:
		return err
	case info.IsDir() && !recursive:
		return fmt.Errorf("%s: it is a folder; --recursive signs the files beneath it", arg)
	case info.IsDir():
		return f.folder(ctx, name, sign.Selection{})
	}
	return f.put(filepath.Dir(name), filepath.Base(name), true)
}

// glob finds the files that match the glob name. Its folders up to the first with a
// star, a question mark or a bracket are taken as they are.
func (f *foundFiles) glob(ctx context.Context, name string) error {
	only, err := sign.NewSelection([]string{name}, nil)
	if err != nil {
		return err
	}
	plain, _, _ := strings.Cut(name, "*")
	plain, _, _ = strings.Cut(plain, "?")
	plain, _, _ = strings.Cut(plain, "[")
	before := len(f.list)
	if err := f.folder(ctx, filepath.Dir(plain+"x"), only); err != nil {
		return err
	}
	if len(f.list) == before {
		return fmt.Errorf("%s matches no file", name)
	}
	return nil
}

// folder finds the files beneath dir that are of the selection. Links are not
// followed.
func (f *foundFiles) folder(ctx context.Context, dir string, only sign.Selection) error {
	root, err := f.root(dir)
	if err != nil {
		return err
	}
	return f.walk(ctx, root, ".", only)
}

func (f *foundFiles) walk(ctx context.Context, root *xattr.Root, folder string, only sign.Selection) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	open, err := root.OpenFolder(folder)
	if err != nil {
		return err
	}
	entries, err := open.ReadDir(-1)
	open.Close()
	if err != nil {
		return err
	}
	sortByName(entries)
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		switch {
		case e.IsDir():
			if err := f.walk(ctx, root, path, only); err != nil {
				f.list = append(f.list, foundFile{name: root.Name(path), err: err})
			}
		case e.Type().IsRegular() && only.Match(&sign.File{Path: root.Name(path)[1:]}, nil):
			if err := f.put(root.Dir(), path, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// put adds a file, once.
func (f *foundFiles) put(dir, path string, named bool) error {
	root, err := f.root(dir)
	if err != nil {
		return err
	}
	name := root.Name(path)
	if !f.seen[name] {
		f.seen[name] = true
		f.list = append(f.list, foundFile{name: name, root: root, path: path, named: named})
	}
	return nil
}

func (f *foundFiles) root(dir string) (*xattr.Root, error) {
	if r := f.roots[dir]; r != nil {
		return r, nil
	}
	r, err := xattr.OpenRoot(dir)
	if err == nil {
		f.roots[dir] = r
	}
	return r, err
}

func sortByName(entries []fs.DirEntry) {
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
}
