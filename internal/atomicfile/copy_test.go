package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// some has more bytes than any buffer on the way, each at its own place.
var some = func() []byte {
	var b bytes.Buffer
	for b.Len() < 300<<10 {
		fmt.Fprintf(&b, "%08x", b.Len())
	}
	return b.Bytes()
}()

// A destination gives what was copied to it.
type destination struct {
	w    io.Writer
	have func() []byte
}

func destinations(t *testing.T) map[string]destination {
	t.Helper()
	file := func(flags int, before string) destination {
		path := filepath.Join(t.TempDir(), "dst")
		write(t, path, before)
		f, err := os.OpenFile(path, os.O_RDWR|flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if _, err := f.Seek(int64(len(before)), io.SeekStart); err != nil {
			t.Fatal(err)
		}
		return destination{f, func() []byte {
			b, err := os.ReadFile(path)
			if err != nil || !bytes.HasPrefix(b, []byte(before)) {
				t.Fatalf("the file begins with %.20q: %v", b, err)
			}
			return b[len(before):]
		}}
	}
	pipe := func() destination {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan []byte)
		go func() {
			b, _ := io.ReadAll(r)
			read <- b
		}()
		t.Cleanup(func() { r.Close(); w.Close() })
		return destination{w, func() []byte { w.Close(); return <-read }}
	}
	buffer := new(bytes.Buffer)
	return map[string]destination{
		"a file":                     file(0, ""),
		"a file at its position":     file(0, "before"),
		"a file that is appended to": file(os.O_APPEND, "before"),
		"a pipe":                     pipe(),
		"a buffer":                   {buffer, buffer.Bytes},
	}
}

func TestCopyRange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "src")
	write(t, path, string(some))
	for _, r := range []struct{ off, n int64 }{
		{0, int64(len(some))}, {0, 1}, {7, 100}, {4096, 8192}, {5, int64(len(some)) - 5}, {int64(len(some)) - 1, 1}, {int64(len(some)), 0}, {3, 0},
	} {
		for _, source := range []string{"a file", "a file that is gone", "bytes"} {
			for name, dst := range destinations(t) {
				t.Run(fmt.Sprintf("%d bytes at %d of %s to %s", r.n, r.off, source, name), func(t *testing.T) {
					const position = 11
					var src io.ReaderAt = bytes.NewReader(some)
					switch source {
					case "a file", "a file that is gone":
						copied := filepath.Join(t.TempDir(), "src")
						write(t, copied, string(some))
						f, err := os.Open(copied)
						if err != nil {
							t.Fatal(err)
						}
						defer f.Close()
						if source == "a file that is gone" {
							os.Remove(copied)
						}
						f.Seek(position, io.SeekStart)
						src = f
					}
					if err := CopyRange(dst.w, src, r.off, r.n); err != nil {
						t.Fatal(err)
					}
					if got := dst.have(); !bytes.Equal(got, some[r.off:r.off+r.n]) {
						t.Errorf("%d bytes that are not those", len(got))
					}
					if f, ok := src.(*os.File); ok {
						if at, err := f.Seek(0, io.SeekCurrent); at != position || err != nil {
							t.Errorf("the position of the source is %d, was %d (%v)", at, position, err)
						}
					}
				})
			}
		}
	}
}

func TestCopyRangeOfAFileToItself(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "0123456789")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.Seek(2, io.SeekStart)
	if err := CopyRange(f, f, 6, 3); err != nil {
		t.Fatal(err)
	}
	mustHave(t, path, "0167856789")
}

func TestCopyRangeLeavesNoDescriptor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "src")
	write(t, path, string(some))
	src, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(path + "2")
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	before := len(names(t, "/proc/self/fd"))
	for _, n := range []int64{10, int64(len(some)) + 1} {
		CopyRange(dst, src, 0, n)
	}
	if after := len(names(t, "/proc/self/fd")); after != before {
		t.Errorf("%d descriptors, were %d", after, before)
	}
}

func TestCopyRangeFails(t *testing.T) {
	broken := errors.New("broken")
	path := filepath.Join(t.TempDir(), "src")
	write(t, path, string(some))
	open := func(flags int) *os.File {
		f, err := os.OpenFile(path, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	closed := open(os.O_RDONLY)
	closed.Close()
	size := int64(len(some))
	out := func() *os.File {
		f, err := os.Create(filepath.Join(t.TempDir(), "dst"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	for _, test := range []struct {
		name   string
		dst    io.Writer
		src    io.ReaderAt
		off, n int64
		want   error
	}{
		{"beyond the end, file to file", out(), open(os.O_RDONLY), 0, size + 1, io.ErrUnexpectedEOF},
		{"all beyond the end, file to file", out(), open(os.O_RDONLY), size + 10, 1, io.ErrUnexpectedEOF},
		{"beyond the end, file to buffer", new(bytes.Buffer), open(os.O_RDONLY), 1, size, io.ErrUnexpectedEOF},
		{"beyond the end, bytes to file", out(), bytes.NewReader(some), 1, size, io.ErrUnexpectedEOF},
		{"beyond the end, bytes to buffer", new(bytes.Buffer), bytes.NewReader(some), size, 1, io.ErrUnexpectedEOF},
		{"a length that overflows", out(), open(os.O_RDONLY), 5, math.MaxInt64, io.ErrUnexpectedEOF},
		{"a negative length", out(), open(os.O_RDONLY), 0, -1, io.ErrUnexpectedEOF},
		{"a closed source", out(), closed, 0, 1, os.ErrClosed},
		{"a closed source to a buffer", new(bytes.Buffer), closed, 0, 1, os.ErrClosed},
		{"a source that fails", out(), failingAt{broken}, 0, 1, broken},
		{"a destination that fails", failingWriter{broken}, open(os.O_RDONLY), 0, 10, broken},
		{"a destination that may not be written", open(os.O_RDONLY), open(os.O_RDONLY), 0, 10, syscall.EBADF},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := CopyRange(test.dst, test.src, test.off, test.n)
			if !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("copying %d bytes from offset %d", test.n, test.off)) {
				t.Errorf("error %q does not say what was copied", err)
			}
		})
	}
}

type failingAt struct{ err error }

func (f failingAt) ReadAt([]byte, int64) (int, error) { return 0, f.err }

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }
