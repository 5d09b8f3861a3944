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

// childMemory bounds the program's memory in bytes. It then rather uses fewer
// threads, and one thread with a dictionary of maxDictionary always fits; two
// threads on blocks of xz -6, 24 MiB each, do as well.
const childMemory = 100 << 20

// An xzChild is an xz stream decoded by the xz program. The bytes of the stream go
// to it through a pipe, and its exit status is looked at before the end is believed.
type xzChild struct {
	cmd    *exec.Cmd
	in     *source
	out    *os.File
	stderr bytes.Buffer
	waited bool

	read, want int64 // bytes that it wrote, and that the index declares

	fallback func() (io.ReadCloser, error) // the decoder in Go
	instead  io.ReadCloser
}

// newXzChild starts the xz program on size bytes of r, with at most jobs threads. It
// must write want bytes.
// Where the program is missing, or fails before its first byte (one that is too old
// does not know all the options), fallback decodes.
func newXzChild(r io.ReaderAt, size, want int64, jobs int, fallback func() (io.ReadCloser, error)) (io.ReadCloser, error) {
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
	c := &xzChild{out: out, want: want, fallback: fallback, in: &source{r: newSection(r, 0, size)}}
	c.cmd = exec.Command(program, childOptions(jobs)...)
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

func childOptions(jobs int) []string {
	return []string{
		"--format=xz", "--decompress", "--stdout", fmt.Sprintf("--threads=%d", jobs),
		// The second limits the first as well.
		fmt.Sprintf("--memlimit-mt-decompress=%d", childMemory), fmt.Sprintf("--memlimit-decompress=%d", childMemory),
	}
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
	if c.waited {
		return 0, os.ErrClosed
	}
	n, err := c.out.Read(p)
	c.read += int64(n)
	if c.read > c.want {
		return 0, fmt.Errorf("the xz program wrote more than the %d bytes of the index", c.want)
	}
	if err != io.EOF {
		return n, err
	}
	c.waited = true
	failed := c.cmd.Wait()
	switch {
	case c.in.err != nil: // the program saw no more than a stream that ends early
		return 0, c.in.err
	case failed == nil && c.read == c.want:
		return 0, io.EOF
	case c.read > 0:
		return 0, c.failure(failed)
	}
	if c.instead, err = c.fallback(); err != nil {
		return 0, err
	}
	return c.instead.Read(p)
}

// failure prefers the first line of the program's own words to its exit status.
func (c *xzChild) failure(err error) error {
	text, _, _ := strings.Cut(c.stderr.String(), "\n")
	text = strings.TrimPrefix(text, "xz: (stdin): ")
	switch {
	case err == nil:
		return fmt.Errorf("the xz program wrote %d of the %d bytes of the index", c.read, c.want)
	case text == "":
		return fmt.Errorf("the xz program failed: %w", err)
	}
	return errors.New(text)
}

// Close ends the program, wherever it is, and what it may have started: xz can be a
// script.
func (c *xzChild) Close() error {
	if !c.waited {
		c.waited = true
		unix.Kill(-c.cmd.Process.Pid, unix.SIGKILL)
		c.out.Close() // lets go of who got away
		c.cmd.Wait()  // it was killed: no news
		return nil
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
