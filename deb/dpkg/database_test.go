package dpkg

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/xattr"
)

func TestDatabaseReadsAPackage(t *testing.T) {
	s := newFakeSystem(t)
	s.install(fakePackage{
		name: "libstdc++6.1", // with a dot, as members have none
		files: map[string]string{
			"usr/bin/a": "A", "usr/share/doc/a": "DOC", "usr/share/with space": "S",
		},
		conffiles: map[string]string{"etc/a.conf": "CONF"},
		scripts:   map[string]string{"postinst": "#!/bin/sh", "helper": "#!/bin/sh\n"},
		members:   map[string]string{"templates": "T"},
	})
	p := packages(t, s.open())["libstdc++6.1:amd64"]
	if p == nil || !p.Signed || p.Malformed != nil || p.Version != "1.0-1" || p.Format != "deb" {
		t.Fatalf("%+v", p)
	}
	var paths []string
	for _, f := range p.Files {
		paths = append(paths, f.Path)
	}
	want := []string{
		"etc/a.conf", "usr/bin/a", "usr/share/doc/a", "usr/share/with space",
		"var/lib/dpkg/info/libstdc++6.1.helper", "var/lib/dpkg/info/libstdc++6.1.postinst",
	}
	if !slices.Equal(paths, want) {
		t.Errorf("files %q, want %q", paths, want)
	}
	a := fileOf(t, p, "usr/bin/a")
	if sum := md5.Sum([]byte("A")); !bytes.Equal(a.Digest, sum[:]) || a.Hash != sign.MD5 || !bytes.Equal(a.Value, s.sign("A")) || a.Config || a.Script || a.Optional {
		t.Errorf("%+v", a)
	}
	c := fileOf(t, p, "etc/a.conf")
	if sum := md5.Sum([]byte("CONF")); !bytes.Equal(c.Digest, sum[:]) || !c.Config || !c.Optional {
		t.Errorf("%+v", c)
	}
	if f := fileOf(t, p, "var/lib/dpkg/info/libstdc++6.1.postinst"); !f.Script || f.Value == nil || f.Digest != nil {
		t.Errorf("%+v", f)
	}
	if err := p.Verify(s.keys); err != nil {
		t.Error(err)
	}
	if err := p.Verify(new(sign.TrustedKeys)); !errors.Is(err, sign.ErrUnknownKey) {
		t.Errorf("without a key: %v", err)
	}
}

func TestDatabaseNames(t *testing.T) {
	s := newFakeSystem(t)
	same := "Multi-Arch: same\n"
	s.install(fakePackage{name: "lib", arch: "amd64", fields: same, files: map[string]string{"usr/lib/64": "64", "usr/share/lib": "S"}})
	s.install(fakePackage{name: "lib", arch: "i386", fields: same, files: map[string]string{"usr/lib/32": "32", "usr/share/lib": "S"}})
	s.install(fakePackage{name: "prog", files: map[string]string{"usr/bin/prog": "P"}})
	s.install(fakePackage{name: "removed", state: "config-files", files: map[string]string{"usr/bin/removed": "R"}})
	s.install(fakePackage{name: "half", state: "half-installed", files: map[string]string{"usr/bin/half": "R"}})
	s.write("var/lib/dpkg/info/prog:amd64.list", "/usr/bin/planted\n") // dpkg does not read it
	d := s.open()
	fileOf(t, packages(t, d)["prog:amd64"], "usr/bin/prog")
	if got := d.Names(); !slices.Equal(got, []string{"lib", "prog"}) {
		t.Errorf("names %q", got)
	}
	for _, c := range []struct {
		names, want []string
	}{
		{nil, []string{"lib:amd64", "lib:i386", "prog:amd64"}},
		{[]string{"lib"}, []string{"lib:amd64", "lib:i386"}},
		{[]string{"lib:i386"}, []string{"lib:i386"}},
		{[]string{"prog", "lib:amd64"}, []string{"lib:amd64", "prog:amd64"}},
	} {
		if got := slices.Sorted(maps.Keys(packages(t, d, c.names...))); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.names, got, c.want)
		}
	}
	fileOf(t, packages(t, d)["lib:i386"], "usr/lib/32")
	for _, name := range []string{"nosuch", "prog:i386", "removed"} {
		var found []error
		for p, err := range d.Packages(context.Background(), []string{name}) {
			if p != nil {
				t.Errorf("%s: %s", name, p.ID())
			}
			found = append(found, err)
		}
		if len(found) != 1 || !strings.Contains(found[0].Error(), name) {
			t.Errorf("%s: %v", name, found)
		}
	}
}

func TestDatabaseUpdatesOfAnInterruptedDpkg(t *testing.T) {
	s := newFakeSystem(t)
	s.install(fakePackage{name: "a", files: map[string]string{"usr/bin/a": "A"}})
	s.install(fakePackage{name: "b", state: "half-installed", files: map[string]string{"usr/bin/b": "B"}})
	s.write("var/lib/dpkg/updates/0001", "Package: b\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0-1\n")
	s.write("var/lib/dpkg/updates/0000", "Package: a\nStatus: install ok not-installed\nArchitecture: amd64\n")
	s.write("var/lib/dpkg/updates/tmp.i", "broken")
	// The last state of a package counts, in whatever order the folder is read.
	for i := range 20 {
		state := "not-installed"
		if i == 19 {
			state = "installed"
		}
		s.write(fmt.Sprintf("var/lib/dpkg/updates/%04d", i+10), "Package: c\nStatus: install ok "+state+"\nArchitecture: amd64\nVersion: 1\n")
	}
	if got := slices.Sorted(maps.Keys(packages(t, s.open()))); !slices.Equal(got, []string{"b:amd64", "c:amd64"}) {
		t.Errorf("%q", got)
	}
}

func TestDatabaseDiversionsFiltersAndLinks(t *testing.T) {
	s := newFakeSystem(t)
	s.write("var/lib/dpkg/diversions", "/usr/bin/a\n/usr/bin/a.distrib\nother\n")
	s.write("etc/dpkg/dpkg.cfg.d/docs", "path-exclude=/usr/share/doc/*\n")
	s.install(fakePackage{name: "a", files: map[string]string{"usr/bin/a": "A", "usr/share/doc/a": "D"}, conffiles: map[string]string{"etc/a.conf": "C"}})
	s.install(fakePackage{name: "other", files: map[string]string{"usr/bin/a": "O"}})
	s.remove("etc/a.conf")
	s.write("srv/real", "C")
	if err := os.Symlink("../srv/real", filepath.Join(s.dir, "etc/a.conf")); err != nil {
		t.Fatal(err)
	}
	all := packages(t, s.open())
	if f := fileOf(t, all["a:amd64"], "usr/bin/a.distrib"); f.Shipped != "usr/bin/a" || f.Value == nil || f.Digest == nil {
		t.Errorf("%+v", f)
	}
	fileOf(t, all["other:amd64"], "usr/bin/a")
	if f := fileOf(t, all["a:amd64"], "usr/share/doc/a"); !f.Optional {
		t.Error("a file that dpkg was told to leave out has to be there")
	}
	if f := fileOf(t, all["a:amd64"], "srv/real"); !f.Config || f.Shipped != "etc/a.conf" {
		t.Errorf("%+v", f)
	}
}

// A file that was taken out of the list is still one that was signed.
func TestDatabaseShortenedList(t *testing.T) {
	s := newFakeSystem(t)
	s.install(fakePackage{name: "a", files: map[string]string{"usr/bin/a": "A", "usr/bin/b": "B"}})
	s.write("var/lib/dpkg/info/a.list", "/.\n/usr\n/usr/bin\n/usr/bin/a\n")
	p := packages(t, s.open())["a:amd64"]
	if f := fileOf(t, p, "usr/bin/b"); !bytes.Equal(f.Value, s.sign("B")) || !f.Unlisted || fileOf(t, p, "usr/bin/a").Unlisted {
		t.Errorf("%+v", f)
	}
	if len(p.Files) != 2 {
		t.Errorf("%d files: folders are among them", len(p.Files))
	}
}

// TestVerifyNoticesEdits changes one file of the info database.
func TestVerifyNoticesEdits(t *testing.T) {
	info := "var/lib/dpkg/info/a."
	for name, c := range map[string]struct {
		change    func(*fakeSystem)
		malformed string
		verify    string
	}{
		"nothing":               {func(s *fakeSystem) {}, "", ""},
		"a list":                {func(s *fakeSystem) { s.add(info+"list", "/usr/bin/c\n") }, "", ""},
		"conffiles":             {func(s *fakeSystem) { s.add(info+"conffiles", "/usr/bin/a\n") }, "", "a.conffiles has the SHA-256"},
		"md5sums":               {func(s *fakeSystem) { s.add(info+"md5sums", "x\n") }, "", "a.md5sums has the SHA-256"},
		"no templates":          {func(s *fakeSystem) { s.remove(info + "templates") }, "", "a.templates is missing"},
		"a new member":          {func(s *fakeSystem) { s.write(info+"triggers", "interest /usr") }, "", "a.triggers was not in the package"},
		"a new script":          {func(s *fakeSystem) { s.write(info+"prerm", "#!/bin/sh") }, "", ""},
		"signatures exchanged":  {func(s *fakeSystem) { s.write(info+"ima-signatures", string(sign.FormatAttributes(nil))) }, "", "a.ima-signatures has the SHA-256"},
		"a script's signatures": {func(s *fakeSystem) { s.write(info+"ima-control-signatures", "") }, "", "a.ima-control-signatures has the SHA-256"},
		"no signatures":         {func(s *fakeSystem) { s.remove(info + "ima-signatures") }, "has no ima-signatures", ""},
		"no statement":          {func(s *fakeSystem) { s.remove(info + "ima-package") }, "has no ima-package", ""},
		"a broken manifest":     {func(s *fakeSystem) { s.add(info+"ima-signatures", "x\n") }, "ima-signatures: line", ""},
		"a broken statement":    {func(s *fakeSystem) { s.add(info+"ima-package", "x\n") }, "ima-package: ", ""},
		"another version": {func(s *fakeSystem) {
			s.write("var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0-2\n")
		}, "is of a 1.0-1 amd64", ""},
		"a link for the statement": {func(s *fakeSystem) {
			s.write("x", "")
			s.remove(info + "ima-package")
			if err := os.Symlink("/x", filepath.Join(s.dir, info+"ima-package")); err != nil {
				s.t.Fatal(err)
			}
		}, "not a regular file", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeSystem(t)
			s.install(fakePackage{
				name: "a", files: map[string]string{"usr/bin/a": "A"}, conffiles: map[string]string{"etc/a.conf": "C"},
				scripts: map[string]string{"postinst": "#!/bin/sh"}, members: map[string]string{"templates": "T"},
			})
			c.change(s)
			p := packages(t, s.open())["a:amd64"]
			if !p.Signed {
				t.Error("taken for an unsigned package")
			}
			if c.malformed != "" {
				if p.Malformed == nil || !strings.Contains(p.Malformed.Error(), c.malformed) || p.Verify != nil {
					t.Errorf("malformed: %v", p.Malformed)
				}
				for _, f := range p.Files {
					if f.Value != nil {
						t.Errorf("%s has a signature all the same", f.Path)
					}
				}
				return
			}
			if p.Malformed != nil {
				t.Fatal(p.Malformed)
			}
			err := p.Verify(s.keys)
			if c.verify == "" && err != nil || c.verify != "" && (!errors.Is(err, errEdited) || !strings.Contains(err.Error(), c.verify)) {
				t.Errorf("error %v, want %q", err, c.verify)
			}
		})
	}
}

// Whoever edits the status file cannot make a file one that may be edited.
func TestConffilesOfASignedPackageAreSigned(t *testing.T) {
	for _, unsigned := range []bool{false, true} {
		s := newFakeSystem(t)
		s.install(fakePackage{name: "a", files: map[string]string{"usr/bin/a": "A"}, conffiles: map[string]string{"etc/a": "C", "etc/b": "C"}, unsigned: unsigned})
		s.write("var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0-1\nConffiles:\n"+
			" /usr/bin/a "+strings.Repeat("0a", 16)+"\n /etc/a newconffile\n")
		p := packages(t, s.open())["a:amd64"]
		for path, want := range map[string]bool{"usr/bin/a": unsigned, "etc/a": true, "etc/b": !unsigned} {
			if f := fileOf(t, p, path); f.Config != want {
				t.Errorf("unsigned %v: %s is a conffile: %v", unsigned, path, f.Config)
			}
		}
	}
}

// A script that nobody signed is told all the same: dpkg will execute it.
func TestDatabaseListsUnsignedScripts(t *testing.T) {
	s := newFakeSystem(t)
	s.install(fakePackage{name: "a", files: map[string]string{"usr/bin/a": "A"}})
	s.write("var/lib/dpkg/info/a.prerm", "#!/bin/sh")
	if f := fileOf(t, packages(t, s.open())["a:amd64"], "var/lib/dpkg/info/a.prerm"); !f.Script || f.Value != nil {
		t.Errorf("%+v", f)
	}
}

func TestDatabaseErrorsNameTheFile(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*fakeSystem)
		want   string
	}{
		"no status":      {func(s *fakeSystem) { s.remove("var/lib/dpkg/status") }, "var/lib/dpkg/status: no such file"},
		"a bad status":   {func(s *fakeSystem) { s.write("var/lib/dpkg/status", "Package: a\nrubbish\n") }, "status: line 2 is no field"},
		"bad diversions": {func(s *fakeSystem) { s.write("var/lib/dpkg/diversions", "/x\n") }, "var/lib/dpkg/diversions: "},
		"a bad journal":  {func(s *fakeSystem) { s.write("var/lib/dpkg/updates/0000", "x\n") }, "updates/0000: line 1"},
		"a status that is": {func(s *fakeSystem) {
			s.remove("var/lib/dpkg/status")
			if err := os.Symlink("/etc/passwd", filepath.Join(s.dir, "var/lib/dpkg/status")); err != nil {
				s.t.Fatal(err)
			}
		}, "status: not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeSystem(t)
			c.change(s)
			if _, err := s.tryOpen(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	s := newFakeSystem(t)
	s.install(fakePackage{name: "a", files: map[string]string{"usr/bin/a": "A"}})
	s.write("var/lib/dpkg/info/a.list", "/usr/../../etc/shadow\n")
	for _, err := range s.open().Packages(context.Background(), nil) {
		if err == nil || !strings.Contains(err.Error(), "a.list: line 1") {
			t.Errorf("error %v", err)
		}
	}
}

func TestInstalled(t *testing.T) {
	s := newFakeSystem(t)
	root, err := xattr.OpenRoot(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if Installed(root) {
		t.Error("an empty status file is a system of dpkg's")
	}
	s.install(fakePackage{name: "a"})
	if !Installed(root) {
		t.Error("a package is no system of dpkg's")
	}
}

func TestParseStatusConffiles(t *testing.T) {
	md5sum := strings.Repeat("0a", 16)
	for line, want := range map[string]string{
		"/etc/a " + md5sum:                                 "etc/a " + md5sum,
		"/etc/with space " + md5sum:                        "etc/with space " + md5sum,
		"/etc/a newconffile":                               "etc/a ",
		"/etc/a " + md5sum + " obsolete":                   "",
		"/etc/a " + md5sum + " remove-on-upgrade":          "",
		"/etc/a " + md5sum + " obsolete remove-on-upgrade": "",
	} {
		records, err := parseStatus([]byte("Package: a\nConffiles:\n " + line + "\nVersion: 1\n more " + md5sum + "\n"))
		if err != nil {
			t.Errorf("%q: %v", line, err)
			continue
		}
		got := ""
		for _, c := range records[0].conffiles {
			got += c.path + " " + hex.EncodeToString(c.md5)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	for _, line := range []string{"/etc/a", "/etc/a xyz", "/../a " + md5sum, md5sum} {
		if _, err := parseStatus([]byte("Package: a\nConffiles:\n " + line + "\n")); err == nil || !strings.Contains(err.Error(), "line 3") {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestParseStatusRefusesNames(t *testing.T) {
	for _, name := range []string{"", "../a", "a/b", "a b", ".a", "a:b"} {
		if _, err := parseStatus([]byte("Package: " + name + "\nVersion: 1\n")); err == nil {
			t.Errorf("%q was taken", name)
		}
		if name == "" {
			continue
		}
		if _, err := parseStatus([]byte("Package: a\nArchitecture: " + name + "\n")); err == nil {
			t.Errorf("architecture %q was taken", name)
		}
	}
}
