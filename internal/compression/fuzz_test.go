package compression

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
)

// fuzzLimit bounds in bytes what is decoded of one input.
const fuzzLimit = 1 << 20

// limitedRead reads and closes r.
func limitedRead(r io.ReadCloser, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(Limit(r, fuzzLimit, "the input"))
}

// Blocks side by side and one after another give the same, and refuse the same.
func FuzzXz(f *testing.F) {
	for _, file := range xzFiles(f) {
		if len(file.data) < 20<<10 {
			f.Add(file.data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		want, failed := limitedRead(NewReader(bytes.NewReader(data), Xz))
		if failed != nil && len(want) < fuzzLimit {
			mustFail(t, Xz, failed)
		}
		size := int64(len(data))
		x, err := readXzIndex(bytes.NewReader(data), size)
		if err != nil {
			return
		}
		b := newXzBlocks(bytes.NewReader(data), x, 2)
		if b == nil {
			return
		}
		got, err := limitedRead(start(Xz, func() (io.ReadCloser, error) { return b, nil }))
		if (err == nil) != (failed == nil) || err == nil && !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v; a plain reader %d bytes, %v", len(got), err, len(want), failed)
		}
	})
}

// Whatever a reader of some format is given, it fails with a good error or comes to an
// end, and it does the same with an input of one byte at a time.
func FuzzNewReader(f *testing.F) {
	all := append(slices.Clone(programs), noProgram)
	for i, p := range all {
		for _, data := range [][]byte{nil, text(500), make([]byte, 2000), noise(100)} {
			f.Add(p.with(f, data), uint8(i))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, number uint8) {
		format := all[int(number)%len(all)].format
		got, err := limitedRead(NewReader(bytes.NewReader(data), format))
		if len(got) > fuzzLimit {
			t.Errorf("%d bytes", len(got))
		}
		if err != nil && len(got) < fuzzLimit {
			mustFail(t, format, err)
		}
		again, failed := limitedRead(NewReaderAt(bytes.NewReader(data), int64(len(data)), format, 2))
		if (failed == nil) != (err == nil) || err == nil && !bytes.Equal(again, got) {
			t.Errorf("out of a file %d bytes, %v; else %d bytes, %v", len(again), failed, len(got), err)
		}
		if broken := errors.New("broken"); err == nil {
			_, err := limitedRead(NewReader(io.MultiReader(bytes.NewReader(data), failing{broken}), format))
			if !errors.Is(err, broken) {
				t.Errorf("error of the source %v", err)
			}
		}
	})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// What a reader takes has the format that Detect finds, by no more than the head.
func FuzzDetect(f *testing.F) {
	for _, p := range append(programs, noProgram) {
		f.Add(p.with(f, text(100)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		found := Detect(data)
		if found != Detect(data[:min(len(data), HeadSize)]) {
			t.Errorf("more than %d bytes matter", HeadSize)
		}
		for _, p := range programs {
			_, err := limitedRead(NewReader(bytes.NewReader(data), p.format))
			// A zstd stream can begin with something to be skipped, which is not its magic.
			if err == nil && found != p.format && p.format != Zstd {
				t.Errorf("detected as %s, but it is %s", found, p.format)
			}
		}
	})
}
