package dpkg

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/sign"
)

// Systems on which labels can't be set, and a dpkg or dpkg-deb that ends early.

// inNamespace runs dpkg after a preparation by the shell, in a mount namespace of its
// own, and by another program where wrap says so.
func (s *dpkgScene) inNamespace(prepare string, wrap []string, args ...string) (string, error) {
	dpkg := s.command(args...)
	script := prepare + "\nexec \"$@\""
	cmd := exec.Command("unshare", append(append([]string{"--mount", "sh", "-ec", script, "sh"}, wrap...), dpkg.Args...)...)
	cmd.Env = append(dpkg.Env, "ROOT="+s.root)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestDpkgWithoutSupportForLabels(t *testing.T) {
	s := newDpkgScene(t)
	if out, err := exec.Command("unshare", "--mount", "true").CombinedOutput(); err != nil {
		t.Skipf("needs a mount namespace: %s", out)
	}
	// ramfs knows no attributes.
	mount := "mkdir -p $ROOT/usr/share/hello; mount -t ramfs none $ROOT/usr/share/hello"
	dropped := []string{"setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"}
	for name, c := range map[string]struct {
		prepare string
		wrap    []string
		config  string
		refused string
		result  result
		skipped int
	}{
		"no attributes in a folder, warn":   {mount, nil, "", "", resultLabelled, 3},
		"no attributes in a folder, refuse": {mount, nil, "unsupported = refuse\n", "extended attributes are not supported here", resultRefused, 0},
		"no CAP_SYS_ADMIN, warn":            {"", dropped, "", "", resultNoSupport, 6},
		"no CAP_SYS_ADMIN, refuse":          {"", dropped, "unsupported = refuse\n", "takes CAP_SYS_ADMIN", resultRefused, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			s.newRoot()
			s.configure(c.config, s.key.der)
			p := hello()
			out, err := s.inNamespace(c.prepare, c.wrap, "-i", p.write(t, s.key))
			if (err != nil) != (c.refused != "") || !strings.Contains(out, c.refused) {
				t.Fatalf("%v: %s", err, out)
			}
			o, _ := s.last()
			if o.Result != c.result || o.Skipped[reasonUnsupported] < c.skipped {
				t.Errorf("%+v", o)
			}
			if c.refused == "" && !strings.Contains(out, "imaseal: hello 1.0-1: warning:") {
				t.Errorf("no warning: %s", out)
			}
			s.clean()
		})
	}
}

// Without /proc the variables of maintainer scripts tell their calls from dpkg's.
func TestDpkgWithoutProc(t *testing.T) {
	s := newDpkgScene(t)
	if out, err := exec.Command("unshare", "--mount", "umount", "-l", "/proc").CombinedOutput(); err != nil {
		t.Skipf("needs a mount namespace: %s", out)
	}
	s.configure("", s.key.der)
	inner := hello()
	inner.name = "inner"
	deb := inner.write(t, s.key)
	p := hello()
	p.file("postinst").body = "#!/bin/sh\nset -e\n[ ! -e /proc/self ]\ndpkg-deb --fsys-tarfile " + deb + " | tar -t >$DPKG_ROOT/list\n"
	out, err := s.inNamespace("umount -l /proc", nil, "-i", p.write(t, s.key))
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.allLabelled(p)
	if o, lines := s.last(); lines != 1 || o.Result != resultLabelled || !strings.Contains(s.read("list"), "./usr/bin/hello\n") {
		t.Errorf("%d lines, %+v", lines, o)
	}
}

// A user who makes a root of their own, as for an image, gets the files without labels.
func TestDpkgWithoutRights(t *testing.T) {
	s := newDpkgScene(t)
	s.configure("", s.key.der)
	user := []string{"setpriv", "--reuid=4321", "--regid=4321", "--clear-groups"}
	s.options = []string{"--force-not-root"}
	if out, err := exec.Command("chown", "-R", "4321:4321", s.root).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	passable(t, s.root)
	passable(t, filepath.Join(s.system, "x"))
	deb := hello().write(t, s.key)
	passable(t, deb)
	out, err := s.inNamespace("", user, "-i", deb)
	if err != nil || !strings.Contains(out, "imaseal: hello 1.0-1: warning: 6 files have no label") {
		t.Errorf("%v: %s", err, out)
	}
	if !s.unlabelled("usr/bin/hello") {
		t.Error("a file has a label")
	}
	s.configure("unsupported = refuse\n", s.key.der)
	two := hello()
	two.version = "2"
	deb = two.write(t, s.key)
	passable(t, deb)
	if out, err := s.inNamespace("", user, "-i", deb); err == nil {
		t.Errorf("it is not refused: %s", out)
	}
}

// passable lets everybody pass the folders of a temporary file.
func passable(t *testing.T, name string) {
	t.Helper()
	for dir := filepath.Dir(name); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
}

// A label that finds no room takes the whole package back.
func TestDpkgWithoutRoomForLabels(t *testing.T) {
	s := newDpkgScene(t)
	image := filepath.Join(t.TempDir(), "ext4")
	if out, err := exec.Command("sh", "-c", "truncate -s 16M "+image+" && mkfs.ext4 -q -b 1024 -I 128 "+image).CombinedOutput(); err != nil {
		t.Skipf("needs mkfs.ext4: %s", out)
	}
	mount := "mkdir -p $ROOT/usr/share/hello; mount -o loop " + image + " $ROOT/usr/share/hello; rm -rf $ROOT/usr/share/hello/lost+found"
	if out, err := s.inNamespace(mount, nil, "--version"); err != nil {
		t.Skipf("needs a loop device: %s", out)
	}
	s.newRoot()
	s.configure("")
	p := hello()
	p.entries = func(files, _ *[]sign.Entry) {
		for i := range *files {
			if (*files)[i].Path == "usr/share/hello/empty" {
				(*files)[i].Value = append([]byte{3, 2, 4, 1, 2, 3, 4, 0x07, 0xd0}, make([]byte, 2000)...)
			}
		}
	}
	out, err := s.inNamespace(mount, nil, "-i", p.write(t, s.key))
	if err == nil || !strings.Contains(out, "/usr/share/hello/empty") || !strings.Contains(out, "no space for an extended attribute") {
		t.Errorf("%v: %s", err, out)
	}
	s.clean()
}

// When dpkg is killed the hook ends, and does not spin.
func TestHookEndsWithDpkg(t *testing.T) {
	s := newDpkgScene(t)
	p := hello()
	for i := range 40 {
		p.files = append(p.files, plainFile("usr/share/hello/f"+strconv.Itoa(i), strings.Repeat(strconv.Itoa(i), 100000), 0o644))
	}
	deb := p.write(t, s.key)
	for round := range 8 {
		s.newRoot()
		cmd := s.command("-i", deb)
		must(t, cmd.Start())
		time.Sleep(time.Duration(round*4) * time.Millisecond)
		_ = cmd.Process.Signal(unix.SIGSTOP)
		time.Sleep(5 * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		for deadline := time.Now().Add(10 * time.Second); hooksBelow(s.bin) > 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("round %d: the hook goes on without dpkg", round)
			}
		}
		// dpkg recovers, and labels everything.
		s.install(p)
		s.allLabelled(p)
		s.clean()
	}
}

// hooksBelow counts the processes of the hook in a folder.
func hooksBelow(bin string) (n int) {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		if exe, err := os.Readlink(link); err == nil && strings.HasPrefix(exe, bin) {
			n++
		}
	}
	return n
}

// What the real dpkg-deb says of a package that is no package is what dpkg gets.
func TestDpkgSeesHowDpkgDebFails(t *testing.T) {
	s := newDpkgScene(t)
	fake := filepath.Join(t.TempDir(), "dpkg-deb")
	deb := hello().write(t, s.key)
	const onlyControl = "[ $1 != --control ] || exec /usr/bin/dpkg-deb \"$@\"\n"
	for script, want := range map[string]string{
		"exit 7":                           "returned error exit status 7",
		"kill -TERM $$":                    "killed by signal (Terminated)",
		"kill -KILL $$":                    "killed by signal (Killed)",
		onlyControl + "exit 5":             "returned error exit status 5",
		onlyControl + "kill -TERM $$":      "killed by signal (Terminated)",
		onlyControl + "yes | head -c 5120": "imaseal: hello 1.0-1: refused: tar archive at offset 0",
		onlyControl + "yes | head -c 5":    "imaseal: hello 1.0-1: refused: tar archive at offset 0",
		onlyControl + "true":               "the archive has no end mark",
	} {
		s.newRoot()
		must(t, os.WriteFile(fake, []byte("#!/bin/sh\n"+script+"\n"), 0o755))
		s.configure("dpkg-deb = " + fake + "\n")
		out, err := s.dpkg("-i", deb)
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v, and not %q: %s", script, err, want, out)
		}
		s.clean()
	}
}
