package deb

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/imaseal/imaseal/deb/dpkgtar"
	"github.com/imaseal/imaseal/internal/compression"
	"github.com/imaseal/imaseal/sign"
)

// The members that imaseal adds stand behind the original ones, in this order:
// ima-control-signatures, ima-package, ima-signatures, the original control archive,
// and, where there was something after data.tar, unsignedTail.
const unsignedTail = dpkgtar.UnsignedPrefix + "tail"

const (
	// maxControl bounds a control archive, compressed and decompressed: it is held in
	// memory.
	maxControl = dpkgtar.MaxControl
	// maxControlWindow bounds in bytes what of a control archive in zstd the decoder
	// has to remember. dpkg-deb's default level takes 8 MiB, and for an archive that
	// is smaller only its size.
	maxControlWindow = 32 << 20
	// maxScripts bounds in bytes what of a control archive is executed, which is kept
	// while the payload is read.
	maxScripts = 8 << 20
	// smallControl is the size in bytes up to which memory is cheaper than reading
	// a control archive twice.
	smallControl = 1 << 20
)

// A control is a decompressed control archive.
type control struct {
	raw     []byte
	end     int // where in raw the end mark is
	members []controlMember
}

// A controlMember is a plain file of the control archive.
type controlMember struct {
	name    string
	header  int // where in the archive its headers begin
	mode    int64
	mtime   time.Time
	content []byte
}

// readControl reads the control archive that is visible in a.
func (a *archive) readControl() (*control, error) {
	if a.control.size > maxControl {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are taken", a.control.name, a.control.size, maxControl)
	}
	if err := oneControlStream(a.control.name, a.control.content(a.r)); err != nil {
		return nil, err
	}
	raw, err := decompressAll(a.control.name, func() (io.Reader, error) { return a.open(&a.control) })
	if err != nil {
		return nil, err
	}
	c, err := parseControl(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.control.name, err)
	}
	return c, nil
}

// decompressAll returns the decompressed member of name and a content that open
// opens. A large one is decompressed twice, once to learn how large it is, as a
// buffer that grows would need its memory twice.
func decompressAll(name string, open func() (io.Reader, error)) ([]byte, error) {
	each := func(f func(r io.Reader) error) error {
		r, err := open()
		if err != nil {
			return err
		}
		body, err := decompress(name, r)
		if err != nil {
			return err
		}
		defer body.Close()
		return f(compression.Limit(body, maxControl, name))
	}
	var raw []byte
	var size int64
	err := each(func(r io.Reader) error {
		var err error
		if raw, err = io.ReadAll(io.LimitReader(r, smallControl)); err != nil || len(raw) < smallControl {
			return err
		}
		size, err = io.Copy(io.Discard, r)
		return err
	})
	if err == nil && size > 0 {
		// The window of the first decoder can be as large as what it decoded.
		debug.FreeOSMemory()
		raw = make([]byte, smallControl+size)
		err = each(func(r io.Reader) error {
			_, err := io.ReadFull(r, raw)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return raw, nil
}

// suffixes are the endings that control.tar and data.tar have. dpkg goes by them.
var suffixes = map[string]compression.Format{
	"":      compression.None,
	".gz":   compression.Gzip,
	".xz":   compression.Xz,
	".zst":  compression.Zstd,
	".bz2":  compression.Bzip2,
	".lzma": compression.Lzma,
}

// formatOf returns the compression that the member's name promises.
func formatOf(name string) (compression.Format, error) {
	base, suffix, _ := strings.Cut(name, ".tar")
	f, ok := suffixes[suffix]
	if !ok || base == "control" && (f == compression.Bzip2 || f == compression.Lzma) {
		return "", fmt.Errorf("%s: dpkg knows no such compression", name)
	}
	return f, nil
}

// oneControlStream is [oneStream] for the control archive of name.
func oneControlStream(name string, content *io.SectionReader) error {
	f, err := formatOf(name)
	if err == nil {
		err = oneStream(content, content.Size(), f)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// oneStream refuses a member of more than one compressed stream. dpkg-deb (1.21 to
// 1.23 were tried) takes the end of the first for the end of the archive, where all
// others read on: what stands in a second one a verifier would see, and nobody install.
func oneStream(r io.ReaderAt, size int64, f compression.Format) error {
	err := compression.OneStream(r, size, f)
	if err == compression.ErrStreams {
		return fmt.Errorf("%w, of which dpkg reads the first only", err)
	}
	return err
}

// decompress opens the control archive of name and content r. The content must be what the
// name promises: tools differ in which of the two they go by.
func decompress(name string, r io.Reader) (io.ReadCloser, error) {
	f, err := formatOf(name)
	if err != nil {
		return nil, err
	}
	head := make([]byte, compression.HeadSize)
	n, err := io.ReadFull(r, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	if found := compression.Detect(head[:n]); found != f {
		return nil, fmt.Errorf("the content is not %s but %s", f, found)
	}
	r = io.MultiReader(bytes.NewReader(head[:n]), r)
	if f != compression.Zstd {
		return compression.NewReader(r, f)
	}
	// The usual limit is for payloads, during which no control archive is held.
	d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxControlWindow))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

// parseControl takes plain files only, each name once: dpkg follows a link that is
// called preinst, and of two members of a name the last one wins.
func parseControl(raw []byte) (*control, error) {
	c := &control{raw: raw}
	t := dpkgtar.NewReader(bytes.NewReader(raw))
	seen := map[string]bool{}
	for {
		h, err := t.Next()
		if err == io.EOF {
			c.end = int(t.Entry())
			break
		}
		if err != nil {
			return nil, err
		}
		fault := ""
		switch {
		case seen[h.Name]:
			fault = "stands there twice"
		case h.Typeflag == tar.TypeDir && h.Name == "":
		case h.Typeflag != tar.TypeReg:
			fault = "is no plain file"
		case strings.Contains(h.Name, "/"):
			fault = "is in a folder"
		case len(h.Name) > dpkgtar.MaxControlName || strings.ContainsFunc(h.Name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' }):
			fault = "has a name that no control member has"
		case h.Name == "control" && h.Size > dpkgtar.MaxControlFile:
			fault = fmt.Sprintf("has %d bytes, at most %d are taken", h.Size, dpkgtar.MaxControlFile)
		case len(c.members) == dpkgtar.MaxControlMembers:
			fault = fmt.Sprintf("is one of more than %d", dpkgtar.MaxControlMembers)
		}
		if fault != "" {
			return nil, t.Wrap(fmt.Errorf("member %q %s", h.Name, fault))
		}
		seen[h.Name] = true
		if h.Name == "" {
			continue
		}
		start := t.Offset()
		if h.Size > int64(len(raw))-start {
			return nil, t.Wrap(fmt.Errorf("member %q has %d bytes, but only %d follow", h.Name, h.Size, int64(len(raw))-start))
		}
		c.members = append(c.members, controlMember{
			name: h.Name, header: int(t.Entry()), mode: h.Mode, mtime: h.ModTime,
			content: raw[start : start+h.Size : start+h.Size],
		})
	}
	if c.member("control") == nil {
		return nil, errors.New("no member control")
	}
	return c, nil
}

// member returns the member of that name, nil where there is none.
func (c *control) member(name string) *controlMember {
	for i := range c.members {
		if c.members[i].name == name {
			return &c.members[i]
		}
	}
	return nil
}

// executed reports whether the member has to be signed.
func (m *controlMember) executed() bool { return dpkgtar.Executed(m.name, m.mode, m.content) }

// state returns the digests of control, of conffiles, and of the other members that
// no file signature covers and that are not ours, by name: those of the statement.
func (c *control) state() []sign.MemberDigest {
	var stated []sign.MemberDigest
	rank := map[string]int{"control": -2, "conffiles": -1}
	for _, m := range c.members {
		if rank[m.name] != 0 || !dpkgtar.Ours(m.name) && !m.executed() {
			stated = append(stated, sign.MemberDigest{Name: m.name, SHA256: sha256.Sum256(m.content)})
		}
	}
	slices.SortFunc(stated, func(a, b sign.MemberDigest) int {
		return cmp.Or(rank[a.Name]-rank[b.Name], strings.Compare(a.Name, b.Name))
	})
	return stated
}

// executed returns the members that have to be signed.
func (c *control) executed() (found []controlMember, err error) {
	size := 0
	for _, m := range c.members {
		if !m.executed() {
			continue
		}
		if size += len(m.content); size > maxScripts {
			return nil, fmt.Errorf("members that are executed have more than %d bytes, member %q among them", maxScripts, m.name)
		}
		found = append(found, m)
	}
	return found, nil
}
