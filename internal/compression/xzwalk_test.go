package compression

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"testing"
)

// firstBytes returns where in a file of one stream the chunks of LZMA begin.
func firstBytes(t *testing.T, data []byte) (offsets []int64) {
	t.Helper()
	x, err := readXzIndex(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	number := func(at int64) int64 { return int64(data[at])<<8 + int64(data[at+1]) + 1 }
	for _, b := range x.blocks {
		at := b.at + int64(data[b.at])*4 + 4
		for data[at] != 0 {
			switch c := data[at]; {
			case c <= 2:
				at += 3 + number(at+1)
			case c >= 0xc0:
				offsets = append(offsets, at+6)
				at += 6 + number(at+3)
			case c >= 0x80:
				offsets = append(offsets, at+5)
				at += 5 + number(at+3)
			default:
				t.Fatalf("no chunk begins at %d", at)
			}
		}
	}
	return offsets
}

// A first byte of a chunk that is not zero changes nothing in what is decoded, yet the
// program refuses it, and so do we, in every block and every stream.
func TestXzChunksWithAnotherFirstByte(t *testing.T) {
	stream := xzProgram.with(t, slices.Concat(text(300<<10), noise(100<<10), hex.AppendEncode(nil, noise(200<<10))), "--check=sha256", "--block-size=250KiB", "--lzma2=dict=256KiB")
	offsets := firstBytes(t, stream)
	if len(offsets) < 8 {
		t.Fatalf("only %d chunks", len(offsets))
	}
	for _, at := range offsets {
		bad := slices.Clone(stream)
		bad[at] = 0x80
		if _, err := allWays(t, bad); err == nil {
			t.Errorf("a chunk at %d: no error", at)
		}
		if _, err := decode(slices.Concat(stream, make([]byte, 8), bad), Xz); !errors.Is(err, errFirstByte) {
			t.Errorf("a chunk at %d of the second stream: %v", at, err)
		}
	}
	if _, err := xzProgram.read(t, func() []byte { bad := slices.Clone(stream); bad[offsets[3]] = 1; return bad }()); err == nil {
		t.Error("the program takes it: the test is wrong")
	}
}

// A walk through anything comes to an end and passes every byte on.
func FuzzXzWalk(f *testing.F) {
	for _, file := range xzFiles(f) {
		if len(file.data) < 10<<10 {
			f.Add(file.data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := io.ReadAll(newXzWalk(bytes.NewReader(data)))
		if err != nil && err != errFirstByte || err == nil && !bytes.Equal(got, data) {
			t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
		}
	})
}
