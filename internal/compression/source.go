package compression

import (
	"fmt"
	"io"
)

// A source remembers why reading the stream failed, and does not read on.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// A sourced is a decoder whose errors are those of its source, where that failed.
type sourced struct {
	io.ReadCloser
	src *source
}

func (s *sourced) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil && s.src.err != nil {
		err = s.src.err
	}
	return n, err
}

// A section is an io.SectionReader for which the end of the file is an error when it
// comes too early.
type section struct{ *io.SectionReader }

func newSection(r io.ReaderAt, off, n int64) section {
	return section{io.NewSectionReader(r, off, n)}
}

func (s section) Read(p []byte) (int, error) {
	n, err := s.SectionReader.Read(p)
	if err == io.EOF {
		if at, _ := s.Seek(0, io.SeekCurrent); at < s.Size() {
			return n, fmt.Errorf("only %d of %d bytes are there: %w", at, s.Size(), io.ErrUnexpectedEOF)
		}
	}
	return n, err
}
