package compression

import (
	"bufio"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/mikelolasagasti/xz"
)

// There are three ways to read an xz stream. What each took for the 117 MiB of
// Debian's golang-1.19-src (5 blocks), hash included, on two cores that others
// used as well (seconds of CPU and, where they were idle, of time):
//
//	Go, one block after another   1.38 CPU   1.40
//	Go, two blocks side by side   1.46 CPU   0.76
//	the xz program, two threads   1.09 CPU   0.66
//
// So one big stream goes to the program, to blocks side by side where there is no
// program, and everything else is read one block after another: with several
// packages at once the cores are busy anyway, and starting a program for a small
// one costs more than it saves.

const (
	// parallelSize is the compressed size in bytes from which on a stream counts as
	// big.
	parallelSize = 2 << 20
	// pooledDictionary is the largest dictionary, that of xz -6, that is kept for the
	// next stream. Of a stream that is not read by its index the first block counts:
	// a later one with a larger dictionary is rare, and a pool is emptied by the
	// garbage collector.
	pooledDictionary = 8 << 20
)

// parallel is set while a stream is decoded by several threads. One at a time may
// be, as each takes up to some 100 MiB.
var parallel atomic.Bool

// xzReaders keeps decoders for the next stream: a dictionary is 8 MiB of memory to
// clear, which for a small package costs more than decoding it.
var xzReaders = sync.Pool{New: func() any {
	z, err := xz.NewReader(nil, maxDictionary)
	if err != nil {
		panic(err) // with no stream there is nothing to fail on
	}
	return z
}}

// putXz gives a decoder back whose dictionary is not large. It lets go of the
// stream, which Reset(nil) would not.
func putXz(z *xz.Reader) {
	z.Reset(strings.NewReader(""))
	xzReaders.Put(z)
}

// A pooledXz is an xz stream read by a decoder of the pool. The library reads
// concatenated streams and stream padding, and checks blocks, index and footer.
type pooledXz struct {
	z    *xz.Reader
	keep bool // the decoder may go back to the pool
}

func newXz(r io.Reader) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(newXzWalk(r), 64<<10)
	// Whatever is wrong with the head, the decoder says it better.
	head, _ := in.Peek(xzHeaderSize + maxBlockHeader)
	d, err := xzDictionary(head[min(xzHeaderSize, len(head)):])
	p := &pooledXz{xzReaders.Get().(*xz.Reader), err == nil && d <= pooledDictionary}
	if err := p.z.Reset(in); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *pooledXz) Read(b []byte) (int, error) {
	keep := p.keep
	p.keep = false // a decoder that panics or fails is used no more
	n, err := p.z.Read(b)
	p.keep = keep && (err == nil || err == io.EOF)
	return n, err
}

func (p *pooledXz) Close() error {
	if p.keep {
		putXz(p.z)
	}
	p.keep = false // nobody gets it twice
	return nil
}

// newXzAt reads size bytes of r with up to jobs threads, the fastest way that there
// is. All ways must give the same bytes and refuse the same files. So only a plain
// stream is read in another way than block after block: of filters, for one, the xz
// program knows some that the decoder here does not.
func newXzAt(r io.ReaderAt, size int64, jobs int) (io.ReadCloser, error) {
	if jobs < 2 || size < parallelSize {
		return open(newSection(r, 0, size), Xz)
	}
	return newXzBig(r, size, jobs)
}

func newXzBig(r io.ReaderAt, size int64, jobs int) (io.ReadCloser, error) {
	serial := func() (io.ReadCloser, error) { return open(newSection(r, 0, size), Xz) }
	x, err := readXzIndex(r, size)
	if err != nil || x.dictionary > maxDictionary || !parallel.CompareAndSwap(false, true) {
		return serial()
	}
	inGo := func() (io.ReadCloser, error) {
		if b := newXzBlocks(r, x, jobs); b != nil {
			return b, nil
		}
		return serial()
	}
	body, err := newXzChild(r, size, x.total, jobs, inGo)
	if err != nil {
		parallel.Store(false)
		return nil, err
	}
	return newParallelXz(body), nil
}

// A parallelXz frees the place of the one parallel stream as soon as nothing is read
// any more: at the end, after an error, when it is closed, and when somebody forgot
// that.
type parallelXz struct {
	body      io.ReadCloser
	closed    bool
	forgotten runtime.Cleanup
}

func newParallelXz(body io.ReadCloser) *parallelXz {
	p := &parallelXz{body: body}
	p.forgotten = runtime.AddCleanup(p, closeParallel, body)
	return p
}

func closeParallel(body io.ReadCloser) {
	body.Close()
	parallel.Store(false)
}

func (p *parallelXz) Read(b []byte) (int, error) {
	n, err := p.body.Read(b)
	if err != nil {
		p.Close()
	}
	return n, err
}

func (p *parallelXz) Close() error {
	if !p.closed {
		p.closed = true
		p.forgotten.Stop()
		closeParallel(p.body)
	}
	return nil
}
