package split

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"

	"github.com/imaseal/imaseal/sign"
)

// A Response is what a signing host has made of a request. Its methods may be called
// concurrently.
type Response struct {
	r    io.ReaderAt
	size int64
	// RequestSHA256 is that of the request, as the response says.
	RequestSHA256 [sha256.Size]byte
	// Packages and Digests are how many it has.
	Packages, Digests int

	stanzas map[Identity]place
}

// A place is where a stanza begins: its offset, the lines before it, and its length in
// bytes.
type place struct {
	offset, size int64
	line         int
}

// OpenResponse reads the size bytes of r, a response, to their end, so that one that
// was cut off or changed on its way is found before a package is touched. It keeps in
// memory only where each package stands. Signatures are verified by
// [Response.Manifest]. Errors name the line.
func OpenResponse(r io.ReaderAt, size int64) (*Response, error) {
	if size > MaxResponse {
		return nil, fmt.Errorf("it has %d bytes, more than %d", size, int64(MaxResponse))
	}
	s := &Response{r: r, size: size, stanzas: map[Identity]place{}}
	counted := &counter{r: io.NewSectionReader(r, 0, size)}
	l := newLines(counted)
	// at is the offset of what comes next.
	at := func() int64 { return counted.n - int64(l.in.Buffered()) }
	if err := readFormat(l, responseFormat, "response of a signing host (imaseal sign-digests makes them)"); err != nil {
		return nil, err
	}
	value, err := l.field(requestField)
	if err != nil {
		return nil, err
	}
	sum, err := hex.DecodeString(value)
	if err != nil || len(sum) != sha256.Size || hex.EncodeToString(sum) != value {
		return nil, l.errorf("%.80q is no SHA-256", value)
	}
	s.RequestSHA256 = [sha256.Size]byte(sum)
	var last *stanzaHead
	for {
		begin := place{offset: at(), line: l.n}
		p, err := nextHead(l, last, s.Packages, s.Digests)
		if err != nil {
			return nil, err
		}
		if p == nil {
			return s, nil
		}
		if _, ok := s.stanzas[p.Identity]; ok {
			return nil, l.errorf("package %s is there under another name, too", p)
		}
		if _, err := readValues(l, p, func(*entry) {}); err != nil {
			return nil, err
		}
		begin.size = at() - begin.offset
		s.stanzas[p.Identity] = begin
		last = p
		s.Packages++
		s.Digests += p.Files + p.Scripts
	}
}

// A counter counts what is read through it.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

// readValues reads the signatures of p, and that of its statement, nil where it has
// none.
func readValues(l *lines, p *stanzaHead, do func(*entry)) (statement []byte, err error) {
	s := &entries{l: l, p: p, left: [2]int{p.Files, p.Scripts}, value: setValue, parts: 1}
	for {
		e, err := s.next()
		if err != nil {
			return nil, err
		}
		if e == nil {
			break
		}
		do(e)
	}
	if !p.stated() {
		return nil, nil
	}
	value, err := l.field(signatureField)
	if err != nil {
		return nil, err
	}
	if statement, err = parseValue(value); err != nil {
		return nil, l.wrap(err)
	}
	return statement, nil
}

// Has reports whether the response has signatures for the package.
func (s *Response) Has(id Identity) bool {
	_, ok := s.stanzas[id]
	return ok
}

// read returns the stanza of the package.
func (s *Response) read(id Identity) (p *stanzaHead, m *sign.Manifest, statement []byte, err error) {
	where, ok := s.stanzas[id]
	if !ok {
		return nil, nil, nil, errOtherPackage
	}
	l := newLines(io.NewSectionReader(s.r, where.offset, where.size))
	l.n = where.line
	if p, err = nextHead(l, nil, 0, 0); err != nil {
		return nil, nil, nil, err
	}
	m = new(sign.Manifest)
	statement, err = readValues(l, p, func(e *entry) {
		if e.Control {
			m.Control = append(m.Control, sign.Entry{Path: e.Path, Value: e.Value})
		} else {
			m.Files = append(m.Files, sign.Entry{Path: e.Path, Value: e.Value})
		}
	})
	return p, m, statement, err
}

// errOtherPackage says that a response has nothing for a package.
var errOtherPackage = errors.New("the response has no signatures for this very package file: it answers another request, or the package has changed since")

// Manifest returns the manifest of p, whose identity is id. The digests come from p
// itself, read by the options o; the signatures from the response. It fails unless the
// response is about this package and the selection and hash of o, has a signature for
// each file and script that has to be signed and no other, and each of them, and that
// of the statement, verifies by keys.
func (s *Response) Manifest(ctx context.Context, id Identity, p sign.Package, keys *sign.TrustedKeys, o sign.Options) (*sign.Manifest, error) {
	head, m, signature, err := s.read(id)
	if err != nil {
		return nil, err
	}
	// What was asked for is known here; a response must not make it less.
	want, err := sign.NewSelection(o.Selection.Select, o.Selection.Exclude)
	if err != nil {
		return nil, err
	}
	if has := head.Statement.Selection; !has.Equal(want) {
		return nil, fmt.Errorf("the response is for the selection %s, but %s is asked for: give the flags that imaseal digests had", words(has), words(want))
	}
	if o.Hash, err = o.HashFor(p.Info()); err != nil {
		return nil, err
	}
	if has := head.Statement.Hash; has != o.Hash {
		return nil, fmt.Errorf("the response is for %s digests, but %s is asked for: give the flags that imaseal digests had", has, o.Hash)
	}
	d, err := sign.DigestsOf(ctx, p, o)
	if err != nil {
		return nil, err
	}
	expected, err := newHead(p.Info(), id, d)
	if err != nil {
		return nil, err
	}
	if err := head.same(expected); err != nil {
		return nil, err
	}
	if err := verifyAll(ctx, keys, d, m, o.Jobs); err != nil {
		return nil, err
	}
	if d.Statement == nil {
		return m, nil
	}
	m.Statement = d.Statement
	m.Statement.AddSignatures(m)
	m.Statement.Signature = signature
	if err := m.Statement.Verify(keys); err != nil {
		return nil, fmt.Errorf("the signature of the package statement: %w", err)
	}
	return m, nil
}

// words writes a selection as flags.
func words(s sign.Selection) string {
	var b strings.Builder
	for _, rule := range s.Select {
		fmt.Fprintf(&b, " --select %q", rule)
	}
	for _, glob := range s.Exclude {
		fmt.Fprintf(&b, " --exclude %q", glob)
	}
	return strings.TrimSpace(b.String())
}

// same reports in what the stanza differs from what the package is.
func (p *stanzaHead) same(found *stanzaHead) error {
	a, err := p.append(nil)
	if err != nil {
		return err
	}
	b, err := found.append(nil)
	if err != nil {
		return err
	}
	if bytes.Equal(a, b) {
		return nil
	}
	if diff := p.Statement.Diff(found.Statement); len(diff) > 0 {
		return fmt.Errorf("the response is not about this package: %s", strings.ReplaceAll(diff[0], "the statement", "the response"))
	}
	return fmt.Errorf("the response has signatures for %d files and %d scripts, but %d and %d are to be signed", p.Files, p.Scripts, found.Files, found.Scripts)
}

// verifyAll verifies the signatures of m over the digests of d, which must be for the
// same files.
func verifyAll(ctx context.Context, keys *sign.TrustedKeys, d *sign.Digests, m *sign.Manifest, jobs int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type work struct {
		file  *sign.FileDigest
		value []byte
	}
	queue := make(chan work, 256)
	var workers sync.WaitGroup
	for range max(1, min(jobs, runtime.NumCPU())) {
		workers.Go(func() {
			for w := range queue {
				if ctx.Err() != nil {
					continue
				}
				if err := verifyOne(keys, d.Hash, w.file, w.value); err != nil {
					cancel(err)
				}
			}
		})
	}
	inodes := map[int][]byte{}
	feed := func(files []sign.FileDigest, entries []sign.Entry) {
		for i := range files {
			f := &files[i]
			if i >= len(entries) || entries[i].Path != f.Path {
				cancel(fmt.Errorf("the response has no signature for %q", f.Path))
				return
			}
			value := entries[i].Value
			if f.Inode > 0 {
				if first, ok := inodes[f.Inode]; ok && !bytes.Equal(first, value) {
					cancel(fmt.Errorf("%q is another name of a file that has another signature", f.Path))
					return
				}
				inodes[f.Inode] = value
			}
			queue <- work{f, value}
		}
		if len(entries) > len(files) {
			cancel(fmt.Errorf("the response has a signature for %q, which is not to be signed", entries[len(files)].Path))
		}
	}
	feed(d.Files, m.Files)
	feed(d.Control, m.Control)
	close(queue)
	workers.Wait()
	return context.Cause(ctx)
}

// verifyOne verifies the signature over one file.
func verifyOne(keys *sign.TrustedKeys, h sign.Hash, f *sign.FileDigest, value []byte) error {
	s, err := sign.ParseSignature(value)
	if err != nil {
		return fmt.Errorf("%q: %w", f.Path, err)
	}
	if s.Version != 2 || s.Hash != h {
		return fmt.Errorf("%q: the signature is of version %d over %s, not of version 2 over %s", f.Path, s.Version, s.Hash, h)
	}
	if err := keys.VerifyDigest(s, f.Digest); err != nil {
		return fmt.Errorf("%q: %w", f.Path, err)
	}
	return nil
}
