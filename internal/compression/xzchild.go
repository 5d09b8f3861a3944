package compression

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// childMemory makes the program use fewer threads rather than more memory. Two
	// threads on blocks of xz -6, 24 MiB each, fit.
	childMemory = 100 << 20
	// childDictionary is the program's limit where one thread is too much for
	// childMemory. It counts the dictionary and some 70 KiB, and the next larger
	// dictionary after maxDictionary is half as large again.
	childDictionary = maxDictionary + 4<<20
)

// An xzChild is an xz stream decoded by the xz program. The bytes of the stream go
// to it through a pipe, and its exit status is looked at before the end is believed.
type xzChild struct {
	cmd    *exec.Cmd
	in     *source
	out    *os.File
	stderr bytes.Buffer
	waited bool

	any      bool                          // something was read from it
	fallback func() (io.ReadCloser, error) // the decoder in Go
	instead  io.ReadCloser
}

// newXzChild starts the xz program on size bytes of r, with at most jobs threads.
// Where the program is missing, or fails before its first byte (one that is too old
// does not know all the options), fallback decodes.
func newXzChild(r io.ReaderAt, size int64, jobs int, fallback func() (io.ReadCloser, error)) (io.ReadCloser, error) {
	program, err := exec.LookPath("xz")
	if err != nil {
		return fallback()
	}
	out, in, err := os.Pipe()
	if err != nil {
		return fallback()
	}
	defer in.Close()
	// Fewer switches; refused it is as good.
	unix.FcntlInt(in.Fd(), unix.F_SETPIPE_SZ, 1<<20)
	c := &xzChild{out: out, fallback: fallback, in: &source{r: io.NewSectionReader(r, 0, size)}}
	c.cmd = exec.Command(program, "--format=xz", "--decompress", "--stdout", fmt.Sprintf("--threads=%d", jobs),
		fmt.Sprintf("--memlimit-mt-decompress=%d", childMemory), fmt.Sprintf("--memlimit-decompress=%d", childDictionary))
	c.cmd.Env = childEnvironment(os.Environ())
	c.cmd.Stdin = c.in
	c.cmd.Stdout = in
	c.cmd.Stderr = &limitedBuffer{&c.stderr}
	// A group of its own: what interrupts us at a terminal must not look like a
	// program that failed. Close ends it, or when we are killed the closed pipe.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		out.Close()
		return fallback()
	}
	return c, nil
}

// childEnvironment drops options of the user's, such as a memory limit, and asks
// for messages in English.
func childEnvironment(env []string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		return strings.HasPrefix(v, "XZ_OPT=") || strings.HasPrefix(v, "XZ_DEFAULTS=") || strings.HasPrefix(v, "LC_ALL=")
	})
	return append(env, "LC_ALL=C")
}

func (c *xzChild) Read(p []byte) (int, error) {
	if c.instead != nil {
		return c.instead.Read(p)
	}
	if c.waited || len(p) == 0 {
		return 0, nil
	}
	n, err := c.out.Read(p)
	c.any = c.any || n > 0
	if err != io.EOF {
		return n, err
	}
	c.waited = true
	failed := c.cmd.Wait()
	switch {
	case c.in.err != nil: // the program saw no more than a stream that ends early
		return n, c.in.err
	case failed == nil:
		return n, io.EOF
	case c.any:
		return n, c.failure(failed)
	}
	if c.instead, err = c.fallback(); err != nil {
		return 0, err
	}
	return c.instead.Read(p)
}

// failure prefers the program's own words to its exit status.
func (c *xzChild) failure(err error) error {
	text := strings.TrimSpace(strings.TrimPrefix(c.stderr.String(), "xz: (stdin): "))
	if text == "" {
		return fmt.Errorf("the xz program failed: %w", err)
	}
	return errors.New(text)
}

// Close ends the program, wherever it is.
func (c *xzChild) Close() error {
	if !c.waited {
		c.waited = true
		c.cmd.Process.Kill()
		c.cmd.Wait() // it was killed: no news
	}
	if c.instead != nil {
		return errors.Join(c.instead.Close(), c.out.Close())
	}
	return c.out.Close()
}

// A source remembers why reading the stream failed.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// A limitedBuffer keeps the first few lines.
type limitedBuffer struct{ b *bytes.Buffer }

func (l *limitedBuffer) Write(p []byte) (int, error) {
	l.b.Write(p[:min(len(p), max(0, 1024-l.b.Len()))])
	return len(p), nil
}
