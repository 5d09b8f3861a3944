package compression

import (
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/mikelolasagasti/xz"
)

const (
	// blocksMemory bounds in bytes what the blocks of one stream that are decoded
	// side by side take: for each its declared size and its dictionary. At xz -6
	// a block takes 32 MiB. Declared sizes are only believed as far as this.
	blocksMemory = 72 << 20
	// pieceSize is how many bytes go from a worker to the reader at once.
	pieceSize = 256 << 10
)

// An xzBlocks is an xz stream whose blocks are decoded side by side, each in a
// goroutine and read in order.
type xzBlocks struct {
	src   io.ReaderAt
	index *xzIndex
	next  int              // the next block to start
	queue []<-chan xzPiece // of the blocks that were started, in order
	free  chan []byte      // buffers to be used again
	stop  chan struct{}    // closed by Close
	alive sync.WaitGroup   // of the workers

	piece []byte // what is left of buf
	buf   []byte
	err   error
}

// An xzPiece is some of a block, or why there is no more of it.
type xzPiece struct {
	buf []byte
	err error
}

// newXzBlocks returns nil for a stream that can't be decoded so, or not within
// blocksMemory: one block, or blocks or dictionaries that are too large.
func newXzBlocks(src io.ReaderAt, x *xzIndex, jobs int) *xzBlocks {
	if x.largest > blocksMemory || x.dictionary > blocksMemory {
		return nil
	}
	flight := min(int64(jobs), int64(len(x.blocks)), blocksMemory/max(1, x.largest+x.dictionary))
	if flight < 2 {
		return nil
	}
	b := &xzBlocks{
		src: src, index: x,
		free: make(chan []byte, flight*(x.largest/pieceSize+2)),
		stop: make(chan struct{}),
	}
	for range flight {
		b.start()
	}
	return b
}

// start begins the next block, if there is one. The channel holds a whole block, so
// that a worker never waits for the reader.
func (b *xzBlocks) start() {
	if b.next == len(b.index.blocks) {
		return
	}
	block := b.index.blocks[b.next]
	number := b.next + 1
	b.next++
	out := make(chan xzPiece, block.size/pieceSize+2)
	b.queue = append(b.queue, out)
	b.alive.Go(func() {
		err := b.decode(block, out)
		if err != nil {
			out <- xzPiece{err: fmt.Errorf("block %d at offset %d: %w", number, block.at, err)}
		}
		close(out)
	})
}

// decode sends at most the declared size of the block and one error.
func (b *xzBlocks) decode(block xzBlock, out chan<- xzPiece) (err error) {
	defer func() {
		if cause := recover(); cause != nil { // as in reader.Read
			err = fmt.Errorf("the decoder failed: %v", cause)
		}
	}()
	z := xzReaders.Get().(*xz.Reader)
	if err := z.Reset(newXzWalk(b.index.alone(b.src, block))); err != nil {
		return err
	}
	for left := block.size; ; {
		select {
		case <-b.stop:
			return os.ErrClosed
		default:
		}
		var buf []byte
		select {
		case buf = <-b.free:
		default:
			buf = make([]byte, pieceSize)
		}
		n, err := fill(z, buf)
		if left -= int64(n); left < 0 {
			return xz.ErrData
		}
		if n > 0 {
			out <- xzPiece{buf: buf[:n]}
		}
		if err == io.EOF {
			if b.index.dictionary <= pooledDictionary {
				putXz(z)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// fill is io.ReadFull that tells the end of r from an io.ErrUnexpectedEOF of r's own.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}

func (b *xzBlocks) Read(p []byte) (int, error) {
	for len(b.piece) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		if b.buf != nil {
			select {
			case b.free <- b.buf[:pieceSize]:
			default:
			}
			b.buf = nil
		}
		if len(b.queue) == 0 {
			b.err = io.EOF
			return 0, io.EOF
		}
		piece, more := <-b.queue[0]
		if !more {
			b.queue = b.queue[1:]
			b.start()
			continue
		}
		b.buf, b.piece, b.err = piece.buf, piece.buf, piece.err
	}
	n := copy(p, b.piece)
	b.piece = b.piece[n:]
	return n, nil
}

// Close stops the workers and returns when none of them reads any more.
func (b *xzBlocks) Close() error {
	close(b.stop)
	b.alive.Wait()
	b.queue, b.piece, b.err = nil, nil, os.ErrClosed
	return nil
}
