package rpmdb

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/rpm"
	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/installed"
	"github.com/imaseal/imaseal/sign/xattr"
)

// oddNames are names of files that a parser of lines or of words takes for something
// else.
var oddNames = []string{
	"sp ace", "quo'te", "'", "''", `dou"ble`, `back\slash`, "-dash", "per%cent", "end.", "$(x)", "#imaseal-rpm 1",
	"#end", "[%{NAME}]", "x' 'y", "ümläut", "bad\xffutf8", `'\''`, "' ", "#", "new-line",
}

// full makes a package with a file of every kind.
func full(t testing.TB, name, version string) string {
	install := `mkdir -p usr/bin etc usr/share/doc/x usr/share/odd var/lib
printf '#!/bin/sh\necho hello\n' >usr/bin/b1
chmod 4755 usr/bin/b1
ln usr/bin/b1 usr/bin/b2
ln -s b1 usr/bin/to
: >usr/share/odd/empty
echo 'a = 1' >etc/x.conf
printf '#!/bin/sh\n' >etc/x.sh
chmod 755 etc/x.sh
echo m >etc/missing.conf
echo read >usr/share/doc/x/README
`
	for i, name := range oddNames {
		quoted := "'" + strings.ReplaceAll(strings.ReplaceAll(name, "%", "%%"), "'", `'\''`) + "'"
		install += fmt.Sprintf("echo %d >usr/share/odd/%s\n", i, quoted)
	}
	path := spec{name: name, version: version, install: install, defines: []string{"_invalid_encoding_terminates_build 0", "_binary_payload w.ufdio"}, files: `/usr/bin/*
/usr/share/odd
%config /etc/x.conf
%config(noreplace) /etc/x.sh
%config(missingok) /etc/missing.conf
%doc /usr/share/doc/x/README
%ghost /var/lib/x.db
`}.build(t)
	rename(t, path, "new-line", "new\nline") // rpmbuild refuses it, rpm does not
	return path
}

// TestReadsWhatRPMInstalled wants each regular file with what its package says of it,
// in a database of either kind.
func TestReadsWhatRPMInstalled(t *testing.T) {
	path := full(t, "full", "1")
	unsigned := spec{name: "plain", version: "1", install: "mkdir -p usr/share; echo x >usr/share/plain", files: "/usr/share/plain\n"}.build(t)
	m := signed(t, path)
	for name, c := range map[string]struct {
		program       func(testing.TB) string
		backend, file string
	}{
		"sqlite":       {func(testing.TB) string { return "rpm" }, "sqlite", "rpmdb.sqlite"},
		"sqlite rpm 6": {rpm6, "sqlite", "rpmdb.sqlite"},
		"ndb rpm 6":    {rpm6, "ndb", "Packages.db"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoot(t, "--define", "_db_backend "+c.backend)
			r.program = c.program(t)
			r.install("--excludedocs", path, unsigned)
			if _, err := os.Stat(filepath.Join(r.dir, dbFolder, c.file)); err != nil {
				t.Fatal(err)
			}
			db := r.open(Options{RPM: r.program})
			if got := shown(read(t, db)); got != "full-1-1.noarch plain-1-1.noarch" {
				t.Fatalf("packages: %s", got)
			}
			if p := read(t, db, "plain")[0]; p.Signed || p.Malformed != nil || slices.ContainsFunc(p.Files, func(f installed.File) bool { return f.Value != nil }) {
				t.Errorf("a package without signatures has some")
			}
			p := read(t, db, "full")[0]
			if !p.Signed || p.Format != "rpm" || p.Malformed != nil || p.Verify != nil {
				t.Errorf("%+v", p)
			}
			var entries []sign.Entry
			for _, f := range p.Files {
				if f.Value != nil {
					entries = append(entries, sign.Entry{Path: f.Path, Value: f.Value})
				}
				content, err := os.ReadFile(filepath.Join(r.dir, f.Path))
				if f.Digest == nil || f.Optional && errors.Is(err, fs.ErrNotExist) {
					continue
				}
				h := f.Hash.Crypto().New()
				if h.Write(content); err != nil || !bytes.Equal(h.Sum(nil), f.Digest) {
					t.Errorf("%q: %v, its digest is not %x", f.Path, err, f.Digest)
				}
			}
			slices.SortFunc(entries, func(a, b sign.Entry) int { return strings.Compare(a.Path, b.Path) })
			if got, want := sign.FormatAttributes(entries), sign.FormatAttributes(m.Files); !bytes.Equal(got, want) {
				t.Errorf("signatures:\n%s\nnot\n%s", got, want)
			}
			for _, name := range append(oddNames[:len(oddNames)-1:len(oddNames)-1], "new\nline") {
				if file(p, "usr/share/odd/"+name) == nil {
					t.Errorf("%q is missing", name)
				}
			}
			for path, want := range map[string]installed.File{
				"usr/bin/b1":             {},
				"etc/x.conf":             {Config: true},
				"etc/x.sh":               {Config: true},
				"etc/missing.conf":       {Config: true, Optional: true},
				"usr/share/doc/x/README": {Optional: true},
				"var/lib/x.db":           {Optional: true},
			} {
				f := file(p, path)
				if f == nil {
					t.Errorf("%s is missing", path)
					continue
				}
				if f.Config != want.Config || f.Optional != want.Optional || (f.Value == nil) != (path == "var/lib/x.db") || (f.Digest == nil) != (f.Value == nil) {
					t.Errorf("%s: %+v", path, f)
				}
			}
			for _, path := range []string{"usr/bin/to", "usr/share/odd"} {
				if file(p, path) != nil {
					t.Errorf("%s is no regular file", path)
				}
			}
		})
	}
}

// TestKindsThatRPMReadsNot: an rpm that was built without a kind of database says
// that there is nothing in it.
func TestKindsThatRPMReadsNot(t *testing.T) {
	r := newRoot(t)
	write(t, filepath.Join(r.dir, dbFolder, "Packages.db"), []byte("RpmP"))
	db := r.open(Options{})
	db.backend.name = "unheard-of"
	n := 0
	for _, err := range db.Packages(t.Context(), nil) {
		if n++; err == nil || !strings.Contains(err.Error(), "cannot read a database of the kind unheard-of") && !strings.Contains(err.Error(), "rpm says") {
			t.Error(err)
		}
	}
	if n != 1 {
		t.Errorf("%d errors", n)
	}
}

// TestNames asks for packages by all that rpm takes for a name.
func TestNames(t *testing.T) {
	r := newRoot(t)
	small := func(name, version, arch, epoch string) string {
		s := spec{name: name, version: version, arch: arch, files: "/usr/share/" + name + version + arch,
			install: "mkdir -p usr/share; echo x >usr/share/" + name + version + arch}
		if epoch != "" {
			s.preamble = "Epoch: " + epoch + "\n"
		}
		return s.build(t)
	}
	r.install(small("kernel", "5", "x86_64", ""), small("kernel", "6", "x86_64", ""), small("lib.so", "1", "x86_64", "3"), small("lib.so", "1", "i686", "3"))
	db := r.open(Options{})
	for name, want := range map[string]string{
		"kernel":              "kernel-5-1.x86_64 kernel-6-1.x86_64",
		"kernel-5":            "kernel-5-1.x86_64",
		"kernel-6-1":          "kernel-6-1.x86_64",
		"kernel-6-1.x86_64":   "kernel-6-1.x86_64",
		"kernel.x86_64":       "kernel-5-1.x86_64 kernel-6-1.x86_64",
		"kernel:x86_64":       "kernel-5-1.x86_64 kernel-6-1.x86_64",
		"lib.so:i686":         "lib.so-3:1-1.i686",
		"lib.so.i686":         "lib.so-3:1-1.i686",
		"lib.so-3:1-1":        "lib.so-3:1-1.i686 lib.so-3:1-1.x86_64",
		"lib.so-3:1-1.x86_64": "lib.so-3:1-1.x86_64",
	} {
		if got := shown(read(t, db, name)); got != want {
			t.Errorf("%q: %s, not %s", name, got, want)
		}
	}
	if got := shown(read(t, db, "kernel-6", "lib.so:i686")); got != "kernel-6-1.x86_64 lib.so-3:1-1.i686" {
		t.Errorf("two names: %s", got)
	}
	for _, name := range []string{"nothing", "kernel:arm", "kernel-7", "ker*", "", "-a", "--eval", "a b", "new\nline"} {
		var errs []string
		for p, err := range db.Packages(t.Context(), []string{"kernel-5", name, "kernel-6"}) {
			if err != nil {
				errs = append(errs, err.Error())
			} else if p.Name != "kernel" {
				t.Errorf("%q gives %s", name, p.Name)
			}
		}
		if len(errs) != 1 || !strings.Contains(errs[0], "is not installed") && !strings.Contains(errs[0], "is no name") {
			t.Errorf("%q: %q", name, errs)
		}
	}
	// It may stop early.
	for range db.Packages(t.Context(), nil) {
		break
	}
}

// TestOwners: a name belongs to the package whose file is there.
func TestOwners(t *testing.T) {
	r := newRoot(t)
	shared := func(name, content string, more string) string {
		return spec{name: name, version: "1", files: "/usr/share/shared\n/usr/share/" + name,
			install: "mkdir -p usr/share; echo same" + content + " >usr/share/shared; echo " + name + " >usr/share/" + name + more}.build(t)
	}
	a, b, c := shared("a", "", ""), shared("b", "", ""), shared("c", "other", "")
	signed(t, a)
	r.install(a, b)
	list := read(t, r.open(Options{}))
	for _, p := range list {
		if file(p, "usr/share/shared") == nil {
			t.Errorf("%s has not the file that is shared", p.Name)
		}
	}
	r.install("--replacefiles", c)
	for _, p := range read(t, r.open(Options{})) {
		if has := file(p, "usr/share/shared") != nil; has != (p.Name == "c") {
			t.Errorf("%s has the file that was replaced: %v", p.Name, has)
		}
	}
	r.rpm("-e", "--nodeps", "c")
	if got := shown(read(t, r.open(Options{}))); got != "a-1-1.noarch b-1-1.noarch" {
		t.Errorf("after erasing one: %s", got)
	}
	// Those of a relocated package are elsewhere, and in states of their own.
	moved := spec{name: "moved", version: "1", preamble: "Prefix: /usr\n", files: "/usr/share/moved\n/usr/lib/shared\n",
		install: "mkdir -p usr/share usr/lib; echo x >usr/share/moved; echo y >usr/lib/shared"}.build(t)
	m := signed(t, moved)
	r.install("--prefix", "/opt/it's", "--define", "_netsharedpath /opt/it's/lib", moved)
	p := read(t, r.open(Options{}), "moved")[0]
	if len(p.Files) != 2 || p.Files[1].Path != "opt/it's/share/moved" || p.Files[1].Shipped != "usr/share/moved" || !bytes.Equal(p.Files[1].Value, m.Files[1].Value) {
		t.Errorf("relocated: %+v", p.Files)
	}
	if f := p.Files[0]; f.Path != "opt/it's/lib/shared" || !f.Optional || f.Value != nil || f.Digest != nil {
		t.Errorf("on another machine: %+v", f)
	}
}

// TestOwning reads what a file trigger is given.
func TestOwning(t *testing.T) {
	r := newRoot(t)
	for _, name := range []string{"a", "b", "c"} {
		r.install(spec{name: name, version: "1", files: "/usr/share/" + name, install: "mkdir -p usr/share; echo x >usr/share/" + name}.build(t))
	}
	db := r.open(Options{})
	for text, want := range map[string]string{
		"":                                 "",
		"/usr/share/a\n":                   "a-1-1.noarch",
		"/usr/share/c\n/usr/share/a":       "a-1-1.noarch c-1-1.noarch",
		"/usr/share\n/usr/share/x\n\n/\nx": "",
	} {
		paths, err := ReadPaths(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		owning := db.Owning(paths)
		if got := shown(read(t, owning)); got != want {
			t.Errorf("%q: %s, not %s", text, got, want)
		}
		if got := shown(read(t, owning, "b")); got != "b-1-1.noarch" {
			t.Errorf("by name: %s", got)
		}
	}
	if _, err := ReadPaths(strings.NewReader("/a\n/" + strings.Repeat("x", maxString) + "\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a long line: %v", err)
	}
}

// TestWhereTheDatabaseIs looks for it below a root, and never makes one.
func TestWhereTheDatabaseIs(t *testing.T) {
	need(t, "rpm")
	open := func(dir string, o Options) (*DB, error) {
		t.Helper()
		root, err := xattr.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		return Open(t.Context(), root, o)
	}
	dir := t.TempDir()
	if _, err := open(dir, Options{}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), dir+"/usr/lib/sysimage/rpm") {
		t.Errorf("an empty root: %v", err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
		t.Errorf("an empty root has %v after it was looked at", list)
	}
	// Fedora has a link at the older place, an administrator may have an absolute one.
	write(t, filepath.Join(dir, "usr/lib/sysimage/rpm/rpmdb.sqlite"), nil)
	if err := os.MkdirAll(filepath.Join(dir, "var/lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"../../usr/lib/sysimage/rpm", "/usr/lib/sysimage/rpm"} {
		link := filepath.Join(dir, "var/lib/rpm")
		os.Remove(link)
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		if db, err := open(dir, Options{}); err != nil || db.folder != dir+"/usr/lib/sysimage/rpm" {
			t.Errorf("link to %s: %+v, %v", target, db, err)
		}
	}
	write(t, filepath.Join(dir, "srv/rpm/Packages.db"), nil)
	if db, err := open(dir, Options{Folder: "/srv/rpm"}); err != nil || db.folder != dir+"/srv/rpm" {
		t.Errorf("named: %+v, %v", db, err)
	}
	if err := os.Remove(filepath.Join(dir, "var/lib/rpm")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "var/lib/rpm/rpmdb.sqlite"), nil)
	if _, err := open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "two rpm databases") {
		t.Errorf("two databases: %v", err)
	}
	if _, err := open(dir, Options{RPM: filepath.Join(dir, "no-rpm")}); err == nil {
		t.Error("a program that is not there")
	}
}

// TestSignaturesThatRPMTakesNot: as rpm's reader does it, all or none.
func TestSignaturesThatRPMTakesNot(t *testing.T) {
	r := newRoot(t)
	path := full(t, "full", "1")
	signed(t, path)
	r.install(path)
	db := r.open(Options{})
	p := read(t, db)[0]
	good := hex.EncodeToString(file(p, "usr/bin/b1").Value)
	h := headerOf(t, db)
	list := func(last string) []string {
		list := make([]string, h.Len())
		list[0], list[len(list)-1] = good, last
		return list
	}
	for name, c := range map[string]struct {
		text []string
		err  string
		n    int
	}{
		"none":         {nil, "", 0},
		"all empty":    {make([]string, h.Len()), "", 0},
		"good":         {list(good), "", 2},
		"upper case":   {list(strings.ToUpper(good)), "", 2},
		"too few":      {list(good)[1:], "for", 0},
		"odd":          {list(good + "0"), "odd length", 0},
		"no hex":       {list("0g"), "invalid byte", 0},
		"short":        {list("0302"), "", 1},
		"zeros":        {list(strings.Repeat("00", 80)), "", 1},
		"zeros before": {list(strings.Repeat("00", 9) + "01"), "", 1},
	} {
		values, err := decodeSignatures(c.text, h)
		n := 0
		for _, v := range values {
			if v != nil {
				n++
			}
		}
		if n != c.n || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %d values, %v", name, n, err)
		}
	}
}

// TestStates: what rpm's states say of a file that is there.
func TestStates(t *testing.T) {
	digest := []byte{1}
	regular := rpm.InstalledFile{Path: "usr/lib/x", Regular: true, Digest: digest}
	for state, want := range map[int64]struct{ ok, optional, digest, fails bool }{
		stateNormal:       {ok: true, digest: true},
		stateReplaced:     {},
		stateNotInstalled: {ok: true, optional: true, digest: true},
		stateNetShared:    {ok: true, optional: true},
		stateWrongColor:   {},
		5:                 {fails: true},
		-1:                {fails: true},
		255:               {fails: true},
	} {
		f, ok, err := fileOf(regular, state)
		if ok != want.ok || (err != nil) != want.fails || ok && (f.Optional != want.optional || (f.Digest != nil) != want.digest || f.Path != regular.Path) {
			t.Errorf("state %d: %+v, %v, %v", state, f, ok, err)
		}
	}
	if _, ok, err := fileOf(rpm.InstalledFile{Path: "usr/lib"}, stateNormal); ok || err != nil {
		t.Errorf("a folder: %v, %v", ok, err)
	}
}
