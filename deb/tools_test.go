package deb

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

// Stock tools judge what is written here.

// run runs a program and returns what it prints on stdout. It must succeed and,
// where quiet is set, print nothing on stderr.
func run(t testing.TB, dir string, quiet bool, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil || quiet && errs.Len() > 0 {
		t.Fatalf("%q: %v\n%s%s", args, err, out.Bytes(), errs.Bytes())
	}
	return out.String()
}

// store writes a package to a file.
func store(t testing.TB, name string, raw []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// listing describes every file beneath dir.
func listing(t testing.TB, dir string) string {
	t.Helper()
	return run(t, dir, true, "sh", "-c", `find . -printf '%P %y %m %n %s %l\0' | sort -z; find . -type f -print0 | sort -z | xargs -0 sha256sum`)
}

func TestDpkgDebReads(t *testing.T) {
	need(t, "dpkg-deb")
	for _, z := range []string{"-Znone", "-Zgzip", "-Zxz", "-Zzstd"} {
		raw := dpkgDeb(t, tree(t), z)
		before, after := store(t, "hello.deb", raw), store(t, "hello.deb", signed(t, raw, sign.WriteOptions{}))
		if a, b := run(t, "", true, "dpkg-deb", "-c", before), run(t, "", true, "dpkg-deb", "-c", after); a != b {
			t.Errorf("dpkg-deb -c differs:\n%s\n%s", a, b)
		}
		if a, b := run(t, "", true, "dpkg-deb", "-f", before), run(t, "", true, "dpkg-deb", "-f", after); a != b {
			t.Errorf("dpkg-deb -f differs:\n%s\n%s", a, b)
		}
		if info := run(t, "", true, "dpkg-deb", "-I", after); !strings.Contains(info, "ima-signatures") || !strings.Contains(info, "Version: 2.10-3") {
			t.Errorf("dpkg-deb -I: %s", info)
		}
		dirs := [2]string{t.TempDir(), t.TempDir()}
		for i, file := range []string{before, after} {
			run(t, "", true, "dpkg-deb", "-x", file, dirs[i])
		}
		if a, b := listing(t, dirs[0]), listing(t, dirs[1]); a != b {
			t.Errorf("dpkg-deb -x differs:\n%s\n%s", a, b)
		}
		control := t.TempDir()
		run(t, "", true, "dpkg-deb", "-e", after, control)
		names, err := os.ReadDir(control)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(names); !strings.Contains(got, "- ima-control-signatures - ima-package - ima-signatures") || len(names) != len(treeControl)+4 {
			t.Errorf("dpkg-deb -e: %s", got)
		}
	}
}

// dpkgRoot makes an empty system for dpkg and returns how to call it.
func dpkgRoot(t testing.TB) (root string, dpkg func(args ...string) string) {
	t.Helper()
	need(t, "dpkg")
	if os.Getuid() != 0 {
		t.Skip("dpkg installs as root only")
	}
	root = t.TempDir()
	for _, dir := range []string{"info", "updates", "triggers"} {
		if err := os.MkdirAll(filepath.Join(root, "var/lib/dpkg", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"status", "available"} {
		if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg", file), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root, func(args ...string) string {
		t.Helper()
		return run(t, "", true, append([]string{"dpkg", "--root=" + root, "--force-script-chrootless", "--force-architecture", "--log=/dev/null", "--no-pager"}, args...)...)
	}
}

func TestDpkgInstalls(t *testing.T) {
	raw := dpkgDeb(t, tree(t), "-Zxz")
	s := signed(t, raw, sign.WriteOptions{})
	root, dpkg := dpkgRoot(t)
	dpkg("--install", store(t, "hello.deb", s))
	if out := dpkg("--verify", "hello"); out != "" {
		t.Errorf("dpkg --verify: %s", out)
	}
	if got, want := dpkg("--status", "hello"), "\nInstalled-Size: 3\n"; !strings.Contains(got, want) {
		t.Errorf("dpkg --status does not have %q:\n%s", want, got)
	}
	if out := dpkg("--audit"); out != "" {
		t.Errorf("dpkg --audit: %s", out)
	}
	info := filepath.Join(root, "var/lib/dpkg/info/hello.")
	for _, name := range []string{"ima-signatures", "ima-control-signatures", "ima-package"} {
		got, err := os.ReadFile(info + name)
		if err != nil || !bytes.Equal(got, open(t, s).kept.member(name).content) {
			t.Errorf("%s in the info database: %v", name, err)
		}
	}
	if found, _ := filepath.Glob(info + "unsigned*"); len(found) > 0 {
		t.Errorf("dpkg installed %q", found)
	}
	if got, err := os.ReadFile(info + "md5sums"); err != nil || string(got) != treeSums {
		t.Errorf("md5sums: %q, %v", got, err)
	}
	empty := filepath.Join(root, "usr/share/hello/empty")
	if err := os.WriteFile(empty, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := dpkg("--verify", "hello"); !strings.Contains(out, "/usr/share/hello/empty") {
		t.Errorf("dpkg --verify does not see a changed file: %q", out)
	}
	if got, err := os.ReadFile(filepath.Join(root, "usr/bin/hi")); err != nil || !bytes.HasPrefix(got, []byte("\x7fELF")) {
		t.Errorf("usr/bin/hi: %v", err)
	}
	dpkg("--install", store(t, "hello.deb", raw)) // takes ours away
	if found, _ := filepath.Glob(info + "ima-*"); len(found) > 0 {
		t.Errorf("the unsigned package left %q", found)
	}
	dpkg("--install", store(t, "hello.deb", s))
	dpkg("--purge", "hello")
	if found, _ := filepath.Glob(info + "*"); len(found) > 0 {
		t.Errorf("dpkg --purge left %q", found)
	}
}

// TestDpkgInstallsOddNames installs what dpkg-deb does not pack.
func TestDpkgInstallsOddNames(t *testing.T) {
	data := append(slices.Clone(treeFiles), folder("./srv/"))
	dirs := map[string]bool{}
	for _, e := range treeFiles {
		for dir := filepath.Dir(e.Name); dir != "."; dir = filepath.Dir(dir) {
			dirs[dir] = true
		}
	}
	for dir := range dirs {
		data = append(data, folder(dir+"/"))
	}
	slices.SortStableFunc(data, func(a, b entry) int {
		return strings.Compare(strings.TrimSuffix(a.Name, "/"), strings.TrimSuffix(b.Name, "/"))
	})
	root, dpkg := dpkgRoot(t)
	dpkg("--install", store(t, "hello.deb", signed(t, build{data: data, dataSuffix: ".gz", controlSuffix: ".gz"}.bytes(t), sign.WriteOptions{})))
	for _, e := range treeFiles {
		if _, err := os.Lstat(filepath.Join(root, e.Name)); err != nil {
			t.Error(err)
		}
	}
}

func TestUdebAndUbuntu(t *testing.T) {
	need(t, "dpkg-deb")
	root := t.TempDir()
	for name, content := range map[string]string{
		"DEBIAN/control":       "Package: hello-udeb\nVersion: 1:2.0~rc1+dfsg-1build1\nArchitecture: all\nPackage-Type: udeb\nMaintainer: x <x@example.org>\nDescription: x\n",
		"DEBIAN/isinstallable": "#!/bin/sh\nexit 0\n",
		"DEBIAN/menutest":      "#!/bin/sh\nexit 0\n",
		"bin/hello":            "#!/bin/sh\necho hello\n",
	} {
		path := filepath.Join(root, name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	raw := dpkgDeb(t, root, "-Zzstd", "-z19")
	roundtrip(t, raw)
	p := open(t, signed(t, raw, sign.WriteOptions{}))
	if info := p.Info(); info.Version != "1:2.0~rc1+dfsg-1build1" || info.Arch != "all" || info.FormatVersion != "2.0" {
		t.Errorf("%+v", info)
	}
	m, _ := p.Manifest()
	var names []string
	for _, e := range m.Control {
		names = append(names, e.Path)
	}
	// dpkg-deb keeps the x bit of control, too.
	if want := []string{"control", "isinstallable", "menutest"}; !slices.Equal(names, want) {
		t.Errorf("signed control members %q, want %q", names, want)
	}
}

func TestAptFtparchiveIndexes(t *testing.T) {
	need(t, "apt-ftparchive", "dpkg-deb")
	raw := signed(t, dpkgDeb(t, tree(t), "-Zxz"), sign.WriteOptions{})
	path := store(t, "hello_2.10-3_amd64.deb", raw)
	out := run(t, filepath.Dir(path), true, "apt-ftparchive", "packages", ".")
	for _, want := range []string{"Package: hello\n", "Version: 2.10-3\n", fmt.Sprintf("Size: %d\n", len(raw)), fmt.Sprintf("SHA256: %x\n", sha256.Sum256(raw))} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
}

// TestLintian compares what lintian says before and after.
func TestLintian(t *testing.T) {
	need(t, "lintian", "dpkg-deb")
	if testing.Short() {
		t.Skip("lintian is slow")
	}
	raw := dpkgDeb(t, tree(t), "-Zxz")
	tags := func(raw []byte) []string {
		path := store(t, "hello_2.10-3_amd64.deb", raw)
		cmd := exec.Command("lintian", "--allow-root", "--tag-display-limit=0", "--fail-on=none", path)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("lintian: %v", err)
		}
		return strings.Split(strings.TrimSpace(string(out)), "\n")
	}
	before := tags(raw)
	if len(before) < 3 {
		t.Fatalf("lintian finds too little for a comparison: %q", before)
	}
	unknown := []string{
		"W: hello: unknown-control-file [control:ima-control-signatures]",
		"W: hello: unknown-control-file [control:ima-package]",
		"W: hello: unknown-control-file [control:ima-signatures]",
		"W: hello: unknown-control-file [control:unsigned.control.tar.xz]",
	}
	for name, c := range map[string]struct {
		o    sign.WriteOptions
		want []string
	}{
		"file signatures": {sign.WriteOptions{}, unknown},
		"OpenPGP, too":    {sign.WriteOptions{OpenPGP: fakeOpenPGP}, append([]string{"E: hello: misplaced-extra-member-in-deb _gpgorigin"}, unknown...)},
	} {
		var added []string
		for _, tag := range tags(signed(t, raw, c.o)) {
			if !slices.Contains(before, tag) {
				added = append(added, tag)
			}
		}
		slices.Sort(added)
		if len(added) != len(c.want) {
			t.Errorf("%s: lintian adds %q, want %q", name, added, c.want)
			continue
		}
		for i, tag := range added {
			// The form of the context differs from version to version.
			if strings.Fields(tag)[2] != strings.Fields(c.want[i])[2] || tag[0] != c.want[i][0] {
				t.Errorf("%s: lintian adds %q, want %q", name, tag, c.want[i])
			}
		}
	}
}
