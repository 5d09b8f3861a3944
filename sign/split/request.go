package split

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/imaseal/imaseal/sign"
)

const requestFormat = "Format: imaseal-digests-request-1"

// endOf is the last line of a file.
func endOf(packages, digests int) string {
	return fmt.Sprintf("End: %d packages, %d digests", packages, digests)
}

// A Builder puts a request together. Its methods may be called concurrently.
type Builder struct {
	spool   *os.File
	mu      sync.Mutex
	size    int64
	stanzas []stanza
}

// A stanza is where in the spool one stands.
type stanza struct {
	head         *stanzaHead
	offset, size int64
}

// NewBuilder returns a Builder that keeps what it is given in spool, an empty file, and
// not in memory.
func NewBuilder(spool *os.File) *Builder { return &Builder{spool: spool} }

// Add adds a package. The same package, added again, is in the request once.
func (b *Builder) Add(info sign.Info, id Identity, d *sign.Digests) error {
	p, err := newHead(info, id, d)
	if err != nil {
		return err
	}
	text, err := p.append(nil)
	if err != nil {
		return err
	}
	var last *entry
	for n, list := range [][]sign.FileDigest{d.Files, d.Control} {
		for _, f := range list {
			e := &entry{Control: n == 1, Path: f.Path, Digest: f.Digest, Inode: f.Inode}
			if err := e.check(p, last); err != nil {
				return err
			}
			if e.Inode > maxInodes {
				return fmt.Errorf("more than %d files with hard links", maxInodes)
			}
			last = e
			text = e.appendDigest(text)
		}
	}
	// Whoever reads it must find what is known here.
	if err := checkStanza(text); err != nil {
		return fmt.Errorf("it cannot be written to a request: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := b.spool.WriteAt(text, b.size); err != nil {
		return err
	}
	b.stanzas = append(b.stanzas, stanza{p, b.size, int64(len(text))})
	b.size += int64(len(text))
	return nil
}

// checkStanza reads a stanza as the signing host does.
func checkStanza(text []byte) error {
	l := newLines(bytes.NewReader(text))
	first, err := l.next()
	if err != nil {
		return err
	}
	p, err := parseHead(l, first)
	if err != nil {
		return err
	}
	r := requestReader{l: l}
	return r.each(p, func(*entry) error { return nil })
}

// Write writes the request and returns what it has. There must be a package.
func (b *Builder) Write(w io.Writer) (packages, digests int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	slices.SortStableFunc(b.stanzas, func(x, y stanza) int { return x.head.compare(y.head) })
	b.stanzas = slices.CompactFunc(b.stanzas, func(x, y stanza) bool { return x.head.compare(y.head) == 0 })
	if len(b.stanzas) == 0 {
		return 0, 0, errors.New("there is no package to be signed")
	}
	if len(b.stanzas) > maxPackages {
		return 0, 0, fmt.Errorf("%d packages are more than the %d that a request takes", len(b.stanzas), maxPackages)
	}
	size := int64(0)
	for _, s := range b.stanzas {
		packages++
		digests += s.head.Files + s.head.Scripts
		size += s.size + 1
	}
	if digests > maxDigests || size+1024 > maxSize {
		return 0, 0, fmt.Errorf("%d digests in %d bytes are more than a request takes: make several", digests, size)
	}
	out := bufio.NewWriter(w)
	fmt.Fprintln(out, requestFormat)
	for _, s := range b.stanzas {
		out.WriteByte('\n')
		if _, err := io.Copy(out, io.NewSectionReader(b.spool, s.offset, s.size)); err != nil {
			return 0, 0, err
		}
	}
	fmt.Fprintf(out, "\n%s\n", endOf(packages, digests))
	return packages, digests, out.Flush()
}

// A requestReader reads a request from its beginning to its end.
type requestReader struct {
	l                 *lines
	last              *stanzaHead
	packages, digests int
}

// readFormat reads the first line of a request or a response.
func readFormat(l *lines, want, name string) error {
	line, err := l.next()
	if err != nil {
		return err
	}
	if line != want {
		// What it is, is not shown: a file named by mistake may hold a secret.
		return l.errorf("it is not %q: this is no %s", want, name)
	}
	return nil
}

func newRequestReader(r io.Reader) (*requestReader, error) {
	q := &requestReader{l: newLines(r)}
	return q, readFormat(q.l, requestFormat, "request for signatures (imaseal digests makes them)")
}

// next returns the next package, nil after the last. The entries of the one before
// must have been read.
func (q *requestReader) next() (*stanzaHead, error) {
	p, err := nextHead(q.l, q.last, q.packages, q.digests)
	if err != nil || p == nil {
		return nil, err
	}
	q.last = p
	q.packages++
	q.digests += p.Files + p.Scripts
	return p, nil
}

// nextHead reads the next head of a request or a response, or its end: then there is no
// package. last is the head before, packages and digests what was read so far.
func nextHead(l *lines, last *stanzaHead, packages, digests int) (*stanzaHead, error) {
	blank, err := l.next()
	if err != nil {
		return nil, err
	}
	if blank != "" {
		return nil, l.errorf("it is %s, not the empty line before a package and the end", shown(blank))
	}
	line, err := l.next()
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(line, "End: ") {
		if want := endOf(packages, digests); line != want {
			return nil, l.errorf("it is %s, but there were %s", shown(line), strings.TrimPrefix(want, "End: "))
		}
		if packages == 0 {
			return nil, l.errorf("there is no package in the file")
		}
		return nil, l.end()
	}
	p, err := parseHead(l, line)
	if err != nil {
		return nil, err
	}
	switch {
	case packages == maxPackages:
		return nil, l.errorf("there are more than %d packages", maxPackages)
	case digests+p.Files+p.Scripts > maxDigests:
		return nil, l.errorf("there are more than %d files and scripts", maxDigests)
	case last != nil && last.compare(p) >= 0:
		return nil, l.errorf("package %s stands after %s: packages must be sorted, each once", p, last)
	}
	return p, nil
}

// each reads the files and scripts of p.
func (q *requestReader) each(p *stanzaHead, do func(*entry) error) error {
	d := &digestReader{hash: p.Statement.Hash}
	s := &entries{l: q.l, p: p, left: [2]int{p.Files, p.Scripts}, value: d.set, parts: 2}
	for {
		e, err := s.next()
		if err != nil {
			return err
		}
		if e == nil {
			if err := d.end(); err != nil {
				return q.l.wrap(err)
			}
			return nil
		}
		if err := do(e); err != nil {
			return err
		}
	}
}
