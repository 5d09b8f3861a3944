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
	read     bool   // the content was read, not only its recorded digest taken

	// digest is by hash, which the walk was asked for; other by otherHash, nil
	// where the package records no digest by another hash.
	digest, other   []byte
	hash, otherHash Hash

	recorded string // how the content differs from the recorded digest, "" if it does not

	// inode is, of a hard link, the file that carries the content, otherwise the
	// file itself. The signature of an inode is made once: Sign's owner sets
	// queued, a worker value.
	inode  *digested
	queued bool
	value  []byte
}

// beginsLikeStatement reports whether a signature over the file could be a
// signature over a package statement.
func (d *digested) beginsLikeStatement() bool { return strings.HasPrefix(d.head, statementFamily) }

// compare returns how the content differs from the digest that f records.
func (d *digested) compare(f *File) string {
	var found []byte
	switch {
	case f.Recorded == nil:
		return ""
	case f.RecordedHash == d.hash:
		found = d.digest
	case f.RecordedHash == d.otherHash:
		found = d.other
	default: // a link whose digest is by another hash than that of its file
		return fmt.Sprintf("the package records a %s digest, but %s of the file that it links to", f.RecordedHash, d.hash)
	}
	if !bytes.Equal(found, f.Recorded) {
		return fmt.Sprintf("the content's %s is %x, the package records %x", f.RecordedHash, found, f.Recorded)
	}
	return ""
}

// walk reads every file of p, computes its digest by the hash that hashOf names
// for it, and hands it to each.
func walk(ctx context.Context, p Package, o Options, hashOf func(*File) Hash, each func(*digested) error) error {
	sums := &summer{buffer: make([]byte, 128<<10), hashes: map[Hash]hash.Hash{}, progress: o.Progress}
	payload := map[string]*digested{}
	for f, err := range p.Files(ctx) {
		if err != nil {
			return err
		}
		d := &digested{path: strings.Clone(f.Path), control: f.Control, hash: hashOf(f)}
		d.inode = d
		if f.Recorded != nil && !f.RecordedHash.Known() {
			return fmt.Errorf("%q has a digest by an unknown hash, %s", f.Path, f.RecordedHash)
		}
		switch {
		case f.Link != "":
			target, ok := payload[f.Link]
			if !ok {
				return fmt.Errorf("%q is a hard link to %q, which did not come before it", f.Path, f.Link)
			}
			d.inode, d.read, d.head = target.inode, target.read, target.head
			d.digest, d.hash, d.other, d.otherHash = target.digest, target.hash, target.other, target.otherHash
		case f.Content == nil:
			if f.RecordedHash != d.hash || len(f.Recorded) != d.hash.Size() {
				return fmt.Errorf("%q has no %s digest in the header", f.Path, d.hash)
			}
			d.digest = bytes.Clone(f.Recorded)
		default:
			d.read = true
			if err := sums.sum(d, f); err != nil {
				return fmt.Errorf("reading %q: %w", f.Path, err)
			}
		}
		d.recorded = d.compare(f)
		var head []byte // stays nil where the content was not read
		if d.read {
			head = []byte(d.head)
		}
		d.selected = o.Paths[d.path] || f.Control
		if o.Paths == nil {
			d.selected = o.Selection.Match(f, head)
		}
		if !f.Control {
			payload[d.path] = d
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

// sum reads the content of f to its end and sets the head and the digests of d.
func (s *summer) sum(d *digested, f *File) error {
	digest := s.reset(d.hash)
	var other hash.Hash
	if f.Recorded != nil && f.RecordedHash != d.hash {
		other = s.reset(f.RecordedHash)
		d.otherHash = f.RecordedHash
	}
	for first := true; ; first = false {
		n, err := fill(f.Content, s.buffer)
		if err != nil && err != io.EOF {
			return err
		}
		chunk := s.buffer[:n]
		if first {
			d.head = string(chunk[:min(n, len(statementFamily))])
		}
		digest.Write(chunk)
		if other != nil {
			other.Write(chunk)
		}
		if s.progress != nil {
			s.progress(0, int64(n))
		}
		if err != nil {
			break
		}
	}
	d.digest = digest.Sum(nil)
	if other != nil {
		d.other = other.Sum(nil)
	}
	return nil
}

// fill reads until b is full or r fails. Unlike [io.ReadFull] it hands on r's own
// error, so that the io.ErrUnexpectedEOF of a payload that was cut off is not
// taken for the end of the file.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var more int
		more, err = r.Read(b[n:])
		n += more
	}
	return n, err
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
