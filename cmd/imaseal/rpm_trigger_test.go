package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign/signtest"
)

// A guest is Debian forky, whose rpm 6 has no plugin for IMA, over a folder of its
// own, so that the root in the cache stays as it is.
type guest struct {
	*rpmRoot
	lower, upper, work string
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	rpm := signtest.Cached(t, "debian-forky-*rpm*/usr/bin/rpm", "scripts/forky-root")
	r := newRPMRoot(t, "rpm") // dir becomes what is above the root of the cache
	g := &guest{rpmRoot: r, lower: strings.TrimSuffix(rpm, "/usr/bin/rpm"), upper: r.dir, work: t.TempDir()}
	if out, err := g.try("true"); err != nil {
		t.Skipf("no overlay can be mounted here: %v %s", err, out)
	}
	return g
}

// try runs a shell script in the guest.
func (g *guest) try(script string) (string, error) {
	const mount = `set -e
mount --make-rprivate /
mkdir -p "$3/work" "$3/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3/work" "$3/root"
mount -t proc proc "$3/root/proc"
exec chroot "$3/root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 sh -c "$4"`
	out, err := exec.Command("unshare", "-m", "sh", "-c", mount, "sh", g.lower, g.upper, g.work, script).CombinedOutput()
	return string(out), err
}

func (g *guest) sh(script string) string {
	g.Helper()
	out, err := g.try(script)
	if err != nil {
		g.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// put copies a file into the guest.
func (g *guest) put(from, to string, mode os.FileMode) {
	g.Helper()
	raw, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(g.upper+to), 0o755)
	}
	if err == nil {
		err = os.WriteFile(g.upper+to, raw, mode)
	}
	if err != nil {
		g.Fatal(err)
	}
}

// rpmInstall has the guest's rpm install packages.
func (g *guest) rpmInstall(packages ...string) (string, error) {
	g.Helper()
	script := "rpm -U --nodeps"
	for _, p := range packages {
		g.put(p, "/packages/"+filepath.Base(p), 0o644)
		script += " /packages/" + filepath.Base(p)
	}
	return g.try(script)
}

func (g *guest) mustInstall(packages ...string) {
	g.Helper()
	if out, err := g.rpmInstall(packages...); err != nil {
		g.Fatalf("rpm: %v\n%s", err, out)
	}
}

// prepare puts imaseal, a certificate and rpm's macros into the guest, and returns the
// trigger's package.
func (g *guest) prepare(macros string) string {
	g.Helper()
	if err := os.MkdirAll(g.upper+"/etc/rpm", 0o755); err != nil {
		g.Fatal(err)
	}
	g.write("/etc/rpm/macros", macros)
	g.sh("rm /var/lib/rpm/*") // an empty database, perhaps of another kind
	g.put(g.keys+"/signing.crt", "/etc/imaseal/certs/signing.crt", 0o644)
	command := filepath.Join(g.TempDir(), "imaseal")
	build := exec.Command("go", "build", "-o", command, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		g.Fatalf("%v\n%s", err, out)
	}
	g.put(command, "/usr/bin/imaseal", 0o755)
	dir := g.TempDir()
	g.tool("../../scripts/package.d/rpm-trigger", "1", dir)
	return dir + "/imaseal-rpm-trigger-1-1.noarch.rpm"
}

// TestRPMPage runs the commands of docs/target.md about RPMs as they are printed.
func TestRPMPage(t *testing.T) {
	const openPGP = "../../keys/openpgp/testdata/"
	g := newGuest(t)
	trigger := g.prepare("")
	hello := g.hello("1", "--openpgp-key", openPGP+"rsa.key.asc")
	g.mustInstall(hello)
	g.put(trigger, "/page/"+filepath.Base(trigger), 0o644)
	imaseal := g.build("imaseal", "1", "mkdir -p usr/share/imaseal; echo x >usr/share/imaseal/x", "/usr/share/imaseal", "--openpgp-key", openPGP+"rsa.key.asc")
	g.put(imaseal, "/page/imaseal-1-1.noarch.rpm", 0o644)
	g.put(openPGP+"rsa.asc", "/page/RPM-GPG-KEY", 0o644)
	commands := strings.Split(strings.TrimSpace(pageCommands(t, "RPM")), "\n")
	if len(commands) < 4 {
		t.Fatalf("only %q were found", commands)
	}
	for _, command := range commands {
		// Debian's shell is not in rpm's database.
		command = strings.Replace(command, "rpm -i ", "rpm -i --nodeps ", 1)
		g.sh("cd /page; " + command)
		want := labelled + 1
		if strings.HasPrefix(command, "imaseal clear") {
			want = 1
		}
		if n := len(g.labels()); n != want {
			t.Errorf("after %s there are %d labels, not %d", command, n, want)
		}
	}
}

// TestRPMTrigger: where rpm has no plugin, the trigger labels what a transaction
// installed, after it.
func TestRPMTrigger(t *testing.T) {
	for name, macros := range map[string]string{"sqlite": "", "ndb": "%_db_backend ndb\n"} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			trigger := g.prepare(macros)
			hello1, hello2 := g.hello("1"), g.hello("2")

			g.mustInstall(hello1)
			if labels := g.labels(); len(labels) != 0 {
				t.Fatalf("without the trigger there are labels: %q", labels)
			}
			// The trigger's package labels what is there already.
			g.mustInstall(trigger)
			if labels := g.labels(); len(labels) != labelled {
				t.Fatalf("with the trigger there are %d labels", len(labels))
			}
			before := g.labels()
			// A script of the package still runs before it.
			late := g.build("late", "1", "mkdir -p usr/bin; echo late >usr/bin/late", `/usr/bin/late
%post
getfattr -n security.ima /usr/bin/late >/seen 2>&1
exit 0
`)
			g.mustInstall(hello2, late)
			g.says(g.sh("cat /seen"), "No such attribute")
			after := g.labels()
			if len(after) != labelled+1 || after["/usr/bin/hello"] == before["/usr/bin/hello"] || after["/usr/bin/late"] == "" {
				t.Errorf("after an upgrade there are the labels %q", after)
			}
			g.says(g.sh("imaseal check --rpm"), "hello:noarch", "2-1", "late:noarch", "ok")

			// What is not as it was signed stays without a label, and rpm says so.
			spoilt := g.build("spoilt", "1", "mkdir -p usr/bin; echo spoilt >usr/bin/spoilt", "/usr/bin/spoilt\n%post\necho x >>/usr/bin/spoilt\n")
			out, err := g.rpmInstall(spoilt)
			g.says(out, "/usr/bin/spoilt (spoilt:noarch): digest mismatch", "scriptlet failed")
			if err == nil || g.labels()["/usr/bin/spoilt"] != "" {
				t.Errorf("a file that was changed: rpm says %v, its label is %q", err, g.labels()["/usr/bin/spoilt"])
			}
			g.sh("rpm -e --nodeps spoilt late hello")
			if labels := g.labels(); len(labels) != 0 {
				t.Errorf("erased, but there are labels: %q", labels)
			}
			if out := g.sh("rpm -e --nodeps imaseal-rpm-trigger"); strings.Contains(out, "imaseal") {
				t.Errorf("erasing the trigger says %s", out)
			}
			if strings.Contains(macros, "ndb") != exists(g.upper+"/var/lib/rpm/Packages.db") {
				t.Errorf("the database is not of the kind %s", name)
			}
		})
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
