package deb

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"sync"
)

// Decompressing and computing the digest of the whole archive take about as long as
// hashing its files, so they run ahead by a few buffers.
const (
	aheadBuffers = 4
	aheadSize    = 128 << 10 // bytes
)

var aheadPool = sync.Pool{New: func() any { return new([aheadSize]byte) }}

// An aheadReader is a stream that another goroutine reads and hashes. close must be
// called; until then the stream belongs to that goroutine.
type aheadReader struct {
	ctx  context.Context
	full chan aheadChunk
	free chan *[aheadSize]byte
	stop chan struct{}
	sum  hash.Hash // of what was read; complete when Read has returned io.EOF

	now  aheadChunk
	rest []byte // what of now is to be read
}

type aheadChunk struct {
	buffer *[aheadSize]byte
	n      int
	err    error
}

func readAhead(ctx context.Context, r io.Reader) *aheadReader {
	a := &aheadReader{
		ctx:  ctx,
		full: make(chan aheadChunk, aheadBuffers), // room for all, so that sending never blocks
		free: make(chan *[aheadSize]byte, aheadBuffers),
		stop: make(chan struct{}),
		sum:  sha256.New(),
	}
	for range aheadBuffers {
		a.free <- nil // taken from the pool when it is needed
	}
	go a.run(r)
	return a
}

func (a *aheadReader) run(r io.Reader) {
	defer close(a.full)
	for {
		select {
		case <-a.stop:
			return
		case b := <-a.free:
			if b == nil {
				b = aheadPool.Get().(*[aheadSize]byte)
			}
			c := aheadChunk{buffer: b}
			for c.n < aheadSize && c.err == nil {
				var n int
				n, c.err = r.Read(b[c.n:])
				c.n += n
			}
			a.sum.Write(b[:c.n])
			a.full <- c
			if c.err != nil {
				return
			}
		}
	}
}

func (a *aheadReader) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if err := a.ctx.Err(); err != nil {
			return 0, err
		}
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.now.buffer != nil {
			a.free <- a.now.buffer
		}
		a.now = <-a.full
		a.rest = a.now.buffer[:a.now.n]
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// close waits until nobody reads the stream any more.
func (a *aheadReader) close() {
	close(a.stop)
	for c := range a.full {
		aheadPool.Put(c.buffer)
	}
	if a.now.buffer != nil {
		aheadPool.Put(a.now.buffer)
	}
	a.now, a.rest = aheadChunk{err: errStepOver}, nil
}
