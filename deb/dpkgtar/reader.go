package dpkgtar

import (
	"archive/tar"
	"fmt"
	"io"
)

// A Reader reads a tar archive of a .deb in the dialect that dpkg reads, V7, ustar
// and GNU long names, and refuses the rest: PAX and GNU headers for sparse files,
// which archive/tar would resolve silently, and what dpkg and archive/tar read
// differently.
type Reader struct {
	tap *headerTap
	tar *tar.Reader
}

// NewReader returns a Reader of the archive r.
func NewReader(r io.Reader) *Reader {
	tap := &headerTap{r: r}
	return &Reader{tap: tap, tar: tar.NewReader(tap)}
}

// Next returns the header of the next entry, whose path is clean and relative, ""
// for the root folder. At the end of the archive it returns io.EOF, having read
// the stream to its end and found nothing but zeros behind the end mark.
func (t *Reader) Next() (*tar.Header, error) {
	// What is left of the last entry is read here, so that the tap knows where
	// the next header is.
	if _, err := io.Copy(io.Discard, t.tar); err != nil {
		return nil, t.Wrap(err)
	}
	t.tap.expectHeader()
	h, err := t.tar.Next()
	if t.tap.err != nil {
		return nil, t.Wrap(t.tap.err)
	}
	if err == io.EOF {
		if !t.tap.ended {
			return nil, t.Wrap(fmt.Errorf("no end mark: %w", io.ErrUnexpectedEOF))
		}
		return nil, t.drain()
	}
	if err != nil {
		return nil, t.Wrap(err)
	}
	if err := t.check(h); err != nil {
		return nil, t.Wrap(err)
	}
	return h, nil
}

// Read reads the content of the current entry.
func (t *Reader) Read(p []byte) (int, error) { return t.tar.Read(p) }

// Entry returns the offset of the current entry's headers, or of the end mark.
func (t *Reader) Entry() int64 { return t.tap.begins }

// Offset returns how many bytes of the archive were read.
func (t *Reader) Offset() int64 { return t.tap.offset }

// Wrap says where in the archive err was met.
func (t *Reader) Wrap(err error) error {
	return fmt.Errorf("tar archive at offset %d: %w", t.tap.begins, err)
}

// check brings the name into the form of [sign.File] and refuses what dpkg would
// read otherwise.
func (t *Reader) check(h *tar.Header) (err error) {
	d := &t.tap.decoder.header
	switch {
	case h.Name != d.Name:
		return fmt.Errorf("its name is %q to dpkg and %q to others", d.Name, h.Name)
	case h.Linkname != d.Link:
		return fmt.Errorf("%q links to %q for dpkg and to %q for others", h.Name, d.Link, h.Linkname)
	case h.Size != d.Size || h.Mode != d.Mode:
		return fmt.Errorf("%q has a size of %d and mode %o to dpkg, %d and %o to others", h.Name, d.Size, d.Mode, h.Size, h.Mode)
	}
	h.Name, err = d.path()
	return err
}

// drain reads what follows the end mark. dpkg skips it unseen; zeros are padding,
// anything else has no business there.
func (t *Reader) drain() error {
	buf := make([]byte, 32<<10)
	for start := t.tap.offset; ; {
		n, err := t.tap.Read(buf)
		for i, c := range buf[:n] {
			if c != 0 {
				return fmt.Errorf("tar archive at offset %d: %#02x after the end mark", t.tap.offset-int64(n-i), c)
			}
		}
		if t.tap.offset-start > MaxPadding {
			return fmt.Errorf("tar archive at offset %d: more than %d bytes of padding after the end mark", t.tap.offset, MaxPadding)
		}
		if err != nil {
			return err
		}
	}
}

// A headerTap hands a tar archive through and looks at the raw headers on the way,
// which archive/tar does not show. It relies on archive/tar reading exactly the
// blocks of an archive, and never ahead.
type headerTap struct {
	decoder
	r      io.Reader
	offset int64
	begins int64 // where the headers of the current entry begin

	looking bool // the next block is, or completes, a header
	block   [BlockSize]byte
	have    int
	pad     int64 // bytes up to the next header
	err     error
}

// expectHeader says that the content of the last entry is consumed; padding up to
// the next block may still follow.
func (t *headerTap) expectHeader() {
	t.pad = -t.offset & (BlockSize - 1)
	t.begins = t.offset + t.pad
	t.looking, t.have = true, 0
}

func (t *headerTap) Read(p []byte) (int, error) {
	if t.err != nil {
		return 0, t.err
	}
	n, err := t.r.Read(p)
	t.offset += int64(n)
	for q := p[:n]; t.looking && len(q) > 0 && t.err == nil; {
		var c int
		switch {
		case t.pad > 0:
			c = int(min(int64(len(q)), t.pad))
			t.pad -= int64(c)
		case t.longLeft > 0:
			c = int(min(int64(len(q)), t.longLeft))
			t.err = t.takeLong(q[:c])
		default:
			c = copy(t.block[t.have:], q)
			if t.have += c; t.have == BlockSize {
				t.have = 0
				var complete bool
				complete, t.err = t.take(&t.block)
				t.looking = !complete
			}
		}
		q = q[c:]
	}
	if t.err != nil {
		return 0, t.err
	}
	return n, err
}
