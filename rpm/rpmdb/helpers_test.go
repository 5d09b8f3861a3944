package rpmdb

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/rpm"
	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/installed"
	"github.com/imaseal/imaseal/sign/signtest"
	"github.com/imaseal/imaseal/sign/xattr"
)

// rpm makes and installs the packages here, in roots of their own, and its answers
// are the judge. A tool that is not on the machine skips its tests.

func need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
}

// run runs a program and returns what it writes to stdout.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out, errs.String())
	}
	return string(out)
}

func write(t testing.TB, path string, raw []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// A spec is a package for rpmbuild. Its files are made by install, a shell script
// that runs in the folder of the root.
type spec struct {
	name, version, arch      string
	preamble, install, files string
	scripts                  string
	defines                  []string
}

// build returns the file that rpmbuild makes.
func (s spec) build(t testing.TB) string {
	t.Helper()
	need(t, "rpm", "rpmbuild")
	dir := t.TempDir()
	arch := "BuildArch: noarch\n"
	if s.arch != "" {
		arch = ""
	}
	text := "%define debug_package %{nil}\n%define __os_install_post %{nil}\n" +
		"Name: " + s.name + "\nVersion: " + s.version + "\nRelease: 1\nSummary: x\nLicense: x\nAutoReqProv: no\n" + arch + s.preamble +
		"%description\nx\n%install\nmkdir -p %{buildroot}\ncd %{buildroot}\n" + s.install + "\n" + s.scripts + "\n%files\n" + s.files
	args := []string{"-bb", "--define", "_topdir " + dir, "--define", "_buildhost localhost"}
	if s.arch != "" {
		args = append(args, "--target", s.arch)
	}
	for _, d := range s.defines {
		args = append(args, "--define", d)
	}
	run(t, "rpmbuild", append(args, write(t, filepath.Join(dir, "x.spec"), []byte(text)))...)
	found, _ := filepath.Glob(dir + "/RPMS/*/*.rpm")
	if len(found) != 1 {
		t.Fatalf("rpmbuild made %q", found)
	}
	return found[0]
}

// rename puts a name of the same length into a package whose payload is not
// compressed, for names that rpmbuild refuses to make, and makes its digests right.
func rename(t testing.TB, path, old, name string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	payload := bytes.Index(raw, []byte("07070"))
	start := bytes.LastIndex(raw[:max(payload, 0)], []byte("\x8e\xad\xe8\x01"))
	if len(old) != len(name) || start < 0 || payload < start {
		t.Fatalf("%s: cannot rename", path)
	}
	head, main, rest := raw[:start], raw[start:payload], raw[payload:]
	replace := func(b []byte, old, new string) []byte {
		if !bytes.Contains(b, []byte(old)) {
			t.Fatalf("%s: no %x", path, old)
		}
		return bytes.ReplaceAll(b, []byte(old), []byte(new))
	}
	wasPayload, wasMain, wasMD5, wasSHA1 := sha256.Sum256(rest), sha256.Sum256(main), md5.Sum(raw[start:]), sha1.Sum(main)
	rest = replace(rest, old, name)
	is := sha256.Sum256(rest)
	main = replace(replace(main, old, name), hex.EncodeToString(wasPayload[:]), hex.EncodeToString(is[:]))
	is256, isSHA1, isMD5 := sha256.Sum256(main), sha1.Sum(main), md5.Sum(append(bytes.Clone(main), rest...))
	head = replace(head, hex.EncodeToString(wasMain[:]), hex.EncodeToString(is256[:]))
	head = replace(head, hex.EncodeToString(wasSHA1[:]), hex.EncodeToString(isSHA1[:]))
	head = replace(head, string(wasMD5[:]), string(isMD5[:]))
	write(t, path, slices.Concat(head, main, rest))
}

// signer is the key of the tests.
var signer = sync.OnceValue(signtest.NewSigner)

// signed signs the files of a package in place and returns its manifest.
func signed(t testing.TB, path string) *sign.Manifest {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := rpm.Open(bytes.NewReader(raw), int64(len(raw)), rpm.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := sign.Sign(t.Context(), p, signer(), sign.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := p.Write(t.Context(), &out, m, sign.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	write(t, path, out.Bytes())
	return m
}

// rpm6 returns rpm 6.1, which knows both kinds of database and has no plugin for IMA
// in its usual folder.
func rpm6(t testing.TB) string {
	t.Helper()
	return signtest.Cached(t, "rpm61-*-????????/bin/rpm", "scripts/peers rpm61")
}

// A root is a folder into which rpm installs.
type root struct {
	t       testing.TB
	dir     string
	program string   // rpm
	options []string // of it
}

const dbFolder = "/var/lib/rpm"

func newRoot(t testing.TB, options ...string) *root {
	t.Helper()
	need(t, "rpm")
	if os.Getuid() != 0 {
		t.Skip("only root may install into a folder")
	}
	r := &root{t: t, dir: t.TempDir(), program: "rpm"}
	probe := write(t, filepath.Join(r.dir, "probe"), nil)
	if err := unix.Setxattr(probe, sign.XattrName, []byte{3, 2}, 0); err != nil {
		t.Skipf("no %s in %s: %v", sign.XattrName, r.dir, err)
	}
	if err := os.Remove(probe); err != nil {
		t.Fatal(err)
	}
	r.options = append([]string{"--root", r.dir, "--define", "_dbpath " + dbFolder}, options...)
	return r
}

// rpm runs rpm on the root.
func (r *root) rpm(args ...string) string {
	r.t.Helper()
	return run(r.t, r.program, append(r.options, args...)...)
}

// install has rpm install packages, without its plugin.
func (r *root) install(packages ...string) {
	r.t.Helper()
	r.rpm(append([]string{"-i", "--nodeps", "--ignoreos", "--ignorearch", "--nosignature", "--noplugins"}, packages...)...)
}

// open opens the database.
func (r *root) open(o Options) *DB {
	r.t.Helper()
	x, err := xattr.OpenRoot(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	defer x.Close()
	db, err := Open(r.t.Context(), x, o)
	if err != nil {
		r.t.Fatal(err)
	}
	return db
}

// read returns the packages called names.
func read(t testing.TB, db installed.Database, names ...string) []*installed.Package {
	t.Helper()
	var list []*installed.Package
	for p, err := range db.Packages(t.Context(), names) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

// shown returns what tells packages apart, sorted: rpm's order is that of installation.
func shown(list []*installed.Package) string {
	var names []string
	for _, p := range list {
		names = append(names, fmt.Sprintf("%s-%s.%s", p.Name, p.Version, p.Arch))
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// file returns the file path of p, nil when it has none.
func file(p *installed.Package, path string) *installed.File {
	for i := range p.Files {
		if p.Files[i].Path == path {
			return &p.Files[i]
		}
	}
	return nil
}
