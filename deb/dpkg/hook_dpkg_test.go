package dpkg

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/sign"
)

// buildHook builds the hook once, for a system whose folder it returns; a test fills it
// with the configuration that it wants.
var buildHook = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "imaseal-hook-"); err != nil {
		return "", err
	}
	builtHook = dir
	out, err := exec.Command("go", "build", "-ldflags", "-X main.system="+filepath.Join(dir, "system"),
		"-o", filepath.Join(dir, "bin", "dpkg-deb"), "github.com/imaseal/imaseal/cmd/imaseal-dpkg-deb").CombinedOutput()
	if err != nil {
		err = errors.Join(err, errors.New(string(out)))
	}
	return dir, err
})

// builtHook is its folder once it was built.
var builtHook string

func TestMain(m *testing.M) {
	status := m.Run()
	os.RemoveAll(builtHook)
	os.Exit(status)
}

// A dpkgScene is a root below which stock dpkg installs packages through the hook.
type dpkgScene struct {
	t       *testing.T
	key     *testKey
	system  string
	bin     string // the folder of the hook, which leads PATH
	root    string
	outside string
	options []string // of dpkg
	env     []string
}

func newDpkgScene(t *testing.T) *dpkgScene {
	t.Helper()
	l := newLabelScene(t) // skips where labels can't be set
	if _, err := exec.LookPath("dpkg"); err != nil {
		t.Skip("needs dpkg")
	}
	dir, err := buildHook()
	if err != nil {
		t.Fatal(err)
	}
	s := &dpkgScene{t: t, key: l.key, system: filepath.Join(dir, "system"), bin: filepath.Join(dir, "bin"), outside: l.outside}
	must(t, os.RemoveAll(s.system))
	for _, dir := range []string{"etc/imaseal/certs", "var/log"} {
		must(t, os.MkdirAll(filepath.Join(s.system, dir), 0o755))
	}
	s.newRoot()
	return s
}

// newRoot makes an empty root.
func (s *dpkgScene) newRoot() {
	s.root = filepath.Join(s.t.TempDir(), "root")
	for _, dir := range []string{"info", "updates", "triggers"} {
		must(s.t, os.MkdirAll(filepath.Join(s.root, "var/lib/dpkg", dir), 0o755))
	}
	for _, name := range []string{"status", "available"} {
		must(s.t, os.WriteFile(filepath.Join(s.root, "var/lib/dpkg", name), nil, 0o644))
	}
}

// configure writes the configuration, and the certificates that are trusted.
func (s *dpkgScene) configure(text string, certs ...[]byte) {
	must(s.t, os.WriteFile(filepath.Join(s.system, configFile), []byte(text), 0o644))
	for i, der := range certs {
		must(s.t, os.WriteFile(filepath.Join(s.system, CertificateFolders[0], string(rune('a'+i))+".der"), der, 0o644))
	}
}

// command returns the command dpkg with arguments.
func (s *dpkgScene) command(args ...string) *exec.Cmd {
	all := append([]string{"--root=" + s.root, "--force-script-chrootless", "--force-bad-path", "--log=/dev/null", "--force-architecture"}, s.options...)
	cmd := exec.Command("dpkg", append(all, args...)...)
	cmd.Env = append([]string{"PATH=" + s.bin + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + s.root, "LC_ALL=C"}, s.env...)
	return cmd
}

// dpkg runs dpkg and returns what it printed.
func (s *dpkgScene) dpkg(args ...string) (string, error) {
	out, err := s.command(args...).CombinedOutput()
	return string(out), err
}

// install installs a package, which must succeed.
func (s *dpkgScene) install(p *testPackage) string {
	s.t.Helper()
	out, err := s.dpkg("-i", p.write(s.t, s.key))
	if err != nil {
		s.t.Fatalf("%v: %s", err, out)
	}
	return out
}

// refuse installs a package, which must fail with a message and leave nothing behind.
func (s *dpkgScene) refuse(p *testPackage, want string) {
	s.t.Helper()
	out, err := s.dpkg("-i", p.write(s.t, s.key))
	if err == nil || !strings.Contains(out, want) || !strings.Contains(out, p.name+" "+p.version) {
		s.t.Errorf("%v, and it does not say %q of the package: %s", err, want, out)
	}
	s.clean()
	// dpkg remembers that it heard of a package that it has unpacked.
	for line := range strings.Lines(s.read("var/lib/dpkg/status")) {
		if strings.HasPrefix(line, "Status: ") && line != "Status: install ok not-installed\n" {
			s.t.Errorf("the database has %s", line)
		}
	}
	if lists, _ := filepath.Glob(filepath.Join(s.root, "var/lib/dpkg/info", p.name+".*")); len(lists) > 0 {
		s.t.Errorf("the database has %s", lists)
	}
	if _, err := unix.Lgetxattr(s.outside, sign.XattrName, nil); err != unix.ENODATA {
		s.t.Errorf("the file outside has a label: %v", err)
	}
}

// clean fails when dpkg has something to complain of, or left files.
func (s *dpkgScene) clean() {
	s.t.Helper()
	if out, err := s.dpkg("--audit"); err != nil || out != "" {
		s.t.Errorf("dpkg --audit: %v %s", err, out)
	}
	_ = filepath.WalkDir(s.root, func(path string, _ os.DirEntry, err error) error {
		if strings.Contains(path, ".dpkg-") {
			s.t.Errorf("left behind: %s", path)
		}
		return err
	})
}

func (s *dpkgScene) read(name string) string {
	text, err := os.ReadFile(filepath.Join(s.root, name))
	if err != nil {
		s.t.Helper()
		s.t.Error(err)
	}
	return string(text)
}

// last returns the last line of the log, and how many there are.
func (s *dpkgScene) last() (o outcome, lines int) {
	s.t.Helper()
	f, err := os.Open(filepath.Join(s.system, logFile))
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	for line := bufio.NewScanner(f); line.Scan(); lines++ {
		o = outcome{}
		must(s.t, json.Unmarshal(line.Bytes(), &o))
	}
	return o, lines
}

// labelled reports whether a file of the root has the label for body.
func (s *dpkgScene) labelled(name, body string) bool {
	return (&labelScene{key: s.key, root: s.root}).has(s.t, name, body)
}

// unlabelled reports whether a file has no label at all.
func (s *dpkgScene) unlabelled(name string) bool {
	if !filepath.IsAbs(name) {
		name = filepath.Join(s.root, name)
	}
	_, err := unix.Lgetxattr(name, sign.XattrName, nil)
	return err == unix.ENODATA
}

// allLabelled checks every file of a package that is to have a label, and that nothing
// else has one.
func (s *dpkgScene) allLabelled(p *testPackage) {
	s.t.Helper()
	for _, f := range p.files {
		name := strings.TrimPrefix(f.Name, "./")
		switch {
		case f.Typeflag != tar.TypeReg:
		case name == "etc/hello.conf":
			if !s.unlabelled(name) {
				s.t.Errorf("conffile %s has a label", name)
			}
		case !s.labelled(name, f.body):
			s.t.Errorf("%s has no label", name)
		}
	}
	for _, f := range p.members {
		name := strings.TrimPrefix(f.Name, "./")
		script := strings.HasPrefix(f.body, "#!")
		if name == "preinst" || name == "postinst" || name == "prerm" {
			if info := "var/lib/dpkg/info/" + p.name + "." + name; script && !s.labelled(info, f.body) {
				s.t.Errorf("%s has no label", info)
			}
		}
	}
}

// labels are the files of a package that get a label.
func labels(p *testPackage) (names []string) {
	for _, f := range p.files {
		if (f.Typeflag == tar.TypeReg || f.Typeflag == tar.TypeLink) && f.Name != "./etc/hello.conf" {
			names = append(names, f.Name)
		}
	}
	return names
}

func TestDpkgInstallsUpgradesAndRemoves(t *testing.T) {
	s := newDpkgScene(t)
	s.configure("", s.key.der)
	one, two := hello(), hello()
	two.version = "2.0"
	two.files = append(two.files, plainFile("usr/share/hello/new", "new", 0o644))
	two.file("usr/bin/hello").body = "#!/bin/sh\nexit 0\n"
	for i, p := range []*testPackage{one, two, one, one} {
		if out := s.install(p); strings.Contains(out, "imaseal") {
			t.Errorf("it says %s", out)
		}
		s.allLabelled(p)
		s.clean()
		o, lines := s.last()
		if lines != i+1 || o.Result != resultLabelled || o.Version != p.version || !o.Verified || o.Scripts != 2 ||
			o.Labelled != len(labels(p)) || o.Root != s.root || o.Skipped[reasonConffile] != 1 {
			t.Errorf("line %d: %+v", lines, o)
		}
	}
	for _, arg := range []string{"--remove", "--purge"} {
		if out, err := s.dpkg(arg, "hello"); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	s.clean()
}

// The kernel looks at a maintainer script when it is executed: the label is there.
func TestDpkgRunsLabelledScripts(t *testing.T) {
	s := newDpkgScene(t)
	if _, err := exec.LookPath("getfattr"); err != nil {
		t.Skip("needs getfattr")
	}
	p := hello()
	script := "#!/bin/sh\ngetfattr --only-values -n security.ima \"$0\" >\"$DPKG_ROOT/$(basename \"$0\").label\"\n"
	p.file("preinst").body = script
	s.install(p)
	if got := s.read("preinst.label"); got != string(s.key.value(t, script)) {
		t.Errorf("preinst ran with the label %q", got)
	}
}

// Scripts inherit dpkg's environment: what they do with dpkg-deb is not dpkg's doing.
func TestDpkgScriptsCallDpkgDebForThemselves(t *testing.T) {
	s := newDpkgScene(t)
	inner := hello()
	inner.name = "inner"
	deb := inner.write(t, s.key)
	p := hello()
	script := "#!/bin/sh\nset -e\ndpkg-deb --fsys-tarfile " + deb + " | tar -t >$DPKG_ROOT/list\nmkdir $DPKG_ROOT/x\ndpkg-deb --control " + deb + " $DPKG_ROOT/x/y\n" +
		"dpkg-deb --field " + deb + " Package >$DPKG_ROOT/field\n"
	p.file("postinst").body = script
	s.install(p)
	if s.read("field") != "inner\n" || !strings.Contains(s.read("list"), "./usr/bin/hello\n") || !s.unlabelled("x/y/preinst") {
		t.Error("a script's own call was not passed on")
	}
	if o, lines := s.last(); lines != 1 || o.Package != "hello" {
		t.Errorf("%d lines, %+v", lines, o)
	}
}

// For everybody else the hook is dpkg-deb, to the byte and the exit status.
func TestEverybodyElseGetsTheRealOne(t *testing.T) {
	s := newDpkgScene(t)
	deb := hello().write(t, s.key)
	for _, args := range [][]string{
		{"--info", deb}, {"--fsys-tarfile", deb}, {"--contents", deb}, {"--field", deb}, {"--version"}, {}, {"--nonsense"},
		{"--info", "/nonexistent"}, {"--fsys-tarfile", "/nonexistent"}, {"-f", deb, "Package", "Version"}, {"--control"},
	} {
		run := func(path string, env ...string) (string, string, int) {
			cmd := exec.Command(path, args...)
			cmd.Env = append(os.Environ(), env...)
			cmd.Args[0] = "dpkg-deb"
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			_ = cmd.Run()
			return out.String(), errs.String(), cmd.ProcessState.ExitCode()
		}
		wantOut, wantErr, wantStatus := run("/usr/bin/dpkg-deb")
		for _, env := range [][]string{nil, {"DPKG_ADMINDIR=/x", "DPKG_ROOT=/y"}} {
			out, errs, status := run(filepath.Join(s.bin, "dpkg-deb"), env...)
			if out != wantOut || errs != wantErr || status != wantStatus {
				t.Errorf("%q, %q: exit status %d, %d is right; it says %q", args, env, status, wantStatus, errs)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(s.system, logFile)); err == nil {
		t.Error("something was logged")
	}
}
