package deb

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/imaseal/imaseal/sign"
)

const (
	// blockSize is the unit of a tar archive.
	blockSize = 512
	// maxPath is PATH_MAX of Linux: dpkg could not create a longer name.
	maxPath = 4096
	// maxPadding bounds the zeros after the end mark. GNU tar pads to 10 KiB, and
	// to 1 MiB when told to. Without a bound a few bytes of zstd would be hours of
	// zeros; content needs none, as whoever installs the package stores it.
	maxPadding = 1 << 20
)

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
	d := t.tap.decoded
	switch {
	case h.Name != d.name:
		return fmt.Errorf("its name is %q to dpkg and %q to others", d.name, h.Name)
	case h.Linkname != d.link:
		return fmt.Errorf("%q links to %q for dpkg and to %q for others", h.Name, d.link, h.Linkname)
	case h.Size != d.size || h.Mode != d.mode:
		return fmt.Errorf("%q has a size of %d and mode %o to dpkg, %d and %o to others", h.Name, d.size, d.mode, h.Size, h.Mode)
	}
	folder := h.Typeflag == tar.TypeDir
	if folder && d.kind != tar.TypeDir {
		return fmt.Errorf("%q is a regular file by its type and a folder by its name", h.Name)
	}
	if h.Typeflag != tar.TypeReg && h.Size != 0 {
		return fmt.Errorf("%q is no regular file and has a size of %d", h.Name, h.Size)
	}
	if len(h.Name) > maxPath || len(h.Linkname) > maxPath {
		return fmt.Errorf("a name of %d bytes is longer than any path", max(len(h.Name), len(h.Linkname)))
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
	for start := t.tap.offset; ; {
		n, err := t.tap.Read(buf)
		for i, c := range buf[:n] {
			if c != 0 {
				return fmt.Errorf("tar archive at offset %d: %#02x after the end mark", t.tap.offset-int64(n-i), c)
			}
		}
		if t.tap.offset-start > maxPadding {
			return fmt.Errorf("tar archive at offset %d: more than %d bytes of padding after the end mark", t.tap.offset, maxPadding)
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
	pad     int64 // bytes up to the next header

	// A GNU long name is collected as long as longLeft is not 0.
	long     []byte
	longLeft int64 // bytes of its blocks that are to come
	longSize int64
	longKind byte
	names    map[byte]string // by type flag, for the next entry

	decoded dpkgHeader
	ended   bool // the end mark was seen
	err     error
}

// expectHeader says that the content of the last entry is consumed; padding up to
// the next block may still follow.
func (t *headerTap) expectHeader() {
	t.pad = -t.offset & (blockSize - 1)
	t.header = t.offset + t.pad
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
			t.long = append(t.long, q[:c]...)
			if t.longLeft -= int64(c); t.longLeft == 0 {
				t.err = t.endLong()
			}
		default:
			c = copy(t.block[t.have:], q)
			if t.have += c; t.have == blockSize {
				t.have = 0
				t.err = t.look()
			}
		}
		q = q[c:]
	}
	if t.err != nil {
		return 0, t.err
	}
	return n, err
}

// look checks the raw header in block.
func (t *headerTap) look() error {
	if t.ended {
		t.looking = false
		return nil
	}
	if bytes.Count(t.block[:], []byte{0}) == blockSize {
		t.ended = true
		if len(t.names) > 0 {
			return errors.New("the archive ends after a long name")
		}
		return nil
	}
	if t.block[0] == 0 {
		return errors.New("a header without a name, at which dpkg stops reading")
	}
	kind := t.block[156]
	switch kind {
	case 0, '0', '1', '2', '3', '4', '5', '6', 'L', 'K':
	case 'x', 'g':
		return errors.New("a PAX header, which dpkg does not read")
	default:
		return fmt.Errorf("an entry of type %q, which dpkg does not read", kind)
	}
	var err error
	if t.decoded, err = decodeHeader(&t.block); err != nil {
		return err
	}
	if kind == 'L' || kind == 'K' {
		size := t.decoded.size
		if size < 2 || size > maxPath+1 {
			return fmt.Errorf("a long name of %d bytes", size)
		}
		if _, twice := t.names[kind]; twice {
			return errors.New("an entry has two long names")
		}
		t.long, t.longKind, t.longSize = t.long[:0], kind, size
		t.longLeft = (size + blockSize - 1) &^ (blockSize - 1)
		return nil
	}
	if name, ok := t.names['L']; ok {
		t.decoded.name = name
	}
	if name, ok := t.names['K']; ok {
		t.decoded.link = name
	}
	clear(t.names)
	t.looking = false
	return nil
}

// endLong takes a long name that ends in a NUL, where dpkg's copy of it ends.
func (t *headerTap) endLong() error {
	name, ended := cString(t.long[:t.longSize])
	if !ended || name == "" {
		return fmt.Errorf("a long name that is empty or has no end: %q", name)
	}
	if t.names == nil {
		t.names = map[byte]string{}
	}
	t.names[t.longKind] = name
	return nil
}

// A dpkgHeader is what dpkg reads in a header, lib/dpkg/tarfn.c.
type dpkgHeader struct {
	name, link string
	size, mode int64
	kind       byte
}

// decodeHeader reads the block of a header as dpkg does. Unlike archive/tar it
// takes the prefix of every ustar header and of no other.
func decodeHeader(b *[blockSize]byte) (h dpkgHeader, err error) {
	h.name, _ = cString(b[0:100])
	h.link, _ = cString(b[157:257])
	h.kind = b[156]
	if prefix, _ := cString(b[345:500]); prefix != "" && string(b[257:263]) == "ustar\x00" {
		h.name = prefix + "/" + h.name
	}
	if h.size, err = tarNumber(b[124:136]); err != nil {
		return h, fmt.Errorf("%q: size: %w", h.name, err)
	}
	if h.mode, err = tarNumber(b[100:108]); err != nil {
		return h, fmt.Errorf("%q: mode: %w", h.name, err)
	}
	return h, nil
}

// cString returns the bytes of field up to a NUL, and whether there is one.
func cString(field []byte) (s string, ended bool) {
	before, _, ended := bytes.Cut(field, []byte{0})
	return string(before), ended
}

// tarNumber reads a number as dpkg does: spaces, octal digits, then spaces and NULs
// only; or big-endian binary with the first bit set.
func tarNumber(field []byte) (int64, error) {
	var n int64
	if field[0] == 0x80 {
		for _, c := range field[1:] {
			if n >= 1<<54 {
				return 0, fmt.Errorf("%q is too large", field)
			}
			n = n<<8 | int64(c)
		}
		return n, nil
	}
	rest := bytes.TrimLeft(field, " ")
	digits := bytes.TrimRight(rest, " \x00")
	if len(rest) == 0 {
		return 0, fmt.Errorf("%q is no octal number", field)
	}
	for _, c := range digits {
		if c < '0' || c > '7' {
			return 0, fmt.Errorf("%q is no octal number", field)
		}
		n = n<<3 | int64(c-'0')
	}
	return n, nil
}
