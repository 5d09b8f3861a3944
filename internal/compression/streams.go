package compression

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrStreams says that a file has more than one compressed stream.
var ErrStreams = errors.New("more than one compressed stream")

// OneStream returns [ErrStreams] when the size bytes of r, in format f, are more than
// one xz or bzip2 stream, or one zstd frame. Some programs, dpkg-deb among them, take
// the end of the first for the end of the file. Of gzip everybody reads all members,
// and lzma has no second stream. A file that the decoder refuses OneStream may let
// pass.
func OneStream(r io.ReaderAt, size int64, f Format) error {
	switch f {
	case Xz:
		return oneXz(r, size)
	case Zstd:
		return oneZstd(r, size)
	case Bzip2:
		return oneBzip2(io.NewSectionReader(r, 0, size))
	}
	return nil
}

// oneXz goes from the footer at the end of an xz file over the index, which the
// decoder compares with the blocks, to the beginning of the stream,
// https://tukaani.org/xz/xz-file-format.txt.
func oneXz(r io.ReaderAt, size int64) error {
	var foot [xzHeaderSize]byte
	if size < 2*xzHeaderSize {
		return nil
	}
	if err := readFullAt(r, foot[:], size-xzHeaderSize); err != nil {
		return err
	}
	if string(foot[10:]) != xzFooterEnd {
		return fmt.Errorf("the last bytes are not those of an xz stream but %q", foot[10:])
	}
	length := (int64(binary.LittleEndian.Uint32(foot[4:8])) + 1) * 4
	start := size - xzHeaderSize - length // of the index
	if start < xzHeaderSize {
		return errors.New("the index of the xz stream is longer than the stream")
	}
	index := bufio.NewReader(io.NewSectionReader(r, start+1, length-1))
	var failed error
	number := func() uint64 {
		n, err := binary.ReadUvarint(index)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		failed = cmp.Or(failed, err)
		return n
	}
	for range number() {
		stored := number()
		number() // the size decompressed
		if failed != nil {
			break
		}
		if stored > uint64(start) {
			return errors.New("the index of the xz stream has blocks that are larger than the stream")
		}
		start -= int64(stored+3) &^ 3
	}
	if failed != nil {
		return fmt.Errorf("index of the xz stream: %w", failed)
	}
	if start != xzHeaderSize {
		return ErrStreams
	}
	return nil
}

// oneZstd walks over the blocks of the first zstd frame, RFC 8878, section 3.1.1.
func oneZstd(r io.ReaderAt, size int64) error {
	var head [5]byte
	if n, err := r.ReadAt(head[:], 0); n < len(head) {
		if err == io.EOF {
			return nil
		}
		return err
	}
	descriptor := head[4]
	at := int64(len(head)) + int64([4]int{0, 1, 2, 4}[descriptor&3]) // the dictionary's id
	contentSize := [4]int64{0, 2, 4, 8}[descriptor>>6]
	if single := descriptor&0x20 != 0; !single {
		at++ // the window
	} else if contentSize == 0 {
		contentSize = 1
	}
	at += contentSize
	for last := false; !last; {
		var block [3]byte
		if n, err := r.ReadAt(block[:], at); n < len(block) {
			if err == io.EOF {
				return nil
			}
			return err
		}
		bits := int64(block[0]) | int64(block[1])<<8 | int64(block[2])<<16
		last = bits&1 != 0
		if bits>>1&3 == 1 { // one byte, repeated
			bits = 1 << 3
		}
		at += int64(len(block)) + bits>>3
	}
	if descriptor&4 != 0 {
		at += 4 // the checksum
	}
	if at < size {
		return ErrStreams
	}
	return nil
}

// oneBzip2 looks for the head of another stream that has something in it. There is
// no other way than to decode all: a stream does not say how long it is, nor do its
// blocks. That data looks like these 80 bits by chance does not happen.
func oneBzip2(r io.Reader) error {
	const head = "BZh?1AY&SY" // ? is a digit
	buf := make([]byte, 64<<10)
	kept := 0 // bytes in front that were looked at
	for first := true; ; first = false {
		n, err := io.ReadFull(r, buf[kept:])
		text := buf[:kept+n]
		if first && len(text) > 0 {
			text = text[1:] // the one head that there must be
		}
		for rest := text; ; {
			i := bytes.Index(rest, []byte(head[4:]))
			if i < 0 {
				break
			}
			if i >= 4 && string(rest[i-4:i-1]) == head[:3] {
				return ErrStreams
			}
			rest = rest[i+len(head[4:]):]
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return err
		}
		kept = copy(buf, text[len(text)-len(head)+1:])
	}
}
