package compression

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// A program makes and reads a format.
type program struct {
	format     Format
	compress   []string
	decompress []string
}

var (
	gzipProgram  = program{Gzip, []string{"gzip", "-nc"}, []string{"gzip", "-dc"}}
	xzProgram    = program{Xz, []string{"xz", "-c"}, []string{"xz", "-dc"}}
	zstdProgram  = program{Zstd, []string{"zstd", "-qc"}, []string{"zstd", "-dcq", "--memory=128MiB"}}
	bzip2Program = program{Bzip2, []string{"bzip2", "-c"}, []string{"bzip2", "-dc"}}
	lzmaProgram  = program{Lzma, []string{"xz", "--format=lzma", "-c"}, []string{"xz", "--format=lzma", "-dc"}}
	noProgram    = program{None, []string{"cat"}, []string{"cat"}}

	programs = []program{gzipProgram, xzProgram, zstdProgram, bzip2Program, lzmaProgram}
)

// with compresses data with further options.
func (p program) with(t testing.TB, data []byte, options ...string) []byte {
	t.Helper()
	return stock(t, data, p.compress[0], append(slices.Clone(p.compress[1:]), options...)...)
}

func (p program) read(t testing.TB, data []byte) ([]byte, error) {
	t.Helper()
	return run(t, data, p.decompress[0], p.decompress[1:]...)
}

func TestReadersAgreeWithTheStockPrograms(t *testing.T) {
	small, large, random := text(100), text(300<<10), noise(100<<10)
	twice := func(p program) []byte { return append(p.with(t, large), p.with(t, random)...) }
	for _, test := range []struct {
		name string
		p    program
		data []byte
	}{
		{"nothing", noProgram, nil},
		{"plain", noProgram, large},
		{"gzip", gzipProgram, gzipProgram.with(t, large)},
		{"gzip fast", gzipProgram, gzipProgram.with(t, large, "-1")},
		{"gzip of nothing", gzipProgram, gzipProgram.with(t, nil)},
		{"gzip of noise", gzipProgram, gzipProgram.with(t, random)},
		{"gzip of two members", gzipProgram, twice(gzipProgram)},
		{"gzip with a name and a comment", gzipProgram, append([]byte("\x1f\x8b\x08\x18\x00\x00\x00\x00\x00\x03name\x00comment\x00"), gzipProgram.with(t, small)[10:]...)},
		{"xz", xzProgram, xzProgram.with(t, large)},
		{"zstd", zstdProgram, zstdProgram.with(t, large)},
		{"zstd of nothing", zstdProgram, zstdProgram.with(t, nil)},
		{"zstd of noise", zstdProgram, zstdProgram.with(t, random)},
		{"zstd without check", zstdProgram, zstdProgram.with(t, large, "--no-check")},
		{"zstd -19", zstdProgram, zstdProgram.with(t, large, "-19")},
		{"zstd --ultra -22", zstdProgram, zstdProgram.with(t, large, "--ultra", "-22")},
		{"zstd with the largest window", zstdProgram, zstdProgram.with(t, large, "--long=27", "--no-content-size")},
		{"zstd of two frames", zstdProgram, twice(zstdProgram)},
		{"zstd with a frame to be skipped", zstdProgram, append(zstdProgram.with(t, small), "\x50\x2a\x4d\x18\x03\x00\x00\x00abc"...)},
		{"bzip2", bzip2Program, bzip2Program.with(t, large)},
		{"bzip2 of nothing", bzip2Program, bzip2Program.with(t, nil)},
		{"bzip2 with small blocks", bzip2Program, bzip2Program.with(t, large, "-1")},
		{"bzip2 of two streams", bzip2Program, twice(bzip2Program)},
		{"lzma", lzmaProgram, lzmaProgram.with(t, large)},
		{"lzma -0", lzmaProgram, lzmaProgram.with(t, large, "-0")},
		{"lzma with the largest dictionary", lzmaProgram, lzmaProgram.with(t, large, "--lzma1=preset=0,dict=64MiB")},
		{"lzma of nothing", lzmaProgram, lzmaProgram.with(t, nil)},
		{"lzma of noise", lzmaProgram, lzmaProgram.with(t, random)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Detect(test.data[:min(len(test.data), HeadSize)]); got != test.p.format {
				t.Errorf("detected as %s, not %s", got, test.p.format)
			}
			want, err := test.p.read(t, test.data)
			if err != nil {
				t.Fatal(err)
			}
			for name, open := range map[string]func() (io.ReadCloser, error){
				"all at once": func() (io.ReadCloser, error) { return NewReader(bytes.NewReader(test.data), test.p.format) },
				"one byte at a time": func() (io.ReadCloser, error) {
					return NewReader(iotest.OneByteReader(bytes.NewReader(test.data)), test.p.format)
				},
				"the end with the last bytes": func() (io.ReadCloser, error) {
					return NewReader(iotest.DataErrReader(bytes.NewReader(test.data)), test.p.format)
				},
				"out of a file": func() (io.ReadCloser, error) {
					in := io.NewSectionReader(bytes.NewReader(append(slices.Clone(test.data), "junk"...)), 0, int64(len(test.data)))
					return NewReaderAt(in, in.Size(), test.p.format, 2)
				},
			} {
				got, err := readAll(open)
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes that are not those of the program", name, len(got))
				}
			}
		})
	}
}

// A stream that is cut anywhere is refused, but for the old lzma format: it has no
// checks, and the program does not miss its last bytes either.
func TestTruncatedStreamsAreRefused(t *testing.T) {
	for _, p := range programs {
		t.Run(string(p.format), func(t *testing.T) {
			data := p.with(t, text(300))
			for n := range data {
				if _, err := decode(data[:n], p.format); err != nil {
					mustFail(t, p.format, err)
				} else if _, err := p.read(t, data[:n]); err != nil {
					t.Errorf("the first %d of %d bytes are taken for all", n, len(data))
				}
			}
		})
	}
}

// Where a byte is changed we refuse what the program refuses, and what both take is
// the same to both.
func TestFlippedBytesAreRefused(t *testing.T) {
	for _, p := range programs {
		t.Run(string(p.format), func(t *testing.T) {
			data := p.with(t, text(200))
			refused := 0
			for i := range data {
				bad := slices.Clone(data)
				bad[i] ^= 1 << (i % 8)
				got, err := decode(bad, p.format)
				if err != nil {
					mustFail(t, p.format, err)
					refused++
					continue
				}
				want, err := p.read(t, bad)
				if err != nil && p.format == Bzip2 {
					// The library does not look at tables that are not used. The
					// checksum tells that this does no harm.
					want, err = text(200), nil
				}
				if err != nil {
					t.Errorf("byte %d of %d: %s refuses it", i, len(data), p.decompress[0])
				}
				if !bytes.Equal(got, want) {
					t.Errorf("byte %d of %d: not the bytes of %s", i, len(data), p.decompress[0])
				}
			}
			if refused < len(data)/2 {
				t.Errorf("only %d of %d were refused", refused, len(data))
			}
		})
	}
}

func TestJunkAfterTheStreamIsRefused(t *testing.T) {
	for _, p := range programs {
		for _, junk := range []string{"\x00", "x", "xy", "xyz", "\x00\x00\x00", "junk", "\x00\x00\x00\x00x", strings.Repeat("junk", 5000), "\x1f", "\x1f\x8b", "\xfd7zX", "(\xb5/", "BZ", "BZh9"} {
			t.Run(fmt.Sprintf("%s and %.10q", p.format, junk), func(t *testing.T) {
				_, err := decode(append(p.with(t, text(300)), junk...), p.format)
				mustFail(t, p.format, err)
			})
		}
	}
}

func TestOtherFormatsAreRefused(t *testing.T) {
	for _, p := range programs {
		data := p.with(t, text(300))
		for _, f := range []Format{Gzip, Xz, Zstd, Bzip2, Lzma, "rot13"} {
			if f != p.format {
				_, err := decode(data, f)
				mustFail(t, f, err)
			}
		}
	}
}

func TestHugeDeclaredSizesAreRefused(t *testing.T) {
	dictionary := func(props byte) []byte {
		data := xzProgram.with(t, text(300), smallDictionary)
		data[xzHeaderSize+4] = props
		fixBlockHeader(data)
		return data
	}
	window := func(log byte) []byte { // a frame without content size: one raw block of a byte
		return []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, (log - 10) << 3, 0x09, 0x00, 0x00, 'x'}
	}
	lzmaDictionary := func(size string) []byte { return append([]byte("\x5d"+size), lzmaProgram.with(t, text(300))[5:]...) }
	for _, test := range []struct {
		name string
		f    Format
		data []byte
		ok   bool
	}{
		{"xz 64 MiB", Xz, dictionary(28), true},
		{"xz 96 MiB", Xz, dictionary(29), false},
		{"xz 128 MiB", Xz, dictionary(30), false},
		{"xz 4 GiB", Xz, dictionary(40), false},
		{"xz beyond what there is", Xz, dictionary(41), false},
		{"lzma 64 MiB", Lzma, lzmaDictionary("\x00\x00\x00\x04"), true},
		{"lzma 96 MiB", Lzma, lzmaDictionary("\x00\x00\x00\x06"), false},
		{"lzma 4 GiB", Lzma, lzmaDictionary("\xff\xff\xff\xff"), false},
		{"zstd 128 MiB", Zstd, window(27), true},
		{"zstd 256 MiB", Zstd, window(28), false},
		{"zstd 2 GiB", Zstd, window(31), false},
		{"zstd 1 TiB", Zstd, window(40), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := decode(test.data, test.f)
			runtime.ReadMemStats(&after)
			if test.ok {
				if err != nil {
					t.Error(err)
				}
				return
			}
			mustFail(t, test.f, err)
			if got := after.TotalAlloc - before.TotalAlloc; got > 8<<20 {
				t.Errorf("%d MiB were allocated to refuse it", got>>20)
			}
		})
	}
}

// The error of the source is what the caller gets, and nothing that a decoder may
// make of it, the end least of all.
func TestErrorsOfTheSource(t *testing.T) {
	broken := errors.New("broken")
	for _, p := range append(slices.Clone(programs), noProgram) {
		data := append(p.with(t, text(2000)), p.with(t, text(100))...)
		if p.format == Lzma {
			data = p.with(t, text(2000))
		}
		first := len(p.with(t, text(2000)))
		for _, cause := range []error{broken, io.ErrUnexpectedEOF, io.ErrNoProgress, io.ErrClosedPipe, os.ErrClosed} {
			for _, n := range []int{0, 1, 5, 13, 30, len(data) / 3, first - 1, first, len(data) - 1, len(data)} {
				r := io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(cause))
				_, err := readAll(func() (io.ReadCloser, error) { return NewReader(r, p.format) })
				mustFail(t, p.format, err)
				if !errors.Is(err, cause) {
					t.Errorf("%s, %q after %d of %d bytes: %v", p.format, cause, n, len(data), err)
				}
			}
		}
		// The file becomes shorter after its size was looked at.
		for _, n := range []int{0, 1, 5, 13, len(data) / 2, len(data) - 1} {
			_, err := readAll(func() (io.ReadCloser, error) {
				return NewReaderAt(bytes.NewReader(data[:n]), int64(len(data)), p.format, 2)
			})
			mustFail(t, p.format, err)
			if want := fmt.Sprintf("only %d of %d bytes are there", n, len(data)); err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %q, want %q", p.format, err, want)
			}
		}
	}
}

// An error comes again rather than what follows it.
func TestErrorsStay(t *testing.T) {
	for _, p := range programs {
		data := p.with(t, text(10000))
		data[len(data)/2] ^= 0xff
		r, err := NewReader(bytes.NewReader(data), p.format)
		if err != nil {
			t.Fatal(err)
		}
		_, first := io.ReadAll(r)
		mustFail(t, p.format, first)
		for range 3 {
			if n, err := r.Read(make([]byte, 100)); n != 0 || err != first {
				t.Errorf("%s: %d bytes and %v, after %v", p.format, n, err, first)
			}
		}
		r.Close()
	}
}

func TestReadersThatAreClosed(t *testing.T) {
	for _, p := range append(slices.Clone(programs), noProgram) {
		for _, n := range []int64{0, 1, 1 << 20} {
			r, err := NewReader(bytes.NewReader(p.with(t, text(10000))), p.format)
			if err != nil {
				t.Fatal(err)
			}
			io.CopyN(io.Discard, r, n)
			for range 2 {
				if err := r.Close(); err != nil {
					t.Errorf("%s: %v", p.format, err)
				}
			}
			n, err := r.Read(make([]byte, 1))
			if n != 0 || !errors.Is(err, os.ErrClosed) {
				t.Errorf("%s: read %d bytes, error %v", p.format, n, err)
			}
		}
	}
}

// A decoder that panics fails.
func TestPanicsAreErrors(t *testing.T) {
	if _, err := NewReader(panicking{}, Gzip); err == nil || err.Error() != "gzip: the decoder failed: a bug" {
		t.Errorf("error %v", err)
	}
	r, err := NewReader(panicking{}, None)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil || err.Error() != "none: the decoder failed: a bug" {
			t.Errorf("%d bytes, error %v", n, err)
		}
	}
}

type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("a bug") }
