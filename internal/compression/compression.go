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
	"os"
	"strings"

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
	return start(f, func() (io.ReadCloser, error) { return open(r, f) })
}

// NewReaderAt is [NewReader] for size bytes of r, which up to jobs threads or a
// program may decompress where that is faster. The caller must close the reader:
// until then r is read. It is an error that r has become shorter.
func NewReaderAt(r io.ReaderAt, size int64, f Format, jobs int) (io.ReadCloser, error) {
	return start(f, func() (io.ReadCloser, error) {
		if f == Xz {
			return newXzAt(r, size, jobs)
		}
		return open(newSection(r, 0, size), f)
	})
}

func start(f Format, open func() (io.ReadCloser, error)) (_ io.ReadCloser, err error) {
	defer recovered(f, &err)
	body, err := open()
	if err == io.EOF { // of a header
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, named(f, err)
	}
	return &reader{format: f, body: body}, nil
}

// open returns a reader that gives the error of r rather than what the decoder made
// of it, which may even be the end of the stream.
func open(r io.Reader, f Format) (io.ReadCloser, error) {
	src := &source{r: r}
	body, err := newDecoder(src, f)
	if src.err != nil {
		err = src.err
	}
	if err != nil {
		if body != nil {
			body.Close()
		}
		return nil, err
	}
	return &sourced{body, src}, nil
}

func newDecoder(r io.Reader, f Format) (io.ReadCloser, error) {
	switch f {
	case None:
		return io.NopCloser(r), nil
	case Gzip:
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err // z is a nil pointer, which in an interface is not nil
		}
		return z, nil
	case Bzip2:
		// The library refuses junk after the stream.
		return io.NopCloser(bzip2.NewReader(r)), nil
	case Zstd:
		return newZstd(r)
	case Xz:
		return newXz(r)
	case Lzma:
		return newLzma(r)
	}
	return nil, errors.New("not a known compression format")
}

// newZstd refuses nothing at all, which the library takes for no frames.
func newZstd(r io.Reader) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	if _, err := in.Peek(1); err != nil {
		return nil, err
	}
	d, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

func newLzma(r io.Reader) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	head, err := in.Peek(HeadSize)
	if err != nil {
		return nil, err
	}
	if !isLzma(head) {
		return nil, errors.New("this is no header of the format")
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
	closed bool
}

func (r *reader) Read(p []byte) (n int, err error) {
	if r.err != nil {
		return 0, r.err
	}
	defer func() { r.err = err }()
	defer recovered(r.format, &err)
	n, err = r.body.Read(p)
	if err != nil && err != io.EOF {
		err = named(r.format, err)
	}
	return n, err
}

func (r *reader) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	r.err = named(r.format, os.ErrClosed)
	return r.body.Close()
}

// recovered is to be deferred. The libraries decode hostile bytes; none of them is
// known to panic, and if one does the package is refused.
func recovered(f Format, err *error) {
	if cause := recover(); cause != nil {
		*err = fmt.Errorf("%s: the decoder failed: %v", f, cause)
	}
}

// named puts the format before an error that does not begin with it.
func named(f Format, err error) error {
	if strings.HasPrefix(err.Error(), string(f)+": ") {
		return err
	}
	return fmt.Errorf("%s: %w", f, err)
}

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
	if int64(len(p)) > l.left { // one more than may be tells too much from the end
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
