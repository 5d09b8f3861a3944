package dpkg

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/deb/dpkgtar"
)

// errGone says that dpkg does not read any more: it has died, or given up.
var errGone = errors.New("dpkg does not read its pipe any more")

// files passes the payload on to dpkg, and labels what dpkg makes of it before dpkg can
// know that it has everything: until then nothing has its final name.
func (h *hook) files() int {
	dir, err := openControl(h.adminDir)
	if err != nil {
		if h.fail(err) == decideRefuse {
			h.out.write(h.system)
			return exitFailed
		}
		return become(h.real)
	}
	defer dir.Close()
	s, decided := h.decide(dir)
	h.out.told = len(h.out.Warnings) // in the other stage
	if decided == decidePass {
		return become(h.real)
	}
	status := exitFailed
	if decided == decideLabel {
		h.out.Scripts = labelledScripts(dir, s)
		if status, err = h.pass(s); err != nil {
			return status // dpkg, or its dpkg-deb, is at an end and knows why
		}
	}
	h.out.write(h.system)
	return status
}

// errEnded says that dpkg's own dpkg-deb failed, and has said why.
var errEnded = errors.New("dpkg-deb failed")

// pass runs the real dpkg-deb, hands its output to dpkg and labels what dpkg makes of
// it. It returns the exit status. The error is errGone or errEnded, which are not for
// the log.
func (h *hook) pass(s *seal) (int, error) {
	on, err := h.openInstallation(s)
	if err != nil {
		if h.fail(err) == decidePass {
			return become(h.real), nil
		}
		return exitFailed, nil
	}
	defer on.close()
	r, w, err := os.Pipe()
	if err != nil {
		h.fail(err)
		return exitFailed, nil
	}
	defer r.Close()
	_, _ = unix.FcntlInt(r.Fd(), unix.F_SETPIPE_SZ, pipeSize) // more is only faster
	cmd, err := h.start(w)
	w.Close()
	if err != nil {
		h.fail(err)
		return exitFailed, nil
	}
	p := &passage{from: r, to: 1, payload: newPayload(s, on.shared)}
	err = p.run()
	if errors.Is(err, errGone) {
		return exitFailed, err
	}
	if p.eof {
		if status := wait(cmd); status != 0 {
			return status, errEnded
		}
	}
	if err == nil {
		err = p.payload.end(p.sum())
	}
	if err == nil {
		err = p.settle()
	}
	if err == nil {
		began := time.Now()
		err = on.label(p.payload)
		h.out.Microseconds = time.Since(began).Microseconds()
	}
	if errors.Is(err, errGone) {
		return exitFailed, err
	}
	if err != nil && h.fail(err) == decideRefuse {
		return exitFailed, nil
	}
	if err == nil {
		h.out.Result = resultLabelled
		if on.unsupported != nil {
			h.out.warn("%d files have no label: %v", h.out.Skipped[reasonUnsupported], on.unsupported)
			if h.out.Labelled == 0 {
				h.out.Result = resultNoSupport
			}
		}
	}
	if err := p.rest(); err != nil {
		return exitFailed, err
	}
	if !p.eof {
		return wait(cmd), nil
	}
	return 0, nil
}

const (
	// pipeSize is asked for between the real dpkg-deb and the hook.
	pipeSize = 1 << 20
	// chunkSize is how much is read at once, and chunks how many of them may wait for
	// their hash.
	chunkSize = 256 << 10
	chunks    = 4
)

// A passage hands an archive through, but for its end.
type passage struct {
	from    io.Reader
	to      int
	payload *payload

	hash  hash.Hash
	held  int64  // zeros from the end mark on that were not sent
	after []byte // what follows them, when it is not zeros
	eof   bool
}

// run passes everything on that stands before the end mark, and reads the rest. The
// error is [errGone], or says what about the archive is wrong; then what was held back
// or not yet read can still be sent by rest.
func (p *passage) run() error {
	p.hash = sha256.New()
	free, work, hashed := make(chan []byte, chunks), make(chan []byte, chunks), make(chan struct{})
	for range chunks {
		free <- make([]byte, chunkSize)
	}
	go func() {
		for chunk := range work {
			p.hash.Write(chunk)
			free <- chunk[:cap(chunk)]
		}
		close(hashed)
	}()
	defer func() {
		close(work)
		<-hashed
	}()
	for {
		chunk := <-free
		n, err := io.ReadFull(p.from, chunk)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return err
		}
		p.eof = err != nil
		chunk = chunk[:n]
		err = p.take(chunk)
		work <- chunk
		if err != nil || p.eof {
			return err
		}
	}
}

// take passes a chunk on. All chunks but the last are whole blocks.
func (p *passage) take(chunk []byte) error {
	if !p.payload.scanner.Ended() {
		n, err := p.payload.scanner.Scan(chunk)
		if err != nil {
			p.after = append(p.after, chunk...)
			return err
		}
		if err := writeAll(p.to, chunk[:n]); err != nil {
			return err
		}
		chunk = chunk[n:]
	}
	for i, c := range chunk {
		if c != 0 {
			p.held += int64(i)
			p.after = append(p.after, chunk[i:]...)
			return fmt.Errorf("something follows the end of the archive: %#02x", c)
		}
	}
	if p.held += int64(len(chunk)); p.held > dpkgtar.MaxPadding+dpkgtar.BlockSize {
		return fmt.Errorf("more than %d bytes of padding follow the end of the archive", dpkgtar.MaxPadding)
	}
	return nil
}

func (p *passage) sum() []byte { return p.hash.Sum(nil) }

// settle waits until dpkg has made the last file of the archive and closed it: it has
// read everything, then the end mark as well. Its pipe is not at its end, so dpkg goes
// on waiting.
func (p *passage) settle() error {
	if err := drain(p.to); err != nil {
		return err
	}
	p.held -= dpkgtar.BlockSize
	if err := writeAll(p.to, make([]byte, dpkgtar.BlockSize)); err != nil {
		return err
	}
	return drain(p.to)
}

// rest sends what was held back, and what was not yet read.
func (p *passage) rest() error {
	zeros := make([]byte, 32<<10)
	for p.held > 0 {
		n := min(p.held, int64(len(zeros)))
		if err := writeAll(p.to, zeros[:n]); err != nil {
			return err
		}
		p.held -= n
	}
	if err := writeAll(p.to, p.after); err != nil || p.eof {
		return err
	}
	buf := make([]byte, chunkSize)
	for {
		n, err := p.from.Read(buf)
		if err := writeAll(p.to, buf[:n]); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// writeAll writes to a pipe by its number: through an os.File a broken one on 1 would
// end the process.
func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1); err != nil && err != unix.EINTR {
				return err
			}
		case err == unix.EPIPE:
			return errGone
		case err != nil:
			return fmt.Errorf("write to dpkg: %w", err)
		default:
			b = b[n:]
		}
	}
	return nil
}

// drain waits until the reader of the pipe fd has taken what is in it, or is gone. It
// sleeps meanwhile: a dpkg that is stopped may take hours.
func drain(fd int) error {
	const longest = 5 * time.Millisecond
	for pause := 20 * time.Microsecond; ; pause = min(2*pause, longest) {
		left, err := unix.IoctlGetInt(fd, unix.TIOCINQ) // FIONREAD
		if err != nil {
			return fmt.Errorf("pipe to dpkg: %w", err)
		}
		if left == 0 {
			return nil
		}
		wait := unix.NsecToTimespec(pause.Nanoseconds())
		fds := []unix.PollFd{{Fd: int32(fd)}}
		if _, err := unix.Ppoll(fds, &wait, nil); err != nil && err != unix.EINTR {
			return fmt.Errorf("pipe to dpkg: %w", err)
		}
		if fds[0].Revents&unix.POLLERR != 0 {
			return errGone
		}
	}
}
