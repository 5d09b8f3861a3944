package compression

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"github.com/mikelolasagasti/xz"
	"golang.org/x/sys/unix"
)

// xzReaders keeps decoders for the next stream: a dictionary is 8 MiB of memory to
// clear, which for a small package costs more than decoding it.
var xzReaders = sync.Pool{New: func() any {
	z, err := xz.NewReader(nil, maxDictionary)
	if err != nil {
		panic(err) // with no stream there is nothing to fail on
	}
	return z
}}

// A pooledXz is an xz stream read by a decoder of the pool. The library reads
// concatenated streams and stream padding, and checks blocks, index and footer.
type pooledXz struct{ z *xz.Reader }

func newXz(r io.Reader) (io.ReadCloser, error) {
	p := &pooledXz{xzReaders.Get().(*xz.Reader)}
	if err := p.z.Reset(bufio.NewReaderSize(r, 64<<10)); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *pooledXz) Read(b []byte) (int, error) {
	if p.z == nil {
		return 0, os.ErrClosed
	}
	return p.z.Read(b)
}

func (p *pooledXz) Close() error {
	if p.z != nil {
		p.z.Reset(nil) // let go of the stream
		xzReaders.Put(p.z)
		p.z = nil
	}
	return nil
}

const (
	// childSize is the compressed size in bytes from which on the xz program is
	// started: below it starting costs more than it saves.
	childSize = 2 << 20
	// childMemory makes the program use fewer threads rather than more memory. Two
	// threads on blocks of xz -6, 24 MiB each, fit.
	childMemory = "100MiB"
)

// An xzChild is an xz stream decoded by the xz program, which on several cores is
// more than twice as fast as Go: it decodes blocks side by side, and each of them
// with less work. The bytes of the stream go to it through a pipe, and its exit
// status is looked at before the end is believed.
type xzChild struct {
	cmd    *exec.Cmd
	out    *os.File
	stderr bytes.Buffer
	waited bool

	any      bool                          // something was read from it
	fallback func() (io.ReadCloser, error) // the decoder in Go
	instead  io.ReadCloser
}

// newXzChild starts the xz program on size bytes of r, with at most jobs threads.
// Where the program is missing, or fails before its first byte, Go decodes.
func newXzChild(r io.ReaderAt, size int64, jobs int) (io.ReadCloser, error) {
	fallback := func() (io.ReadCloser, error) { return newXz(io.NewSectionReader(r, 0, size)) }
	program, err := exec.LookPath("xz")
	if err != nil {
		return fallback()
	}
	out, in, err := os.Pipe()
	if err != nil {
		return fallback()
	}
	defer in.Close()
	unix.FcntlInt(in.Fd(), unix.F_SETPIPE_SZ, 1<<20) // fewer switches; refused it is as good
	c := &xzChild{out: out, fallback: fallback}
	c.cmd = exec.Command(program, "--decompress", "--stdout", fmt.Sprintf("--threads=%d", jobs),
		"--memlimit-mt-decompress="+childMemory, fmt.Sprintf("--memlimit-decompress=%d", 2*maxDictionary))
	// These hold options of the user's, such as a limit.
	c.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "XZ_OPT=") || strings.HasPrefix(v, "XZ_DEFAULTS=")
	})
	c.cmd.Stdin = io.NewSectionReader(r, 0, size)
	c.cmd.Stdout = in
	c.cmd.Stderr = &limitedBuffer{&c.stderr}
	if err := c.cmd.Start(); err != nil {
		out.Close()
		return fallback()
	}
	return c, nil
}

func (c *xzChild) Read(p []byte) (int, error) {
	if c.instead != nil {
		return c.instead.Read(p)
	}
	n, err := c.out.Read(p)
	c.any = c.any || n > 0
	if err != io.EOF {
		return n, err
	}
	c.waited = true
	if err := c.cmd.Wait(); err != nil {
		if !c.any {
			if c.instead, err = c.fallback(); err != nil {
				return 0, err
			}
			return c.instead.Read(p)
		}
		return n, c.failure(err)
	}
	return n, io.EOF
}

func (c *xzChild) failure(err error) error {
	if text := strings.TrimSpace(c.stderr.String()); text != "" {
		return errors.New(text)
	}
	return fmt.Errorf("the xz program: %w", err)
}

// Close ends the program, wherever it is.
func (c *xzChild) Close() error {
	if !c.waited {
		c.waited = true
		c.cmd.Process.Kill()
		c.cmd.Wait()
	}
	if c.instead != nil {
		c.instead.Close()
	}
	return c.out.Close()
}

// A limitedBuffer keeps the first few lines.
type limitedBuffer struct{ b *bytes.Buffer }

func (l *limitedBuffer) Write(p []byte) (int, error) {
	l.b.Write(p[:min(len(p), max(0, 1024-l.b.Len()))])
	return len(p), nil
}
