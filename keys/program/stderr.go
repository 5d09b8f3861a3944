package program

// This file is what becomes of a program's standard error.

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/imaseal/imaseal/keys/remote"
)

const (
	// maxStderrLine bounds a line of standard error in bytes; the rest of it is lost.
	maxStderrLine = 500
	// maxStderrLines is how many lines of one run are shown.
	maxStderrLines = 100
)

// stderrLines is an io.Writer that passes lines on, as a terminal can show them. It
// never fails: a program must not stop because nobody listens.
type stderrLines struct {
	note func(string)

	mu    sync.Mutex
	line  []byte // what has been written of the last line, up to its bound
	last  string
	shown int
}

func (s *stderrLines) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(b)
	for {
		part, rest, ends := bytes.Cut(b, []byte{'\n'})
		// One byte more than is shown tells that something was cut off.
		s.line = append(s.line, part[:min(len(part), maxStderrLine+1-len(s.line))]...)
		if !ends {
			return n, nil
		}
		s.pass()
		b = rest
	}
}

// pass passes a line on. The caller holds mu.
func (s *stderrLines) pass() {
	text := remote.Printable(string(bytes.TrimRight(s.line, "\r \t")), maxStderrLine)
	s.line = s.line[:0]
	if text == "" {
		return
	}
	s.last = text
	s.shown++
	switch {
	case s.shown <= maxStderrLines:
		s.note(text)
	case s.shown == maxStderrLines+1:
		s.note(fmt.Sprintf("more than %d lines on standard error: the rest is not shown", maxStderrLines))
	}
}

// flush passes on a last line that has no end.
func (s *stderrLines) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pass()
}

func (s *stderrLines) lastLine() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}
