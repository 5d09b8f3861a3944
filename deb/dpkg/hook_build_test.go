package dpkg

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imaseal/imaseal/deb/dpkgtar"
	"github.com/imaseal/imaseal/sign"
)

// A testKey signs the packages of a test.
type testKey struct {
	*sign.Signer
	der  []byte // its certificate
	keys *sign.TrustedKeys
}

func newTestKey(t testing.TB) *testKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ski, err := sign.SubjectKeyID(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, SubjectKeyId: ski,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
	}, &x509.Certificate{Subject: pkix.Name{CommonName: "test"}}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	id, err := sign.KeyIDFromCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := sign.NewSigner(key, id)
	if err != nil {
		t.Fatal(err)
	}
	k := &testKey{Signer: signer, der: der, keys: new(sign.TrustedKeys)}
	if err := k.keys.AddCertificate(cert); err != nil {
		t.Fatal(err)
	}
	return k
}

// value returns the label of a file with that content.
func (k *testKey) value(t testing.TB, body string) []byte {
	t.Helper()
	digest := sha256.Sum256([]byte(body))
	value, err := k.SignDigest(sign.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// A testFile is an entry of an archive.
type testFile struct {
	tar.Header
	body string
}

const testTime = 1700000000

func plainFile(name, body string, mode int64) testFile {
	return testFile{tar.Header{Name: "./" + name, Typeflag: tar.TypeReg, Mode: mode, ModTime: time.Unix(testTime, 0)}, body}
}

func special(kind byte, name, link string) testFile {
	return testFile{tar.Header{Name: "./" + name, Typeflag: kind, Linkname: link, Mode: 0o755, ModTime: time.Unix(testTime, 0)}, ""}
}

// folders are the entries of folders, "usr/" after "usr".
func folders(names ...string) (found []testFile) {
	found = append(found, special(tar.TypeDir, "", ""))
	for _, name := range names {
		found = append(found, special(tar.TypeDir, name+"/", ""))
	}
	return found
}

func tarOf(t testing.TB, files []testFile) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		f.Format = tar.FormatGNU
		f.Size = int64(len(f.body))
		if err := w.WriteHeader(&f.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A testPackage is a package in the making. The functions spoil it, where they are set.
type testPackage struct {
	name, version, arch string
	fields              string // more lines of control
	members             []testFile
	files               []testFile
	unsigned            bool

	entries   func(files, control *[]sign.Entry) // before they are stated
	statement func(*sign.Statement)              // before it is signed
	control   func([]testFile) []testFile        // what the control archive holds at last
	data      func([]byte) []byte                // what the data archive holds at last
}

// hello is a package with a bit of everything that is usual.
func hello() *testPackage {
	return &testPackage{
		name: "hello", version: "1.0-1", arch: "all",
		members: []testFile{
			plainFile("conffiles", "/etc/hello.conf\n/etc/init.d/hello\n", 0o644),
			plainFile("md5sums", "0\n", 0o644),
			plainFile("preinst", "#!/bin/sh\nexit 0\n", 0o755),
			plainFile("postinst", "#!/bin/sh\nexit 0\n", 0o755),
		},
		files: append(folders("etc", "etc/init.d", "usr", "usr/bin", "usr/share", "usr/share/hello"),
			plainFile("etc/hello.conf", "greeting = hello\n", 0o644),
			plainFile("etc/init.d/hello", "#!/bin/sh\nexit 0\n", 0o755),
			plainFile("usr/bin/hello", "#!/bin/sh\necho hello\n", 0o755),
			special(tar.TypeLink, "usr/bin/hi", "./usr/bin/hello"),
			special(tar.TypeSymlink, "usr/bin/greet", "hello"),
			plainFile("usr/share/hello/empty", "", 0o644),
			plainFile("usr/share/hello/a name, odd ü", strings.Repeat("x", 5000), 0o640),
			plainFile("usr/share/hello/"+strings.Repeat("long", 40), "long", 0o644),
		),
	}
}

// file returns the file or member of that name.
func (p *testPackage) file(name string) *testFile {
	for _, files := range [][]testFile{p.files, p.members} {
		for i := range files {
			if files[i].Name == "./"+name {
				return &files[i]
			}
		}
	}
	panic("no file " + name)
}

// parts returns the members of the control archive, and the data archive.
func (p *testPackage) parts(t testing.TB, key *testKey) (control []testFile, data []byte) {
	t.Helper()
	text := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: A <a@example.org>\n%sDescription: x\n", p.name, p.version, p.arch, p.fields)
	control = append([]testFile{plainFile("control", text, 0o644)}, p.members...)
	data = tarOf(t, p.files)
	if !p.unsigned {
		control = append(control, p.seals(t, key, control, data)...)
	}
	if p.control != nil {
		control = p.control(control)
	}
	if p.data != nil {
		data = p.data(data)
	}
	return control, data
}

// seals returns the members that imaseal adds.
func (p *testPackage) seals(t testing.TB, key *testKey, control []testFile, data []byte) []testFile {
	t.Helper()
	var m sign.Manifest
	values := map[string][]byte{}
	for _, f := range p.files {
		path := strings.TrimPrefix(f.Name, "./")
		switch f.Typeflag {
		case tar.TypeReg:
			values[path] = key.value(t, f.body)
		case tar.TypeLink:
			values[path] = values[strings.TrimPrefix(f.Linkname, "./")]
		default:
			continue
		}
		m.Files = append(m.Files, sign.Entry{Path: path, Value: values[path]})
	}
	s := &sign.Statement{Package: p.name, Version: p.version, Arch: p.arch, Hash: sign.SHA256}
	state := func(name string, body []byte) {
		s.Members = append(s.Members, sign.MemberDigest{Name: name, SHA256: sha256.Sum256(body)})
	}
	for _, f := range control {
		name := strings.TrimPrefix(f.Name, "./")
		if dpkgtar.Executed(name, f.Mode, []byte(f.body)) {
			m.Control = append(m.Control, sign.Entry{Path: name, Value: key.value(t, f.body)})
		} else {
			state(name, []byte(f.body))
		}
	}
	m.Sort()
	if p.entries != nil {
		p.entries(&m.Files, &m.Control)
	}
	files, scripts := sign.FormatAttributes(m.Files), sign.FormatAttributes(m.Control)
	state(dpkgtar.PayloadSignatures, files)
	state(dpkgtar.ControlSignatures, scripts)
	state(dpkgtar.PayloadDigest, data)
	if p.statement != nil {
		p.statement(s)
	}
	if err := s.Sign(key.Signer); err != nil {
		t.Fatal(err)
	}
	statement, err := s.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	return []testFile{
		plainFile(dpkgtar.ControlSignatures, string(scripts), 0o644),
		plainFile(dpkgtar.StatementName, string(statement), 0o644),
		plainFile(dpkgtar.PayloadSignatures, string(files), 0o644),
		plainFile(dpkgtar.UnsignedPrefix+"control.tar.gz", "whatever", 0o644),
	}
}

// write makes the .deb and returns its name.
func (p *testPackage) write(t testing.TB, key *testKey) string {
	t.Helper()
	control, data := p.parts(t, key)
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	member := func(name string, body []byte) {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, testTime, 0, 0, "100644", len(body))
		b.Write(body)
		if len(body)%2 != 0 {
			b.WriteByte('\n')
		}
	}
	gz := func(body []byte) []byte {
		var b bytes.Buffer
		w, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
		_, _ = w.Write(body)
		_ = w.Close()
		return b.Bytes()
	}
	member("debian-binary", []byte("2.0\n"))
	member("control.tar.gz", gz(tarOf(t, control)))
	member("data.tar.gz", gz(data))
	name := filepath.Join(t.TempDir(), p.name+"_"+p.version+".deb")
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// unpack writes the control members into a folder as dpkg-deb --control does.
func (p *testPackage) unpack(t testing.TB, key *testKey, dir string) (data []byte) {
	t.Helper()
	control, data := p.parts(t, key)
	for _, f := range control {
		name := filepath.Join(dir, f.Name)
		var err error
		switch f.Typeflag {
		case tar.TypeSymlink:
			err = os.Symlink(f.Linkname, name)
		case tar.TypeLink:
			err = os.Link(filepath.Join(dir, f.Linkname), name)
		case tar.TypeDir:
			err = os.Mkdir(name, 0o755)
		default:
			if err = os.WriteFile(name, []byte(f.body), 0o600); err == nil {
				err = os.Chmod(name, os.FileMode(f.Mode&0o777))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return data
}
