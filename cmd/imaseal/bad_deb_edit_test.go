package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// The edits of a .deb: of its bytes, of its ar members, of the entries of a tar
// archive in it. They share no code with the room deb.

// debTime is SOURCE_DATE_EPOCH of testdata/make.
var debTime = time.Unix(1700000000, 0)

// An arMember is a member of an ar archive.
type arMember struct {
	header  []byte // 60 bytes; the size in it is set when the archive is written
	content []byte
	size    string // stands in the header in place of the real one
	pad     string // stands behind a content of odd length in place of a newline
	unpad   bool   // nothing stands there
}

func newMember(name, content string) arMember {
	return arMember{header: fmt.Appendf(nil, "%-16s%-12d%-6d%-6d%-8s%-10s`\n", name, debTime.Unix(), 0, 0, "100644", ""), content: []byte(content)}
}

// put writes a field of the header, which begins at offset at and is filled with
// spaces.
func (m *arMember) put(at, width int, text string) {
	m.header = bytes.Clone(m.header)
	copy(m.header[at:at+width], fmt.Sprintf("%-*s", width, text))
}

func (m *arMember) rename(name string) { m.put(0, 16, name) }

func parseAr(t testing.TB, b []byte) []arMember {
	t.Helper()
	var all []arMember
	for rest := b[8:]; len(rest) > 0; {
		size, err := strconv.Atoi(strings.TrimRight(string(rest[48:58]), " "))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, arMember{header: rest[:60], content: rest[60 : 60+size]})
		rest = rest[60+size+size&1:]
	}
	return all
}

func formatAr(all []arMember) []byte {
	b := []byte("!<arch>\n")
	for _, m := range all {
		size := strconv.Itoa(len(m.content))
		if m.size != "" {
			size = m.size
		}
		m.put(48, 10, size)
		b = append(append(b, m.header...), m.content...)
		switch {
		case len(m.content)&1 == 0 || m.unpad:
		case m.pad != "":
			b = append(b, m.pad...)
		default:
			b = append(b, '\n')
		}
	}
	return b
}

// editAr changes the members, which are debian-binary, control.tar, data.tar.
func editAr(change func(m []arMember) []arMember) edit {
	return func(t testing.TB, good []byte) []byte { return formatAr(change(parseAr(t, good))) }
}

// editMember changes the i-th member.
func editMember(i int, change func(m *arMember)) edit {
	return editAr(func(m []arMember) []arMember { change(&m[i]); return m })
}

const (
	theVersion = 0
	theControl = 1
	theData    = 2
)

// editArchive changes a tar archive, as bytes. It stays in gzip.
func editArchive(member int, change func(t testing.TB, raw []byte) []byte) edit {
	return func(t testing.TB, good []byte) []byte {
		m := parseAr(t, good)
		raw := gunzipped(t, m[member].content)
		changed := change(t, raw)
		if bytes.Equal(changed, raw) {
			t.Fatal("the edit changed nothing")
		}
		m[member].content = gzipped(t, changed)
		return formatAr(m)
	}
}

// editBytes is a change of an archive that needs no test.
func editBytes(change func(raw []byte) []byte) func(testing.TB, []byte) []byte {
	return func(_ testing.TB, raw []byte) []byte { return change(raw) }
}

// editEntries changes the entries of a tar archive.
func editEntries(member int, change func(e []tarEntry) []tarEntry) edit {
	return editArchive(member, func(t testing.TB, raw []byte) []byte { return formatTar(t, change(parseTar(t, raw))) })
}

// appendEntries adds entries at the end.
func appendEntries(member int, more ...tarEntry) edit {
	return editEntries(member, func(e []tarEntry) []tarEntry { return append(e, more...) })
}

// A tarEntry is an entry of a tar archive. patch, if not nil, changes its header,
// whose checksum then is mended.
type tarEntry struct {
	tar.Header
	content string
	patch   func(block []byte)
}

func tarFile(name, content string) tarEntry {
	return tarEntry{Header: tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content)), ModTime: debTime, Format: tar.FormatGNU}, content: content}
}

func tarScript(name, content string) tarEntry {
	e := tarFile(name, content)
	e.Mode = 0o755
	return e
}

func tarOther(kind byte, name, link string) tarEntry {
	return tarEntry{Header: tar.Header{Name: name, Typeflag: kind, Linkname: link, Mode: 0o755, ModTime: debTime, Format: tar.FormatGNU}}
}

func (e tarEntry) patched(at int, field string) tarEntry {
	e.patch = func(block []byte) { copy(block[at:], field) }
	return e
}

func parseTar(t testing.TB, raw []byte) []tarEntry {
	t.Helper()
	var all []tarEntry
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		h.Format = tar.FormatGNU
		all = append(all, tarEntry{Header: *h, content: string(content)})
	}
}

func formatTar(t testing.TB, all []tarEntry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range all {
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		at := b.Len()
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if e.patch != nil {
			block := b.Bytes()[at : at+512]
			e.patch(block)
			mendChecksum(block)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func mendChecksum(block []byte) {
	copy(block[148:156], "        ")
	sum := 0
	for _, c := range block[:512] {
		sum += int(c)
	}
	copy(block[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

// A compressor is how a format is written.
type compressor func(w io.Writer) (io.WriteCloser, error)

var compressors = map[string]compressor{
	".gz": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, gzip.BestSpeed) },
	".xz": func(w io.Writer) (io.WriteCloser, error) { return xz.WriterConfig{DictCap: 1 << 20}.NewWriter(w) },
	".zst": func(w io.Writer) (io.WriteCloser, error) {
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	},
}

func compressed(t testing.TB, suffix string, content io.Reader) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := compressors[suffix](&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t testing.TB, content []byte) []byte {
	return compressed(t, ".gz", bytes.NewReader(content))
}

func gunzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// xzOf returns one stream with the blocks of streams of one block each, as xz -T
// makes it: the header, the blocks, an index of them and the footer.
func xzOf(streams ...[]byte) []byte {
	const header, footer = 12, 12
	b := bytes.Clone(streams[0][:header])
	var records []byte
	for _, s := range streams {
		end := len(s) - footer
		index := end - 4*(int(binary.LittleEndian.Uint32(s[end+4:]))+1)
		b = append(b, s[header:index]...)
		_, unpadded := binary.Uvarint(s[index+2:]) // behind the index's mark and the number 1
		_, size := binary.Uvarint(s[index+2+unpadded:])
		records = append(records, s[index+2:index+2+unpadded+size]...)
	}
	index := append(binary.AppendUvarint([]byte{0}, uint64(len(streams))), records...)
	index = append(index, make([]byte, -len(index)&3)...)
	index = binary.LittleEndian.AppendUint32(index, crc32.ChecksumIEEE(index))
	tail := append(binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1)), streams[0][6:8]...)
	b = binary.LittleEndian.AppendUint32(append(b, index...), crc32.ChecksumIEEE(tail))
	return append(append(b, tail...), "YZ"...)
}

// zeros is a reader of nothing else.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
