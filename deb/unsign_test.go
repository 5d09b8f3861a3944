package deb

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

// roundtrip signs raw, verifies, unsigns, and signs the signed package again.
func roundtrip(t *testing.T, raw []byte) {
	t.Helper()
	s := signed(t, raw, sign.WriteOptions{})
	if r := verify(t, s); !r.OK() || r.Files == 0 || r.Signed != r.Files {
		t.Errorf("Verify: %+v", r)
	}
	if r := verify(t, raw); r.OK() || r.Signed != 0 {
		t.Errorf("Verify of the unsigned package: %+v", r)
	}
	if !bytes.Equal(write(t, open(t, s), nil, sign.WriteOptions{}), raw) {
		t.Error("unsign gives other bytes")
	}
	again := signed(t, s, sign.WriteOptions{})
	if r := verify(t, again); !r.OK() {
		t.Errorf("Verify of the package that was signed twice: %+v", r)
	}
	if !bytes.Equal(write(t, open(t, again), nil, sign.WriteOptions{}), raw) {
		t.Error("unsign after signing twice gives other bytes")
	}
	m, err := open(t, s).Manifest()
	if err != nil || m == nil {
		t.Fatalf("Manifest: %v, %v", m, err)
	}
	if !bytes.Equal(write(t, open(t, again), m, sign.WriteOptions{}), s) {
		t.Error("the first manifest in the package signed twice gives other bytes")
	}
}

func TestEveryCompression(t *testing.T) {
	for _, controlSuffix := range []string{"", ".gz", ".xz", ".zst"} {
		for _, dataSuffix := range []string{"", ".gz", ".xz", ".zst", ".bz2", ".lzma"} {
			t.Run("control"+controlSuffix+" data"+dataSuffix, func(t *testing.T) {
				roundtrip(t, build{controlSuffix: controlSuffix, dataSuffix: dataSuffix}.bytes(t))
			})
		}
	}
}

// TestDpkgDebBuilds takes packages of dpkg-deb, which has its own ways with ar and
// tar.
func TestDpkgDebBuilds(t *testing.T) {
	need(t, "dpkg-deb")
	root := tree(t)
	for _, z := range []string{"none", "gzip", "xz", "zstd"} {
		for _, uniform := range []string{"--uniform-compression", "--no-uniform-compression"} {
			t.Run(z+" "+uniform, func(t *testing.T) {
				roundtrip(t, dpkgDeb(t, root, "-Z"+z, uniform))
			})
		}
	}
	t.Run("level 9", func(t *testing.T) { roundtrip(t, dpkgDeb(t, root, "-Zxz", "-z9")) })
}

// tree makes the folder of a package for dpkg-deb --build.
func tree(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range slices.Concat(treeFiles, treeControl) {
		path := filepath.Join(root, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch f.Typeflag {
		case tar.TypeLink:
			err = os.Link(filepath.Join(root, f.Linkname), path)
		case tar.TypeSymlink:
			err = os.Symlink(f.Linkname, path)
		default:
			if err = os.WriteFile(path, []byte(f.content), 0o644); err == nil {
				err = os.Chmod(path, os.FileMode(f.Mode))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := exec.Command("find", root, "-type", "d", "-exec", "chmod", "755", "{}", "+").Run(); err != nil {
		t.Fatal(err)
	}
	return root
}

// treeSums has the one file that a test changes.
const treeSums = "d41d8cd98f00b204e9800998ecf8427e  usr/share/hello/empty\n"

var treeControl = []entry{
	file("DEBIAN/control", 0o644, controlText),
	file("DEBIAN/conffiles", 0o644, "/etc/hello.conf\n"),
	file("DEBIAN/md5sums", 0o644, treeSums),
	file("DEBIAN/preinst", 0o755, "#!/bin/sh\nset -e\n"),
	file("DEBIAN/postinst", 0o755, "#!/bin/sh\nset -e\n"),
	file("DEBIAN/prerm", 0o755, "#!/bin/sh\nset -e\n"),
	file("DEBIAN/postrm", 0o755, "#!/bin/sh\nset -e\n"),
}

// treeFiles are files with names that have to survive everything. Names with a
// newline dpkg-deb does not pack; TestOddNames has them.
var treeFiles = []entry{
	file("etc/hello.conf", 0o644, "greeting = hello\n"),
	file("usr/bin/hello", 0o755, "\x7fELF"+strings.Repeat("hello", 300)),
	link(tar.TypeLink, "usr/bin/hi", "usr/bin/hello"),
	link(tar.TypeSymlink, "usr/bin/hey", "hello"),
	file("usr/share/hello/empty", 0o644, ""),
	file("usr/share/hello/two words", 0o644, "1"),
	file("usr/share/hello/return\r", 0o644, "3"),
	file("usr/share/hello/back\\slash", 0o644, "4"),
	file("usr/share/hello/quote\"'`$x", 0o644, "5"),
	file("usr/share/hello/\xff\xfe", 0o644, "6"),
	file("usr/share/hello/ünï", 0o644, "7"),
	file("usr/share/hello/# file: x", 0o644, "8"),
	file("usr/share/hello/-rf", 0o644, "9"),
	file("usr/share/hello/octal\\012", 0o644, "10"),
	file("usr/share/hello/"+strings.Repeat("long/", 30)+strings.Repeat("n", 150), 0o644, "11"),
	link(tar.TypeSymlink, "usr/share/hello/longlink", strings.Repeat("long/", 30)+strings.Repeat("n", 150)),
}

func dpkgDeb(t testing.TB, root string, args ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.deb")
	cmd := exec.Command("dpkg-deb", append(args, "--root-owner-group", "--build", root, out)...)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb %s: %v\n%s", args, err, text)
	}
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestOddNames(t *testing.T) {
	data := slices.Clone(treeFiles)
	for _, name := range []string{
		"line\nbreak", "\nfirst", "last\n", "\r\n", "tab\t", "\x01\x7f", " leading", "trailing ", "security.ima=0sAw", "# file: usr/bin/hello",
		"...", "a..b", "~", "*", "?[a]", "\xc3", "\xed\xa0\x80", strings.Repeat("ü", 150), strings.Repeat("n", 99), strings.Repeat("n", 100), strings.Repeat("n", 101),
	} {
		data = append(data, file("usr/lib/"+name, 0o644, name))
	}
	raw := build{data: data}.bytes(t)
	roundtrip(t, raw)
	m, err := open(t, signed(t, raw, sign.WriteOptions{})).Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range data {
		signed := slices.ContainsFunc(m.Files, func(f sign.Entry) bool { return f.Path == e.Name })
		if signed == (e.Typeflag == tar.TypeSymlink) {
			t.Errorf("%q: signed %v", e.Name, signed)
		}
	}
}

// TestUstarPrefix reads names of more than 100 bytes in the way of POSIX.
func TestUstarPrefix(t *testing.T) {
	name := "./usr/share/" + strings.Repeat("folder/", 20) + "file"
	e := file(name, 0o644, "x")
	e.Format = tar.FormatUSTAR
	raw := build{data: []entry{e}}.bytes(t)
	roundtrip(t, raw)
	for f, err := range open(t, raw).Files(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if !f.Control && f.Path != name[2:] {
			t.Errorf("path %q", f.Path)
		}
	}
}

// TestLayout looks at the parts of a signed package with other eyes than ours.
func TestLayout(t *testing.T) {
	raw := build{controlSuffix: ".zst", dataSuffix: ".gz", tail: []arMember{{name: "_x", content: []byte("abc")}}}.bytes(t)
	s := signed(t, raw, sign.WriteOptions{})
	before, after := open(t, raw), open(t, s)
	if after.archive.control.name != "control.tar.gz" {
		t.Errorf("the control archive is %s", after.archive.control.name)
	}
	content := func(p *Package, m member) []byte {
		b, err := p.archive.read(&m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if !bytes.HasPrefix(content(after, after.archive.control), []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00")) {
		t.Error("the gzip header states a time or a name")
	}
	if !bytes.Equal(s[after.archive.data.offset:], raw[before.archive.data.offset:]) {
		t.Error("data.tar or what follows it was touched")
	}
	old, new := before.kept, after.kept
	if !bytes.HasPrefix(new.raw, old.raw[:old.end]) {
		t.Error("the original entries were touched")
	}
	var names []string
	for r := tar.NewReader(bytes.NewReader(new.raw[old.end:])); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		names = append(names, h.Name)
		want := tar.Header{Name: h.Name, Size: h.Size, Typeflag: tar.TypeReg, Mode: 0o644, ModTime: buildTime, Format: tar.FormatGNU}
		if got := fmt.Sprintf("%+v", *h); got != fmt.Sprintf("%+v", want) {
			t.Errorf("header %s, want %+v", got, want)
		}
	}
	want := []string{"./ima-control-signatures", "./ima-package", "./ima-signatures", "./unsigned.control.tar.zst", "./unsigned.tail"}
	if !slices.Equal(names, want) {
		t.Errorf("members %q, want %q", names, want)
	}
	if !bytes.Equal(new.member("unsigned.control.tar.zst").content, content(before, before.archive.control)) {
		t.Error("the embedded control archive is not the original")
	}
	if !bytes.Equal(new.member("unsigned.tail").content, raw[before.archive.data.stop():]) {
		t.Error("the embedded tail is not the original")
	}
	m, _ := after.Manifest()
	var members []string
	for _, d := range m.Statement.Members {
		members = append(members, d.Name)
	}
	if want := []string{"control", "conffiles", "md5sums", "ima-signatures", "ima-control-signatures", "data.tar"}; !slices.Equal(members, want) {
		t.Errorf("the statement names %q, want %q", members, want)
	}
	if len(m.Control) != 2 || m.Control[0].Path != "isinstallable" || m.Control[1].Path != "preinst" {
		t.Errorf("control signatures %+v", m.Control)
	}
}
