package dpkgtar

import (
	"archive/tar"
	"fmt"
)

// A Scanner watches an archive that passes by on its way to dpkg, and sees what dpkg
// will see in it.
type Scanner struct {
	// Entry is called with each entry's path, clean and relative ("" of the root
	// folder), and its header, which is valid during the call. An error ends the scan.
	Entry func(path string, h *Header) error
	// Content, if not nil, is called with the content of the regular file whose Entry
	// was called last, piece by piece.
	Content func([]byte)

	decoder
	offset  int64
	content int64 // bytes of the current file that are to come
	pad     int64 // bytes after it up to the next header
}

// Scan looks at the next blocks of the archive, whole ones, and returns how many bytes
// of them stand before the end mark. Once the end mark was met that is none.
func (s *Scanner) Scan(p []byte) (int, error) {
	size := len(p)
	for len(p) > 0 && !s.ended {
		n := 0
		switch {
		case s.content > 0:
			n = int(min(s.content, int64(len(p))))
			if s.Content != nil {
				s.Content(p[:n])
			}
			s.content -= int64(n)
		case s.pad > 0:
			n = int(min(s.pad, int64(len(p))))
			s.pad -= int64(n)
		case s.longLeft > 0:
			n = int(min(s.longLeft, int64(len(p))))
			if err := s.takeLong(p[:n]); err != nil {
				return size - len(p), s.wrap(err)
			}
		case len(p) < BlockSize:
			return size - len(p), s.wrap(fmt.Errorf("%d bytes are no block", len(p)))
		default:
			complete, err := s.take((*[BlockSize]byte)(p))
			if err == nil && complete && !s.ended {
				err = s.enter()
			}
			if err != nil {
				return size - len(p), s.wrap(err)
			}
			if s.ended {
				return size - len(p), nil
			}
			n = BlockSize
		}
		s.offset += int64(n)
		p = p[n:]
	}
	return size - len(p), nil
}

// Ended reports whether the end mark was met.
func (s *Scanner) Ended() bool { return s.ended }

func (s *Scanner) enter() error {
	path, err := s.header.path()
	if err != nil {
		return err
	}
	if s.header.Kind == tar.TypeReg {
		s.content = s.header.Size
		s.pad = -s.header.Size & (BlockSize - 1)
	}
	return s.Entry(path, &s.header)
}

func (s *Scanner) wrap(err error) error {
	return fmt.Errorf("tar archive at offset %d: %w", s.offset, err)
}
