package dpkg

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/installed"
)

// newSharedScene is a package of which another instance is installed, that has
// usr/share/hello/empty and the conffile.
func newSharedScene(t *testing.T) *labelScene {
	s := newLabelScene(t)
	s.p.arch, s.p.fields = "i386", "Multi-Arch: same\n"
	s.write(t, filepath.Join(s.admin, "arch"), "amd64\ni386\n")
	s.write(t, filepath.Join(s.admin, "info/hello:amd64.list"), "/.\n/usr\n/usr/share/hello/empty\n/etc/hello.conf\n")
	s.write(t, filepath.Join(s.admin, "info/hello:i386.list"), "/.\n/usr/bin/hello\n")
	s.write(t, "usr/share/hello/empty", "")
	s.write(t, "etc/hello.conf", "greeting = hello\n")
	return s
}

// onlyCompare takes away what dpkg would not have extracted.
func (s *labelScene) onlyCompare(t *testing.T) func() {
	return func() {
		must(t, os.Remove(filepath.Join(s.root, "usr/share/hello/empty.dpkg-new")))
		must(t, os.Remove(filepath.Join(s.root, "etc/hello.conf.dpkg-new")))
	}
}

func TestSharedFileIsLabelledAfterALook(t *testing.T) {
	s := newSharedScene(t)
	if err := s.label(t, s.onlyCompare(t)); err != nil {
		t.Fatal(err)
	}
	if !s.has(t, "usr/share/hello/empty", "") || s.out.Skipped[reasonConffile] != 1 {
		t.Errorf("no label; %v", s.out.Skipped)
	}
	// The second time there is nothing left to do.
	labelled := s.out.Labelled
	if err := s.label(t, s.onlyCompare(t)); err != nil || s.out.Labelled != labelled {
		t.Errorf("again: %v, %d labelled, %d before", err, s.out.Labelled, labelled)
	}
}

func TestSharedFileThatDiffersIsNotLabelled(t *testing.T) {
	for _, body := range []string{"x", "longer"} {
		s := newSharedScene(t)
		s.p.files = append(s.p.files, plainFile("usr/share/hello/one", "1", 0o644))
		s.write(t, filepath.Join(s.admin, "info/hello:amd64.list"), "/usr/share/hello/one\n")
		s.write(t, "usr/share/hello/one", body)
		err := s.label(t, func() { must(t, os.Remove(filepath.Join(s.root, "usr/share/hello/one.dpkg-new"))) })
		if err == nil || !strings.Contains(err.Error(), "/usr/share/hello/one") || !strings.Contains(err.Error(), "is not what the package has") {
			t.Error(err)
		}
		if _, err := unix.Lgetxattr(filepath.Join(s.root, "usr/share/hello/one"), sign.XattrName, nil); err != unix.ENODATA {
			t.Errorf("it has a label: %v", err)
		}
	}
	// A conffile may have been edited.
	s := newSharedScene(t)
	s.config.LabelConffiles = installed.ConffilesAll
	s.write(t, "etc/hello.conf", "greeting = good day\n")
	if err := s.label(t, s.onlyCompare(t)); err != nil || s.out.Skipped[reasonEdited] != 1 {
		t.Errorf("edited conffile: %v, %v", err, s.out.Skipped)
	}
}

func TestLabelOfAnotherKeyOnASharedFile(t *testing.T) {
	other := newTestKey(t)
	at := func(s *labelScene) string { return filepath.Join(s.root, "usr/share/hello/empty") }
	for name, c := range map[string]struct {
		label []byte
		certs [][]byte // besides that of the package
		stays bool
	}{
		"valid, no certificates":       {other.value(t, ""), nil, true},
		"valid, verified":              {other.value(t, ""), [][]byte{other.der}, true},
		"of other content, verified":   {other.value(t, "other"), [][]byte{other.der}, false},
		"of a key that nobody trusts":  {other.value(t, ""), [][]byte{}, false},
		"a digest, as IMA itself sets": {append([]byte{4, 4}, make([]byte, 32)...), nil, false},
		"junk":                         {[]byte("junk"), nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSharedScene(t)
			must(t, unix.Setxattr(at(s), sign.XattrName, c.label, 0))
			if c.certs != nil {
				for i, der := range append(c.certs, s.key.der) {
					s.write(t, filepath.Join(s.system, CertificateFolders[0], string(rune('a'+i))), string(der))
				}
			}
			if err := s.label(t, s.onlyCompare(t)); err != nil {
				t.Fatal(err)
			}
			if ours := s.has(t, "usr/share/hello/empty", ""); ours == c.stays || (s.out.Skipped[reasonOtherLabel] == 1) != c.stays {
				t.Errorf("it has our label: %v; %v", ours, s.out.Skipped)
			}
		})
	}
}

func TestFileThatAnotherPackageReplaces(t *testing.T) {
	s := newLabelScene(t)
	s.write(t, filepath.Join(s.admin, "info/newer.list"), "/usr/share/hello\n/usr/share/hello/empty\n")
	s.write(t, "usr/share/hello/empty", "that of the other")
	err := s.label(t, func() { must(t, os.Remove(filepath.Join(s.root, "usr/share/hello/empty.dpkg-new"))) })
	if err != nil || s.out.Skipped[reasonReplaced] != 1 {
		t.Errorf("%v, %v", err, s.out.Skipped)
	}
	if s.has(t, "usr/share/hello/empty", "") {
		t.Error("the other package's file has a label")
	}
	// The old version of the package itself explains nothing.
	s = newLabelScene(t)
	s.write(t, filepath.Join(s.admin, "info/hello.list"), "/usr/share/hello/empty\n")
	err = s.label(t, func() { must(t, os.Remove(filepath.Join(s.root, "usr/share/hello/empty.dpkg-new"))) })
	if err == nil || !strings.Contains(err.Error(), "nothing explains why") {
		t.Error(err)
	}
}

// dpkg keeps the installed conffile when the new one is the same, and throws that away
// with its label.
func TestConffileThatDpkgKeeps(t *testing.T) {
	const script = "#!/bin/sh\nexit 0\n"
	for what, c := range map[string]struct {
		prepare func(t *testing.T, s *labelScene, at string)
		want    bool
	}{
		"the same":      {func(*testing.T, *labelScene, string) {}, true},
		"edited":        {func(t *testing.T, s *labelScene, at string) { s.write(t, at, script+"# mine\n") }, false},
		"edited, alike": {func(t *testing.T, s *labelScene, at string) { s.write(t, at, "#!/bin/sh\nexit 1\n") }, false},
		"another owner": {func(t *testing.T, s *labelScene, at string) { must(t, unix.Chown(at, 12, 12)) }, false},
		"two names":     {func(t *testing.T, s *labelScene, at string) { must(t, os.Link(at, at+".too")) }, false},
		"a link": {func(t *testing.T, s *labelScene, at string) {
			must(t, os.Rename(at, at+".real"))
			must(t, os.Symlink("hello.real", at))
		}, true},
		"a pipe": {func(t *testing.T, s *labelScene, at string) {
			must(t, os.Remove(at))
			must(t, unix.Mkfifo(at, 0o755))
		}, false},
		"with a label that does not hold": {func(t *testing.T, s *labelScene, at string) {
			must(t, unix.Setxattr(at, sign.XattrName, []byte{4, 4, 1}, 0))
		}, true},
		"with another's": {func(t *testing.T, s *labelScene, at string) {
			must(t, unix.Setxattr(at, sign.XattrName, newTestKey(t).value(t, script), 0))
		}, false},
	} {
		t.Run(what, func(t *testing.T) {
			s := newLabelScene(t)
			at := filepath.Join(s.root, "etc/init.d/hello")
			s.write(t, at, script)
			c.prepare(t, s, at)
			if err := s.label(t, nil); err != nil {
				t.Fatal(err)
			}
			if !s.has(t, "etc/init.d/hello.dpkg-new", script) {
				t.Error("the new one has no label")
			}
			got := s.has(t, at, script)
			if what == "a link" {
				got = s.has(t, at+".real", script)
			}
			if got != c.want {
				t.Errorf("the installed one has the label: %v", got)
			}
		})
	}
}
