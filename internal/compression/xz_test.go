package compression

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/mikelolasagasti/xz"
)

// A file in the xz format, and in how many of the three ways it can be read.
type xzFile struct {
	data []byte
	ways int
}

// Block after block: all. By the program: plain streams. Side by side: plain streams of
// several blocks that fit into memory.
const (
	serialOnly = 1
	notBlocks  = 2
	allThree   = 3
)

// xzFiles are good files.
func xzFiles(t testing.TB) map[string]xzFile {
	t.Helper()
	large := text(200 << 10)
	make := func(data []byte, options ...string) []byte { return xzProgram.with(t, data, options...) }
	blocks := make(large, "-T2", "--block-size=64KiB")
	one := make(text(1000))
	files := map[string]xzFile{
		"blocks with their sizes":     {blocks, allThree},
		"blocks without their sizes":  {make(large, "-T1", "--block-size=50000"), allThree},
		"blocks of four sizes":        {make(large, "--block-list=1,50000,3,0"), allThree},
		"blocks that do not compress": {make(noise(200<<10), "--block-size=64KiB"), allThree},
		"blocks of a few bytes":       {make(text(2000), "--block-size=100"), allThree},
		"a large dictionary":          {make(large, largeDictionary, "--block-size=64KiB"), notBlocks},
		"a small dictionary":          {make(large, "--lzma2=dict=4KiB", "--block-size=64KiB"), allThree},
		"dictionaries of two sizes":   {make(large, "--block-size=64KiB", "--lzma2=dict=6MiB"), allThree},
		"one block":                   {one, notBlocks},
		"nothing":                     {make(nil), notBlocks},
		"two streams":                 {append(slices.Clone(blocks), one...), serialOnly},
		"two empty streams":           {append(make(nil), make(nil)...), serialOnly},
		"two streams and padding":     {slices.Concat(blocks, []byte{0, 0, 0, 0}, one, make([]byte(nil))), serialOnly},
		"padding at the end":          {append(slices.Clone(blocks), 0, 0, 0, 0), serialOnly},
		"padding of eight bytes":      {append(slices.Clone(one), 0, 0, 0, 0, 0, 0, 0, 0), serialOnly},
		"delta filter":                {make(large, "--delta=dist=4", "--lzma2", "--block-size=64KiB"), serialOnly},
		"powerpc filter":              {make(large, "--powerpc", "--lzma2", "--block-size=64KiB"), serialOnly},
	}
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	files["x86 filter"] = xzFile{make(program[4096:4096+200<<10], "--x86", "--lzma2", "--block-size=64KiB"), serialOnly}
	for _, check := range []string{"none", "crc32", "crc64", "sha256"} {
		files["check "+check] = xzFile{make(large, "--check="+check, "--block-size=64KiB"), allThree}
	}
	return files
}

func TestXzIsReadInAllWays(t *testing.T) {
	for name, f := range xzFiles(t) {
		t.Run(name, func(t *testing.T) {
			want, err := xzProgram.read(t, f.data)
			if err != nil {
				t.Fatal(err)
			}
			got, err := allWays(t, f.data)
			if err != nil {
				t.Error(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes that are not those of the program", len(got))
			}
			for way, open := range xzWays {
				r, err := open(t, bytes.NewReader(f.data), int64(len(f.data)))
				if err != nil {
					t.Fatal(err)
				}
				can := f.ways == allThree || f.ways == notBlocks && way == "the program"
				if got := wayOf(r); can && got != way || !can && got != "block after block" {
					t.Errorf("to be read by %s: was read by %s", way, got)
				}
				r.Close()
			}
		})
	}
}

// Whatever is wrong with a file, the ways agree, and they agree with the program.
func TestXzOfEveryFlippedByteInAllWays(t *testing.T) {
	data := text(240)
	for _, check := range []string{"crc64", "none"} {
		good := xzProgram.with(t, data, "--check="+check, "--block-size=120", smallDictionary)
		good = append(good, xzProgram.with(t, data[:20], "--check=crc32", smallDictionary)...)
		plain := good[:len(good)-len(xzProgram.with(t, data[:20], "--check=crc32", smallDictionary))]
		for i := range good {
			bad := slices.Clone(good)
			bad[i] ^= 1 << (i % 8)
			if i < len(plain) {
				bad = bad[:len(plain)] // a single stream, which is read in parallel
			}
			got, err := allWays(t, bad)
			want, failed := xzProgram.read(t, bad)
			if (err == nil) != (failed == nil) || err == nil && !bytes.Equal(got, want) {
				t.Errorf("check %s, byte %d: %v, of the program %v", check, i, err, failed)
			}
			if check != "none" && err == nil {
				t.Errorf("byte %d: no error", i)
			}
		}
	}
}

func TestXzThatIsCutOrLongerInAllWays(t *testing.T) {
	good := xzProgram.with(t, text(240), "--block-size=120", smallDictionary)
	for n := range good {
		if _, err := allWays(t, good[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are taken for all", n, len(good))
		}
		if t.Failed() {
			break
		}
	}
	for _, junk := range []string{"\x00", "\x00\x00\x00", "junk", "\x00\x00\x00\x00\x00", "\x00\x00\x00\x00junk", string(good[:12]), string(good[len(good)-12:])} {
		if _, err := allWays(t, append(slices.Clone(good), junk...)); err == nil {
			t.Errorf("%q after the stream is taken", junk)
		}
	}
}

// The program knows filters and checks that the decoder in Go does not. They are
// refused with it, too.
func TestXzOfOtherKindsIsRefusedInAllWays(t *testing.T) {
	blocks := func(options ...string) []byte {
		return xzProgram.with(t, text(200<<10), append(options, "--block-size=64KiB")...)
	}
	unknownCheck := blocks("--check=crc32")
	setFlags(unknownCheck, 2) // of the same length
	reserved := blocks()
	setFlags(reserved, 0x14)
	tooLarge := blocks("--lzma2=dict=4KiB")
	tooLarge[xzHeaderSize+4] = 29 // 96 MiB
	fixBlockHeader(tooLarge)
	files := map[string][]byte{
		"an unknown check":       unknownCheck,
		"reserved flags":         reserved,
		"a dictionary too large": tooLarge,
	}
	if arm, err := run(t, text(200<<10), "xz", "-c", "--arm64", "--lzma2"); err == nil { // xz 5.4 and later
		files["the arm64 filter"] = arm
	}
	for name, data := range files {
		t.Run(name, func(t *testing.T) {
			if _, err := allWays(t, data); err == nil {
				t.Error("no error")
			}
		})
	}
}

// A decoder that read something else before reads as a new one does, also what is
// broken: nothing of the other stream shows.
func TestXzDecodersThatAreUsedAgain(t *testing.T) {
	secret := bytes.Repeat([]byte("secret"), 1000)
	z, err := xz.NewReader(nil, maxDictionary)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	before := [][]byte{
		xzProgram.with(t, secret),
		xzProgram.with(t, program[4096:8192], "--x86", "--lzma2"),
		xzProgram.with(t, secret, "--check=sha256", "--delta", "--lzma2"),
		xzProgram.with(t, secret)[:60],
	}
	for _, options := range [][]string{{"--check=none"}, {"--check=none", "--x86", "--lzma2"}} {
		good := xzProgram.with(t, text(500), options...)
		for i := range good {
			bad := slices.Clone(good)
			bad[i] ^= 1 << (i % 7)
			fresh, err := xz.NewReader(bytes.NewReader(bad), maxDictionary)
			var want []byte
			if err == nil {
				want, err = io.ReadAll(fresh)
			}
			if z.Reset(bytes.NewReader(before[i%len(before)])) == nil {
				io.Copy(io.Discard, z)
			}
			var got []byte
			again := z.Reset(bytes.NewReader(bad))
			if again == nil {
				got, again = io.ReadAll(z)
			}
			if !bytes.Equal(got, want) || again != err {
				t.Errorf("byte %d: %d bytes and %v, of a new one %d and %v", i, len(got), again, len(want), err)
			}
		}
	}
}

// A decoder that failed, or whose dictionary is large, is not kept.
func TestXzDecodersThatAreKept(t *testing.T) {
	bad := xzProgram.with(t, text(1000))
	bad[60] ^= 1
	for _, test := range []struct {
		name string
		data []byte
		read int64
		want bool
	}{
		{"at the end", xzProgram.with(t, text(1000)), 1 << 20, true},
		{"in the middle", xzProgram.with(t, text(1000)), 10, true},
		{"after an error", bad, 1 << 20, false},
		{"with a large dictionary", xzProgram.with(t, text(1000), largeDictionary), 1 << 20, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := newXz(bytes.NewReader(test.data))
			if err != nil {
				t.Fatal(err)
			}
			io.CopyN(io.Discard, r, test.read)
			p := r.(*pooledXz)
			if p.keep != test.want {
				t.Errorf("kept: %v", p.keep)
			}
			p.Close()
			if p.keep {
				t.Error("it would be given back twice")
			}
		})
	}
}

// A flakyAt is a file with something wrong from some offset on.
type flakyAt struct {
	io.ReaderAt
	from int64
	fail func(p []byte, off int64) (int, error)
}

func (f flakyAt) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.from && off < f.from+4096 {
		return f.fail(p, off)
	}
	return f.ReaderAt.ReadAt(p, off)
}

// What can't be read, or is other than when the index was read, is an error.
func TestXzSourcesThatFailInAllWays(t *testing.T) {
	compressed, _ := big(t)
	size := int64(len(compressed))
	broken := errors.New("broken")
	for name, fail := range map[string]func(p []byte, off int64) (int, error){
		"cannot be read":    func([]byte, int64) (int, error) { return 0, broken },
		"end early":         func([]byte, int64) (int, error) { return 0, io.EOF },
		"say that they end": func([]byte, int64) (int, error) { return 0, io.ErrUnexpectedEOF },
		"have other bytes":  func(p []byte, off int64) (int, error) { clear(p); return len(p), nil },
	} {
		for way, open := range xzWays {
			for _, from := range []int64{40 << 10, size / 2, size - 200<<10} {
				t.Run(fmt.Sprintf("%s from %d, %s", name, from, way), func(t *testing.T) {
					src := flakyAt{bytes.NewReader(compressed), from, fail}
					_, err := readAll(func() (io.ReadCloser, error) { return open(t, src, size) })
					mustFail(t, Xz, err)
					if want := map[string]error{"cannot be read": broken, "end early": io.ErrUnexpectedEOF, "say that they end": io.ErrUnexpectedEOF}[name]; want != nil && !errors.Is(err, want) {
						t.Errorf("error %v, want %v", err, want)
					}
					if parallel.Load() {
						t.Error("the place is not free after an error")
					}
				})
			}
		}
	}
}

// Close in the middle ends everything before it returns.
func TestXzThatIsClosedInTheMiddle(t *testing.T) {
	compressed, _ := big(t)
	for way, open := range xzWays {
		for _, n := range []int64{0, 1, 100 << 10} {
			t.Run(fmt.Sprintf("%s after %d bytes", way, n), func(t *testing.T) {
				descriptors, routines := openDescriptors(t), runtime.NumGoroutine()
				r, err := open(t, bytes.NewReader(compressed), int64(len(compressed)))
				if err != nil {
					t.Fatal(err)
				}
				if got := wayOf(r); got != way {
					t.Fatalf("by %s", got)
				}
				if _, err := io.CopyN(io.Discard, r, n); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					if err := r.Close(); err != nil {
						t.Error(err)
					}
				}
				if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrClosed) {
					t.Errorf("then reads %d bytes, error %v", n, err)
				}
				if p, ok := r.(*reader).body.(*parallelXz); ok {
					if c, ok := p.body.(*xzChild); ok && c.cmd.ProcessState == nil {
						t.Error("the program was not waited for")
					}
				}
				if got := openDescriptors(t); got != descriptors {
					t.Errorf("%d descriptors, were %d", got, descriptors)
				}
				settle(t, routines)
			})
		}
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// settle waits until goroutines that have nothing more to do are gone.
func settle(t *testing.T, want int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > want; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, were %d", runtime.NumGoroutine(), want)
		}
	}
}
