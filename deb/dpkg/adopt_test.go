package dpkg

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/installed"
	"github.com/imaseal/imaseal/sign/xattr"
)

// manifestOf takes the signatures that are installed as a package would hand them out.
func (s *fakeSystem) manifestOf(name string) *sign.Manifest {
	s.t.Helper()
	m := &sign.Manifest{}
	read := func(member string) []byte {
		text, err := os.ReadFile(filepath.Join(s.dir, "var/lib/dpkg/info", name+"."+member))
		if err != nil {
			s.t.Fatal(err)
		}
		return text
	}
	var err, err2, err3 error
	m.Files, err = sign.ParseAttributes(read("ima-signatures"))
	m.Control, err2 = sign.ParseAttributes(read("ima-control-signatures"))
	m.Statement, err3 = sign.ParseStatement(read("ima-package"))
	if err := errors.Join(err, err2, err3); err != nil {
		s.t.Fatal(err)
	}
	return m
}

var ours = []string{"ima-signatures", "ima-control-signatures", "ima-package"}

func adoptScene(t *testing.T) (*fakeSystem, *sign.Manifest) {
	s := newFakeSystem(t)
	s.install(fakePackage{name: "a", files: map[string]string{"usr/bin/a": "A"}, scripts: map[string]string{"postinst": "#!/bin/sh"}, members: map[string]string{"templates": "T"}})
	m := s.manifestOf("a")
	for _, member := range ours {
		s.remove("var/lib/dpkg/info/a." + member)
	}
	return s, m
}

func TestAdopt(t *testing.T) {
	s, m := adoptScene(t)
	d := s.open()
	if packages(t, d)["a:amd64"].Signed {
		t.Fatal("the package is signed before")
	}
	members, err := d.Adopt(m, false)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, member := range members {
		names = append(names, member.Folder+"/"+member.Name)
	}
	if want := []string{"var/lib/dpkg/info/a.ima-signatures", "var/lib/dpkg/info/a.ima-control-signatures", "var/lib/dpkg/info/a.ima-package"}; !slices.Equal(names, want) {
		t.Errorf("members %q, want %q, the statement last", names, want)
	}
	// As if it had been installed so, though nothing has been written.
	p := packages(t, d)["a:amd64"]
	if !p.Signed || p.Malformed != nil || p.Verify(s.keys) != nil || fileOf(t, p, "usr/bin/a").Value == nil {
		t.Errorf("%+v", p)
	}
	if _, err := os.Stat(filepath.Join(s.dir, names[0])); err == nil {
		t.Error("Adopt wrote to the disk")
	}
	for _, member := range members {
		s.write(member.Folder+"/"+member.Name, string(member.Content))
	}
	if p := packages(t, s.open())["a:amd64"]; p.Malformed != nil || p.Verify(s.keys) != nil {
		t.Errorf("after writing: %v", p.Malformed)
	}
	if _, err := s.open().Adopt(m, false); !errors.Is(err, ErrAdopted) {
		t.Errorf("again: %v", err)
	}
}

func TestAdoptRefuses(t *testing.T) {
	info := "var/lib/dpkg/info/a."
	for name, c := range map[string]struct {
		change  func(*fakeSystem, *sign.Manifest)
		replace bool
		want    string
	}{
		"another version":      {func(_ *fakeSystem, m *sign.Manifest) { m.Statement.Version = "2" }, false, "this version is not installed: a 2 amd64"},
		"another architecture": {func(_ *fakeSystem, m *sign.Manifest) { m.Statement.Arch = "i386" }, false, "this version is not installed"},
		"no statement":         {func(_ *fakeSystem, m *sign.Manifest) { m.Statement = nil }, false, "no statement"},
		"another build":        {func(s *fakeSystem, _ *sign.Manifest) { s.add(info+"md5sums", "x\n") }, false, "another build: the info database was changed: "},
		"other signatures":     {func(s *fakeSystem, _ *sign.Manifest) { s.write(info+"ima-package", "other") }, false, "--replace"},
		"other ones replaced":  {func(s *fakeSystem, _ *sign.Manifest) { s.write(info+"ima-package", "other") }, true, ""},
		"a torn set": {func(s *fakeSystem, m *sign.Manifest) {
			s.write(info+"ima-signatures", string(sign.FormatAttributes(m.Files)))
		}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, m := adoptScene(t)
			c.change(s, m)
			_, err := s.open().Adopt(m, c.replace)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestLock(t *testing.T) {
	s, _ := adoptScene(t)
	unlock, err := s.open().Lock()
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	// A link in place of the lock leads nowhere.
	s.remove("var/lib/dpkg/lock")
	outside := filepath.Join(t.TempDir(), "x")
	if err := os.Symlink(outside, filepath.Join(s.dir, "var/lib/dpkg/lock")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.open().Lock(); err == nil {
		t.Error("a link was taken for the lock")
	}
	if _, err := os.Stat(outside); err == nil {
		t.Error("a file outside the root was made")
	}
}

// FuzzDatabase reads one package of arbitrary files. Whatever they hold, no path leads
// out of the root, and no signature is taken that is not as it must be.
func FuzzDatabase(f *testing.F) {
	md5sum := strings.Repeat("0a", 16)
	f.Add([]byte("Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\nConffiles:\n /etc/a "+md5sum+"\n\n"), []byte("/.\n/usr\n/usr/a\n"), []byte(md5sum+"  usr/a\n"), []byte("/usr/a\n/usr/b\n:\n"))
	f.Add([]byte("Package: a\nStatus: a b unpacked\nMulti-Arch: same\nArchitecture: x\n /etc/a obsolete\n"), []byte("/../x\n"), []byte("*"), []byte("/x\n"))
	f.Add([]byte("Conffiles:\n  obsolete obsolete\n"), []byte{0}, []byte{}, []byte("\n\n\n"))
	f.Fuzz(func(t *testing.T, status, list, sums, diversions []byte) {
		records, err := parseStatus(status)
		if err != nil {
			records = nil
		}
		records = records[:min(len(records), 3)] // each reads everything
		names, err := parseList(list)
		if err != nil {
			names = nil
		}
		moved, err := readDiversions(strings.NewReader(string(diversions)))
		if err != nil {
			moved = &Diversions{}
		}
		root, err := xattr.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		for i := range records {
			r := &records[i]
			d := &Database{root: root, records: records, diversions: moved, info: map[string][]string{}}
			p := &installed.Package{}
			d.list(p, r, names, parseMD5Sums(sums), &signatures{database: d, record: r})
			for _, file := range p.Files {
				if file.Shipped == "" && sign.CheckPath(file.Path) != nil {
					t.Fatalf("path %q", file.Path)
				}
				if file.Digest != nil && (len(file.Digest) != file.Hash.Size()) {
					t.Fatalf("digest %x", file.Digest)
				}
			}
			if strings.ContainsAny(d.infoName(r), "/ \n") {
				t.Fatalf("info name %q", d.infoName(r))
			}
			for range d.Packages(context.Background(), []string{r.name}) {
				break
			}
		}
	})
}

// A statement of other members than those of the info database verifies nothing.
func TestVerifyDemandsOurMembers(t *testing.T) {
	s, m := adoptScene(t)
	st := *m.Statement
	st.Members = []sign.MemberDigest{{Name: "templates", SHA256: sha256.Sum256([]byte("T"))}}
	if err := st.Sign(s.key); err != nil {
		t.Fatal(err)
	}
	text, err := st.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	s.write("var/lib/dpkg/info/a.ima-signatures", string(sign.FormatAttributes(m.Files)))
	s.write("var/lib/dpkg/info/a.ima-control-signatures", string(sign.FormatAttributes(m.Control)))
	s.write("var/lib/dpkg/info/a.ima-package", string(text))
	p := packages(t, s.open())["a:amd64"]
	if p.Malformed != nil {
		t.Fatal(p.Malformed)
	}
	if err := p.Verify(s.keys); !errors.Is(err, errEdited) {
		t.Errorf("error %v", err)
	}
}
