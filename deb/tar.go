package deb

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/imaseal/imaseal/sign"
)

// blockSize is the unit of a tar archive.
const blockSize = 512

// maxPath is PATH_MAX of Linux: dpkg could not create a longer name.
const maxPath = 4096

// A tarReader reads the tar archives of a .deb in the dialect that dpkg reads, V7,
// ustar and GNU long names, and refuses the rest: PAX and GNU headers for sparse
// files, which archive/tar would resolve silently, and what dpkg and archive/tar
// read differently.
type tarReader struct {
	tap *headerTap
	tar *tar.Reader
}

func newTarReader(r io.Reader) *tarReader {
	tap := &headerTap{r: r}
	return &tarReader{tap: tap, tar: tar.NewReader(tap)}
}

// next returns the header of the next entry, whose path is clean and relative, ""
// for the root folder. At the end of the archive it returns io.EOF, having read
// the stream to its end and found nothing but zeros behind the end mark.
func (t *tarReader) next() (*tar.Header, error) {
	// What is left of the last entry is read here, so that the tap knows where
	// the next header is.
	if _, err := io.Copy(io.Discard, t.tar); err != nil {
		return nil, t.wrap(err)
	}
	t.tap.expectHeader()
	h, err := t.tar.Next()
	if t.tap.err != nil {
		return nil, t.wrap(t.tap.err)
	}
	if err == io.EOF {
		if !t.tap.ended {
			return nil, t.wrap(fmt.Errorf("no end mark: %w", io.ErrUnexpectedEOF))
		}
		return nil, t.drain()
	}
	if err != nil {
		return nil, t.wrap(err)
	}
	if err := t.check(h); err != nil {
		return nil, t.wrap(err)
	}
	return h, nil
}

// entry returns the offset of the current entry's headers, or of the end mark.
func (t *tarReader) entry() int64 { return t.tap.header }

// offset returns how many bytes of the archive were read.
func (t *tarReader) offset() int64 { return t.tap.offset }

func (t *tarReader) wrap(err error) error {
	return fmt.Errorf("tar archive at offset %d: %w", t.tap.header, err)
}

// check brings the name into the form of [sign.File] and refuses what dpkg would
// read otherwise.
func (t *tarReader) check(h *tar.Header) error {
	if h.Format == tar.FormatPAX {
		return fmt.Errorf("%q has a PAX header, which dpkg does not read", h.Name)
	}
	folder := h.Typeflag == tar.TypeDir
	if folder && t.tap.kind != tar.TypeDir {
		return fmt.Errorf("%q is a regular file by its type and a folder by its name", h.Name)
	}
	if h.Typeflag != tar.TypeReg && h.Size != 0 {
		return fmt.Errorf("%q is no regular file and has a size of %d", h.Name, h.Size)
	}
	if len(h.Name) > maxPath {
		return fmt.Errorf("a name of %d bytes is longer than any path", len(h.Name))
	}
	name := strings.TrimPrefix(h.Name, "./")
	if folder {
		name = strings.TrimSuffix(name, "/")
		if name == "" || name == "." {
			h.Name = ""
			return nil
		}
	}
	h.Name = name
	return sign.CheckPath(name)
}

// drain reads what follows the end mark. dpkg skips it unseen; zeros are padding,
// anything else has no business there.
func (t *tarReader) drain() error {
	buf := make([]byte, 32<<10)
	for {
		n, err := t.tap.Read(buf)
		for i, c := range buf[:n] {
			if c != 0 {
				return fmt.Errorf("tar archive at offset %d: %#02x after the end mark", t.tap.offset-int64(n-i), c)
			}
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
	r      io.Reader
	offset int64
	header int64 // where the headers of the current entry begin

	looking bool // the next block is, or completes, a header
	block   [blockSize]byte
	have    int
	skip    int64 // bytes of a long name to pass before the next header
	kind    byte  // type flag of the entry
	ended   bool  // the end mark was seen
	err     error
}

// expectHeader says that the content of the last entry is consumed; padding up to
// the next block may still follow.
func (t *headerTap) expectHeader() {
	pad := -t.offset & (blockSize - 1)
	t.header = t.offset + pad
	t.looking, t.have, t.skip = true, 0, pad
}

func (t *headerTap) Read(p []byte) (int, error) {
	if t.err != nil {
		return 0, t.err
	}
	n, err := t.r.Read(p)
	t.offset += int64(n)
	for q := p[:n]; t.looking && len(q) > 0 && t.err == nil; {
		if t.skip > 0 {
			passed := min(int64(len(q)), t.skip)
			t.skip -= passed
			q = q[passed:]
			continue
		}
		c := copy(t.block[t.have:], q)
		t.have += c
		q = q[c:]
		if t.have == blockSize {
			t.have = 0
			t.err = t.look()
		}
	}
	if t.err != nil {
		return 0, t.err
	}
	return n, err
}

// look checks the raw header in block, tar.h of dpkg and of glibc: name at 0, size
// at 124, type flag at 156.
func (t *headerTap) look() error {
	if t.ended {
		t.looking = false
		return nil
	}
	if bytes.Count(t.block[:], []byte{0}) == blockSize {
		t.ended = true
		return nil
	}
	if t.block[0] == 0 {
		return fmt.Errorf("a header without a name, at which dpkg stops reading")
	}
	t.kind = t.block[156]
	switch t.kind {
	case 0, '0', '1', '2', '3', '4', '5', '6':
		t.looking = false
	case 'L', 'K':
		size, err := tarNumber(t.block[124:136])
		if err != nil || size > 1<<20 {
			return fmt.Errorf("a long name has the size %q", t.block[124:136])
		}
		t.skip = (size + blockSize - 1) &^ (blockSize - 1)
	case 'x', 'g':
		return fmt.Errorf("a PAX header, which dpkg does not read")
	default:
		return fmt.Errorf("an entry of type %q, which dpkg does not read", t.kind)
	}
	return nil
}

// tarNumber reads an octal number that spaces or NULs may end.
func tarNumber(field []byte) (int64, error) {
	return arNumber(bytes.TrimRight(field, " \x00"), 8)
}
