package compression

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// stock runs a program on in, or skips the test where it is missing.
func stock(t testing.TB, in []byte, program string, args ...string) []byte {
	t.Helper()
	out, err := run(t, in, program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func run(t testing.TB, in []byte, program string, args ...string) ([]byte, error) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("needs the program %s", program)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = bytes.NewReader(in)
	return cmd.Output()
}

// text is n bytes that compress about as source code does, the same at each call.
func text(n int) []byte {
	words := strings.Fields("the file of a package that has been read is not what it was signed for ; { } return err")
	random := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for b.Len() < n {
		b.WriteString(words[random.IntN(len(words))])
		b.WriteByte(" \n\t0"[random.IntN(4)])
	}
	return b.Bytes()[:n]
}

// noise is n bytes that do not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// big is an xz stream of four blocks that is large enough to be read in parallel, and
// what it has.
var bigOnce sync.Once
var bigXz, bigData []byte

func big(t testing.TB) (compressed, data []byte) {
	t.Helper()
	bigOnce.Do(func() {
		bigData = append(noise(2<<20+100<<10), text(2<<20)...)
		bigXz = stock(t, bigData, "xz", "-0", "-T2", "--block-size=1MiB")
	})
	if len(bigXz) < parallelSize {
		t.Fatalf("%d bytes are too small", len(bigXz))
	}
	return bigXz, bigData
}

// Options of xz: with the small dictionary a decoder is made at once, with the large
// one it is as large as may be, and the program itself does not take long.
const (
	smallDictionary = "--lzma2=dict=4KiB"
	largeDictionary = "--lzma2=preset=0,dict=64MiB"
)

// readAll reads and closes what open gives.
func readAll(open func() (io.ReadCloser, error)) ([]byte, error) {
	r, err := open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// decode reads data to its end.
func decode(data []byte, f Format) ([]byte, error) {
	return readAll(func() (io.ReadCloser, error) { return NewReader(bytes.NewReader(data), f) })
}

// mustFail fails the test unless err is one of the format, on one line, that can't be
// taken for the end.
func mustFail(t testing.TB, f Format, err error) {
	t.Helper()
	switch {
	case err == nil:
		t.Error("no error")
	case errors.Is(err, io.EOF):
		t.Errorf("%q can be taken for the end", err)
	case !strings.HasPrefix(err.Error(), string(f)+": ") || strings.Contains(err.Error(), "\n"):
		t.Errorf("error %q does not begin with the format or has several lines", err)
	case strings.HasPrefix(err.Error(), string(f)+": "+string(f)+": "):
		t.Errorf("error %q names the format twice", err)
	case strings.Contains(err.Error(), "the decoder failed"):
		t.Errorf("a panic: %v", err)
	}
}

// The ways in which a plain xz stream is read. Each refuses to be another one.
var xzWays = map[string]func(t testing.TB, r io.ReaderAt, size int64) (io.ReadCloser, error){
	"block after block": func(t testing.TB, r io.ReaderAt, size int64) (io.ReadCloser, error) {
		return NewReaderAt(r, size, Xz, 1)
	},
	"blocks side by side": func(t testing.TB, r io.ReaderAt, size int64) (io.ReadCloser, error) {
		defer setPath(t, "/nonexistent")()
		return startBig(r, size)
	},
	"the program": func(t testing.TB, r io.ReaderAt, size int64) (io.ReadCloser, error) {
		return startBig(r, size)
	},
}

// setPath is t.Setenv that ends earlier.
func setPath(t testing.TB, path string) (restore func()) {
	t.Helper()
	old := os.Getenv("PATH")
	os.Setenv("PATH", path)
	return func() { os.Setenv("PATH", old) }
}

// startBig is NewReaderAt that takes every stream for a big one.
func startBig(r io.ReaderAt, size int64) (io.ReadCloser, error) {
	return start(Xz, func() (io.ReadCloser, error) { return newXzBig(r, size, 2) })
}

// wayOf says how a reader reads.
func wayOf(r io.ReadCloser) string {
	p, ok := r.(*reader).body.(*parallelXz)
	if !ok {
		return "block after block"
	}
	switch p.body.(type) {
	case *xzBlocks:
		return "blocks side by side"
	case *xzChild:
		return "the program"
	}
	return "block after block"
}

// allWays reads data in all ways and returns what all agree on.
func allWays(t testing.TB, data []byte) ([]byte, error) {
	t.Helper()
	want, failed := decode(data, Xz)
	for name, open := range xzWays {
		got, err := readAll(func() (io.ReadCloser, error) { return open(t, bytes.NewReader(data), int64(len(data))) })
		if (err == nil) != (failed == nil) {
			t.Errorf("%s: error %v, of a plain reader %v", name, err, failed)
		}
		if err == nil && !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, not the %d of a plain reader", name, len(got), len(want))
		}
		if err != nil {
			mustFail(t, Xz, err)
		}
		if parallel.Load() {
			t.Fatalf("%s: the place of the parallel stream is not free again", name)
		}
	}
	return want, failed
}
