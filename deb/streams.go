package deb

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/imaseal/imaseal/internal/compression"
)

// dpkg-deb (1.21 to 1.23 were tried) decompresses the first xz or bzip2 stream, or
// the first zstd frame, and takes its end for the end of the archive, where all
// others read on. What stands in a second one is seen by a verifier and never
// installed, so there must be none. Of gzip dpkg-deb reads all members, and of lzma
// there is no second stream.

// errStreams says that a member is read to its end by everybody but dpkg.
var errStreams = errors.New("more than one compressed stream, of which dpkg reads the first only")

// oneStream refuses a member of size bytes in format f that has more than one
// stream. A member that the decoder refuses as well it may let pass.
func oneStream(r io.ReaderAt, size int64, f compression.Format) error {
	switch f {
	case compression.Xz:
		return oneXz(r, size)
	case compression.Zstd:
		return oneZstd(r, size)
	case compression.Bzip2:
		return oneBzip2(io.NewSectionReader(r, 0, size))
	}
	return nil
}

// oneXz goes from the footer at the end of an xz file over the index, which the
// decoder compares with the blocks, to the beginning of the stream,
// https://tukaani.org/xz/xz-file-format.txt.
func oneXz(r io.ReaderAt, size int64) error {
	const headerSize = 12 // bytes, of a stream's header and of its footer
	var foot [headerSize]byte
	if size < 2*headerSize {
		return nil
	}
	if n, err := r.ReadAt(foot[:], size-headerSize); n < headerSize {
		return noEOF(err)
	}
	if string(foot[10:]) != "YZ" {
		return fmt.Errorf("the last bytes are not those of an xz stream but %q", foot[10:])
	}
	length := (int64(binary.LittleEndian.Uint32(foot[4:8])) + 1) * 4
	start := size - headerSize - length // of the index
	if start < headerSize {
		return errors.New("the index of the xz stream is longer than the stream")
	}
	index := bufio.NewReader(io.NewSectionReader(r, start+1, length-1))
	count, err := binary.ReadUvarint(index)
	if err != nil {
		return fmt.Errorf("index of the xz stream: %w", noEOF(err))
	}
	for range count {
		stored, err := binary.ReadUvarint(index)
		if err != nil {
			return fmt.Errorf("index of the xz stream: %w", noEOF(err))
		}
		if _, err := binary.ReadUvarint(index); err != nil { // the size decompressed
			return fmt.Errorf("index of the xz stream: %w", noEOF(err))
		}
		if stored > uint64(start) {
			return errors.New("the index of the xz stream has blocks that are larger than the stream")
		}
		start -= int64(stored+3) &^ 3
	}
	if start != headerSize {
		return errStreams
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
		return errStreams
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
				return errStreams
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
