package sign

import (
	"bytes"
	"context"
	"fmt"
	"hash"
	"io"
	"strings"
)

// A digested is a file of the payload after it was read.
type digested struct {
	path     string
	control  bool
	selected bool
	head     string // the first bytes of the content, as many as a statement's begin
	digest   []byte // by the hash that the walk was asked for
	recorded string // how the content differs from the recorded digest, "" if it does not
	value    []byte // the signature, set by Sign's workers
}

// beginsLikeStatement reports whether a signature over the file could be a
// signature over a package statement.
func (d *digested) beginsLikeStatement() bool { return strings.HasPrefix(d.head, statementFamily) }

// walk reads every file of p, computes its digest by the hash that hashOf names
// for it, and hands it to each.
func walk(ctx context.Context, p Package, o Options, hashOf func(*File) Hash, each func(*digested) error) error {
	sums := &summer{buffer: make([]byte, 128<<10), hashes: map[Hash]hash.Hash{}, progress: o.Progress}
	read := map[string]*digested{}
	for f, err := range p.Files(ctx) {
		if err != nil {
			return err
		}
		d := &digested{path: strings.Clone(f.Path), control: f.Control}
		h := hashOf(f)
		head := []byte(nil)
		switch {
		case f.Link != "":
			target, ok := read[f.Link]
			if !ok {
				return fmt.Errorf("%q is a hard link to %q, which did not come before it", f.Path, f.Link)
			}
			d.head, d.digest = target.head, target.digest
			head = []byte(d.head)
		case f.Content == nil:
			if f.RecordedHash != h || len(f.Recorded) != h.Size() {
				return fmt.Errorf("%q has no %s digest in the header", f.Path, h)
			}
			d.digest = bytes.Clone(f.Recorded)
		default:
			if err := sums.read(d, f, h); err != nil {
				return fmt.Errorf("reading %q: %w", f.Path, err)
			}
			head = []byte(d.head)
		}
		d.selected = o.Selection.Match(f, head)
		if !f.Control {
			read[d.path] = d
		}
		if o.Progress != nil {
			o.Progress(1, 0)
		}
		if err := each(d); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// A summer computes digests with one buffer and one state for each hash.
type summer struct {
	buffer   []byte
	hashes   map[Hash]hash.Hash
	progress func(files int, bytes int64)
}

// read reads the content of f to its end and fills in d.
func (s *summer) read(d *digested, f *File, h Hash) error {
	sum := s.reset(h)
	var recorded hash.Hash
	if f.Recorded != nil && f.RecordedHash != h {
		recorded = s.reset(f.RecordedHash)
	}
	for n, first := 0, true; ; first = false {
		var err error
		if n, err = io.ReadFull(f.Content, s.buffer); err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return err
		}
		chunk := s.buffer[:n]
		if first {
			d.head = string(chunk[:min(n, len(statementFamily))])
		}
		sum.Write(chunk)
		if recorded != nil {
			recorded.Write(chunk)
		}
		if s.progress != nil {
			s.progress(0, int64(n))
		}
		if err != nil {
			break
		}
	}
	d.digest = sum.Sum(nil)
	if f.Recorded != nil {
		found := d.digest
		if recorded != nil {
			found = recorded.Sum(nil)
		}
		if !bytes.Equal(found, f.Recorded) {
			d.recorded = fmt.Sprintf("the content's %s is %x, the package records %x", f.RecordedHash, found, f.Recorded)
		}
	}
	return nil
}

func (s *summer) reset(h Hash) hash.Hash {
	state, ok := s.hashes[h]
	if !ok {
		state = h.Crypto().New()
		s.hashes[h] = state
	}
	state.Reset()
	return state
}
