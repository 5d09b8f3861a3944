package split

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Limits of requests and responses, which come from other hosts.
const (
	// maxSize bounds a request in bytes. A response has a signature for each digest, so
	// and that to the largest request fits into MaxResponse.
	maxSize     = 4 << 30
	MaxResponse = 32 << 30
	// maxPackages bounds how many packages one has, and maxDigests how many files and
	// scripts all of them.
	maxPackages = 1 << 20
	maxDigests  = 1 << 24
	// maxLine bounds a line in bytes. The longest path, every byte of it escaped, and
	// the longest signature fit in.
	maxLine = 32 << 10
	// maxPath is PATH_MAX of Linux.
	maxPath = 4096
	// maxInodes bounds the hard-linked files of one package: their signatures are kept
	// until its end.
	maxInodes = 1 << 16
)

// lines reads a file line by line.
type lines struct {
	in *bufio.Reader
	n  int // of the line that was read last, counted from 1
}

func newLines(r io.Reader) *lines { return &lines{in: bufio.NewReaderSize(r, maxLine)} }

var errCutOff = errors.New("the file ends here: it was cut off")

// next returns the next line without its newline.
func (l *lines) next() (string, error) {
	l.n++
	b, err := l.in.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", l.errorf("it has more than %d bytes", maxLine)
	case err == io.EOF:
		return "", l.wrap(errCutOff)
	case err != nil:
		return "", err
	}
	line := string(b[:len(b)-1])
	if i := strings.IndexAny(line, "\r\x00"); i >= 0 {
		return "", l.errorf("it has the byte %q: the file was changed on its way, send it as binary data", line[i])
	}
	return line, nil
}

// field returns the value of the next line, which must be that of the field name.
func (l *lines) field(name string) (string, error) {
	line, err := l.next()
	if err != nil {
		return "", err
	}
	value, ok := strings.CutPrefix(line, name+": ")
	if !ok {
		return "", l.errorf("it is %s, not a field %s", shown(line), name)
	}
	return value, nil
}

// end checks that nothing follows.
func (l *lines) end() error {
	if _, err := l.in.ReadByte(); err != io.EOF {
		if err == nil {
			l.n++
			err = l.errorf("it stands after the end")
		}
		return err
	}
	return nil
}

func (l *lines) wrap(err error) error { return fmt.Errorf("line %d: %w", l.n, err) }

func (l *lines) errorf(format string, args ...any) error {
	return l.wrap(fmt.Errorf(format, args...))
}

// shown is as much of a line as an error needs.
func shown(line string) string {
	if line == "" {
		return "empty"
	}
	return fmt.Sprintf("%.60q", line)
}

// number reads a number from 0 to most, in the one way to write it.
func number[T int | int64](text string, most T) (T, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != text {
		return 0, fmt.Errorf("%.40q is no number", text)
	}
	if n > int64(most) {
		return 0, fmt.Errorf("%d is more than %d", n, most)
	}
	return T(n), nil
}
