package deb

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/blakesmith/ar"

	"github.com/imaseal/imaseal/internal/atomicfile"
)

// Layout of the ar archive that a .deb is, deb(5) and ar(5): the magic, then
// members of a 60-byte header, the content, and a newline where the length is odd.
//
//	 0  16  name, padded with spaces; one slash may end it
//	16  12  modification time, decimal
//	28   6  owner, decimal
//	34   6  group, decimal
//	40   8  mode, octal
//	48  10  size in bytes, decimal
//	58   2  end mark, "`\n"
const (
	arMagic      = "!<arch>\n"
	arHeaderSize = 60
	arEnd        = "`\n"

	// maxMembers bounds the archive: three members, and a few signatures.
	maxMembers = 64
)

// An arHeader is the header of a member as it stands in the file.
type arHeader [arHeaderSize]byte

func (h *arHeader) rawName() []byte { return h[0:16] }
func (h *arHeader) mtime() []byte   { return h[16:28] }
func (h *arHeader) uid() []byte     { return h[28:34] }
func (h *arHeader) gid() []byte     { return h[34:40] }
func (h *arHeader) mode() []byte    { return h[40:48] }
func (h *arHeader) size() []byte    { return h[48:58] }
func (h *arHeader) end() []byte     { return h[58:60] }

// A member is a part of the archive.
type member struct {
	header arHeader
	name   string // without padding and slash
	offset int64  // of the header
	size   int64  // of the content
}

func (m *member) start() int64 { return m.offset + arHeaderSize }
func (m *member) stop() int64  { return m.start() + m.size + m.size&1 }

func (m *member) content(r io.ReaderAt) *io.SectionReader {
	return io.NewSectionReader(r, m.start(), m.size)
}

// An archive is a .deb whose members have been found to be exactly those that it
// may have: debian-binary, one control.tar, one data.tar, and then only members
// whose names begin with an underscore. dpkg is more lenient, and with two members
// of a kind it and a verifier could see different packages.
type archive struct {
	r       io.ReaderAt
	size    int64
	version member // debian-binary
	control member
	data    member
	extra   []member // _gpgorigin and the like
}

// scanArchive reads the headers of r, size bytes long, and refuses what is not such
// an archive with the offset of what is wrong. blakesmith/ar is not let near what
// has not passed: it takes any magic, reads odd sizes as 0 and panics on negative
// ones.
func scanArchive(r io.ReaderAt, size int64) (*archive, error) {
	var magic [len(arMagic)]byte
	if _, err := r.ReadAt(magic[:], 0); err != nil && err != io.EOF || size < int64(len(arMagic)) {
		return nil, fmt.Errorf("offset 0: no ar archive: %w", noEOF(err))
	}
	if string(magic[:]) != arMagic {
		return nil, fmt.Errorf("offset 0: no ar archive: it begins with %q", magic[:])
	}
	a := &archive{r: r, size: size}
	for offset, n := int64(len(arMagic)), 0; offset < size; n++ {
		m, err := readMember(r, size, offset)
		if err != nil {
			return nil, fmt.Errorf("offset %d: %w", offset, err)
		}
		if err := a.place(n, m); err != nil {
			return nil, fmt.Errorf("offset %d: %w", offset, err)
		}
		offset = m.stop()
	}
	switch {
	case a.control.name == "":
		return nil, fmt.Errorf("offset %d: the file ends before a control.tar member", size)
	case a.data.name == "":
		return nil, fmt.Errorf("offset %d: the file ends before a data.tar member", size)
	}
	return a, nil
}

func readMember(r io.ReaderAt, size, offset int64) (member, error) {
	m := member{offset: offset}
	if size-offset < arHeaderSize {
		return m, fmt.Errorf("%d bytes follow, too few for the header of an ar member", size-offset)
	}
	if _, err := r.ReadAt(m.header[:], offset); err != nil {
		return m, noEOF(err)
	}
	if string(m.header.end()) != arEnd {
		return m, fmt.Errorf("no header of an ar member: it ends with %q", m.header.end())
	}
	var err error
	if m.name, err = memberName(m.header.rawName()); err != nil {
		return m, err
	}
	if m.size, err = arNumber(m.header.size(), 10); err != nil {
		return m, fmt.Errorf("size of ar member %q: %w", m.name, err)
	}
	if m.size > size-m.start() {
		return m, fmt.Errorf("ar member %q has %d bytes, but only %d follow", m.name, m.size, size-m.start())
	}
	if m.size&1 == 0 {
		return m, nil
	}
	var pad [1]byte
	if _, err := r.ReadAt(pad[:], m.start()+m.size); err != nil {
		return m, fmt.Errorf("ar member %q is not padded to an even length: %w", m.name, noEOF(err))
	}
	if pad[0] != '\n' {
		return m, fmt.Errorf("ar member %q is padded with %#02x, not a newline", m.name, pad[0])
	}
	return m, nil
}

func memberName(raw []byte) (string, error) {
	name := strings.TrimSuffix(string(bytes.TrimRight(raw, " ")), "/")
	legal := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_'
	}
	if name == "" || strings.ContainsFunc(name, func(c rune) bool { return !legal(c) }) {
		return "", fmt.Errorf("name %q is not one that a member of a .deb has", raw)
	}
	return name, nil
}

// arNumber reads digits, then spaces. Nothing else counts: readers differ in what
// they make of signs, of blanks in front and of letters.
func arNumber(field []byte, base int) (int64, error) {
	digits := bytes.TrimRight(field, " ")
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("%q is no number", field)
		}
	}
	n, err := strconv.ParseInt(string(digits), base, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no number", field)
	}
	return n, nil
}

// place checks that the n-th member may stand there.
func (a *archive) place(n int, m member) error {
	is := func(prefix string) bool { return m.name == prefix || strings.HasPrefix(m.name, prefix+".") }
	switch {
	case n >= maxMembers:
		return fmt.Errorf("more than %d ar members", maxMembers)
	case n == 0:
		if m.name != "debian-binary" {
			return fmt.Errorf("the first ar member is %q, not debian-binary", m.name)
		}
		a.version = m
		return a.checkVersion()
	case n == 1:
		if !is("control.tar") {
			return fmt.Errorf("the second ar member is %q, not control.tar", m.name)
		}
		a.control = m
	case n == 2:
		if !is("data.tar") {
			return fmt.Errorf("the third ar member is %q, not data.tar", m.name)
		}
		a.data = m
	case !strings.HasPrefix(m.name, "_"):
		return fmt.Errorf("ar member %q after data.tar: only names that begin with _ may follow", m.name)
	default:
		for _, e := range a.extra {
			if e.name == m.name {
				return fmt.Errorf("ar member %q stands there twice", m.name)
			}
		}
		a.extra = append(a.extra, m)
	}
	return nil
}

// checkVersion takes format 2.x, as dpkg does.
func (a *archive) checkVersion() error {
	m := a.version
	if m.size > 64 {
		return fmt.Errorf("debian-binary has %d bytes", m.size)
	}
	content, err := io.ReadAll(m.content(a.r))
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(content, []byte("2.")) || !bytes.HasSuffix(content, []byte("\n")) {
		return fmt.Errorf("debian-binary says %q, not 2.0", content)
	}
	return nil
}

// tail returns what follows data.tar.
func (a *archive) tail() *io.SectionReader {
	return io.NewSectionReader(a.r, a.data.stop(), a.size-a.data.stop())
}

// copyTo copies the bytes from offset from up to offset to.
func (a *archive) copyTo(w io.Writer, from, to int64) error {
	return atomicfile.CopyRange(w, a.r, from, to-from)
}

// rename returns the header h with another name and size, and every other field as
// it was. A name that ended in a slash goes on doing so.
func (h arHeader) rename(name string, size int64) (arHeader, error) {
	if bytes.HasSuffix(bytes.TrimRight(h.rawName(), " "), []byte("/")) {
		name += "/"
	}
	digits := strconv.FormatInt(size, 10)
	if len(name) > len(h.rawName()) || len(digits) > len(h.size()) {
		return h, fmt.Errorf("ar member %q of %d bytes does not fit a header", name, size)
	}
	copy(h.rawName(), fmt.Sprintf("%-16s", name))
	copy(h.size(), fmt.Sprintf("%-10s", digits))
	return h, nil
}

// writeMember writes a member with header h and an own content.
func writeMember(w io.Writer, h arHeader, content []byte) error {
	if _, err := w.Write(h[:]); err != nil {
		return err
	}
	if _, err := w.Write(content); err != nil {
		return err
	}
	if len(content)&1 == 0 {
		return nil
	}
	_, err := w.Write([]byte("\n"))
	return err
}

// writeNewMember writes a member that the package did not have. The library pads
// after every Write of odd length, hence the one Write.
func writeNewMember(w io.Writer, name string, mtime time.Time, content []byte) error {
	out := ar.NewWriter(w)
	err := out.WriteHeader(&ar.Header{Name: name, ModTime: mtime, Mode: 0o100644, Size: int64(len(content))})
	if err != nil {
		return err
	}
	_, err = out.Write(content)
	return err
}

// noEOF says that an end of file came too early.
func noEOF(err error) error {
	if err == io.EOF || err == nil {
		return io.ErrUnexpectedEOF
	}
	return err
}
