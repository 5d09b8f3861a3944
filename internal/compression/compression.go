// Package compression reads the compressed parts of packages with bounded memory.
// Start with [Detect] and [NewReader].
//
// Every reader returns io.EOF only after the compressed stream was checked to its
// end and nothing follows it: the check of a block comes after its data, so a
// caller must not believe what it read before that.
package compression

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz/lzma"
)

// A Format is a compression format, by the name of its usual program.
type Format string

// The formats of packages.
const (
	None  Format = "none"
	Gzip  Format = "gzip"
	Xz    Format = "xz"
	Zstd  Format = "zstd"
	Bzip2 Format = "bzip2"
	Lzma  Format = "lzma"
)

const (
	// maxDictionary bounds what xz and lzma streams may declare: that of xz -9.
	maxDictionary = 64 << 20
	// maxWindow bounds what zstd frames may declare: that of zstd --ultra -22.
	maxWindow = 128 << 20
	// HeadSize is how many bytes Detect needs at most.
	HeadSize = 13
)

// Detect returns the format of a stream that begins with head, [None] for one that
// has no known magic.
func Detect(head []byte) Format {
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return Gzip
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		return Xz
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		return Zstd
	case bytes.HasPrefix(head, []byte("BZh")):
		return Bzip2
	case isLzma(head):
		return Lzma
	}
	return None
}

// isLzma tells the old format, which has no magic, by a header that only it would
// have: the usual properties, a dictionary of 2^n or 2^n+2^(n-1) bytes, and a size
// that is unknown or below 256 GiB, as xz's own tools do.
func isLzma(head []byte) bool {
	if len(head) < 13 || head[0] != 0x5d {
		return false
	}
	d := binary.LittleEndian.Uint32(head[1:])
	if d < 1<<12 || d&(d-1) != 0 && d != 1<<32-1 && (d%3 != 0 || d/3&(d/3-1) != 0) {
		return false
	}
	size := binary.LittleEndian.Uint64(head[5:])
	return size == 1<<64-1 || size < 1<<38
}

// NewReader returns a reader of the decompressed r. The caller must close it; r is
// left open. An error names the format.
func NewReader(r io.Reader, f Format) (io.ReadCloser, error) {
	body, err := open(r, f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f, err)
	}
	return &reader{format: f, body: body}, nil
}

// NewReaderAt is [NewReader] for size bytes of r, which up to jobs threads or a
// program may decompress where that is faster. The caller must close the reader
// also after an error: until then r is read.
func NewReaderAt(r io.ReaderAt, size int64, f Format, jobs int) (io.ReadCloser, error) {
	if f != Xz {
		return NewReader(io.NewSectionReader(r, 0, size), f)
	}
	body, err := newXzAt(r, size, jobs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f, err)
	}
	return &reader{format: f, body: body}, nil
}

func open(r io.Reader, f Format) (io.ReadCloser, error) {
	switch f {
	case None:
		return io.NopCloser(r), nil
	case Gzip:
		return gzip.NewReader(r)
	case Bzip2:
		return newBzip2(r), nil
	case Zstd:
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case Xz:
		return newXz(r)
	case Lzma:
		return newLzma(r)
	}
	return nil, errors.New("not a known compression format")
}

// newBzip2 leaves junk after the stream to the library, which refuses what is no
// further stream.
func newBzip2(r io.Reader) io.ReadCloser { return io.NopCloser(bzip2.NewReader(r)) }

func newLzma(r io.Reader) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	head, err := in.Peek(HeadSize)
	if err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	if d := binary.LittleEndian.Uint32(head[1:]); d > maxDictionary {
		return nil, fmt.Errorf("a dictionary of %d bytes is declared, at most %d are taken", d, maxDictionary)
	}
	z, err := lzma.ReaderConfig{DictCap: maxDictionary}.NewReader(in)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(&exhausting{Reader: z, rest: in}), nil
}

// exhausting turns the end of the stream into an error when more follows.
type exhausting struct {
	io.Reader
	rest *bufio.Reader
}

func (e *exhausting) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if err == io.EOF {
		if _, more := e.rest.Peek(1); more == nil {
			return n, errors.New("junk follows the compressed stream")
		}
	}
	return n, err
}

// A reader names the format in errors and sticks to the first of them.
type reader struct {
	format Format
	body   io.ReadCloser
	err    error
}

func (r *reader) Read(p []byte) (n int, err error) {
	if r.err != nil {
		return 0, r.err
	}
	defer func() {
		// The libraries decode hostile bytes; none of them is known to panic, and
		// if one does the package is refused.
		if cause := recover(); cause != nil {
			n, r.err = 0, fmt.Errorf("%s: the decoder failed: %v", r.format, cause)
			err = r.err
		}
	}()
	n, err = r.body.Read(p)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%s: %w", r.format, err)
	}
	r.err = err
	return n, err
}

func (r *reader) Close() error { return r.body.Close() }

// Limit returns a reader of r that fails, rather than ends, after n bytes. what
// names the thing in the error.
func Limit(r io.Reader, n int64, what string) io.Reader { return &limited{r, n, n, what} }

type limited struct {
	r     io.Reader
	left  int64
	limit int64
	what  string
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left < 0 {
		return 0, l.tooLong()
	}
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.r.Read(p)
	l.left -= int64(n)
	if l.left < 0 {
		return n - 1, l.tooLong()
	}
	return n, err
}

func (l *limited) tooLong() error {
	return fmt.Errorf("%s has more than %d bytes decompressed: refused as a decompression bomb", l.what, l.limit)
}
