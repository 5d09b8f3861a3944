package split

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// A Summary is what a request has.
type Summary struct {
	// SHA256 is that of the request; all zeros where it was not read to its end.
	SHA256 [sha256.Size]byte
	// Packages and Digests are how many it has, or had up to an error.
	Packages, Digests int
	// Names are name and version of the first packages.
	Names []string
}

// maxNames is how many packages a [Summary] names.
const maxNames = 10

// Check reads a request to its end, and copies to spool what it reads, so that nobody
// can exchange it between the check and [Sign]. It returns an error that names the line
// of what is malformed, or one that wraps [ErrRefused]. Nothing of a request may be
// signed before all of it was checked.
func Check(r io.Reader, spool io.Writer, rules *Rules) (*Summary, error) {
	s := new(Summary)
	h := sha256.New()
	in := io.TeeReader(rules.limited(r), h)
	ahead := bufio.NewReaderSize(in, maxLine)
	if head, _ := ahead.Peek(len(requestFormat)); string(head) != requestFormat {
		spool = io.Discard // a file named by mistake may hold a secret
	}
	err := s.check(io.TeeReader(ahead, spool), rules)
	if errors.Is(err, ErrRefused) {
		// Who refuses a request should be able to say which.
		if _, failed := io.Copy(io.Discard, ahead); failed != nil {
			return s, err
		}
	} else if err != nil {
		return s, err
	}
	s.SHA256 = [sha256.Size]byte(h.Sum(nil))
	return s, err
}

func (s *Summary) check(in io.Reader, rules *Rules) error {
	q, err := newRequestReader(in)
	if err != nil {
		return err
	}
	for {
		p, err := q.next()
		if err != nil || p == nil {
			return err
		}
		s.Packages, s.Digests = q.packages, q.digests
		if len(s.Names) < maxNames {
			s.Names = append(s.Names, fmt.Sprintf("%.200s %.200s", p.Statement.Package, p.Statement.Version))
		}
		if err := rules.check(p, q.packages, q.digests); err != nil {
			return err
		}
		if err := q.each(p, func(*entry) error { return nil }); err != nil {
			return err
		}
	}
}

// A limitedReader fails with more, and from then on, where r has more bytes than left.
type limitedReader struct {
	r    io.Reader
	left int64
	more error
}

func (l *limitedReader) Read(b []byte) (int, error) {
	if l.left < 0 {
		return 0, l.more
	}
	n, err := l.r.Read(b[:min(int64(len(b)), l.left+1)])
	l.left -= int64(n)
	if l.left < 0 {
		return n - 1, l.more
	}
	return n, err
}
