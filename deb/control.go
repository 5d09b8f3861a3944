package deb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/imaseal/imaseal/internal/compression"
	"github.com/imaseal/imaseal/sign"
)

// The control members that imaseal adds, in the order in which they stand behind
// the original ones. dpkg installs those without a dot in the name into its info
// database; docs/format.md has the whole story.
const (
	controlSignatures = "ima-control-signatures"
	statementName     = "ima-package"
	payloadSignatures = "ima-signatures"
	unsignedPrefix    = "unsigned."
	unsignedTail      = unsignedPrefix + "tail"
)

// maxControl bounds a decompressed control archive, which is held in memory. It
// has room for the signatures of 250,000 files.
const maxControl = 64 << 20

// maxControlMembers bounds how many members a control archive has.
const maxControlMembers = 1024

// A control is a decompressed control archive.
type control struct {
	raw     []byte
	entries int // length of raw up to the end mark
	members []controlMember
}

// A controlMember is a plain file of the control archive.
type controlMember struct {
	name    string
	mode    int64
	mtime   time.Time
	content []byte
}

// readControl decompresses the member of name and content r, and parses it.
func readControl(name string, r io.Reader) (*control, error) {
	raw, err := decompressAll(name, r)
	if err != nil {
		return nil, err
	}
	return parseControl(name, raw)
}

func decompressAll(name string, r io.Reader) ([]byte, error) {
	body, err := decompress(name, r)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	raw, err := io.ReadAll(compression.Limit(body, maxControl, name))
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
	_, suffix, _ := strings.Cut(name, ".tar")
	f, ok := suffixes[suffix]
	if !ok || strings.HasPrefix(name, "control") && (f == compression.Bzip2 || f == compression.Lzma) {
		return "", fmt.Errorf("%s: dpkg knows no such compression", name)
	}
	return f, nil
}

// decompress opens the member of name and content r. The content must be what the
// name promises: tools differ in which of the two they go by.
func decompress(name string, r io.Reader) (io.ReadCloser, error) {
	f, err := formatOf(name)
	if err != nil {
		return nil, err
	}
	head := make([]byte, compression.HeadSize)
	n, err := io.ReadFull(r, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if found := compression.Detect(head[:n]); found != f {
		return nil, fmt.Errorf("%s: the content is not %s but %s", name, f, found)
	}
	body, err := compression.NewReader(io.MultiReader(bytes.NewReader(head[:n]), r), f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return body, nil
}

// parseControl takes plain files only, each name once: dpkg follows a link that is
// called preinst, and of two members of a name the last one wins.
func parseControl(name string, raw []byte) (*control, error) {
	c := &control{raw: raw}
	t := newTarReader(bytes.NewReader(raw))
	seen := map[string]bool{}
	for {
		h, err := t.next()
		if err == io.EOF {
			c.entries = int(t.entry())
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if h.Typeflag == tar.TypeDir && h.Name == "" {
			continue
		}
		fault := ""
		switch {
		case h.Typeflag != tar.TypeReg:
			fault = "is no plain file"
		case strings.Contains(h.Name, "/"):
			fault = "is in a folder"
		case strings.ContainsFunc(h.Name, func(r rune) bool { return r <= ' ' || r == 0x7f }):
			fault = "has a name that no member has"
		case seen[h.Name]:
			fault = "stands there twice"
		case len(c.members) == maxControlMembers:
			fault = fmt.Sprintf("is one of more than %d", maxControlMembers)
		}
		if fault != "" {
			return nil, fmt.Errorf("%s: member %q %s", name, h.Name, fault)
		}
		seen[h.Name] = true
		start := t.offset()
		if h.Size > int64(len(raw))-start {
			return nil, fmt.Errorf("%s: member %q has %d bytes, but only %d follow", name, h.Name, h.Size, int64(len(raw))-start)
		}
		c.members = append(c.members, controlMember{
			name: h.Name, mode: h.Mode, mtime: h.ModTime,
			content: raw[start : start+h.Size],
		})
	}
	if c.member("control") == nil {
		return nil, fmt.Errorf("%s: no member control", name)
	}
	return c, nil
}

func (c *control) member(name string) *controlMember {
	for i := range c.members {
		if c.members[i].name == name {
			return &c.members[i]
		}
	}
	return nil
}

// ours reports whether imaseal alone makes control members of that name.
func ours(name string) bool {
	switch name {
	case controlSignatures, statementName, payloadSignatures:
		return true
	}
	return strings.HasPrefix(name, unsignedPrefix)
}

// scripts are the control members that dpkg and debconf execute.
var scripts = map[string]bool{"preinst": true, "postinst": true, "prerm": true, "postrm": true, "config": true}

// executed reports whether the member has to be signed.
func (m *controlMember) executed() bool {
	if ours(m.name) {
		return false
	}
	return scripts[m.name] || m.mode&0o111 != 0 || bytes.HasPrefix(m.content, []byte("#!"))
}

// sealed returns the control archive c with the manifest m, the original member of
// name and content unsigned, and the tail that data.tar had: what stands in a
// signed package, decompressed.
func (c *control) sealed(m *sign.Manifest, name string, unsigned, tail []byte) ([]byte, error) {
	statement, err := m.Statement.MarshalText()
	if err != nil {
		return nil, err
	}
	added := []struct {
		name    string
		content []byte
	}{
		{controlSignatures, sign.FormatAttributes(m.Control)},
		{statementName, statement},
		{payloadSignatures, sign.FormatAttributes(m.Files)},
		{unsignedPrefix + name, unsigned},
		{unsignedTail, tail},
	}
	var b bytes.Buffer
	b.Write(c.raw[:c.entries])
	w := tar.NewWriter(&b)
	for _, a := range added {
		if a.name == unsignedTail && len(a.content) == 0 {
			continue
		}
		err := w.WriteHeader(&tar.Header{
			Name: "./" + a.name, Mode: 0o644, Size: int64(len(a.content)),
			ModTime: c.member("control").mtime, Format: tar.FormatGNU,
		})
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(a.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if b.Len() > maxControl {
		return nil, fmt.Errorf("the control archive would have %d bytes, more than the %d that imaseal reads: sign fewer files with --select exec", b.Len(), maxControl)
	}
	return b.Bytes(), nil
}

// compressControl makes the new control member, always gzip: every dpkg reads it.
// The signatures hardly compress, so the fastest level is as good as another.
func compressControl(raw []byte) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(raw); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// fields reads the one stanza of the control file, deb-control(5). Names are in
// lower case; folded lines are left out, as nobody here wants one.
func (c *control) fields() (map[string]string, error) {
	fields := map[string]string{}
	last := ""
	for i, line := range strings.Split(strings.TrimRight(string(c.member("control").content), "\n"), "\n") {
		if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			if last == "package" || last == "version" || last == "architecture" || last == "" {
				return nil, fmt.Errorf("control: line %d continues a field that has one line", i+1)
			}
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("control: line %d is no field: %q", i+1, line)
		}
		last = strings.ToLower(name)
		if _, twice := fields[last]; twice {
			return nil, fmt.Errorf("control: field %s stands there twice", name)
		}
		fields[last] = strings.TrimSpace(value)
	}
	for _, name := range []string{"package", "version", "architecture"} {
		value := fields[name]
		if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r == 0x7f }) || value != path.Base(value) {
			return nil, fmt.Errorf("control: field %s is %q", name, value)
		}
	}
	return fields, nil
}
