package dpkg

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/deb/dpkgtar"
	"github.com/imaseal/imaseal/sign"
)

// Packages and neighbours that mean harm, under stock dpkg. docs/security.md names what
// the hook promises against each.

// unstated lets a package hold files that no signer would sign: its statement asks for
// none of them, and it has no signatures but those of its other files.
func unstated(p *testPackage, keep ...string) *testPackage {
	p.entries = func(files, _ *[]sign.Entry) {
		var kept []sign.Entry
		for _, e := range *files {
			for _, name := range keep {
				if e.Path == name {
					kept = append(kept, e)
				}
			}
		}
		*files = kept
	}
	p.statement = func(s *sign.Statement) { s.Selection = sign.Selection{Select: []string{"/none"}} }
	return p
}

func TestDpkgRefusesHostilePackages(t *testing.T) {
	s := newDpkgScene(t)
	s.configure("unsigned = refuse\n", s.key.der)
	other := newTestKey(t)
	// The link must be one that dpkg could make.
	outside := "./../outside"
	for name, c := range map[string]struct {
		spoil func(*testPackage)
		want  string
	}{
		"statement of another version": {func(p *testPackage) { p.statement = func(s *sign.Statement) { s.Version = "0.9" } }, "version is 1.0-1, but the statement says 0.9"},
		"statement of another package": {func(p *testPackage) { p.statement = func(s *sign.Statement) { s.Package = "other" } }, "package name is hello, but"},
		"wrong signature": {func(p *testPackage) {
			p.control = replaced(dpkgtar.StatementName, func(f *testFile) { f.body = strings.Replace(f.body, "all\n", "arm\n", 1) })
		}, "architecture is all, but the statement says arm"},
		"statement edited": {func(p *testPackage) {
			p.control = replaced(dpkgtar.StatementName, func(f *testFile) { f.body = strings.Replace(f.body, "Select: all", "Select: exec", 1) })
		}, "bad signature"},
		"script edited": {func(p *testPackage) {
			p.control = replaced("preinst", func(f *testFile) { f.body = "#!/bin/sh\ntouch $DPKG_ROOT/ran\n" })
		}, "maintainer script preinst: bad signature"},
		"script added": {func(p *testPackage) {
			p.control = func(m []testFile) []testFile { return append(m, plainFile("config", "#!/bin/sh\n", 0o755)) }
		}, "maintainer script config has no signature"},
		"script of another key": {func(p *testPackage) {
			p.entries = func(_, c *[]sign.Entry) { (*c)[0].Value = other.value(t, "#!/bin/sh\nexit 0\n") }
		}, "unknown key id"},
		"signature for no file": {func(p *testPackage) {
			p.entries = func(f, _ *[]sign.Entry) { *f = append(*f, sign.Entry{Path: "zz", Value: s.key.value(t, "")}) }
		}, "there is a signature of /zz, but no such file"},
		"malformed manifest of 100 MB": {func(p *testPackage) {
			p.control = replaced(dpkgtar.PayloadSignatures, func(f *testFile) { f.body = strings.Repeat("# file: x", 100<<20/9) })
		}, "ima-signatures has 104857596 bytes, at most"},
		"malformed manifest": {func(p *testPackage) {
			p.control = replaced(dpkgtar.PayloadSignatures, func(f *testFile) { f.body = strings.Repeat("x\n", 1<<20) })
		}, "ima-signatures: line 1 does not begin with"},
		"preinst that is a link": {func(p *testPackage) { p.control = replaced("preinst", toLink("/bin/true")) }, "control members must be plain files"},
		"preinst with two names": {func(p *testPackage) {
			p.control = func(m []testFile) []testFile { return append(m, special(tar.TypeLink, "twin", "./preinst")) }
		}, "it has 2 names"},
		"manifest behind a link": {func(p *testPackage) { p.control = replaced(dpkgtar.PayloadSignatures, toLink(s.outside)) }, "control members must be plain files"},
		"two preinsts": {func(p *testPackage) {
			p.control = func(m []testFile) []testFile {
				return append(m, plainFile("preinst", "#!/bin/sh\ntouch $DPKG_ROOT/ran\n", 0o755))
			}
		}, "maintainer script preinst: bad signature"},
		"content edited": {func(p *testPackage) {
			p.data = func(b []byte) []byte { return []byte(strings.Replace(string(b), "echo hello", "echo Hello", 1)) }
		}, "the content is not what was signed"},
		"mode edited":               {func(p *testPackage) { p.data = func([]byte) []byte { return modeEdited(t) } }, "the content is not what was signed"},
		"name edited":               {func(p *testPackage) { p.data = func([]byte) []byte { return nameEdited(t) } }, "/usr/share/hello/other has no signature"},
		"junk after the archive":    {func(p *testPackage) { p.data = func(b []byte) []byte { return append(b, "junk"...) } }, "something follows the end of the archive"},
		"archive after the archive": {func(p *testPackage) { p.data = func(b []byte) []byte { return append(b, b...) } }, "something follows the end of the archive"},
		"no end mark": {func(p *testPackage) {
			p.data = func(b []byte) []byte { return []byte(strings.TrimRight(string(b), "\x00")) }
		}, "hello 1.0-1"},
		"name that climbs": {func(p *testPackage) {
			unstated(p).files = append(p.files, plainFile("usr/bin/../../../outside2", "x", 0o644))
		}, `component ".."`},
		"hard link to a file outside": {func(p *testPackage) { unstated(p).files = append(p.files, special(tar.TypeLink, "usr/bin/x", outside)) }, "is a hard link to"},
		"hard link to a file inside": {func(p *testPackage) {
			unstated(p).files = append(p.files, special(tar.TypeLink, "usr/bin/x", "./victim"))
		}, "is a hard link to"},
		"name twice": {func(p *testPackage) { unstated(p).files = append(p.files, plainFile("usr/bin/hello", "x", 0o755)) }, "stands there twice"},
		"parent that is a link": {func(p *testPackage) {
			unstated(p).files = append(p.files, special(tar.TypeSymlink, "usr/d", filepath.Dir(s.outside)), plainFile("usr/d/outside", "x", 0o644))
		}, "which is no folder"},
		"signature of a pipe": {func(p *testPackage) {
			p.files = append(p.files, special(tar.TypeFifo, "usr/pipe", ""))
			p.entries = func(f, _ *[]sign.Entry) {
				*f = append(*f, sign.Entry{Path: "usr/pipe", Value: s.key.value(t, "")})
				m := sign.Manifest{Files: *f}
				m.Sort()
			}
		}, "has a signature and is no regular file"},
		"unsigned": {func(p *testPackage) { p.unsigned = true }, "it has no file signatures"},
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			s.newRoot()
			must(t, os.WriteFile(filepath.Join(s.root, "victim"), []byte("victim"), 0o644))
			p := hello()
			c.spoil(p)
			s.refuse(p, c.want)
			if !s.unlabelled("victim") || s.read("victim") != "victim" {
				t.Error("a file of the system was changed")
			}
			if _, err := os.Stat(filepath.Join(s.root, "ran")); err == nil {
				t.Error("code of the package ran")
			}
			if o, _ := s.last(); o.Result != resultRefused || o.Package != "hello" || o.Problem == "" {
				t.Errorf("log: %+v", o)
			}
		})
	}
}

// An unsigned package may be installed, but not have dpkg run a program of the system
// for it.
func TestDpkgRunsNoProgramForAnUnsignedPackage(t *testing.T) {
	s := newDpkgScene(t)
	s.configure("", s.key.der)
	for _, script := range []string{"preinst", "postinst"} {
		s.newRoot()
		p := hello()
		p.unsigned = true
		p.control = replaced(script, toLink("/bin/true"))
		s.refuse(p, "maintainer script "+script)
	}
}

// modeEdited and nameEdited are the archive of hello with a lie.
func modeEdited(t *testing.T) []byte {
	p := hello()
	p.file("usr/bin/hello").Mode = 0o4755
	return tarOf(t, p.files)
}

func nameEdited(t *testing.T) []byte {
	p := hello()
	p.file("usr/share/hello/empty").Name = "./usr/share/hello/other"
	return tarOf(t, p.files)
}

// A refused upgrade leaves the old version as it was.
func TestDpkgKeepsTheOldVersion(t *testing.T) {
	s := newDpkgScene(t)
	s.configure("", s.key.der)
	s.install(hello())
	for name, spoil := range map[string]func(*testPackage){
		"before its code runs": func(p *testPackage) { p.statement = func(s *sign.Statement) { s.Version = "1" } },
		"when it is unpacked": func(p *testPackage) {
			p.data = func(b []byte) []byte { return []byte(strings.Replace(string(b), "echo hello", "echo Hello", 1)) }
		},
	} {
		two := hello()
		two.version = "2.0"
		spoil(two)
		out, err := s.dpkg("-i", two.write(t, s.key))
		if err == nil || !strings.Contains(out, "hello 2.0: refused") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
		s.clean()
		s.allLabelled(hello())
		if status := s.read("var/lib/dpkg/status"); !strings.Contains(status, "Version: 1.0-1\n") || !strings.Contains(status, "install ok installed") {
			t.Errorf("%s: %s", name, status)
		}
	}
}

func TestDpkgWarnsOnly(t *testing.T) {
	s := newDpkgScene(t)
	for _, mode := range []string{"warn", "off"} {
		s.configure("mode = "+mode+"\n", s.key.der)
		for name, spoil := range map[string]func(*testPackage){
			"statement": func(p *testPackage) { p.statement = func(s *sign.Statement) { s.Version = "1" } },
			"content": func(p *testPackage) {
				p.data = func(b []byte) []byte { return []byte(strings.Replace(string(b), "echo hello", "echo Hello", 1)) }
			},
			"padding": func(p *testPackage) { p.data = func(b []byte) []byte { return append(b, "junk"...) } },
		} {
			s.newRoot()
			p := hello()
			spoil(p)
			out := s.install(p)
			if said := strings.Contains(out, "imaseal: hello 1.0-1: unlabelled: "); said != (mode == "warn") {
				t.Errorf("%s, %s: it says %s", mode, name, out)
			}
			if !s.unlabelled("usr/bin/hello") {
				t.Errorf("%s, %s: a file has a label", mode, name)
			}
			s.clean()
		}
	}
}

// An unprivileged user owns files in a folder of the package.
func TestDpkgPassesPlantedFilesBy(t *testing.T) {
	for what, plant := range map[string]func(t *testing.T, s *dpkgScene, at string){
		"link": func(t *testing.T, s *dpkgScene, at string) { must(t, os.Symlink(s.outside, at)) },
		"hard link": func(t *testing.T, s *dpkgScene, at string) {
			must(t, os.Link(s.outside, at))
		},
		"pipe": func(t *testing.T, s *dpkgScene, at string) { must(t, unix.Mkfifo(at, 0o666)) },
		"file": func(t *testing.T, s *dpkgScene, at string) {
			must(t, os.WriteFile(at, []byte("evil"), 0o644))
			must(t, unix.Chown(at, 1000, 1000))
		},
		"folder": func(t *testing.T, s *dpkgScene, at string) { must(t, os.MkdirAll(filepath.Join(at, "deep"), 0o777)) },
	} {
		t.Run(what, func(t *testing.T) {
			s := newDpkgScene(t)
			s.configure("", s.key.der)
			s.options = []string{"--path-exclude=/usr/share/hello/long*"}
			p := hello()
			p.file("usr/share/hello/").Mode = 0o1777
			folder := filepath.Join(s.root, "usr/share/hello")
			must(t, os.MkdirAll(folder, 0o777))
			must(t, os.Chmod(folder, 0o1777))
			plant(t, s, filepath.Join(folder, "empty.dpkg-new"))
			// Of this one dpkg makes nothing, so that what was planted is there still.
			left := filepath.Join(folder, strings.Repeat("long", 40)+unpackedSuffix)
			plant(t, s, left)
			s.install(p)
			if !s.labelled("usr/share/hello/empty", "") {
				t.Error("the file has no label")
			}
			if info, err := os.Lstat(left); err != nil || info.Mode().IsRegular() && !s.unlabelled(left) {
				t.Errorf("what was planted has a label: %v", err)
			}
			if text, err := os.ReadFile(s.outside); err != nil || string(text) != "outside" || !s.unlabelled(s.outside) {
				t.Errorf("the file outside was changed: %q, %v", text, err)
			}
		})
	}
}
