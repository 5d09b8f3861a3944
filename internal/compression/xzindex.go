package compression

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
)

// The xz file format, https://tukaani.org/xz/xz-file-format.txt: a stream is a
// header, blocks, an index of the blocks, and a footer that says how long the index
// is. All integers are little-endian, all parts a multiple of four bytes long.
const (
	xzMagic      = "\xfd7zXZ\x00"
	xzFooterEnd  = "YZ"
	xzHeaderSize = 12 // of a stream's header, and of its footer
	minIndex     = 8  // that of no blocks: a zero byte, the count, padding, a sum
	// maxIndex bounds what is read of an index: some 8,000 blocks, 190 GiB at -6.
	maxIndex = 64 << 10
	// maxBlockHeader is what the format's one byte of size can say.
	maxBlockHeader = 1024
	// lzma2Filter is the identifier of LZMA2 in a block header.
	lzma2Filter = 0x21
)

// An xzBlock is a line of an xz index.
type xzBlock struct {
	at       int64 // offset in the file, in bytes
	unpadded int64 // length without the padding to a multiple of four
	size     int64 // decompressed bytes, as declared
}

// stored is the length of the block in the file.
func (b xzBlock) stored() int64 { return (b.unpadded + 3) &^ 3 }

// An xzIndex is what is known of an xz file of exactly one stream, without padding
// after it, before anything is decompressed. All in it is only declared.
type xzIndex struct {
	flags  [2]byte // of the stream: the kind of check
	blocks []xzBlock
	// total is the decompressed size of all blocks in bytes, largest that of the
	// largest, dictionary the largest dictionary.
	total, largest, dictionary int64
}

// errOddXz says that a file is not what readXzIndex reads, and may still be good.
var errOddXz = errors.New("not a single plain stream")

// readXzIndex reads the index of an xz file and the headers of its blocks. It
// fails on every file that is not one whole stream of plain LZMA2 blocks, side by
// side from header to index.
func readXzIndex(r io.ReaderAt, size int64) (*xzIndex, error) {
	var head, foot [xzHeaderSize]byte
	if size < 2*xzHeaderSize+minIndex || size%4 != 0 {
		return nil, errOddXz
	}
	if err := readFullAt(r, head[:], 0); err != nil {
		return nil, err
	}
	if err := readFullAt(r, foot[:], size-xzHeaderSize); err != nil {
		return nil, err
	}
	x := &xzIndex{flags: [2]byte(head[6:8])}
	if head != xzStreamHeader(x.flags) || string(foot[10:]) != xzFooterEnd || [2]byte(foot[8:10]) != x.flags ||
		crc32.ChecksumIEEE(foot[4:10]) != binary.LittleEndian.Uint32(foot[:]) {
		return nil, errOddXz
	}
	length := (int64(binary.LittleEndian.Uint32(foot[4:])) + 1) * 4
	start := size - xzHeaderSize - length
	if length < minIndex || length > maxIndex || start < xzHeaderSize {
		return nil, errOddXz
	}
	index := make([]byte, length)
	if err := readFullAt(r, index, start); err != nil {
		return nil, err
	}
	if err := x.parse(index, start); err != nil {
		return nil, err
	}
	return x, x.readBlockHeaders(r)
}

// parse reads an index that stands at offset end of the file, where the blocks
// must end.
func (x *xzIndex) parse(index []byte, end int64) error {
	body, sum := index[:len(index)-4], index[len(index)-4:]
	if body[0] != 0 || crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(sum) {
		return errOddXz
	}
	rest := body[1:]
	count, ok := cutXzInt(&rest)
	if !ok || count > int64(len(rest)/2) {
		return errOddXz
	}
	at := int64(xzHeaderSize)
	for range count {
		b := xzBlock{at: at}
		var ok1, ok2 bool
		b.unpadded, ok1 = cutXzInt(&rest)
		b.size, ok2 = cutXzInt(&rest)
		// The subtractions can't overflow, as additions of declared sizes might.
		if !ok1 || !ok2 || b.unpadded < 5 || b.unpadded > end-at || b.stored() > end-at || b.size > math.MaxInt64-x.total {
			return errOddXz
		}
		at += b.stored()
		x.total += b.size
		x.largest = max(x.largest, b.size)
		x.blocks = append(x.blocks, b)
	}
	if at != end || len(rest) > 3 || len(bytes.Trim(rest, "\x00")) != 0 {
		return errOddXz
	}
	return nil
}

func (x *xzIndex) readBlockHeaders(r io.ReaderAt) error {
	var buf [maxBlockHeader]byte
	for _, b := range x.blocks {
		head := buf[:min(b.unpadded, maxBlockHeader)]
		if err := readFullAt(r, head, b.at); err != nil {
			return err
		}
		d, err := xzDictionary(head)
		if err != nil {
			return err
		}
		x.dictionary = max(x.dictionary, d)
	}
	return nil
}

// xzDictionary returns the size in bytes of the dictionary that a block with LZMA2
// as its only filter declares. head begins with the block's header.
func xzDictionary(head []byte) (int64, error) {
	if len(head) == 0 || head[0] == 0 || len(head) < (int(head[0])+1)*4 {
		return 0, errOddXz
	}
	rest := head[2 : (int(head[0])+1)*4-4]
	flags := head[1]
	if flags&0x3f != 0 { // more than one filter, or reserved
		return 0, errOddXz
	}
	for _, bit := range []byte{0x40, 0x80} { // compressed and decompressed size
		if flags&bit != 0 {
			if _, ok := cutXzInt(&rest); !ok {
				return 0, errOddXz
			}
		}
	}
	if len(rest) < 3 || rest[0] != lzma2Filter || rest[1] != 1 || rest[2] > 40 {
		return 0, errOddXz
	}
	if rest[2] == 40 {
		return 1<<32 - 1, nil
	}
	return int64(2|rest[2]&1) << (rest[2]/2 + 11), nil
}

// alone returns block b of r as an xz file of its own.
func (x *xzIndex) alone(r io.ReaderAt, b xzBlock) io.Reader {
	head := xzStreamHeader(x.flags)
	index := []byte{0, 1}
	index = appendXzInt(index, b.unpadded)
	index = appendXzInt(index, b.size)
	for len(index)%4 != 0 {
		index = append(index, 0)
	}
	index = binary.LittleEndian.AppendUint32(index, crc32.ChecksumIEEE(index))
	foot := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1))
	foot = append(foot, x.flags[:]...)
	tail := binary.LittleEndian.AppendUint32(index, crc32.ChecksumIEEE(foot))
	tail = append(append(tail, foot...), xzFooterEnd...)
	return io.MultiReader(bytes.NewReader(head[:]), newSection(r, b.at, b.stored()), bytes.NewReader(tail))
}

func xzStreamHeader(flags [2]byte) (head [xzHeaderSize]byte) {
	copy(head[:], xzMagic)
	copy(head[6:], flags[:])
	binary.LittleEndian.PutUint32(head[8:], crc32.ChecksumIEEE(flags[:]))
	return head
}

// cutXzInt takes a number of 63 bits in groups of seven, lowest first, off b.
func cutXzInt(b *[]byte) (int64, bool) {
	v, n := binary.Uvarint(*b)
	// The shortest form is the only one, and nine bytes are the most.
	if n <= 0 || n > 9 || n > 1 && (*b)[n-1] == 0 {
		return 0, false
	}
	*b = (*b)[n:]
	return int64(v), true
}

func appendXzInt(b []byte, v int64) []byte { return binary.AppendUvarint(b, uint64(v)) }

func readFullAt(r io.ReaderAt, p []byte, at int64) error {
	n, err := r.ReadAt(p, at)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
