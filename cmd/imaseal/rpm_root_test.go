package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/rpm/rpmdb"
	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

// An rpmRoot is a folder into which stock rpm installs packages, and imaseal with
// keys of its own.
type rpmRoot struct {
	*testing.T
	dir, keys string
	rpm       []string // and its options
	rpmbuild  []string // likewise
}

func newRPMRoot(t *testing.T, rpm ...string) *rpmRoot {
	t.Helper()
	for _, tool := range []string{"rpm", "rpmbuild"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: scripts/test installs it", tool)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("only root may install into a folder")
	}
	r := &rpmRoot{T: t, dir: t.TempDir(), keys: t.TempDir(), rpmbuild: []string{"rpmbuild"}}
	if err := unix.Setxattr(r.dir, sign.XattrName, []byte{3, 2}, 0); err != nil {
		t.Skipf("no %s in %s: %v", sign.XattrName, r.dir, err)
	}
	r.rpm = append(rpm, "--root", r.dir, "--define", "_dbpath /var/lib/rpm")
	r.imaseal(0, "keys", "init", "--dir", r.keys, "--no-passphrase")
	return r
}

// imaseal runs the command and returns what it prints.
func (r *rpmRoot) imaseal(want int, args ...string) string {
	r.Helper()
	var out bytes.Buffer
	if code := run(r.Context(), args, strings.NewReader(""), &out, &out); code != want {
		r.Fatalf("imaseal %q: exit code %d, not %d\n%s", args, code, want, out.String())
	}
	return out.String()
}

// system runs a verb on the root.
func (r *rpmRoot) system(want int, verb string, args ...string) string {
	r.Helper()
	return r.imaseal(want, append([]string{verb, "--root", r.dir, "--cert", r.keys + "/signing.crt"}, args...)...)
}

func (r *rpmRoot) clear(args ...string) {
	r.imaseal(0, append([]string{"clear", "--root", r.dir}, args...)...)
}

// says fails when text lacks one of the wanted.
func (r *rpmRoot) says(text string, wanted ...string) {
	r.Helper()
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			r.Errorf("it does not say %q:\n%s", w, text)
		}
	}
}

func (r *rpmRoot) tool(name string, args ...string) string {
	r.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// install has rpm install or upgrade; options come first.
func (r *rpmRoot) install(args ...string) {
	r.Helper()
	r.tool(r.rpm[0], append(append(r.rpm[1:len(r.rpm):len(r.rpm)], "-U", "--nodeps", "--ignoreos", "--ignorearch", "--nosignature"), args...)...)
}

// build returns a signed package. Its files are made by a shell script.
func (r *rpmRoot) build(name, version, install, files string, sign ...string) string {
	r.Helper()
	dir := r.TempDir()
	text := "%define debug_package %{nil}\n%define __os_install_post %{nil}\nName: " + name + "\nVersion: " + version +
		"\nRelease: 1\nSummary: x\nLicense: x\nAutoReqProv: no\nBuildArch: noarch\n%description\nx\n%install\nmkdir -p %{buildroot}\ncd %{buildroot}\n" +
		install + "\n%files\n" + files
	if err := os.WriteFile(dir+"/x.spec", []byte(text), 0o644); err != nil {
		r.Fatal(err)
	}
	r.tool(r.rpmbuild[0], append(r.rpmbuild[1:len(r.rpmbuild):len(r.rpmbuild)], "-bb", "--define", "_topdir "+dir, "--define", "_buildhost localhost", dir+"/x.spec")...)
	found, _ := filepath.Glob(dir + "/RPMS/noarch/*.rpm")
	if len(found) != 1 {
		r.Fatalf("rpmbuild made %q", found)
	}
	r.imaseal(0, append([]string{"sign", "--quiet", "--key", r.keys + "/signing.key", "--cert", r.keys + "/signing.crt", found[0]}, sign...)...)
	return found[0]
}

// hello is a package whose content differs with its version.
func (r *rpmRoot) hello(version string, sign ...string) string {
	r.Helper()
	return r.build("hello", version, `mkdir -p usr/bin etc usr/share/hello
printf '#!/bin/sh\necho hello `+version+`\n' >usr/bin/hello
printf '#!/bin/sh\necho bye `+version+`\n' >usr/bin/bye
chmod 755 usr/bin/*
ln usr/bin/hello usr/bin/hello-again
ln -s hello usr/bin/link
echo same >usr/share/hello/same
echo `+version+` >"usr/share/hello/it's a file"
echo 'a = 1' >etc/hello.conf
printf '#!/bin/sh\n' >etc/hello.sh
chmod 755 etc/hello.sh
`, `/usr/bin/*
/usr/share/hello
%config(noreplace) /etc/hello.conf
%config(noreplace) /etc/hello.sh
%ghost /var/lib/hello.db
`, sign...)
}

// labelled is how many files of hello carry a label when they should.
const labelled = 6

// labels returns the labels below the root by path.
func (r *rpmRoot) labels() map[string]string {
	r.Helper()
	found := map[string]string{}
	err := filepath.Walk(r.dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		value := make([]byte, 4096)
		if n, err := unix.Lgetxattr(path, sign.XattrName, value); err == nil && path != r.dir {
			found[strings.TrimPrefix(path, r.dir)] = string(value[:n])
		}
		return nil
	})
	if err != nil {
		r.Fatal(err)
	}
	return found
}

func (r *rpmRoot) write(path, content string) {
	r.Helper()
	if err := os.WriteFile(r.dir+path, []byte(content), 0o755); err != nil {
		r.Fatal(err)
	}
}

// plugin returns the options that have rpm load its plugin for IMA.
func plugin(t *testing.T) []string {
	t.Helper()
	p, err := rpmdb.PluginState("/")
	if err != nil || !p.Present() {
		t.Skipf("%v %v", p, err)
	}
	return []string{"--define", "__plugindir " + filepath.Dir(p.Files[0])}
}

// TestRPMPlugin: what rpm's plugin labels is what check wants, and what apply would
// have set.
func TestRPMPlugin(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) { testPlugin(t, newRPMRoot(t, "rpm"), plugin(t)) })
	t.Run("ndb rpm 6", func(t *testing.T) {
		rpm := rpm6(t)
		dir := filepath.Join(filepath.Dir(filepath.Dir(rpm)), "lib/rpm-plugins")
		if !exists(dir + "/ima.so") {
			t.Skipf("no ima.so in %s", dir)
		}
		options := []string{"--define", "__plugindir " + dir, "--define", "__transaction_ima %{__plugindir}/ima.so"}
		testPlugin(t, newRPMRoot(t, rpm, "--define", "_db_backend ndb"), options)
	})
}

func testPlugin(t *testing.T, r *rpmRoot, options []string) {
	r.install(append(options, r.hello("1"))...)
	byPlugin := r.labels()
	if len(byPlugin) != labelled {
		t.Fatalf("the plugin labelled %d files", len(byPlugin))
	}
	r.says(r.system(0, "check"), "hello:noarch", "1-1", "ok", "--openpgp-keyring")
	r.says(r.system(0, "apply"), "0    ok")
	r.clear()
	if n := len(r.labels()); n != 0 {
		t.Fatalf("%d labels are left", n)
	}
	r.says(r.system(1, "check"), "/usr/bin/hello (hello:noarch): no label")
	r.system(0, "apply")
	byUs := r.labels()
	if len(byUs) != len(byPlugin) {
		t.Errorf("apply labelled %d files", len(byUs))
	}
	for path, value := range byPlugin {
		if byUs[path] != value {
			t.Errorf("%s has another label than the plugin's", path)
		}
	}
	// An upgrade with the plugin brings the labels with it, one without them none.
	r.install(append(options, r.hello("2"))...)
	r.says(r.system(0, "check"), "2-1", "ok")
	r.install("--noplugins", r.hello("3"))
	r.says(r.system(1, "check"), "/usr/bin/hello-again (hello:noarch): no label")
	r.says(r.system(0, "apply"), "3-1", "ok")
	r.says(r.system(0, "check"), "3-1", "ok")
	r.tool(r.rpm[0], append(r.rpm[1:], "-e", "--nodeps", "hello")...)
	if left := r.labels(); len(left) != 0 {
		t.Errorf("erased, but there are %d labels", len(left))
	}
}

// TestRPMCheck: what was changed behind rpm's back is found.
func TestRPMCheck(t *testing.T) {
	for name, rpm := range map[string]func(*testing.T) []string{
		"sqlite": func(*testing.T) []string { return []string{"rpm"} },
		"ndb":    func(t *testing.T) []string { return []string{rpm6(t), "--define", "_db_backend ndb"} },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRPMRoot(t, rpm(t)...)
			r.install("--noplugins", r.hello("1"), r.build("other", "1", "mkdir -p usr/bin; echo '#!/bin/sh' >usr/bin/other; chmod 755 usr/bin/other", "/usr/bin/other"))
			r.says(r.system(0, "apply", "--dry-run"), "WOULD SET", "6          ok")
			if n := len(r.labels()); n != 0 {
				t.Fatalf("--dry-run set %d labels", n)
			}
			r.says(r.system(0, "apply", "hello-1-1.noarch"), "hello:noarch")
			r.says(r.system(0, "check", "hello"), "ok")
			r.says(r.system(1, "check"), "/usr/bin/other (other:noarch): no label")
			r.says(r.system(2, "check", "nothing"), "package nothing is not installed")
			r.system(0, "apply")
			r.says(r.system(2, "apply", "--files-from", "-", "hello"), "name none")
			r.system(0, "apply", "--files-from", "-") // nothing was touched
			r.says(r.system(2, "apply", "--files-from", r.keys+"/none"), "no such file")
			r.says(r.system(2, "apply", "--from", r.keys), "rpm -U --replacepkgs")

			// Validly signed, and still not what has that name.
			r.tool("cp", "--preserve=mode,xattr", r.dir+"/usr/bin/hello", r.dir+"/usr/bin/other")
			r.says(r.system(1, "check"), "/usr/bin/other (other:noarch): wrong name", "/usr/bin/hello of hello:noarch")
			r.write("/usr/bin/bye", "changed")
			r.write("/etc/hello.conf", "a = 2\n")
			r.write("/usr/bin/mine", "#!/bin/sh\n")
			text := r.system(1, "check", "--unowned")
			r.says(text, "/usr/bin/bye", "/etc/hello.conf", "edited", "/usr/bin/mine")
			// What does not match is not labelled, neither are files of no package, and
			// what is not ours is not cleared.
			was := r.labels()["/usr/bin/other"]
			r.clear()
			r.says(r.system(1, "apply", "--replace"), "/usr/bin/bye", "/usr/bin/other")
			for path, want := range map[string]string{"/usr/bin/bye": "", "/usr/bin/other": was, "/usr/bin/mine": "", "/etc/hello.conf": ""} {
				if got := r.labels()[path]; got != want {
					t.Errorf("%s has the label %x, not %x", path, got, want)
				}
			}
		})
	}
}

// TestRPMConfigFiles: the plugin's own macro decides which are labelled.
func TestRPMConfigFiles(t *testing.T) {
	r := newRPMRoot(t, "rpm")
	r.install(append(plugin(t), "--define", "_ima_sign_config_files 1", r.hello("1"))...)
	if r.labels()["/etc/hello.conf"] == "" {
		t.Error("the plugin did not label it")
	}
	r.system(0, "check") // a label more than the rule wants is right
}

// rpm6 returns rpm 6.1 for this test, and has imaseal use it.
func rpm6(t *testing.T) string {
	t.Helper()
	rpm := signtest.Cached(t, "rpm61-*-????????/bin/rpm", "scripts/peers rpm61")
	t.Setenv("PATH", filepath.Dir(rpm)+":"+os.Getenv("PATH"))
	return rpm
}
