package dpkg

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/deb/dpkgtar"
	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/xattr"
)

// replaced returns control members with those of that name changed.
func replaced(name string, edit func(*testFile)) func([]testFile) []testFile {
	return func(members []testFile) []testFile {
		for i := range members {
			if members[i].Name == "./"+name {
				edit(&members[i])
				return members
			}
		}
		panic("no member " + name)
	}
}

// without returns control members but for that of a name.
func without(name string) func([]testFile) []testFile {
	return func(members []testFile) (kept []testFile) {
		for _, m := range members {
			if m.Name != "./"+name {
				kept = append(kept, m)
			}
		}
		return kept
	}
}

func openTestControl(t *testing.T, dir string) *xattr.Root {
	t.Helper()
	root, err := xattr.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func TestSealOfASoundPackage(t *testing.T) {
	key := newTestKey(t)
	dir := t.TempDir()
	hello().unpack(t, key, dir)
	root := openTestControl(t, dir)
	s, err := readSeal(root)
	if err != nil {
		t.Fatal(err)
	}
	if s.name != "hello" || s.version != "1.0-1" || s.arch != "all" || s.shared {
		t.Errorf("it is %s %s %s, shared %v", s.name, s.version, s.arch, s.shared)
	}
	if len(s.files) != 7 || len(s.control) != 2 || !s.conffiles["etc/hello.conf"] || len(s.conffiles) != 2 {
		t.Errorf("%d files, %d scripts, conffiles %v", len(s.files), len(s.control), s.conffiles)
	}
	if err := s.verify(key.keys, root); err != nil {
		t.Error(err)
	}
	if err := s.verify(newTestKey(t).keys, root); !errors.Is(err, sign.ErrUnknownKey) {
		t.Errorf("another key: %v", err)
	}
}

func TestSealRefusals(t *testing.T) {
	key, other := newTestKey(t), newTestKey(t)
	anyEntry := sign.Entry{Path: "usr/bin/none", Value: key.value(t, "")}
	for name, c := range map[string]struct {
		spoil func(*testPackage)
		want  string
	}{
		"no statement":          {func(p *testPackage) { p.control = without(dpkgtar.StatementName) }, "ima-package is missing"},
		"no payload signatures": {func(p *testPackage) { p.control = without(dpkgtar.PayloadSignatures) }, "ima-signatures is missing"},
		"no control signatures": {func(p *testPackage) { p.control = without(dpkgtar.ControlSignatures) }, "ima-control-signatures is missing"},
		"another package":       {func(p *testPackage) { p.statement = func(s *sign.Statement) { s.Package = "other" } }, "package name is hello, but the statement says other"},
		"another version":       {func(p *testPackage) { p.statement = func(s *sign.Statement) { s.Version = "0.9" } }, "version is 1.0-1, but the statement says 0.9"},
		"another architecture":  {func(p *testPackage) { p.statement = func(s *sign.Statement) { s.Arch = "amd64" } }, "architecture is all"},
		"no digest of the payload": {func(p *testPackage) {
			p.statement = func(s *sign.Statement) { s.Members = s.Members[:len(s.Members)-1] }
		}, "does not state a digest of data.tar"},
		"edited signatures": {func(p *testPackage) {
			p.control = replaced(dpkgtar.PayloadSignatures, func(f *testFile) {
				f.body += string(sign.FormatAttributes([]sign.Entry{{Path: "zz", Value: key.value(t, "")}}))
			})
		}, "digest of ima-signatures"},
		"edited conffiles": {func(p *testPackage) { p.control = replaced("conffiles", func(f *testFile) { f.body = "/etc/x\n" }) }, "digest of conffiles"},
		"added member": {func(p *testPackage) {
			p.control = func(m []testFile) []testFile { return append(m, plainFile("triggers", "interest /x\n", 0o644)) }
		}, "digest of triggers"},
		"script without a signature": {func(p *testPackage) {
			p.control = func(m []testFile) []testFile { return append(m, plainFile("prerm", "#!/bin/sh\n", 0o755)) }
		}, "maintainer script prerm has no signature"},
		"executable member without one": {func(p *testPackage) {
			p.control = func(m []testFile) []testFile { return append(m, plainFile("extra", "x", 0o755)) }
		}, "maintainer script extra has no signature"},
		"signature of no script": {func(p *testPackage) { p.control = without("preinst") }, "preinst, which is no maintainer script"},
		"script that is a link":  {func(p *testPackage) { p.control = replaced("preinst", toLink("/bin/true")) }, "control members must be plain files"},
		"control that is a link": {func(p *testPackage) { p.control = replaced("control", toLink("/etc/passwd")) }, "control members must be plain files"},
		"signatures behind a link": {func(p *testPackage) {
			p.control = replaced(dpkgtar.PayloadSignatures, toLink("/etc/passwd"))
		}, "control members must be plain files"},
		"script with two names": {func(p *testPackage) {
			p.control = func(m []testFile) []testFile { return append(m, special(tar.TypeLink, "zz", "preinst")) }
		}, "it has 2 names"},
		"folder": {func(p *testPackage) {
			p.control = func(m []testFile) []testFile { return append(m, special(tar.TypeDir, "folder", "")) }
		}, "control members must be plain files"},
		"statement of a later format": {func(p *testPackage) {
			p.control = replaced(dpkgtar.StatementName, func(f *testFile) { f.body = strings.Replace(f.body, "package-1", "package-2", 1) })
		}, "ima-package: first line"},
		"signatures that are none": {func(p *testPackage) {
			p.control = replaced(dpkgtar.PayloadSignatures, func(f *testFile) { f.body = "# file: ../../etc/passwd\nsecurity.ima=0s\n\n" })
		}, "ima-signatures: line 1"},
		"digest that is not signed": {func(p *testPackage) {
			p.entries = func(files, _ *[]sign.Entry) { (*files)[0].Value = append([]byte{4, 4}, make([]byte, 32)...) }
		}, `signature of "etc/hello.conf"`},
		"signature over SHA-1": {func(p *testPackage) {
			p.entries = func(_, control *[]sign.Entry) {
				value := bytes.Clone((*control)[0].Value) // the signer keeps it for equal files
				value[2] = byte(sign.SHA1)
				(*control)[0].Value = value
			}
		}, `signature of "postinst": it is over`},
		"control with a field twice": {func(p *testPackage) { p.fields = "Package: hello\n" }, "stands there twice"},
		"too many members": {func(p *testPackage) {
			p.control = func(m []testFile) []testFile {
				for i := range dpkgtar.MaxControlMembers {
					m = append(m, plainFile("m"+strings.Repeat("x", i%9)+string(rune('a'+i%26))+strings.Repeat("y", i/26), "", 0o644))
				}
				return m
			}
		}, "control members"},
		"payload signatures unsorted": {func(p *testPackage) {
			p.entries = func(files, _ *[]sign.Entry) { *files = append(*files, anyEntry) }
		}, "names must be sorted"},
	} {
		t.Run(name, func(t *testing.T) {
			p, dir := hello(), t.TempDir()
			c.spoil(p)
			p.unpack(t, key, dir)
			if _, err := readSeal(openTestControl(t, dir)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v does not say %q", err, c.want)
			}
		})
	}
	for name, c := range map[string]struct {
		spoil func(*testPackage)
		want  error
	}{
		"statement of another key": {func(p *testPackage) {
			p.statement = func(s *sign.Statement) { _ = s.Sign(other.Signer) }
		}, nil}, // signed once more by the right one: the control of this test
		"edited script": {func(p *testPackage) {
			p.control = replaced("preinst", func(f *testFile) { f.body += "evil\n" })
		}, sign.ErrBadSignature},
		"script signed with another key": {func(p *testPackage) {
			p.entries = func(_, control *[]sign.Entry) { (*control)[0].Value = other.value(t, "#!/bin/sh\nexit 0\n") }
		}, sign.ErrBadSignature},
		"changed statement": {func(p *testPackage) {
			p.control = replaced(dpkgtar.StatementName, func(f *testFile) { f.body = strings.Replace(f.body, "Select: all", "Select: exec", 1) })
		}, sign.ErrBadSignature},
	} {
		t.Run(name, func(t *testing.T) {
			p, dir := hello(), t.TempDir()
			c.spoil(p)
			p.unpack(t, key, dir)
			root := openTestControl(t, dir)
			s, err := readSeal(root)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.verify(key.keys, root); !errors.Is(err, c.want) {
				t.Errorf("verdict %v is not %v", err, c.want)
			}
		})
	}
}

func toLink(to string) func(*testFile) {
	return func(f *testFile) { *f = special(tar.TypeSymlink, strings.TrimPrefix(f.Name, "./"), to) }
}

// A manifest is refused by its size, before it is read.
func TestSealReadsNoHugeMember(t *testing.T) {
	key, dir := newTestKey(t), t.TempDir()
	hello().unpack(t, key, dir)
	if err := os.Truncate(filepath.Join(dir, dpkgtar.PayloadSignatures), 100<<20); err != nil {
		t.Fatal(err)
	}
	_, err := readSeal(openTestControl(t, dir))
	if err == nil || !strings.Contains(err.Error(), "ima-signatures has 104857600 bytes, at most") {
		t.Error(err)
	}
}

func TestSealOfAnUnsignedPackage(t *testing.T) {
	p, dir := hello(), t.TempDir()
	p.unsigned = true
	p.unpack(t, nil, dir)
	s, err := readSeal(openTestControl(t, dir))
	if err != nil || s.statement != nil || s.name != "hello" {
		t.Errorf("%+v, %v", s, err)
	}
}

// dpkg takes packages that no signer would.
func TestSealOfAnOddUnsignedPackage(t *testing.T) {
	for name, text := range map[string]string{
		"no control": "", "odd fields": "# a comment\nPackage: hello\n\nVersion: 1", "huge": strings.Repeat("X: y\n", 1<<20),
	} {
		dir := t.TempDir()
		if text != "" {
			must(t, os.WriteFile(filepath.Join(dir, "control"), []byte(text), 0o644))
		}
		must(t, os.Symlink("/nonexistent", filepath.Join(dir, "other")))
		if s, err := readSeal(openTestControl(t, dir)); err != nil || s.statement != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A script that is a link would have dpkg run something signed.
	for _, name := range []string{"preinst", "postinst", "prerm", "postrm", "config"} {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "control"), []byte("Package: hello\n"), 0o644))
		must(t, os.Symlink("/bin/sh", filepath.Join(dir, name)))
		if _, err := readSeal(openTestControl(t, dir)); err == nil || !strings.Contains(err.Error(), "maintainer script "+name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// One of our members makes it a signed one, whatever it is.
	dir := t.TempDir()
	must(t, os.Symlink("/nonexistent", filepath.Join(dir, dpkgtar.StatementName)))
	if _, err := readSeal(openTestControl(t, dir)); err == nil {
		t.Error("a link makes no difference")
	}
}

func TestReadConffiles(t *testing.T) {
	found, err := readConffiles(strings.NewReader("/etc/a\n/etc/b c  \nremove-on-upgrade /etc/old\n\n"))
	if err != nil || len(found) != 2 || !found["etc/a"] || !found["etc/b c"] {
		t.Errorf("%v, %v", found, err)
	}
	for _, text := range []string{"etc/a\n", "/etc/a", "unknown /etc/a\n", "remove-on-upgrade\n", "/" + strings.Repeat("x", 1100) + "\n"} {
		if _, err := readConffiles(strings.NewReader(text)); err == nil {
			t.Errorf("%.40q was taken", text)
		}
	}
}
