package compression

import (
	"errors"
	"io"
)

// An xzWalk passes an xz stream on and refuses what the decoder wouldn't notice: in
// every chunk of LZMA the first byte must be zero, says the format, and the xz program
// refuses any other. It changes nothing in what is decoded, but a file is either good
// for all who read it or for none.
//
// Where a part makes no sense the walk ends: the decoder refuses the stream.
type xzWalk struct {
	r    io.Reader
	err  error
	skip int64           // bytes to pass before the next part
	want int             // length of the next part, 0 at the end of the walk
	part []byte          // what there is of it
	step func(w *xzWalk) // looks at the part and says what comes next

	check int64 // size of the checks of the stream in bytes
	size  int64 // of the block or index, up to here
	// Of the index: how many numbers there are still, and the first of them, which
	// says that.
	numbers, count uint64
}

var errFirstByte = errors.New("a chunk of LZMA does not begin with a zero byte")

func newXzWalk(r io.Reader) *xzWalk {
	return &xzWalk{r: r, want: xzHeaderSize, step: (*xzWalk).streamHeader}
}

func (w *xzWalk) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	for b := p[:n]; len(b) > 0 && w.want > 0; {
		if w.skip > 0 {
			passed := min(w.skip, int64(len(b)))
			w.skip -= passed
			b = b[passed:]
			continue
		}
		w.part = append(w.part, b[0])
		b = b[1:]
		if len(w.part) == w.want {
			w.want = 0
			w.step(w)
			w.part = w.part[:0]
		}
	}
	if w.err != nil {
		return 0, w.err
	}
	return n, err
}

// next says what comes after skip bytes.
func (w *xzWalk) next(skip int64, want int, step func(*xzWalk)) {
	w.skip, w.want, w.step = skip, want, step
}

// padding is how many bytes are missing to a multiple of four.
func (w *xzWalk) padding() int64 { return -w.size & 3 }

func (w *xzWalk) streamHeader() { w.stream(w.part[7]) }

func (w *xzWalk) stream(flags byte) {
	w.check = [16]int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[flags&0xf]
	w.next(0, 1, (*xzWalk).block)
}

func (w *xzWalk) block() {
	if w.part[0] == 0 {
		w.size, w.numbers, w.count = 1, 0, 0
		w.next(0, 1, (*xzWalk).indexCount)
		return
	}
	w.size = (int64(w.part[0]) + 1) * 4
	w.next(w.size-1, 1, (*xzWalk).chunk)
}

// chunk begins with a byte that says what it is: 0 is the end of the block, 1 and 2
// have plain data, those with the highest bit have LZMA, and some a byte of properties.
func (w *xzWalk) chunk() {
	w.size++
	switch c := w.part[0]; {
	case c == 0:
		w.next(w.padding()+w.check, 1, (*xzWalk).block)
	case c <= 2:
		w.next(0, 2, (*xzWalk).plainChunk)
	case c >= 0xc0:
		w.next(0, 6, (*xzWalk).lzmaChunk)
	case c >= 0x80:
		w.next(0, 5, (*xzWalk).lzmaChunk)
	}
}

func (w *xzWalk) plainChunk() {
	n := int64(w.part[0])<<8 + int64(w.part[1]) + 1
	w.size += 2 + n
	w.next(n, 1, (*xzWalk).chunk)
}

func (w *xzWalk) lzmaChunk() {
	if w.part[len(w.part)-1] != 0 {
		w.err = errFirstByte
		return
	}
	n := int64(w.part[2])<<8 + int64(w.part[3]) // without the byte that we have
	w.size += int64(len(w.part)) + n
	w.next(n, 1, (*xzWalk).chunk)
}

func (w *xzWalk) indexCount() {
	shift := 7 * (w.size - 1)
	if shift > 56 {
		return
	}
	w.size++
	w.count |= uint64(w.part[0]&0x7f) << shift
	if w.part[0] < 0x80 {
		w.numbers = 2 * w.count
		w.index()
		return
	}
	w.next(0, 1, (*xzWalk).indexCount)
}

func (w *xzWalk) index() {
	if w.numbers == 0 {
		w.next(w.padding()+4+xzHeaderSize, 4, (*xzWalk).streamPadding)
		return
	}
	w.next(0, 1, (*xzWalk).indexNumber)
}

func (w *xzWalk) indexNumber() {
	w.size++
	if w.part[0] < 0x80 {
		w.numbers--
	}
	w.index()
}

func (w *xzWalk) streamPadding() {
	if string(w.part) == "\x00\x00\x00\x00" {
		w.next(0, 4, (*xzWalk).streamPadding)
		return
	}
	// These were the first bytes of the next stream.
	w.next(0, xzHeaderSize-4, func(w *xzWalk) { w.stream(w.part[3]) })
}
