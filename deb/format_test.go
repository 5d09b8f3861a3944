package deb

import (
	"archive/tar"
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

// TestFormatExample holds the worked example of docs/format.md, which a second
// implementation is tested against, to what is written here.
func TestFormatExample(t *testing.T) {
	doc, err := os.ReadFile("../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	plain := func(name string, mode int64, content string) entry {
		return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(content)), Format: tar.FormatGNU}, content}
	}
	unsigned := arOf(version,
		arMember{name: "control.tar", content: tarOf(t,
			plain("./control", 0o644, "Package: hello\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: a greeting\n"),
			plain("./postinst", 0o755, "#!/bin/sh\n"))},
		arMember{name: "data.tar", content: tarOf(t,
			plain("./usr/bin/hello", 0o755, "#!/bin/sh\necho hello\n"),
			plain("./usr/share/doc/hello/empty", 0o644, ""))})
	p, err := Open(bytes.NewReader(unsigned), int64(len(unsigned)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := sign.Sign(t.Context(), p, signtest.FormatSigner(), sign.Options{})
	if err != nil {
		t.Fatal(err)
	}
	statement, err := m.Statement.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"ima-signatures":         sign.FormatAttributes(m.Files),
		"ima-control-signatures": sign.FormatAttributes(m.Control),
		"ima-package":            statement,
	} {
		var block strings.Builder // as Markdown shows it
		for line := range strings.Lines(strings.TrimSuffix(string(text), "\n\n")) {
			if line != "\n" {
				block.WriteString("    ")
			}
			block.WriteString(line)
		}
		if !bytes.Contains(doc, []byte(block.String())) {
			t.Errorf("docs/format.md does not show %s as\n%s", name, &block)
		}
	}
}
