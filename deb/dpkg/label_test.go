package dpkg

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/installed"
)

// A labelScene is a package that dpkg has unpacked, up to the moment when the hook
// labels its files.
type labelScene struct {
	key     *testKey
	p       *testPackage
	system  string // its configuration
	root    string
	admin   string
	outside string // a file that is none of the package's

	config Config
	out    outcome
}

func newLabelScene(t *testing.T) *labelScene {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it sets security.ima")
	}
	top := t.TempDir()
	s := &labelScene{
		key: newTestKey(t), p: hello(), system: filepath.Join(top, "system"), root: filepath.Join(top, "root"),
		outside: filepath.Join(top, "outside"), config: DefaultConfig(),
	}
	s.admin = filepath.Join(s.root, "var/lib/dpkg")
	for _, dir := range []string{s.system, filepath.Join(s.admin, "tmp.ci"), filepath.Join(s.admin, "info")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.write(t, s.outside, "outside")
	if err := unix.Setxattr(s.outside, sign.XattrName, []byte{3, 2}, 0); err == unix.EOPNOTSUPP {
		t.Skip("the file system of the temporary folder takes no attributes security.*")
	} else if err != nil {
		t.Fatal(err)
	}
	_ = unix.Removexattr(s.outside, sign.XattrName)
	return s
}

func (s *labelScene) write(t *testing.T, name, body string) {
	t.Helper()
	if !filepath.IsAbs(name) {
		name = filepath.Join(s.root, name)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
}

// extract does what dpkg does with an archive, without its rules.
func (s *labelScene) extract(t *testing.T, data []byte) {
	t.Helper()
	at := func(name string) string { return filepath.Join(s.root, name) }
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(at(h.Name) + unpackedSuffix)
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(at(h.Name), 0o755)
		case tar.TypeLink:
			err = os.Link(at(h.Linkname)+unpackedSuffix, at(h.Name)+unpackedSuffix)
		case tar.TypeReg:
			body, _ := io.ReadAll(r)
			name := at(h.Name) + unpackedSuffix
			if err = os.WriteFile(name, body, 0o600); err == nil {
				err = unix.Chown(name, h.Uid, h.Gid)
			}
			if err == nil {
				err = unix.Chmod(name, uint32(h.Mode))
			}
			if err == nil {
				err = os.Chtimes(name, time.Now(), h.ModTime)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// label runs the package through the hook's last part; spoil is called just before.
func (s *labelScene) label(t *testing.T, spoil func()) error {
	t.Helper()
	tmp := filepath.Join(s.admin, "tmp.ci")
	if err := os.RemoveAll(tmp); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	data := s.p.unpack(t, s.key, tmp)
	sealed, err := readSeal(openTestControl(t, tmp))
	if err != nil {
		t.Fatal(err)
	}
	h := &hook{call: call{adminDir: s.admin, root: s.root}, system: s.system, config: s.config}
	in, err := h.openInstallation(sealed)
	if err != nil {
		return err
	}
	defer in.close()
	p := newPayload(sealed, in.shared)
	if _, err := p.scanner.Scan(data); err != nil {
		t.Fatal(err)
	}
	if err := p.end(sealed.data[:]); err != nil {
		return err
	}
	s.extract(t, data)
	if spoil != nil {
		spoil()
	}
	err = in.label(p)
	s.out = h.out
	return err
}

// has reports whether a file of the root has the label that the package has for body.
func (s *labelScene) has(t *testing.T, name, body string) bool {
	t.Helper()
	if !filepath.IsAbs(name) {
		name = filepath.Join(s.root, name)
	}
	buf := make([]byte, 1000)
	n, err := unix.Lgetxattr(name, sign.XattrName, buf)
	return err == nil && bytes.Equal(buf[:n], s.key.value(t, body))
}

func TestLabelsOfASoundPackage(t *testing.T) {
	s := newLabelScene(t)
	if err := s.label(t, nil); err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, f := range s.p.files {
		if f.Typeflag != tar.TypeReg || f.Name == "./etc/hello.conf" {
			continue
		}
		want++
		if !s.has(t, f.Name+unpackedSuffix, f.body) {
			t.Errorf("%s has no label", f.Name)
		}
	}
	if s.out.Labelled != want+1 || s.out.Skipped[reasonConffile] != 1 || len(s.out.Skipped) != 1 {
		t.Errorf("%d labelled, want %d; %v", s.out.Labelled, want+1, s.out.Skipped)
	}
	if s.has(t, "etc/hello.conf"+unpackedSuffix, "greeting = hello\n") {
		t.Error("a conffile has a label, which nobody can edit then")
	}
}

func TestConffilesAreLabelledByRule(t *testing.T) {
	for rule, want := range map[installed.Conffiles][2]bool{
		installed.ConffilesExecutable: {false, true}, installed.ConffilesAll: {true, true}, installed.ConffilesNone: {false, false},
	} {
		s := newLabelScene(t)
		s.config.LabelConffiles = rule
		if err := s.label(t, nil); err != nil {
			t.Fatal(err)
		}
		got := [2]bool{s.has(t, "etc/hello.conf.dpkg-new", "greeting = hello\n"), s.has(t, "etc/init.d/hello.dpkg-new", "#!/bin/sh\nexit 0\n")}
		if got != want {
			t.Errorf("%s: %v, want %v", rule, got, want)
		}
	}
}

// Whatever lies where dpkg should have made a file, only what dpkg made is labelled.
func TestOnlyTheArchivesInodesAreLabelled(t *testing.T) {
	const name = "usr/share/hello/empty"
	for what, c := range map[string]struct {
		spoil func(t *testing.T, s *labelScene, at string)
		want  string
	}{
		"nothing":          {func(*testing.T, *labelScene, string) {}, "nothing explains why"},
		"another owner":    {func(t *testing.T, s *labelScene, at string) { s.plant(t, at, "", 0o644, 12, testTime) }, "owner 12 instead of 0"},
		"another mode":     {func(t *testing.T, s *labelScene, at string) { s.plant(t, at, "", 0o4644, 0, testTime) }, "mode 4644 instead of 0644"},
		"another size":     {func(t *testing.T, s *labelScene, at string) { s.plant(t, at, "x", 0o644, 0, testTime) }, "size 1 instead of 0"},
		"another time":     {func(t *testing.T, s *labelScene, at string) { s.plant(t, at, "", 0o644, 0, testTime+1) }, "time 1700000001 instead of"},
		"a link":           {func(t *testing.T, s *labelScene, at string) { must(t, os.Symlink(s.outside, at)) }, "not a regular file"},
		"a pipe":           {func(t *testing.T, s *labelScene, at string) { must(t, unix.Mkfifo(at, 0o644)) }, "not a regular file"},
		"a folder":         {func(t *testing.T, s *labelScene, at string) { must(t, os.Mkdir(at, 0o755)) }, "not a regular file"},
		"a file elsewhere": {func(t *testing.T, s *labelScene, at string) { must(t, os.Link(s.outside, at)) }, "instead of"},
		"the same, alike": {func(t *testing.T, s *labelScene, at string) {
			s.plant(t, s.outside, "", 0o644, 0, testTime)
			must(t, os.Link(s.outside, at))
		}, "has 2 names, but the package gives it 1"},
	} {
		t.Run(what, func(t *testing.T) {
			s := newLabelScene(t)
			at := filepath.Join(s.root, name+unpackedSuffix)
			err := s.label(t, func() {
				must(t, os.Remove(at))
				c.spoil(t, s, at)
			})
			if err == nil || !strings.Contains(err.Error(), "/"+name) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v does not name the file and say %q", err, c.want)
			}
			if _, err := unix.Lgetxattr(s.outside, sign.XattrName, nil); err != unix.ENODATA {
				t.Errorf("the file outside has a label: %v", err)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// plant makes a file like those that dpkg makes.
func (s *labelScene) plant(t *testing.T, at, body string, mode uint32, owner int, modTime int64) {
	t.Helper()
	s.write(t, at, body)
	must(t, unix.Chown(at, owner, 0))
	must(t, unix.Chmod(at, mode))
	must(t, os.Chtimes(at, time.Now(), time.Unix(modTime, 0)))
}

func TestHardLinksAreOneInode(t *testing.T) {
	s := newLabelScene(t)
	hi := filepath.Join(s.root, "usr/bin/hi.dpkg-new")
	err := s.label(t, func() {
		must(t, os.Remove(hi))
		s.plant(t, hi, "#!/bin/sh\necho hello\n", 0o755, 0, testTime)
	})
	if err == nil || !strings.Contains(err.Error(), "is not the hard link that the package has") {
		t.Error(err)
	}
	s = newLabelScene(t)
	hi = filepath.Join(s.root, "usr/bin/hi.dpkg-new")
	if err := s.label(t, func() { must(t, os.Remove(hi)) }); err == nil || !strings.Contains(err.Error(), "usr/bin/hi") {
		t.Errorf("a missing link: %v", err)
	}
}

// A link among the folders does not lead out of the root: dpkg would follow it there.
func TestFoldersAreFollowedBelowTheRootOnly(t *testing.T) {
	s := newLabelScene(t)
	away := filepath.Join(filepath.Dir(s.root), "away")
	must(t, os.MkdirAll(filepath.Join(s.root, "usr/share"), 0o755))
	must(t, os.Mkdir(away, 0o755))
	must(t, os.Symlink(away, filepath.Join(s.root, "usr/share/hello")))
	err := s.label(t, nil)
	if err == nil || !strings.Contains(err.Error(), "nothing explains why") {
		t.Error(err)
	}
	if _, err := unix.Lgetxattr(filepath.Join(away, "empty.dpkg-new"), sign.XattrName, nil); err != unix.ENODATA {
		t.Errorf("a file outside of the root has a label: %v", err)
	}
	// Merged /usr: the link leads to a folder of the same root.
	s = newLabelScene(t)
	must(t, os.MkdirAll(filepath.Join(s.root, "data"), 0o755))
	must(t, os.MkdirAll(filepath.Join(s.root, "usr/share"), 0o755))
	must(t, os.Symlink("../../data", filepath.Join(s.root, "usr/share/hello")))
	if err := s.label(t, nil); err != nil {
		t.Error(err)
	}
	if !s.has(t, "data/empty.dpkg-new", "") {
		t.Error("a file below a linked folder has no label")
	}
}

func TestNamesAndModesOfTheAdministrator(t *testing.T) {
	s := newLabelScene(t)
	s.write(t, filepath.Join(s.admin, "diversions"), "/usr/share/hello/empty\n/usr/share/hello/empty.moved\nother\n")
	s.write(t, filepath.Join(s.admin, "statoverride"), "#12 #34 2755 /usr/bin/hi\n")
	empty := filepath.Join(s.root, "usr/share/hello/empty")
	err := s.label(t, func() {
		must(t, os.Rename(empty+unpackedSuffix, empty+".moved"+unpackedSuffix))
		at := filepath.Join(s.root, "usr/bin/hello"+unpackedSuffix)
		must(t, unix.Chown(at, 12, 34))
		must(t, unix.Chmod(at, 0o2755))
	})
	if err != nil {
		t.Fatal(err)
	}
	if !s.has(t, "usr/share/hello/empty.moved.dpkg-new", "") || !s.has(t, "usr/bin/hello.dpkg-new", "#!/bin/sh\necho hello\n") {
		t.Error("a file has no label")
	}
	// The override makes what the archive says wrong.
	s = newLabelScene(t)
	s.write(t, filepath.Join(s.admin, "statoverride"), "#12 #34 2755 /usr/bin/hi\n")
	if err := s.label(t, nil); err == nil || !strings.Contains(err.Error(), "owner 0 instead of #12") {
		t.Error(err)
	}
	// A list that can't be read is no reason to guess.
	s = newLabelScene(t)
	s.write(t, filepath.Join(s.admin, "diversions"), "/usr/share/hello/empty\n")
	if err := s.label(t, nil); err == nil || !strings.Contains(err.Error(), "diversions") {
		t.Error(err)
	}
}

func TestExcludedFiles(t *testing.T) {
	s := newLabelScene(t)
	s.write(t, filepath.Join(s.system, "etc/dpkg/dpkg.cfg.d/min"), "path-exclude=/usr/share/hello/*\npath-exclude=/usr/bin/h*\npath-include=/usr/share/hello/empty\n")
	long := filepath.Join(s.root, "usr/share/hello", strings.Repeat("long", 40)+unpackedSuffix)
	err := s.label(t, func() {
		must(t, os.Remove(long))
		must(t, os.Remove(filepath.Join(s.root, "usr/bin/hello.dpkg-new")))
		must(t, os.Remove(filepath.Join(s.root, "usr/bin/hi.dpkg-new")))
		// Somebody else's file where dpkg made none does no harm, and gets no label.
		must(t, os.Remove(filepath.Join(s.root, "usr/share/hello/a name, odd ü.dpkg-new")))
		must(t, os.Symlink(s.outside, filepath.Join(s.root, "usr/share/hello/a name, odd ü.dpkg-new")))
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.out.Skipped[reasonExcluded] != 4 || !s.has(t, "usr/share/hello/empty.dpkg-new", "") {
		t.Errorf("%v", s.out.Skipped)
	}
}

func TestConffileThatIsALink(t *testing.T) {
	s := newLabelScene(t)
	s.config.LabelConffiles = installed.ConffilesAll
	must(t, os.MkdirAll(filepath.Join(s.root, "srv"), 0o755))
	must(t, os.MkdirAll(filepath.Join(s.root, "etc"), 0o755))
	must(t, os.Symlink("/srv/hello.conf", filepath.Join(s.root, "etc/hello.conf")))
	err := s.label(t, func() {
		must(t, os.Rename(filepath.Join(s.root, "etc/hello.conf.dpkg-new"), filepath.Join(s.root, "srv/hello.conf.dpkg-new")))
	})
	if err != nil || !s.has(t, "srv/hello.conf.dpkg-new", "greeting = hello\n") {
		t.Errorf("beside the target: %v", err)
	}
	// A ring of links ends, and is an error like any missing file.
	s = newLabelScene(t)
	s.config.LabelConffiles = installed.ConffilesAll
	must(t, os.MkdirAll(filepath.Join(s.root, "etc"), 0o755))
	must(t, os.Symlink("hello.conf", filepath.Join(s.root, "etc/hello.conf")))
	if err := s.label(t, func() { must(t, os.Remove(filepath.Join(s.root, "etc/hello.conf.dpkg-new"))) }); err == nil {
		t.Error("a missing conffile is no error")
	}
}
