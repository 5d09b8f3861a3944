package dpkg

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/installed"
	"github.com/imaseal/imaseal/sign/xattr"
)

// A fakeSystem is a root with a dpkg database of files that the tests write.
type fakeSystem struct {
	t    *testing.T
	dir  string
	key  *sign.Signer
	keys *sign.TrustedKeys
}

func newFakeSystem(t *testing.T) *fakeSystem {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &fakeSystem{t: t, dir: t.TempDir(), keys: new(sign.TrustedKeys)}
	if s.key, err = sign.NewSigner(private, 0x01020304); err != nil {
		t.Fatal(err)
	}
	if err := s.keys.Add(s.key.KeyID(), s.key.Public()); err != nil {
		t.Fatal(err)
	}
	s.write("var/lib/dpkg/status", "")
	s.write("var/lib/dpkg/info/format", "1\n")
	return s
}

func (s *fakeSystem) write(path, content string) {
	s.t.Helper()
	name := filepath.Join(s.dir, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o644)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *fakeSystem) add(path, content string) {
	s.t.Helper()
	old, err := os.ReadFile(filepath.Join(s.dir, path))
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(path, string(old)+content)
}

func (s *fakeSystem) remove(path string) {
	s.t.Helper()
	if err := os.Remove(filepath.Join(s.dir, path)); err != nil {
		s.t.Fatal(err)
	}
}

// A fakePackage is a package as it was installed.
type fakePackage struct {
	name, arch, state, fields string
	files                     map[string]string // by path; contents
	conffiles                 map[string]string
	scripts, members          map[string]string
	unsigned                  bool
}

// install writes all that dpkg keeps of the package.
func (s *fakeSystem) install(p fakePackage) {
	s.t.Helper()
	if p.arch == "" {
		p.arch = "amd64"
	}
	if p.state == "" {
		p.state = "installed"
	}
	info := "var/lib/dpkg/info/" + p.name
	if strings.Contains(p.fields, "Multi-Arch: same") {
		info += ":" + p.arch
	}
	status := fmt.Sprintf("Package: %s\nStatus: install ok %s\nArchitecture: %s\nVersion: 1.0-1\n%s", p.name, p.state, p.arch, p.fields)
	if len(p.conffiles) > 0 {
		status += "Conffiles:\n"
		for _, path := range slices.Sorted(maps.Keys(p.conffiles)) {
			status += fmt.Sprintf(" /%s %x\n", path, md5.Sum([]byte(p.conffiles[path])))
		}
	}
	s.add("var/lib/dpkg/status", status+"Description: short\n long\n .\n\n")
	list, sums, conffiles := "/.\n", "", ""
	m := &sign.Manifest{}
	all := maps.Clone(p.files)
	maps.Copy(all, p.conffiles)
	for _, path := range slices.Sorted(maps.Keys(all)) {
		s.write(path, all[path])
		list += "/" + path + "\n"
		if _, is := p.conffiles[path]; is {
			conffiles += "/" + path + "\n"
		} else {
			sums += fmt.Sprintf("%x  %s\n", md5.Sum([]byte(all[path])), path)
		}
		m.Files = append(m.Files, sign.Entry{Path: path, Value: s.sign(all[path])})
	}
	members := map[string]string{"md5sums": sums}
	if conffiles != "" {
		members["conffiles"] = conffiles
	}
	maps.Copy(members, p.members)
	s.write(info+".list", list)
	for name, content := range members {
		s.write(info+"."+name, content)
	}
	for _, name := range slices.Sorted(maps.Keys(p.scripts)) {
		s.write(info+"."+name, p.scripts[name])
		m.Control = append(m.Control, sign.Entry{Path: name, Value: s.sign(p.scripts[name])})
	}
	if p.unsigned {
		return
	}
	st := &sign.Statement{Package: p.name, Version: "1.0-1", Arch: p.arch, Hash: sign.SHA256}
	members["ima-signatures"] = string(sign.FormatAttributes(m.Files))
	members["ima-control-signatures"] = string(sign.FormatAttributes(m.Control))
	st.Members = []sign.MemberDigest{{Name: "control", SHA256: sha256.Sum256([]byte("control"))}, {Name: "data.tar", SHA256: sha256.Sum256([]byte("data"))}}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		st.Members = append(st.Members, sign.MemberDigest{Name: name, SHA256: sha256.Sum256([]byte(members[name]))})
	}
	if err := st.Sign(s.key); err != nil {
		s.t.Fatal(err)
	}
	text, err := st.MarshalText()
	if err != nil {
		s.t.Fatal(err)
	}
	members["ima-package"] = string(text)
	for _, name := range []string{"ima-signatures", "ima-control-signatures", "ima-package"} {
		s.write(info+"."+name, members[name])
	}
}

func (s *fakeSystem) sign(content string) []byte {
	s.t.Helper()
	sum := sha256.Sum256([]byte(content))
	value, err := s.key.SignDigest(sign.SHA256, sum[:])
	if err != nil {
		s.t.Fatal(err)
	}
	return value
}

func (s *fakeSystem) open() *Database {
	s.t.Helper()
	d, err := s.tryOpen()
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *fakeSystem) tryOpen() (*Database, error) {
	root, err := xattr.OpenRoot(s.dir)
	if err != nil {
		return nil, err
	}
	s.t.Cleanup(func() { root.Close() })
	return OpenDatabase(root)
}

// packages returns those called names by their IDs.
func packages(t *testing.T, d *Database, names ...string) map[string]*installed.Package {
	t.Helper()
	found := map[string]*installed.Package{}
	for p, err := range d.Packages(context.Background(), names) {
		if err != nil {
			t.Fatal(err)
		}
		found[p.ID()] = p
	}
	return found
}

func fileOf(t *testing.T, p *installed.Package, path string) *installed.File {
	t.Helper()
	for i := range p.Files {
		if p.Files[i].Path == path {
			return &p.Files[i]
		}
	}
	t.Fatalf("%s has no file %s, but %d others", p.Name, path, len(p.Files))
	return nil
}
