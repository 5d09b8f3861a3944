package auditlog

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// A Summary is what [Verify] found.
type Summary struct {
	// Entries is how many lines hold, from the first on.
	Entries int64
	// Head is the hash of the last of them, 64 zeros where there is none. Note it
	// elsewhere.
	Head string
	// First and Last are their times, empty where there is none.
	First, Last string
	// Signed, Refused and Failed are how many requests had that outcome; Digests how
	// many digests were signed and released.
	Signed, Refused, Failed, Digests int64
	// Whole is the size in bytes of the lines that hold.
	Whole int64
	// NotedAt is the number of the line whose hash was asked for, 0 where it is none
	// of them.
	NotedAt int64
}

// A BrokenError says where a log is not what was written.
type BrokenError struct {
	Line int64 // counted from 1
	Err  error
}

func (e *BrokenError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *BrokenError) Unwrap() error { return e.Err }

// VerifyFile is [Verify] for an open log file, to which nobody appends meanwhile.
func VerifyFile(f *os.File, noted string) (Summary, error) {
	if err := lock(f, syscall.LOCK_SH); err != nil {
		return Summary{}, err
	}
	s, err := Verify(f, noted)
	return s, errors.Join(err, lock(f, syscall.LOCK_UN))
}

// Verify checks the chain of the log that r reads. noted, if not empty, is the hash
// of a line as it was noted earlier, which must be one of the chain: that all lines
// up to it are still there and unchanged. The error is a [BrokenError] where the log
// is not what was written; the summary is of what comes before.
func Verify(r io.Reader, noted string) (Summary, error) {
	s := Summary{Head: origin}
	if noted == origin {
		noted = ""
	}
	in := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := in.ReadSlice('\n')
		broken := func(err error) error { return &BrokenError{Line: s.Entries + 1, Err: err} }
		switch {
		case err == io.EOF && len(line) == 0:
			if noted != "" && s.NotedAt == 0 {
				return s, broken(errors.New("the log ends, and no line had the hash that was noted: lines at its end are missing, or all of it is another log"))
			}
			return s, nil
		case err == io.EOF:
			return s, broken(errTorn)
		case errors.Is(err, bufio.ErrBufferFull):
			return s, broken(fmt.Errorf("it has more than %d bytes", maxLine))
		case err != nil:
			return s, err
		}
		size := int64(len(line))
		line = line[:len(line)-1]
		e, err := parse(line)
		if err != nil {
			return s, broken(err)
		}
		if e.Sequence != s.Entries+1 {
			return s, broken(fmt.Errorf("its sequence number is %d, not %d: lines are missing, or were put in", e.Sequence, s.Entries+1))
		}
		if e.Previous != s.Head {
			return s, broken(fmt.Errorf("it names %s as the hash of the line before, which has %s: that line was changed", e.Previous, s.Head))
		}
		s.add(e, size, hashOf(line))
		if s.Head == noted {
			s.NotedAt = s.Entries
		}
	}
}

// add counts one more line that holds.
func (s *Summary) add(e *Entry, size int64, head string) {
	s.Entries++
	s.Whole += size
	s.Head = head
	if s.First == "" {
		s.First = e.Time
	}
	s.Last = e.Time
	switch e.Outcome {
	case Signed:
		s.Signed++
		s.Digests += int64(e.Digests)
	case Refused:
		s.Refused++
	case Failed:
		s.Failed++
	}
}

// Advice says what to do about a log at path whose Verify gave s and err; empty where
// nothing simple can be done.
func (s Summary) Advice(path string, err error) string {
	if !errors.Is(err, errTorn) {
		return ""
	}
	return "Nothing was released for the torn line. " + tornAdvice(path, s.Whole)
}
