package rpmdb

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/imaseal/imaseal/sign/installed"
)

// maxPaths is how many files a list may have: more than any transaction touches.
const maxPaths = 1 << 23

// ReadPaths reads a list of files as rpm gives it to a file trigger: an absolute
// path a line. Of a name that holds a newline there are only pieces, so that the list
// tells what packages were touched, and is no list of names to act on.
func ReadPaths(r io.Reader) (map[string]bool, error) {
	paths := map[string]bool{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxString)
	for lines.Scan() {
		path, ok := strings.CutPrefix(lines.Text(), "/")
		if !ok || path == "" {
			continue
		}
		if len(paths) == maxPaths {
			return nil, fmt.Errorf("more than %d files", maxPaths)
		}
		paths[path] = true
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("line %d: a path is %w", len(paths)+1, errTooLong)
	} else if err != nil {
		return nil, err
	}
	return paths, nil
}

// Owning returns the database as if only those packages were installed that have a
// file among paths, relative to the root. It reads the whole database once, which
// takes rpm a tenth of a second for 60,000 files; rpm --query --file takes a
// millisecond for each.
func (db *DB) Owning(paths map[string]bool) installed.Database { return &owning{db, paths} }

type owning struct {
	*DB
	paths map[string]bool
}

// Packages yields those packages when there are no names. Whoever asks by name is
// told of all.
func (o *owning) Packages(ctx context.Context, names []string) iter.Seq2[*installed.Package, error] {
	if len(names) > 0 {
		return o.DB.Packages(ctx, names)
	}
	return func(yield func(*installed.Package, error) bool) {
		for p, err := range o.DB.Packages(ctx, nil) {
			if err == nil && !o.owns(p) {
				continue
			}
			if !yield(p, err) {
				return
			}
		}
	}
}

func (o *owning) owns(p *installed.Package) bool {
	for i := range p.Files {
		if o.paths[p.Files[i].Path] {
			return true
		}
	}
	return false
}
