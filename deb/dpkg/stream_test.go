package dpkg

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/deb/dpkgtar"
	"github.com/imaseal/imaseal/sign"
)

// sealOf returns the seal of a package and its archive.
func sealOf(t *testing.T, p *testPackage, key *testKey) (*seal, []byte) {
	t.Helper()
	dir := t.TempDir()
	data := p.unpack(t, key, dir)
	s, err := readSeal(openTestControl(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	return s, data
}

// pipeOf returns the two ends of a pipe.
func pipeOf(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// bulky is a package whose archive is far larger than any buffer.
func bulky() *testPackage {
	p := hello()
	p.files = append(p.files, plainFile("usr/share/big", strings.Repeat("0123456789abcdef", 200000), 0o644))
	return p
}

func TestPassageHoldsTheEndBack(t *testing.T) {
	for name, from := range map[string]func(io.Reader) io.Reader{
		"at once": func(r io.Reader) io.Reader { return r }, "in halves": iotest.HalfReader, "error with data": iotest.DataErrReader,
	} {
		t.Run(name, func(t *testing.T) {
			s, data := sealOf(t, bulky(), newTestKey(t))
			r, w := pipeOf(t)
			p := &passage{from: from(bytes.NewReader(data)), to: int(w.Fd()), payload: newPayload(s, nil)}
			var got bytes.Buffer
			var mu sync.Mutex
			length := func() int {
				mu.Lock()
				defer mu.Unlock()
				return got.Len()
			}
			settled, ended := make(chan int), make(chan struct{})
			go func() {
				// As dpkg does: read up to the end mark, then wait for the end.
				buf := make([]byte, 7000)
				for {
					n, err := r.Read(buf)
					mu.Lock()
					got.Write(buf[:n])
					mu.Unlock()
					if err != nil {
						close(ended)
						return
					}
				}
			}()
			if err := p.run(); err != nil {
				t.Fatal(err)
			}
			if err := p.payload.end(p.sum()); err != nil {
				t.Fatal(err)
			}
			go func() {
				if err := p.settle(); err != nil {
					t.Error(err)
				}
				settled <- int(p.held)
			}()
			held := <-settled
			end := len(bytes.TrimRight(data, "\x00"))
			end = (end + dpkgtar.BlockSize - 1) &^ (dpkgtar.BlockSize - 1)
			// What was read from the pipe may still be on its way into the buffer.
			for range 1000 {
				if length() == end+dpkgtar.BlockSize {
					break
				}
				time.Sleep(time.Millisecond)
			}
			if length() != end+dpkgtar.BlockSize || held != len(data)-end-dpkgtar.BlockSize {
				t.Errorf("%d bytes were sent and %d held back, the archive has %d and ends at %d", length(), held, len(data), end)
			}
			if err := p.rest(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			<-ended
			if !bytes.Equal(got.Bytes(), data) {
				t.Error("what arrived is not what was sent")
			}
		})
	}
}

// However the archive is wrong, what is refused can still be passed on byte for byte,
// which is what the mode warn does.
func TestPassageOfABadArchive(t *testing.T) {
	key := newTestKey(t)
	junk := func(b []byte) []byte { return append(b, "junk"...) }
	for name, c := range map[string]struct {
		data  func([]byte) []byte
		files func(*testPackage)
		sign  func(files, control *[]sign.Entry)
		want  string
	}{
		"another content": {data: func(b []byte) []byte {
			at := bytes.Index(b, []byte("echo hello"))
			b[at] = 'E'
			return b
		}, want: "the content is not what was signed"},
		"junk after the end":     {data: junk, want: "something follows the end of the archive: 0x6a"},
		"a second archive":       {data: func(b []byte) []byte { return append(b, b...) }, want: "something follows the end of the archive"},
		"endless padding":        {data: func(b []byte) []byte { return append(b, make([]byte, 2<<20)...) }, want: "bytes of padding follow"},
		"one zero more":          {data: func(b []byte) []byte { return append(b, 0) }, want: "the content is not what was signed"},
		"no end mark":            {data: func(b []byte) []byte { return b[:8*512+100] }, want: "no end mark"},
		"no end mark at a block": {data: func(b []byte) []byte { return bytes.TrimRight(b, "\x00")[:8*512] }, want: "no end mark"},
		"PAX":                    {data: func(b []byte) []byte { b[512+156] = 'x'; return b }, want: "PAX"},
		"signature of no file": {sign: func(files, _ *[]sign.Entry) {
			*files = append(*files, sign.Entry{Path: "zz", Value: key.value(t, "x")})
		}, want: "signature of /zz, but no such file"},
		"signature of a folder": {sign: func(files, _ *[]sign.Entry) {
			*files = append(*files, sign.Entry{Path: "zz", Value: key.value(t, "x")})
		}, files: func(p *testPackage) { p.files = append(p.files, folders("zz")[1]) }, want: `"zz" has a signature and is no regular file`},
		"file without one": {sign: func(files, _ *[]sign.Entry) { *files = (*files)[1:] }, want: "/etc/hello.conf has no signature, but the package says"},
		"empty file without one": {sign: func(files, _ *[]sign.Entry) {
			*files = withoutEntry(*files, "usr/share/hello/empty")
		}, want: "/usr/share/hello/empty has no signature"},
		"link with its own signature": {sign: func(files, _ *[]sign.Entry) {
			for i := range *files {
				if (*files)[i].Path == "usr/bin/hi" {
					(*files)[i].Value = key.value(t, "other")
				}
			}
		}, want: "are one file and have two signatures"},
		"name that climbs":        {files: func(p *testPackage) { p.files = append(p.files, plainFile("usr/bin/../x", "", 0o644)) }, want: `component ".."`},
		"name twice":              {files: func(p *testPackage) { p.files = append(p.files, plainFile("usr/bin/hello", "", 0o755)) }, want: "stands there twice"},
		"hard link to the system": {files: func(p *testPackage) { p.files = append(p.files, special('1', "usr/bin/x", "./etc/passwd")) }, want: "is a hard link to"},
		"below a link": {files: func(p *testPackage) {
			p.files = append(p.files, special('2', "usr/x", "/tmp"), plainFile("usr/x/y", "", 0o644))
		}, want: "which is no folder"},
	} {
		t.Run(name, func(t *testing.T) {
			p := bulky()
			if c.files != nil {
				c.files(p)
			}
			p.data, p.entries = c.data, c.sign
			if c.files != nil && c.sign == nil {
				// What sign would not sign is not among the signatures.
				p.entries = func(files, _ *[]sign.Entry) { *files = nil }
				p.statement = func(s *sign.Statement) { s.Selection = sign.Selection{Select: []string{"/none"}} }
			}
			s, data := sealOf(t, p, key)
			r, w := pipeOf(t)
			got := make(chan []byte)
			go func() {
				all, _ := io.ReadAll(r)
				got <- all
			}()
			pass := &passage{from: bytes.NewReader(data), to: int(w.Fd()), payload: newPayload(s, nil)}
			err := pass.run()
			if err == nil {
				err = pass.payload.end(pass.sum())
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v does not say %q", err, c.want)
			}
			if err := pass.rest(); err != nil {
				t.Error(err)
			}
			w.Close()
			if !bytes.Equal(<-got, data) {
				t.Error("what arrived is not what was sent")
			}
		})
	}
}

func withoutEntry(entries []sign.Entry, path string) (kept []sign.Entry) {
	for _, e := range entries {
		if e.Path != path {
			kept = append(kept, e)
		}
	}
	return kept
}

func TestPassageEndsWithDpkg(t *testing.T) {
	s, data := sealOf(t, bulky(), newTestKey(t))
	// dpkg dies in the middle.
	r, w := pipeOf(t)
	p := &passage{from: bytes.NewReader(data), to: int(w.Fd()), payload: newPayload(s, nil)}
	go func() {
		_, _ = io.CopyN(io.Discard, r, 100000)
		r.Close()
	}()
	if err := p.run(); !errors.Is(err, errGone) {
		t.Errorf("in the middle: %v", err)
	}
	// dpkg dies while the pipe is drained, with data in it.
	r2, w2 := pipeOf(t)
	if _, err := w2.WriteString("data"); err != nil {
		t.Fatal(err)
	}
	go func() {
		time.Sleep(50 * time.Millisecond)
		r2.Close()
	}()
	// Of this thread alone: the rest of the process may collect garbage.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &before)
	if err := drain(int(w2.Fd())); !errors.Is(err, errGone) {
		t.Errorf("while draining: %v", err)
	}
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &after)
	if spent := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()); spent > 40*time.Millisecond {
		t.Errorf("draining took %v of processor time", spent)
	}
	// It is gone already.
	if err := writeAll(int(w2.Fd()), []byte("x")); !errors.Is(err, errGone) {
		t.Errorf("afterwards: %v", err)
	}
}

func TestDrainWaitsForAReaderThatIsSlow(t *testing.T) {
	r, w := pipeOf(t)
	if _, err := w.WriteString("data"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	go func() {
		time.Sleep(60 * time.Millisecond)
		_, _ = r.Read(make([]byte, 10))
	}()
	if err := drain(int(w.Fd())); err != nil {
		t.Error(err)
	}
	if since := time.Since(began); since < 50*time.Millisecond {
		t.Errorf("it did not wait, %v", since)
	}
}

func TestPayloadHashesSharedFiles(t *testing.T) {
	s, data := sealOf(t, hello(), newTestKey(t))
	p := newPayload(s, map[string]bool{"usr/share/hello/empty": true, "usr/bin/hello": true})
	if _, err := p.scanner.Scan(data); err != nil {
		t.Fatal(err)
	}
	if err := p.end(s.data[:]); err != nil {
		t.Fatal(err)
	}
	bodies := map[string]string{}
	for _, f := range hello().files {
		bodies[strings.TrimPrefix(f.Name, "./")] = f.body
	}
	hashed := map[string]bool{}
	for _, target := range p.targets {
		if target.digest == nil {
			continue
		}
		hashed[target.path] = true
		if want := sha256.Sum256([]byte(bodies[target.path])); !bytes.Equal(target.digest.sum, want[:]) {
			t.Errorf("digest of %s is %x", target.path, target.digest.sum)
		}
	}
	for _, path := range []string{"usr/share/hello/empty", "usr/bin/hello", "etc/hello.conf", "etc/init.d/hello"} {
		if !hashed[path] {
			t.Errorf("%s has no digest", path)
		}
	}
	if len(hashed) != 4 {
		t.Errorf("%v have a digest", hashed)
	}
}

// Whatever an archive holds, it is either the one that was signed or refused, and what
// was seen of it fits together.
func FuzzPayload(f *testing.F) {
	key := newTestKey(f)
	control, data := hello().parts(f, key)
	s := &seal{statement: new(sign.Statement), conffiles: map[string]bool{"etc/hello.conf": true}}
	for _, m := range control {
		if m.Name == "./"+dpkgtar.PayloadSignatures {
			entries, err := parseSignatures([]byte(m.body))
			if err != nil {
				f.Fatal(err)
			}
			s.files = entries
		}
	}
	f.Add(data, uint16(512), byte(1))
	f.Add(data, uint16(1500), byte('5'))
	f.Fuzz(func(t *testing.T, raw []byte, at uint16, with byte) {
		// The headers that the fuzzer breaks get a checksum that holds.
		raw = bytes.Clone(raw)
		if int(at) < len(raw) {
			raw[at] ^= with
			if block := raw[int(at)&^511:]; len(block) >= 512 {
				copy(block[148:156], "        ")
				sum := 0
				for _, c := range block[:512] {
					sum += int(c)
				}
				copy(block[148:156], fmt.Sprintf("%06o\x00 ", sum))
			}
		}
		p := newPayload(s, map[string]bool{"usr/bin/hello": true})
		for rest := raw; len(rest) > 0 && !p.scanner.Ended(); rest = rest[min(len(rest), 4096):] {
			if _, err := p.scanner.Scan(rest[:min(len(rest), 4096)]); err != nil {
				return
			}
		}
		digest := sha256.Sum256(raw)
		s.data = digest
		if p.end(digest[:]) != nil {
			return
		}
		signed := 0
		for _, target := range p.targets {
			if target.value != nil {
				signed += 1 + len(target.links)
			}
			if target.digest != nil && len(target.digest.sum) != sha256.Size {
				t.Errorf("%q has no digest", target.path)
			}
		}
		if signed < len(s.files) {
			t.Errorf("%d names have a signature, the package has %d", signed, len(s.files))
		}
	})
}
