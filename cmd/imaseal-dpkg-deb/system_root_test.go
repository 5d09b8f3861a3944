package main_test

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/sign/signtest"
)

// suites are the Debian releases that every test of dpkg's ways is run in, with the
// dpkg that they have: 1.21, 1.22 and 1.23.
var suites = []string{"bookworm", "trixie", "forky"}

// hookDir is where the hook is installed.
const hookDir = "/usr/lib/imaseal"

// standardPath is dpkg's PATH without the hook.
const standardPath = "/usr/sbin:/usr/bin:/sbin:/bin"

// cached returns what scripts/debian-root left in the cache.
func cached(t testing.TB, name string) string {
	t.Helper()
	needNamespace(t)
	native, _ := architectures()
	return signtest.Cached(t, "debian-"+name+"-"+native, "scripts/debian-root")
}

// A root is a Debian system that a test may spoil: what is changed of the cached one
// is in memory.
type root struct {
	t     testing.TB
	dir   string
	suite string
	// path is the PATH of what is run in it.
	path string
	// excluded are files of packages that dpkg is told to leave out.
	excluded []string
	// within are the folders to which walks are restricted, where speed counts.
	within []string
	// memory is a folder of the host that is kept in memory.
	memory string
}

// newRoot returns a copy of the suite's root with the hook first in PATH, the test
// certificate among those that it trusts, and no policy but the default.
func newRoot(t testing.TB, suite string) *root {
	t.Helper()
	lower := cached(t, suite)
	built, err := buildPrograms()
	if err != nil {
		t.Fatal(err)
	}
	// The name of a test may hold a comma, which separates options of a mount.
	base, err := os.MkdirTemp(os.Getenv(inNamespace), "root-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(base) })
	r := &root{t: t, dir: filepath.Join(base, "root"), suite: suite, path: hookDir + ":" + standardPath}
	layers := filepath.Join(base, "layers")
	r.memory = layers
	for _, dir := range []string{layers, r.dir} {
		must(t, os.Mkdir(dir, 0o755))
	}
	must(t, os.Chmod(base, 0o755))
	r.mount("tmpfs", layers, "tmpfs", 0, "mode=755")
	for _, dir := range []string{"upper", "work"} {
		must(t, os.Mkdir(filepath.Join(layers, dir), 0o755))
	}
	r.copy(lower, layers)
	r.mount("proc", r.name("proc"), "proc", 0, "")

	hook, err := os.ReadFile(built.hook)
	must(t, err)
	r.write(hookDir+"/dpkg-deb", string(hook), 0o755)
	cert, err := os.ReadFile(sharedFile("keys/test.crt"))
	must(t, err)
	r.write("etc/imaseal/certs/test.crt", string(cert), 0o644)
	return r
}

// sharedFile names a file of the repository's testdata.
func sharedFile(name string) string { return filepath.Join("../../testdata", name) }

// copy shows a copy of lower as the root: an overlay whose upper layer is in memory,
// or a real copy there where the kernel has no overlays.
func (r *root) copy(lower, layers string) {
	r.t.Helper()
	options := "lowerdir=" + lower + ",upperdir=" + layers + "/upper,workdir=" + layers + "/work"
	if unix.Mount("overlay", r.dir, "overlay", 0, options) == nil {
		r.t.Cleanup(func() { unix.Unmount(r.dir, unix.MNT_DETACH) })
		return
	}
	r.mount("tmpfs", r.dir, "tmpfs", 0, "mode=755")
	if out, err := output(exec.Command("cp", "-a", lower+"/.", r.dir)); err != nil {
		r.t.Fatalf("cp -a %s: %v\n%s", lower, err, out)
	}
}

// architectures returns Debian's names of this machine's architecture and of another.
func architectures() (native, foreign string) {
	switch runtime.GOARCH {
	case "arm":
		return "armhf", "arm64"
	case "386":
		return "i386", "amd64"
	}
	return runtime.GOARCH, "i386"
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mount mounts until the test ends.
func (r *root) mount(source, target, kind string, flags uintptr, options string) {
	r.t.Helper()
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		r.t.Fatalf("mount -t %s -o %s %s %s: %v", kind, options, source, target, err)
	}
	r.t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) })
}

// name returns the host's name of a file of the root.
func (r *root) name(path string) string { return filepath.Join(r.dir, path) }

func (r *root) write(path, content string, mode fs.FileMode) {
	r.t.Helper()
	name := r.name(path)
	must(r.t, os.MkdirAll(filepath.Dir(name), 0o755))
	must(r.t, os.WriteFile(name, []byte(content), mode))
	must(r.t, os.Chmod(name, mode))
}

func (r *root) read(path string) string {
	r.t.Helper()
	content, err := os.ReadFile(r.name(path))
	must(r.t, err)
	return string(content)
}

// configure writes the hook's configuration, in place of what was there.
func (r *root) configure(lines ...string) {
	r.t.Helper()
	r.write("etc/imaseal/install.conf", strings.Join(lines, "\n")+"\n", 0o644)
}

// withoutHook takes the hook out of PATH.
func (r *root) withoutHook() { r.path = standardPath }

// command prepares a program in the root. before stands in front of chroot, such as
// a tracer.
func (r *root) command(before []string, args ...string) *exec.Cmd {
	all := slices.Concat(before, []string{"chroot", r.dir}, args)
	cmd := exec.Command(all[0], all[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + r.path, "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "TERM=dumb"}
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return cmd
}

// try runs a program in the root, which may fail.
func (r *root) try(args ...string) (string, error) {
	return output(r.command(nil, args...))
}

func (r *root) run(args ...string) string {
	r.t.Helper()
	out, err := r.try(args...)
	if err != nil {
		r.t.Fatalf("%s: %q: %v\n%s", r.suite, args, err, tail(out))
	}
	return out
}

// output runs cmd and returns what it says. It gives up on what hangs: a hook that
// never ends must fail a test, not stop it.
func output(cmd *exec.Cmd) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	err := cmd.Wait()
	return out.String(), err
}

// tail keeps the end of a long output.
func tail(out string) string {
	if len(out) > 6000 {
		return "…" + out[len(out)-6000:]
	}
	return out
}

// audit fails the test where dpkg's database is not in order.
func (r *root) audit() {
	r.t.Helper()
	if out, err := r.try("dpkg", "--audit"); err != nil || out != "" {
		r.t.Errorf("%s: dpkg --audit: %v\n%s", r.suite, err, out)
	}
}

// status returns the state and version of a package, such as "ii 2", "" where dpkg
// does not know it.
func (r *root) status(pkg string) string {
	out, err := r.try("dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Version}", pkg)
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(out), " ")
}

// leftovers returns the temporary names of dpkg that are still in the root.
func (r *root) leftovers() []string {
	r.t.Helper()
	var found []string
	temporary := regexp.MustCompile(`\.dpkg-(new|tmp)$`)
	r.walk(func(path string, d fs.DirEntry) {
		if temporary.MatchString(path) {
			found = append(found, path)
		}
	})
	return found
}

// walk visits what is in the root, without what is mounted for the kernel's sake.
func (r *root) walk(visit func(path string, d fs.DirEntry)) {
	r.t.Helper()
	folders := r.within
	if folders == nil {
		folders = []string{""}
	}
	for _, folder := range folders {
		must(r.t, filepath.WalkDir(r.name(folder), func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			path := strings.TrimPrefix(strings.TrimPrefix(name, r.dir), "/")
			switch path {
			case "proc", "sys", "dev", strings.TrimPrefix(repositoryDir, "/"):
				return filepath.SkipDir
			}
			visit(path, d)
			return nil
		}))
	}
}
