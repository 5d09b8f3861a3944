package program

// This file is one run of a signing program.

import (
	"bufio"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/imaseal/imaseal/keys/remote"
)

// graceTime is how long a program may take to end after its input has.
const graceTime = 3 * time.Second

// A process is one run of the program.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    io.ReadCloser
	stderr *stderrLines
	ended  chan struct{} // closed when it was waited for

	writing sync.Mutex // held while a line is written

	mu      sync.Mutex // guards what follows
	last    int64      // the last id
	pending map[int64]slot
	hung    error // why it was killed while somebody waited for an answer
	failed  error // why it can be asked no more
}

// A slot is where the answer to a digest goes.
type slot struct {
	batch *pendingBatch
	index int
}

// A pendingBatch is a line that was sent. The process guards it until done is closed.
type pendingBatch struct {
	results []remote.Result
	missing int
	done    chan struct{} // closed when there is a result for each, or the process failed
	err     error         // why the process failed
}

// startProcess starts argv, which lives no longer than life, and asks it for key.
func startProcess(ctx, life context.Context, argv []string, key string, note func(string)) (*process, welcome, crypto.PublicKey, error) {
	p := &process{
		cmd:     exec.CommandContext(life, argv[0], argv[1:]...),
		stderr:  &stderrLines{note: note},
		ended:   make(chan struct{}),
		pending: map[int64]slot{},
	}
	p.cmd.Stderr = p.stderr
	p.cmd.WaitDelay = graceTime // a child of it may keep standard error open
	p.cmd.Cancel = func() error { p.kill(); return nil }
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, welcome{}, nil, err
	}
	if p.out, err = p.cmd.StdoutPipe(); err != nil {
		return nil, welcome{}, nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, welcome{}, nil, fmt.Errorf("it cannot be started: %w", err)
	}
	lines := bufio.NewReaderSize(p.out, MaxAnswerLine)
	w, public, err := p.greet(ctx, lines, key)
	if err != nil {
		return nil, w, nil, err
	}
	go p.listen(lines)
	return p, w, public, nil
}

// kill ends the process at once, and the reading of its output, which a child of it
// may keep open.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.out.Close()
}

// hangs kills a process that did not answer, for the reason err.
func (p *process) hangs(err error) {
	p.mu.Lock()
	if p.hung == nil {
		p.hung = err
	}
	p.mu.Unlock()
	p.kill()
}

// An endedError says that the process ended, or hung, before it had sent a key.
type endedError struct{ error }

// greet sends and reads the first line. After an error the process has ended.
func (p *process) greet(ctx context.Context, lines *bufio.Reader, key string) (w welcome, public crypto.PublicKey, err error) {
	stop := context.AfterFunc(ctx, p.kill)
	var line []byte
	err = writeLine(p.in, hello{Version, key})
	if err == nil {
		line, err = readLine(lines)
	}
	if !stop() {
		p.wait()
		return w, nil, &endedError{fmt.Errorf("it did not answer the first line: %w", context.Cause(ctx))}
	}
	if err != nil && !isEnd(err) {
		p.kill()
		p.wait()
		return w, nil, fmt.Errorf("its first line is not that of a signing program: %w", err)
	}
	if err != nil {
		p.wait()
		return w, nil, &endedError{fmt.Errorf("it sent no key, as a signing program does first: %w", p.obituary(err))}
	}
	w, public, declined, err := parseWelcome(line)
	if err != nil {
		err = fmt.Errorf("its first line is not that of a signing program (%w): %s", err, remote.Printable(string(line), 200))
		p.kill()
	}
	if err = errors.Join(err, declined); err != nil {
		p.wait()
	}
	return w, public, err
}

// wait closes the input and waits for the process, which is killed after some time.
func (p *process) wait() {
	p.in.Close()
	timer := time.AfterFunc(graceTime, p.kill)
	defer timer.Stop()
	p.cmd.Wait() // its status is in ProcessState
	p.stderr.flush()
}

// obituary says how the process ended, once it was waited for.
func (p *process) obituary(err error) error {
	text := "it ended"
	if s := p.cmd.ProcessState; s != nil {
		text += " (" + s.String() + ")"
	}
	if err != io.EOF && !errors.Is(err, os.ErrClosed) && !errors.Is(err, syscall.EPIPE) {
		text += ", " + err.Error()
	}
	if last := p.stderr.lastLine(); last != "" {
		text += ": " + last
	}
	return errors.New(text)
}

// why says why a process that has ended was killed, or else how it ended.
func (p *process) why(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hung != nil {
		return p.hung
	}
	return p.obituary(err)
}

// end lets the process end and waits for it.
func (p *process) end() {
	p.in.Close()
	timer := time.AfterFunc(graceTime, p.kill)
	defer timer.Stop()
	<-p.ended
}

// listen reads answers until the process ends, or breaks the rules.
func (p *process) listen(lines *bufio.Reader) {
	defer close(p.ended)
	for {
		line, err := readLine(lines)
		if err == nil {
			if err = p.answered(line); err == nil {
				continue
			}
			err = fmt.Errorf("it does not keep to the protocol (%w): %s", err, remote.Printable(string(line), 200))
			p.kill()
			p.wait()
			p.fail(err)
			return
		}
		if !isEnd(err) {
			p.kill()
			p.wait()
			p.fail(fmt.Errorf("it does not keep to the protocol: %w", err))
			return
		}
		p.wait()
		p.fail(remote.Temporary(p.why(err), 0))
		return
	}
}

// answered hands an answer to who waits for it.
func (p *process) answered(line []byte) error {
	a, err := parseAnswer(line)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.pending[a.ID]
	if !ok {
		return fmt.Errorf("nobody waits for an answer to %d", a.ID)
	}
	delete(p.pending, a.ID)
	r := &s.batch.results[s.index]
	if a.Error != "" {
		r.Err = a.failure.err()
	} else {
		r.Signature = a.Signature
	}
	if s.batch.missing--; s.batch.missing == 0 {
		close(s.batch.done)
	}
	return nil
}

// fail lets all that wait have err, and all that come.
func (p *process) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = err
	for id, s := range p.pending {
		delete(p.pending, id)
		s.batch.results[s.index].Err = err
		if s.batch.missing--; s.batch.missing == 0 {
			s.batch.err = err
			close(s.batch.done)
		}
	}
}

// failure returns why the process can be asked no more.
func (p *process) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// sign sends batch as one line and waits for its answers. When ctx is done the process
// is taken to hang, and killed.
func (p *process) sign(ctx context.Context, batch []remote.Digest) ([]remote.Result, error) {
	b := &pendingBatch{results: make([]remote.Result, len(batch)), missing: len(batch), done: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { p.hangs(context.Cause(ctx)) })
	defer stop()
	p.writing.Lock() // ids ascend
	r, err := p.expect(b, batch)
	if err == nil {
		// An error means that the process ends, which listen sees.
		writeLine(p.in, r)
	}
	p.writing.Unlock()
	if err != nil {
		return nil, err
	}
	<-b.done
	if _, temporary := remote.IsTemporary(b.err); b.err != nil && !temporary {
		return nil, b.err
	}
	return b.results, nil
}

// expect gives the digests ids and makes b wait for them.
func (p *process) expect(b *pendingBatch, batch []remote.Digest) (request, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var r request
	if p.failed != nil {
		return r, p.failed
	}
	for i, d := range batch {
		p.last++
		p.pending[p.last] = slot{b, i}
		r.Sign = append(r.Sign, item{p.last, hashName(d.Hash), d.Sum})
	}
	return r, nil
}
