package rpm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// The payload is a cpio archive in the "newc" form (rpm's lib/cpio.cc): for each
// file a header of 110 ASCII characters, the name with a NUL, padding to four bytes,
// the content, padding to four bytes:
//
//	0  magic 070701, or 070702 with a checksum that nobody looks at
//	6  13 numbers of 8 hexadecimal digits: inode, mode, uid, gid, links, mtime,
//	   size, device (2), device that the node is (2), length of the name with its
//	   NUL, checksum
//
// The last entry is named TRAILER!!!. As a size has 32 bits, rpm has a form of its
// own for packages with larger files and for all of format 6: magic 07070X, the
// index of the file in the main header in 8 digits, padding, content.
const (
	cpioMagic     = "070701"
	cpioMagicSum  = "070702"
	cpioStripped  = "07070X"
	cpioTrailer   = "TRAILER!!!"
	cpioHeader    = 110
	cpioShort     = 14
	maxCpioName   = 4096 + 2 // PATH_MAX with "./" before it
	cpioBufferLen = 64 << 10
)

// A cpioReader reads the archive in one pass. It has a reason not to be
// go-rpmutils', which takes no notice of the padding behind a stripped header and so
// misreads every package of format 6, takes signs in numbers, and panics on a name
// of length 0.
type cpioReader struct {
	r    *bufio.Reader
	at   int64 // in the archive
	left int64 // of the content of the current entry
	name [maxCpioName + 4]byte
}

// A cpioEntry is one header of the archive.
type cpioEntry struct {
	at       int64  // where it begins
	stripped bool   // only index is set, and the caller has to tell the size
	index    uint32 // in the main header
	mode     uint64
	size     int64
	name     []byte // valid until the next entry
}

func newCpioReader(r io.Reader) *cpioReader {
	return &cpioReader{r: bufio.NewReaderSize(r, cpioBufferLen)}
}

// next skips what is left of the current entry and reads a header. At the trailer it
// reads on to the end, where nothing but zeros may follow, and returns io.EOF.
func (c *cpioReader) next() (cpioEntry, error) {
	if err := c.skip(c.left); err != nil {
		return cpioEntry{}, err
	}
	c.left = 0
	if err := c.skip(-c.at & 3); err != nil {
		return cpioEntry{}, err
	}
	e := cpioEntry{at: c.at}
	head, err := c.r.Peek(cpioShort)
	if err != nil {
		return e, c.cut(err)
	}
	switch string(head[:6]) {
	case cpioStripped:
		index, err := hex8(head[6:])
		if err != nil {
			return e, fmt.Errorf("payload offset %d: index: %w", e.at, err)
		}
		e.stripped, e.index = true, index
		return e, c.skip(cpioShort + 2)
	case cpioMagic, cpioMagicSum:
	default:
		return e, fmt.Errorf("payload offset %d: no cpio header, it begins with %q", e.at, head[:6])
	}
	if head, err = c.r.Peek(cpioHeader); err != nil {
		return e, c.cut(err)
	}
	var fields [13]uint32
	for i := range fields {
		if fields[i], err = hex8(head[6+8*i:]); err != nil {
			return e, fmt.Errorf("payload offset %d: cpio header field %d: %w", e.at, i+1, err)
		}
	}
	e.mode, e.size = uint64(fields[1]), int64(fields[6])
	n := int(fields[11])
	if n < 2 || n > maxCpioName {
		return e, fmt.Errorf("payload offset %d: a name of %d bytes is declared", e.at, n)
	}
	if err := c.skip(cpioHeader); err != nil {
		return e, err
	}
	whole := n + -(cpioHeader+n)&3 // with its padding
	if _, err := io.ReadFull(c.r, c.name[:whole]); err != nil {
		return e, c.cut(err)
	}
	c.at += int64(whole)
	e.name = c.name[:n-1]
	if c.name[n-1] != 0 {
		return e, fmt.Errorf("payload offset %d: the name %q does not end where it should", e.at, c.name[:n])
	}
	if string(e.name) == cpioTrailer {
		return e, c.finish(e)
	}
	c.left = e.size
	return e, nil
}

// finish reads what follows the trailer.
func (c *cpioReader) finish(e cpioEntry) error {
	if e.size != 0 {
		return fmt.Errorf("payload offset %d: the trailer has content", e.at)
	}
	for {
		if _, err := c.r.Peek(1); err != nil { // io.EOF is the good end
			return err
		}
		b, _ := c.r.Peek(c.r.Buffered())
		for i, x := range b {
			if x != 0 {
				return fmt.Errorf("payload offset %d: junk follows the cpio archive", c.at+int64(i))
			}
		}
		if err := c.skip(int64(len(b))); err != nil {
			return err
		}
	}
}

// Read reads the content of the current entry.
func (c *cpioReader) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.r.Read(p)
	c.at += int64(n)
	c.left -= int64(n)
	if err == io.EOF && c.left > 0 {
		err = c.cut(err)
	}
	return n, err
}

func (c *cpioReader) skip(n int64) error {
	for n > 0 {
		k, err := c.r.Discard(int(min(n, 1<<30)))
		c.at += int64(k)
		n -= int64(k)
		if err != nil {
			return c.cut(err)
		}
	}
	return nil
}

// cut turns the end of the stream into an error: only after the trailer may it end.
func (c *cpioReader) cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("payload offset %d: the cpio archive is cut off: %w", c.at, io.ErrUnexpectedEOF)
	}
	return err
}

// hex8 reads 8 hexadecimal digits.
func hex8(b []byte) (uint32, error) {
	b = b[:8]
	for _, c := range b {
		if c == '+' || c == '-' || c == '_' {
			return 0, fmt.Errorf("%q is not hexadecimal", b)
		}
	}
	n, err := strconv.ParseUint(string(b), 16, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not hexadecimal", b)
	}
	return uint32(n), nil
}
