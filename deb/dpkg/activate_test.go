package dpkg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A system is a root with a database of dpkg, in which the Essential package dpkg has
// two files: a dpkg-deb that says its version, and another. Both it and the hook are
// static, so that they run in the root as they are.
type system struct {
	t    testing.TB
	dir  string
	debs map[string]string // the package dpkg, by version
}

// programs returns the hook, and a dpkg-deb of version 1 and one of version 2.
var programs = sync.OnceValues(func() ([3][]byte, error) {
	var built [3][]byte
	work, err := os.MkdirTemp("", "programs-")
	if err != nil {
		return built, err
	}
	defer os.RemoveAll(work)
	source := filepath.Join(work, "own.go")
	if err := os.WriteFile(source, []byte("package main\n\nvar version string\n\nfunc main() { println(\"own\", version) }\n"), 0o644); err != nil {
		return built, err
	}
	for i, of := range []string{"github.com/imaseal/imaseal/cmd/imaseal-dpkg-deb", source, source} {
		file := filepath.Join(work, fmt.Sprint(i))
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", fmt.Sprintf("-s -w -X main.version=%d", i), "-o", file, of)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return built, fmt.Errorf("go build: %w: %s", err, out)
		}
		if built[i], err = os.ReadFile(file); err != nil {
			return built, err
		}
	}
	return built, nil
})

func newSystem(t testing.TB) *system {
	t.Helper()
	for _, tool := range []string{"dpkg", "dpkg-deb", "dpkg-divert", "apt-config"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: scripts/test installs it", tool)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("only root can install packages and change the root folder")
	}
	built, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	s := &system{t: t, dir: t.TempDir(), debs: map[string]string{}}
	work := t.TempDir()
	for i, version := range []string{"1", "2"} {
		tree := filepath.Join(work, version)
		s.write(filepath.Join(tree, "DEBIAN/control"), "Package: dpkg\nVersion: "+version+"\nEssential: yes\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: a test\n", 0o644)
		s.write(filepath.Join(tree, "usr/bin/dpkg-other"), version, 0o755)
		s.write(filepath.Join(tree, "usr/bin/dpkg-deb"), string(built[i+1]), 0o755)
		s.debs[version] = filepath.Join(work, version+".deb")
		s.run("dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, s.debs[version])
	}
	for _, folder := range []string{"info", "updates"} {
		s.write(filepath.Join(s.dir, "var/lib/dpkg", folder, ".keep"), "", 0o644)
	}
	s.write(filepath.Join(s.dir, "var/lib/dpkg/status"), "", 0o644)
	s.write(filepath.Join(s.dir, "etc/apt/apt.conf.d/10own"), "// nothing\n", 0o644)
	s.write(filepath.Join(s.dir, hookPath), string(built[0]), 0o755)
	s.install("1")
	return s
}

func (s *system) write(name, text string, mode fs.FileMode) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) run(name string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// install installs a version of dpkg.
func (s *system) install(version string) {
	s.t.Helper()
	s.run("dpkg", "--root="+s.dir, "--log=/dev/null", "--force-downgrade,bad-path,unsafe-io", "--install", s.debs[version])
}

// says returns what the dpkg-deb of the system says, which must be dpkg's own words.
func (s *system) says() string {
	s.t.Helper()
	cmd := exec.Command("/usr/bin/dpkg-deb", "--version")
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: s.dir}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("dpkg-deb does not work: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func (s *system) activation() *Activation {
	s.t.Helper()
	a, err := OpenActivation(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { a.Close() })
	return a
}

func (s *system) set(scope Scope) {
	s.t.Helper()
	if err := s.activation().Set(s.t.Context(), scope); err != nil {
		s.t.Fatal(err)
	}
}

// files returns what is there but for dpkg's database, a line for each name, with the
// inode of each file: a hook that is out of use again leaves the very file that dpkg
// installed.
func (s *system) files() []string {
	s.t.Helper()
	var all []string
	err := filepath.WalkDir(s.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || strings.HasPrefix(name, filepath.Join(s.dir, "var/lib/dpkg")) {
			return err
		}
		var stat unix.Stat_t
		if err := unix.Lstat(name, &stat); err != nil {
			return err
		}
		line := fmt.Sprintf("%s mode %o owner %d:%d", strings.TrimPrefix(name, s.dir), stat.Mode, stat.Uid, stat.Gid)
		if !d.IsDir() {
			line += fmt.Sprintf(" inode %d links %d size %d time %d.%d", stat.Ino, stat.Nlink, stat.Size, stat.Mtim.Sec, stat.Mtim.Nsec)
		}
		all = append(all, line)
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	diversions, _ := os.ReadFile(filepath.Join(s.dir, "var/lib/dpkg/diversions"))
	return append(all, string(diversions))
}

func (s *system) check(scope Scope, own string) {
	s.t.Helper()
	state, err := s.activation().State(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	if state.Scope != scope || len(state.Problems) > 0 {
		s.t.Errorf("the state is %+v, not %s", state, scope)
	}
	if said := s.says(); said != own {
		s.t.Errorf("dpkg-deb says %q, not %q", said, own)
	}
}

var scopes = []Scope{ScopeNone, ScopeAPT, ScopeAll}

// TestActivationCut stops each change of scope after each of its steps, as a loss of
// power does, with and without what a step cut in the middle would leave. There
// dpkg-deb works and dpkg can be upgraded; from there every scope can be reached, and
// without the hook the system is what it was.
func TestActivationCut(t *testing.T) {
	s := newSystem(t)
	pristine := s.files()
	for _, from := range scopes {
		for _, to := range scopes {
			if from == to {
				continue
			}
			for cut := range len(s.activation().steps(to)) + 1 {
				for _, then := range []Scope{from, to} {
					for _, upgrade := range []bool{false, true} {
						name := fmt.Sprintf("%s_to_%s_cut_%d_upgrade_%v_then_%s", from, to, cut, upgrade, then)
						if !t.Run(name, func(t *testing.T) {
							s := &system{t: t, dir: s.dir, debs: s.debs}
							s.cut(from, to, cut, upgrade, then)
							if then != ScopeNone { // a second time would tidy up after the first
								s.set(ScopeNone)
							}
							if upgrade {
								s.check(ScopeNone, "own 2")
								s.install("1")
								pristine = s.files()
							} else if now := s.files(); !slices.Equal(now, pristine) {
								t.Errorf("the system is\n%s\nand was\n%s", strings.Join(now, "\n"), strings.Join(pristine, "\n"))
							}
						}) {
							return
						}
					}
				}
			}
		}
	}
}

// cut makes the first steps from a scope to another, and then goes to a third.
func (s *system) cut(from, to Scope, cut int, upgrade bool, then Scope) {
	s.t.Helper()
	s.set(from)
	for _, step := range s.activation().steps(to)[:cut] {
		if err := step.Do(s.t.Context()); err != nil {
			s.t.Fatalf("%s: %v", step.Name, err)
		}
	}
	if said := s.says(); said != "own 1" {
		s.t.Errorf("dpkg-deb says %q", said)
	}
	if _, err := s.activation().State(s.t.Context()); err != nil {
		s.t.Error(err)
	}
	if !upgrade {
		for _, name := range []string{NamePath, KeptPath, aptFile} {
			s.write(filepath.Join(s.dir, name+newSuffix), "half", 0o644)
		}
		s.set(then)
		s.check(then, "own 1")
		return
	}
	s.install("2")
	if other, err := os.ReadFile(filepath.Join(s.dir, "usr/bin/dpkg-other")); err != nil || string(other) != "2" {
		s.t.Errorf("another file of dpkg is %q: %v", other, err)
	}
	// While diverted, the name itself may still be the old one.
	if said := s.says(); said != "own 1" && said != "own 2" {
		s.t.Errorf("after an upgrade dpkg-deb says %q", said)
	}
	s.set(then)
	s.check(then, "own 2")
}

// TestActivationRefuses leaves systems as they are on which it may not work.
func TestActivationRefuses(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(s *system)
		scope   Scope
		want    string
	}{
		{"another diversion", func(s *system) {
			s.run("dpkg-divert", "--root", s.dir, "--local", "--divert", "/usr/bin/dpkg-deb.mine", "--rename", "--add", NamePath)
		}, ScopeAll, "diverted already, by LOCAL"},
		{"no hook", func(s *system) { os.Remove(filepath.Join(s.dir, hookPath)) }, ScopeAll, "install the package imaseal-installer"},
		{"no hook for apt", func(s *system) { os.Remove(filepath.Join(s.dir, hookPath)) }, ScopeAPT, "install the package imaseal-installer"},
		{"dpkg's own is lost", func(s *system) {
			s.set(ScopeAll)
			os.Remove(filepath.Join(s.dir, KeptPath))
		}, ScopeNone, "take it out of the package dpkg by hand"},
		{"dpkg-deb is elsewhere", func(s *system) {
			s.write(filepath.Join(s.dir, dpkgList), "/.\n/opt/dpkg-deb\n", 0o644)
		}, ScopeAll, "use --scope apt"},
		{"a link", func(s *system) {
			os.Rename(filepath.Join(s.dir, NamePath), filepath.Join(s.dir, NamePath+".moved"))
			os.Symlink("/bin/true", filepath.Join(s.dir, NamePath))
		}, ScopeAll, "not a regular file"},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			s := newSystem(t)
			c.prepare(s)
			before := s.files()
			err := s.activation().Set(t.Context(), c.scope)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, not %q", err, c.want)
			}
			if now := s.files(); !slices.Equal(now, before) {
				t.Errorf("the system is\n%s\nand was\n%s", strings.Join(now, "\n"), strings.Join(before, "\n"))
			}
		})
	}
}

// TestActivationLocks keeps dpkg out, and is kept out by another that works on dpkg's
// database.
func TestActivationLocks(t *testing.T) {
	s := newSystem(t)
	unlock, err := s.activation().lock()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("dpkg", "--root="+s.dir, "--log=/dev/null", "--force-bad-path", "--install", s.debs["2"]).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "lock") {
		t.Errorf("dpkg does not see the lock: %v: %s", err, out)
	}
	// A process does not lock itself out.
	other := exec.Command(os.Args[0], "-test.run=^TestActivationLockedOut$")
	other.Env = append(os.Environ(), "IMASEAL_LOCKED_ROOT="+s.dir)
	if out, err := other.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	other.Env = append(other.Env, "DPKG_RUNNING_VERSION=1.21.22")
	other = &exec.Cmd{Path: other.Path, Args: other.Args, Env: other.Env}
	if out, err := other.CombinedOutput(); err == nil || !strings.Contains(string(out), "changed under a lock") {
		t.Errorf("a maintainer script is locked out by its own dpkg: %v: %s", err, out)
	}
	unlock()
	s.set(ScopeNone)
	s.install("2")
}

// TestActivationLockedOut is the other process of TestActivationLocks.
func TestActivationLockedOut(t *testing.T) {
	dir := os.Getenv("IMASEAL_LOCKED_ROOT")
	if dir == "" {
		t.Skip("runs as a process of TestActivationLocks")
	}
	a, err := OpenActivation(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	switch err := a.Set(t.Context(), ScopeAll); {
	case err == nil:
		t.Error("changed under a lock")
	case !strings.Contains(err.Error(), "another program works on dpkg's database"):
		t.Error(err)
	}
}

// TestAPTPath takes over what an administrator set for apt, and asks the root's apt.
func TestAPTPath(t *testing.T) {
	s := newSystem(t)
	s.write(filepath.Join(s.dir, "etc/apt/apt.conf.d/50mine"), "DPkg::Path \"/opt/bin:/usr/sbin:/usr/bin\";\n", 0o644)
	for range 2 { // a second time it is not put in front again
		s.set(ScopeAPT)
		got, err := s.activation().APTPath(t.Context())
		if want := "/usr/lib/imaseal:/opt/bin:/usr/sbin:/usr/bin"; got != want || err != nil {
			t.Errorf("DPkg::Path is %q (%v), not %q", got, err, want)
		}
	}
	s.set(ScopeNone)
	if got, err := s.activation().APTPath(t.Context()); got != "/opt/bin:/usr/sbin:/usr/bin" || err != nil {
		t.Errorf("without the hook DPkg::Path is %q (%v)", got, err)
	}
}

// TestActivationStaysBelowRoot does not follow a link out of the root.
func TestActivationStaysBelowRoot(t *testing.T) {
	s := newSystem(t)
	outside := t.TempDir()
	s.write(filepath.Join(outside, "dpkg-deb"), "outside", 0o755)
	if err := os.RemoveAll(filepath.Join(s.dir, "usr/bin")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(s.dir, "usr/bin")); err != nil {
		t.Fatal(err)
	}
	for _, scope := range scopes {
		if scope == ScopeAPT {
			continue // touches nothing there
		}
		if err := s.activation().Set(t.Context(), scope); err == nil {
			t.Errorf("%s: followed the link", scope)
		}
	}
	found, err := os.ReadDir(outside)
	if err != nil || len(found) != 1 {
		t.Errorf("outside there is %v: %v", found, err)
	}
	if _, err := os.Stat(filepath.Join(outside, "dpkg-deb.distrib")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
