package split

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/imaseal/imaseal/sign"
)

const (
	responseFormat = "Format: imaseal-digests-response-1"
	requestField   = "Request-SHA256"
	signatureField = "Signature"
)

// inFlight is how many lines may be between the reader and the writer: enough for slow
// keys to have something to do while a statement waits for its last file.
const inFlight = 2048

// headUnit is how many bytes of a head count for one line in flight. A head is kept until
// its statement is signed, and may be a megabyte.
const headUnit = 8 << 10

// SignOptions say how a request is signed.
type SignOptions struct {
	// Jobs is how many signatures are made at once; more are made where the Signer asks
	// for more.
	Jobs int
	// Progress, if not nil, is told how many more digests were signed.
	Progress func(digests int)
}

// Sign signs the request that r reads, which [Check] has found good with the summary s,
// and writes the response to w. Of each package it builds the manifest and the
// statement itself. What was written is worthless when Sign fails, and has no end then.
func Sign(ctx context.Context, r io.Reader, w io.Writer, key *sign.Signer, s *Summary, o SignOptions) error {
	h := &host{
		key: key, progress: o.Progress, heads: make(chan struct{}, inFlight),
		work: make(chan *item, inFlight), ordered: make(chan *item, inFlight), stated: make(chan *item, inFlight),
	}
	h.ctx, h.cancel = context.WithCancelCause(ctx)
	defer h.cancel(nil)
	var feeders, workers sync.WaitGroup
	fail := func(f func() error) func() {
		return func() {
			if err := f(); err != nil {
				h.cancel(err)
			}
		}
	}
	digest := sha256.New()
	feeders.Go(fail(func() error {
		defer close(h.ordered)
		return h.read(io.TeeReader(r, digest))
	}))
	feeders.Go(fail(func() error {
		defer close(h.stated)
		return h.state()
	}))
	for range max(key.Jobs, o.Jobs, 1) {
		workers.Go(h.sign)
	}
	out := bufio.NewWriterSize(w, 64<<10)
	fmt.Fprintf(out, "%s\n%s: %x\n", responseFormat, requestField, s.SHA256)
	if err := h.write(out); err != nil {
		h.cancel(err)
	}
	feeders.Wait()
	close(h.work)
	workers.Wait()
	if err := context.Cause(h.ctx); err != nil {
		return err
	}
	if [sha256.Size]byte(digest.Sum(nil)) != s.SHA256 {
		return fmt.Errorf("the request is not the one that was checked")
	}
	fmt.Fprintf(out, "\n%s\n", endOf(s.Packages, s.Digests))
	return out.Flush()
}

// A host signs one request. Its stages are connected by channels that keep the order
// of the request: read puts items into work and ordered, state adds the statements, and
// write writes. Workers make the signatures in any order.
type host struct {
	ctx                   context.Context
	cancel                context.CancelCauseFunc
	key                   *sign.Signer
	progress              func(int)
	work, ordered, stated chan *item
	// heads has an element for each unit of the heads between read and write.
	heads chan struct{}
}

// An item is a head, a line with a signature, or the statement of a package.
type item struct {
	head  *stanzaHead // nil: entry or statement is set
	text  []byte      // of the head
	units int         // of the head, which are in heads until its package is written
	entry *entry
	// of is the earlier item whose signature this one shares, as another name of the
	// same file.
	of        *item
	sign      func() ([]byte, error)
	value     []byte
	done      chan struct{}
	statement bool // Value is that of the statement
}

// put hands it on, unless the work has ended.
func (h *host) put(to chan *item, it *item) error {
	select {
	case to <- it:
		return nil
	case <-h.ctx.Done():
		return context.Cause(h.ctx)
	}
}

// read reads the request and has its digests signed.
func (h *host) read(r io.Reader) error {
	q, err := newRequestReader(r)
	if err != nil {
		return err
	}
	for {
		p, err := q.next()
		if err != nil || p == nil {
			return err
		}
		it, err := h.head(p)
		if err != nil {
			return err
		}
		if err := h.put(h.ordered, it); err != nil {
			return err
		}
		first := map[int]*item{} // of an inode
		err = q.each(p, func(e *entry) error {
			it := &item{entry: e, of: first[e.Inode], done: make(chan struct{})}
			if it.of == nil {
				it.sign = func() ([]byte, error) { return h.key.SignDigest(p.Statement.Hash, e.Digest) }
				if e.Inode > 0 {
					first[e.Inode] = it
				}
				if err := h.put(h.work, it); err != nil {
					return err
				}
			}
			return h.put(h.ordered, it)
		})
		if err != nil {
			return err
		}
	}
}

// head makes the item of a head when there is room for it.
func (h *host) head(p *stanzaHead) (*item, error) {
	text, err := p.append([]byte{'\n'})
	if err != nil {
		return nil, err
	}
	it := &item{head: p, text: text, units: min(1+len(text)/headUnit, inFlight)}
	for range it.units {
		select {
		case h.heads <- struct{}{}:
		case <-h.ctx.Done():
			return nil, context.Cause(h.ctx)
		}
	}
	return it, nil
}

// sign is a worker.
func (h *host) sign() {
	for it := range h.work {
		if h.ctx.Err() != nil {
			continue
		}
		value, err := it.sign()
		if err != nil {
			h.cancel(err)
			continue
		}
		it.value = value
		close(it.done)
	}
}

// wait waits for the signature of it.
func (h *host) wait(it *item) error {
	of := it
	if it.of != nil {
		of = it.of
	}
	select {
	case <-of.done:
		it.value = of.value
		return nil
	case <-h.ctx.Done():
		return context.Cause(h.ctx)
	}
}

// state builds the lists of signatures of each package, and has its statement signed
// when they are complete.
func (h *host) state() error {
	var p *stanzaHead
	var lists [2]hash.Hash
	left := 0
	end := func() error {
		if !p.stated() {
			return nil
		}
		s := p.signedStatement([sha256.Size]byte(lists[0].Sum(nil)), [sha256.Size]byte(lists[1].Sum(nil)))
		it := &item{statement: true, done: make(chan struct{})}
		it.sign = func() ([]byte, error) {
			err := s.Sign(h.key)
			return s.Signature, err
		}
		if err := h.put(h.work, it); err != nil {
			return err
		}
		return h.put(h.stated, it)
	}
	for it := range h.ordered {
		if it.head != nil {
			p = it.head
			lists = [2]hash.Hash{sha256.New(), sha256.New()}
			left = p.Files + p.Scripts
		} else {
			if err := h.wait(it); err != nil {
				return err
			}
			list := lists[0]
			if it.entry.Control {
				list = lists[1]
			}
			list.Write(sign.FormatAttributes([]sign.Entry{{Path: it.entry.Path, Value: it.value}}))
			left--
		}
		if err := h.put(h.stated, it); err != nil {
			return err
		}
		if left == 0 {
			if err := end(); err != nil {
				return err
			}
		}
	}
	return nil
}

// write writes the packages of the response.
func (h *host) write(out *bufio.Writer) error {
	var line []byte
	units := 0 // of the head that was written last
	for it := range h.stated {
		line = line[:0]
		var err error
		switch {
		case it.head != nil:
			line, units = it.text, it.units
		case it.statement:
			if err = h.wait(it); err == nil {
				line = appendSignature(line, it.value)
			}
		default:
			it.entry.Value = it.value
			line = it.entry.appendValue(line)
			if h.progress != nil {
				h.progress(1)
			}
		}
		if err != nil {
			return err
		}
		if _, err := out.Write(line); err != nil {
			return err
		}
		// A head that is followed by a statement is needed until that is signed.
		if it.statement || it.head != nil && !it.head.stated() {
			for range units {
				<-h.heads
			}
		}
	}
	return nil
}

// appendSignature appends the line with the signature of a statement.
func appendSignature(b, value []byte) []byte {
	b = append(b, signatureField+": 0s"...)
	return append(base64.StdEncoding.AppendEncode(b, value), '\n')
}
