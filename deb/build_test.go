package deb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/imaseal/imaseal/deb/dpkgtar"
	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

// noOptions are those of a signed copy without an OpenPGP signature.
var noOptions = sign.WriteOptions{}

var buildTime = time.Unix(1700000000, 0)

// need skips the test where one of the programs is missing.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
}

// An entry is an entry of a tar archive.
type entry struct {
	tar.Header
	content string
}

func file(name string, mode int64, content string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(content)), ModTime: buildTime, Format: tar.FormatGNU}, content}
}

func folder(name string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: buildTime, Format: tar.FormatGNU}, ""}
}

func link(kind byte, name, target string) entry {
	return entry{tar.Header{Name: name, Typeflag: kind, Linkname: target, Mode: 0o644, ModTime: buildTime, Format: tar.FormatGNU}, ""}
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
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

// patched applies change to the block at offset of a tar archive and mends the
// checksum.
func patched(archive []byte, offset int, change func(block []byte)) []byte {
	archive = bytes.Clone(archive)
	block := archive[offset : offset+dpkgtar.BlockSize]
	change(block)
	copy(block[148:156], "        ")
	sum := 0
	for _, c := range block {
		sum += int(c)
	}
	copy(block[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return archive
}

// An arMember is a member of an ar archive, with a header that can be wrong.
type arMember struct {
	name    string
	content []byte
	header  func(h *arHeader) // nil leaves it right
	pad     string            // "": a newline where one is needed
}

func arOf(members ...arMember) []byte {
	b := []byte(arMagic)
	for _, m := range members {
		var h arHeader
		copy(h[:], fmt.Sprintf("%-16s%-12d%-6d%-6d%-8s%-10d%s", m.name, buildTime.Unix(), 0, 0, "100644", len(m.content), arEnd))
		if m.header != nil {
			m.header(&h)
		}
		b = append(b, h[:]...)
		b = append(b, m.content...)
		switch {
		case m.pad != "":
			b = append(b, m.pad...)
		case len(m.content)&1 == 1:
			b = append(b, '\n')
		}
	}
	return b
}

var version = arMember{name: "debian-binary", content: []byte("2.0\n")}

const controlText = `Package: hello
Version: 2.10-3
Architecture: amd64
Maintainer: Nobody <nobody@example.org>
Installed-Size: 3
Description: a greeting
 of two lines
`

func controlFiles() []entry {
	return []entry{
		folder("./"),
		file("./control", 0o644, controlText),
		file("./conffiles", 0o644, "/etc/hello.conf\n"),
		file("./preinst", 0o755, "#!/bin/sh\nexit 0\n"),
		file("./isinstallable", 0o644, "#!/bin/sh\nexit 1\n"),
		file("./md5sums", 0o644, ""),
	}
}

func payloadFiles() []entry {
	return []entry{
		folder("./"), folder("./etc/"), folder("./usr/"), folder("./usr/bin/"),
		file("./etc/hello.conf", 0o644, "greeting = hello\n"),
		file("./usr/bin/hello", 0o755, "\x7fELF"+strings.Repeat("hello", 300)),
		link(tar.TypeLink, "./usr/bin/hi", "./usr/bin/hello"),
		link(tar.TypeLink, "./usr/bin/ho", "./usr/bin/hi"),
		link(tar.TypeSymlink, "./usr/bin/hey", "hello"),
		file("./usr/bin/su", 0o4755, "#!/bin/sh\n"),
		file("./usr/empty", 0o644, ""),
		entry{Header: tar.Header{Name: "./usr/fifo", Typeflag: tar.TypeFifo, Mode: 0o644, ModTime: buildTime, Format: tar.FormatGNU}},
		entry{Header: tar.Header{Name: "./usr/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o644, ModTime: buildTime, Format: tar.FormatGNU}},
	}
}

// compress returns content in the format of the suffix. For xz, bz2 and lzma it
// needs the program.
func compress(t testing.TB, suffix string, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	switch suffix {
	case "":
		return content
	case ".gz":
		w := gzip.NewWriter(&b)
		w.Write(content)
		w.Close()
		return b.Bytes()
	case ".zst":
		w, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(content)
		w.Close()
		return b.Bytes()
	}
	program := map[string][]string{".xz": {"xz", "-c"}, ".bz2": {"bzip2", "-c"}, ".lzma": {"xz", "--format=lzma", "-c"}}[suffix]
	need(t, program[0])
	cmd := exec.Command(program[0], program[1:]...)
	cmd.Stdin = bytes.NewReader(content)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A build is a .deb to be made; the zero value of each field is the usual.
type build struct {
	control, data             []entry
	controlSuffix, dataSuffix string
	tail                      []arMember
}

func (b build) members(t testing.TB) []arMember {
	t.Helper()
	if b.control == nil {
		b.control = controlFiles()
	}
	if b.data == nil {
		b.data = payloadFiles()
	}
	return append([]arMember{
		version,
		{name: "control.tar" + b.controlSuffix, content: compress(t, b.controlSuffix, tarOf(t, b.control...))},
		{name: "data.tar" + b.dataSuffix, content: compress(t, b.dataSuffix, tarOf(t, b.data...))},
	}, b.tail...)
}

func (b build) bytes(t testing.TB) []byte {
	t.Helper()
	return arOf(b.members(t)...)
}

// testKey signs what the tests sign.
var testKey = signtest.NewSigner()

func open(t testing.TB, raw []byte) *Package {
	t.Helper()
	p, err := Open(bytes.NewReader(raw), int64(len(raw)), Options{Jobs: 2})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func write(t testing.TB, p *Package, m *sign.Manifest, o sign.WriteOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := p.Write(t.Context(), &b, m, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// signed returns the signed copy of raw.
func signed(t testing.TB, raw []byte, o sign.WriteOptions) []byte {
	t.Helper()
	p := open(t, raw)
	m, err := sign.Sign(t.Context(), p, testKey, sign.Options{Jobs: 2})
	if err != nil {
		t.Fatal(err)
	}
	return write(t, p, m, o)
}

func verify(t testing.TB, raw []byte) *sign.Report {
	t.Helper()
	r, err := sign.Verify(t.Context(), open(t, raw), signtest.Trust(testKey), sign.Options{Jobs: 2})
	if err != nil {
		t.Fatal(err)
	}
	return r
}
