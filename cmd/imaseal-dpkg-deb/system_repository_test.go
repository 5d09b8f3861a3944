package main_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// repositoryDir is where a root sees the packages that it is given.
const repositoryDir = "/repository"

// A made package is one that a test builds.
type made struct {
	name, version, arch string
	fields              []string // further lines of the control file
	files               []madeFile
	control             []madeFile // maintainer scripts and other control members
}

// A madeFile is a file, by default of mode 0644; a symbolic link where to is set, a
// hard link where like is set, a folder where its path ends with a slash.
type madeFile struct {
	path, content string
	mode          fs.FileMode
	to, like      string
}

// builtAt is the time of all files: nothing may tell two versions apart by it.
var builtAt = time.Unix(1700000000, 0)

// build makes the .deb in dir by the host's dpkg-deb, which writes what Debian's
// own packages are written by.
func (m made) build(t testing.TB, dir string) string {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "tree")
	must(t, os.MkdirAll(filepath.Join(tree, "DEBIAN"), 0o755))
	fields := append([]string{"Package: " + m.name, "Version: " + m.version, "Architecture: " + m.arch,
		"Maintainer: A <a@example.org>", "Description: made by a test"}, m.fields...)
	m.control = append(m.control, madeFile{path: "control", content: strings.Join(fields, "\n") + "\n"})
	for _, f := range m.control {
		f.path = "DEBIAN/" + f.path
		f.make(t, tree)
	}
	for _, f := range m.files {
		f.make(t, tree)
	}
	out := filepath.Join(dir, fmt.Sprintf("%s_%s_%s.deb", m.name, m.version, m.arch))
	text, err := output(exec.Command("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, out))
	if err != nil {
		t.Fatalf("dpkg-deb --build: %v\n%s", err, text)
	}
	return out
}

func (f madeFile) make(t testing.TB, tree string) {
	t.Helper()
	name := filepath.Join(tree, f.path)
	if strings.HasSuffix(f.path, "/") {
		must(t, os.MkdirAll(name, 0o755))
		return
	}
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	switch {
	case f.to != "":
		must(t, os.Symlink(f.to, name))
	case f.like != "":
		must(t, os.Link(filepath.Join(tree, f.like), name))
	default:
		if f.mode == 0 {
			f.mode = 0o644
		}
		must(t, os.WriteFile(name, []byte(f.content), 0o600))
		must(t, os.Chmod(name, f.mode))
		must(t, os.Chtimes(name, builtAt, builtAt))
	}
}

// A repository is a folder of signed packages, with an index for apt.
type repository struct{ dir string }

// newRepository signs copies of the .debs, as a publisher does, and indexes them.
func newRepository(t testing.TB, debs ...string) *repository {
	t.Helper()
	needNamespace(t)
	if len(debs) == 0 {
		t.Fatal("no packages to sign")
	}
	for _, tool := range []string{"dpkg-deb", "apt-ftparchive"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: scripts/test installs it", tool)
		}
	}
	repo := &repository{dir: t.TempDir()}
	must(t, os.Chmod(repo.dir, 0o755))
	for _, deb := range debs {
		content, err := os.ReadFile(deb)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(repo.dir, filepath.Base(deb)), content, 0o644))
	}
	repo.sign(t)
	index := exec.Command("apt-ftparchive", "packages", ".")
	index.Dir = repo.dir
	packages, err := index.Output()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(repo.dir, "Packages"), packages, 0o644))
	return repo
}

// sign signs every package of the repository with the test key.
func (repo *repository) sign(t testing.TB) {
	t.Helper()
	debs, err := filepath.Glob(filepath.Join(repo.dir, "*.deb"))
	must(t, err)
	signDebs(t, debs...)
}

// signDebs signs packages in place.
func signDebs(t testing.TB, debs ...string) {
	t.Helper()
	built, err := buildPrograms()
	must(t, err)
	// imaseal refuses a key that others may read, and a clone cannot keep its mode.
	key := filepath.Join(t.TempDir(), "test.key")
	content, err := os.ReadFile(sharedFile("keys/test.key"))
	must(t, err)
	must(t, os.WriteFile(key, content, 0o600))
	args := append([]string{"sign", "--quiet", "--key", key, "--cert", sharedFile("keys/test.crt")}, debs...)
	if out, err := output(exec.Command(built.imaseal, args...)); err != nil {
		t.Fatalf("imaseal sign: %v\n%s", err, tail(out))
	}
}

// makePackages builds and signs packages, and returns a folder of them.
func makePackages(t testing.TB, packages ...made) *repository {
	t.Helper()
	needNamespace(t)
	dir := t.TempDir()
	var debs []string
	for _, m := range packages {
		debs = append(debs, m.build(t, dir))
	}
	return newRepository(t, debs...)
}

// use shows the repository to the root, whose apt knows no other from now on.
func (r *root) use(repo *repository) {
	r.t.Helper()
	must(r.t, os.MkdirAll(r.name(repositoryDir), 0o755))
	r.mount(repo.dir, r.name(repositoryDir), "", unix.MS_BIND, "")
	for _, list := range []string{"etc/apt/sources.list", "etc/apt/sources.list.d"} {
		must(r.t, os.RemoveAll(r.name(list)))
	}
	r.write("etc/apt/sources.list", "deb [trusted=yes] file:"+repositoryDir+" ./\n", 0o644)
	// There is no terminal, and no user of the sandbox may see this folder.
	r.write("etc/apt/apt.conf.d/99test", `DPkg::Use-Pty "false";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
`, 0o644)
}

// deb names a package of the repository as the root sees it.
func deb(name, version, arch string) string {
	return fmt.Sprintf("%s/%s_%s_%s.deb", repositoryDir, name, version, arch)
}

// debsIn returns the packages in a folder of the host, at least a number of them.
func debsIn(t testing.TB, dir string, atLeast int) []string {
	t.Helper()
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	must(t, err)
	if len(debs) < atLeast {
		t.Fatalf("%s holds only %d packages", dir, len(debs))
	}
	slices.Sort(debs)
	return debs
}
