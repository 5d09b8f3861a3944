package deb

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
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

	// maxExtra bounds the members that follow data.tar: a few signatures.
	maxExtra = 64
	// maxVersion bounds debian-binary in bytes: it has four, and a later minor
	// version may add lines.
	maxVersion = 1024
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
	format  string // what debian-binary says: 2.0
	version member // debian-binary
	control member
	data    member
	extra   []member // _gpgorigin and the like
}

// scanArchive reads the headers of r, size bytes long, and refuses what is not such
// an archive with the offset of what is wrong. blakesmith/ar is not let near what
// has not passed: it takes any magic, reads odd sizes as 0 and panics on negative
// ones and on a blank mode.
func scanArchive(r io.ReaderAt, size int64) (*archive, error) {
	var magic [len(arMagic)]byte
	if n, err := r.ReadAt(magic[:], 0); n < len(magic) {
		return nil, fmt.Errorf("offset 0: no ar archive: %w", noEOF(err))
	}
	if string(magic[:]) != arMagic {
		return nil, fmt.Errorf("offset 0: no ar archive: it begins with %q", magic[:])
	}
	a := &archive{r: r, size: size}
	offset := int64(len(arMagic))
	for _, p := range []struct {
		member *member
		want   string
		is     func(name string) bool
	}{
		{&a.version, "debian-binary", func(name string) bool { return name == "debian-binary" }},
		{&a.control, "control.tar", func(name string) bool { return name == "control.tar" || strings.HasPrefix(name, "control.tar.") }},
		{&a.data, "data.tar", func(name string) bool { return name == "data.tar" || strings.HasPrefix(name, "data.tar.") }},
	} {
		if offset == size {
			return nil, fmt.Errorf("offset %d: the file ends where the ar member %s should be", offset, p.want)
		}
		m, err := readMember(r, size, offset)
		if err != nil {
			return nil, fmt.Errorf("offset %d: %w", offset, err)
		}
		if !p.is(m.name) {
			return nil, fmt.Errorf("offset %d: there is the ar member %q where %s should be", offset, m.name, p.want)
		}
		*p.member = m
		offset = m.stop()
	}
	if err := a.readVersion(); err != nil {
		return nil, fmt.Errorf("offset %d: %w", a.version.offset, err)
	}
	for _, m := range []member{a.control, a.data} {
		if _, err := formatOf(m.name); err != nil {
			return nil, fmt.Errorf("offset %d: %w", m.offset, err)
		}
	}
	var err error
	a.extra, err = scanTail(r, size, offset)
	return a, err
}

// scanTail reads the headers of the members that follow data.tar, which begin at
// offset.
func scanTail(r io.ReaderAt, size, offset int64) ([]member, error) {
	var extra []member
	for offset < size {
		m, err := readMember(r, size, offset)
		if err != nil {
			return nil, fmt.Errorf("offset %d: %w", offset, err)
		}
		switch {
		case !strings.HasPrefix(m.name, "_"):
			return nil, fmt.Errorf("offset %d: ar member %q after data.tar: only names that begin with _ may follow", offset, m.name)
		case slices.ContainsFunc(extra, func(e member) bool { return e.name == m.name }):
			return nil, fmt.Errorf("offset %d: ar member %q stands there twice", offset, m.name)
		case len(extra) == maxExtra:
			return nil, fmt.Errorf("offset %d: more than %d ar members follow data.tar", offset, maxExtra)
		}
		extra = append(extra, m)
		offset = m.stop()
	}
	return extra, nil
}

func readMember(r io.ReaderAt, size, offset int64) (member, error) {
	m := member{offset: offset}
	if size-offset < arHeaderSize {
		return m, fmt.Errorf("%d bytes follow, too few for the header of an ar member", size-offset)
	}
	if n, err := r.ReadAt(m.header[:], offset); n < arHeaderSize {
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
	if err := m.header.checkFields(); err != nil {
		return m, fmt.Errorf("ar member %q: %w", m.name, err)
	}
	if m.size > size-m.start() {
		return m, fmt.Errorf("ar member %q has %d bytes, but only %d follow", m.name, m.size, size-m.start())
	}
	if m.size&1 == 0 {
		return m, nil
	}
	var pad [1]byte
	if n, err := r.ReadAt(pad[:], m.start()+m.size); n == 0 {
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

// checkFields demands numbers in the fields that nobody here needs, so that every
// reader sees the same. The size has been read.
func (h *arHeader) checkFields() error {
	for _, f := range []struct {
		name  string
		field []byte
		base  int
	}{{"modification time", h.mtime(), 10}, {"owner", h.uid(), 10}, {"group", h.gid(), 10}, {"mode", h.mode(), 8}} {
		if _, err := arNumber(f.field, f.base); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if len(bytes.TrimRight(h.mode(), " ")) < 3 {
		return fmt.Errorf("mode: %q has less than three digits", h.mode())
	}
	return nil
}

// readVersion takes format 2.x with whatever lines may follow, as dpkg does.
func (a *archive) readVersion() error {
	if n := a.version.size; n > maxVersion {
		return fmt.Errorf("debian-binary has %d bytes", n)
	}
	content, err := a.read(&a.version)
	if err != nil {
		return err
	}
	a.format, _, _ = strings.Cut(string(content), "\n")
	minor, ok := strings.CutPrefix(a.format, "2.")
	if _, err := strconv.ParseUint(minor, 10, 16); !ok || err != nil || content[len(content)-1] != '\n' {
		return fmt.Errorf("debian-binary says %q: only format 2 is known", content)
	}
	return nil
}

// open reads the content of m through the library, which must see the member that
// the scan saw.
func (a *archive) open(m *member) (io.Reader, error) {
	r := ar.NewReader(io.MultiReader(strings.NewReader(arMagic), io.NewSectionReader(a.r, m.offset, m.stop()-m.offset)))
	h, err := r.Next()
	if err != nil {
		return nil, fmt.Errorf("ar member %s: %w", m.name, noEOF(err))
	}
	if name, err := memberName([]byte(h.Name)); err != nil || name != m.name || h.Size != m.size {
		return nil, fmt.Errorf("ar member %s of %d bytes can be read as %q of %d", m.name, m.size, h.Name, h.Size)
	}
	return r, nil
}

// read returns the content of m, whose size the caller has found bearable.
func (a *archive) read(m *member) ([]byte, error) {
	r, err := a.open(m)
	if err != nil {
		return nil, err
	}
	content := make([]byte, m.size)
	if _, err := io.ReadFull(r, content); err != nil {
		return nil, fmt.Errorf("ar member %s: %w", m.name, noEOF(err))
	}
	return content, nil
}

// copyTo copies the bytes from offset from up to offset to.
func (a *archive) copyTo(ctx context.Context, w io.Writer, from, to int64) error {
	const step = 64 << 20 // between two looks at the context
	for from < to {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(step, to-from)
		if err := atomicfile.CopyRange(w, a.r, from, n); err != nil {
			return err
		}
		from += n
	}
	return nil
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
// after every Write of odd length, hence the one Write, and passes over an error in
// writing the pad, hence the buffer.
func writeNewMember(w io.Writer, name string, mtime time.Time, content []byte) error {
	var b bytes.Buffer
	out := ar.NewWriter(&b)
	// The library puts the 100 of a regular file in front of the mode.
	err := out.WriteHeader(&ar.Header{Name: name, ModTime: mtime, Mode: 0o644, Size: int64(len(content))})
	if err != nil {
		return err
	}
	if _, err := out.Write(content); err != nil {
		return err
	}
	_, err = w.Write(b.Bytes())
	return err
}

// noEOF says that an end of file came too early.
func noEOF(err error) error {
	if err == io.EOF || err == nil {
		return io.ErrUnexpectedEOF
	}
	return err
}
