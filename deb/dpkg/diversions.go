package dpkg

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/imaseal/imaseal/deb/dpkgtar"
)

// diversionsFile is the list of diversions, relative to dpkg's admindir.
const diversionsFile = "diversions"

// Bounds in bytes of the lists that dpkg keeps. A line holds one path and little more;
// the longest list of Debian's packages has some 10 MiB.
const (
	maxListLine = dpkgtar.MaxPath + 256
	maxListSize = 64 << 20
)

// Diversions are the files that dpkg-divert moved away, lib/dpkg/db-fsys-divert.c.
type Diversions struct {
	by map[string]diversion // by the name that is diverted
}

type diversion struct{ to, pkg string }

// readDiversions reads dpkg's file of diversions: for each three lines, the name, the
// name that takes its place, and the package that diverts it, or ":" of a local one.
func readDiversions(r io.Reader) (*Diversions, error) {
	d := &Diversions{by: map[string]diversion{}}
	taken := map[string]bool{}
	var entry [3]string
	n := 0
	for line, err := range lines(r) {
		if err != nil {
			return nil, fmt.Errorf("diversions: %w", err)
		}
		if line == "" {
			return nil, fmt.Errorf("diversions: line %d is empty", n+1)
		}
		entry[n%3] = line
		if n++; n%3 != 0 {
			continue
		}
		from, to := clean(entry[0]), clean(entry[1])
		if from == to || taken[from] || taken[to] {
			return nil, fmt.Errorf("diversions: line %d: %q or %q is part of two diversions", n-2, entry[0], entry[1])
		}
		taken[from], taken[to] = true, true
		d.by[from] = diversion{to, entry[2]}
	}
	if n%3 != 0 {
		return nil, fmt.Errorf("diversions: the last entry has %d lines instead of 3", n%3)
	}
	return d, nil
}

// Name returns where dpkg puts the file path of package pkg (its name without the
// architecture). Paths are relative to the root, without a leading slash.
func (d *Diversions) Name(path, pkg string) string {
	if v, ok := d.by[path]; ok && v.pkg != pkg {
		return v.to
	}
	return path
}

// clean brings a name of dpkg's lists into the form of the paths of a package.
func clean(name string) string {
	for strings.HasPrefix(name, "/") || strings.HasPrefix(name, "./") {
		name = strings.TrimPrefix(strings.TrimPrefix(name, "."), "/")
	}
	return name
}

// lines yields the lines of a list of dpkg, without their newlines. After an error it
// ends.
func lines(r io.Reader) func(yield func(string, error) bool) {
	return func(yield func(string, error) bool) {
		limited := &io.LimitedReader{R: r, N: maxListSize + 1}
		b := bufio.NewReaderSize(limited, maxListLine+1)
		for n := 1; ; n++ {
			line, err := b.ReadSlice('\n')
			switch {
			case limited.N <= 0:
				err = fmt.Errorf("more than %d bytes", maxListSize)
			case err == io.EOF && len(line) == 0:
				return
			case err == io.EOF:
				err = fmt.Errorf("line %d does not end in a newline", n)
			case err == bufio.ErrBufferFull || len(line) > maxListLine:
				err = fmt.Errorf("line %d has more than %d bytes", n, maxListLine)
			}
			if err != nil {
				yield("", err)
				return
			}
			if !yield(string(line[:len(line)-1]), nil) {
				return
			}
		}
	}
}
