package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var machineSuites = []string{"bookworm", "trixie", "forky"}

// readmeCommands returns the commands of a section of the README.
func readmeCommands(t *testing.T, section string) []string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n## "+section+"\n")
	rest, _, _ = strings.Cut(rest, "\n## ")
	var commands []string
	for line := range strings.Lines(rest) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			commands = append(commands, command)
		}
	}
	return commands
}

// TestTargetMachine does what the README tells to do on a target machine, as it is
// printed there, and looks at the machine before and after.
func TestTargetMachine(t *testing.T) {
	commands := readmeCommands(t, "Target machines")
	end := 0
	for end < len(commands) && !strings.HasPrefix(commands[end], "imaseal hook disable") {
		end++
	}
	if len(commands) < 8 || end == len(commands) {
		t.Fatalf("the README has these commands: %q", commands)
	}
	for _, suite := range machineSuites {
		t.Run(suite, func(t *testing.T) {
			m := newMachine(t, suite)
			m.signedHello()
			before := m.files()
			out := m.run(strings.Join(commands[:end], ""))
			t.Log(out)
			for _, want := range []string{
				"The hook is in use for apt", `apt +/usr/lib/imaseal/dpkg-deb +the hook +labelled`, `dpkg +/usr/bin/dpkg-deb +dpkg's own +not labelled`,
			} {
				if !regexp.MustCompile(want).MatchString(out) {
					t.Errorf("%q is not printed", want)
				}
			}
			labels := m.onHost(`cd "$system" && getfattr --absolute-names -m security.ima -d usr/bin/hello etc/init.d/hello usr/share/doc/hello/README var/lib/dpkg/info/hello.postinst etc/hello.conf 2>/dev/null`)
			if n := strings.Count(labels, "security.ima="); n != 4 || strings.Contains(labels, "hello.conf") {
				t.Errorf("%d labels:\n%s", n, labels)
			}
			m.run(strings.Join(commands[end:], ""))
			if left := m.onHost(`cd "$system" && getfattr --absolute-names -m security.ima -d usr/bin/hello 2>/dev/null`); !strings.Contains(left, "security.ima=") {
				t.Error("the label of an installed file did not stay")
			}
			m.run("apt-get purge hello")
			if d := difference(t, before, m.files()); d != "" {
				t.Errorf("the machine is not as it was:\n%s", d)
			}
		})
	}
}

// newHooked returns a machine on which imaseal is installed and hello is not.
func newHooked(t *testing.T, suite string) *machine {
	t.Helper()
	m := newMachine(t, suite)
	m.signedHello()
	m.installImaseal()
	return m
}

func (m *machine) installImaseal() {
	m.t.Helper()
	m.run("apt-get install ./imaseal_*.deb ./imaseal-installer_*.deb && cp signing.crt /etc/imaseal/certs/")
}

// hookScope returns the scope that hook status states, which must have no problem.
func (m *machine) hookScope() string {
	m.t.Helper()
	var s hookStatus
	out := m.run("imaseal hook status --json")
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		m.t.Fatalf("%v: %s", err, out)
	}
	for _, u := range s.Users {
		want := proofNotLabelled
		if s.Scope == "all" || s.Scope == u.Name {
			want = proofLabelled
		}
		if u.Proof != want {
			m.t.Errorf("in scope %s, %s is %s: %s", s.Scope, u.Name, u.Proof, u.Detail)
		}
	}
	if len(s.Users) != 2 {
		m.t.Errorf("status knows %d users of dpkg", len(s.Users))
	}
	return s.Scope
}

// newerPackages makes a newer dpkg of the one that the root was made from, and a newer
// imaseal-installer, whose programs differ in their last bytes.
func (m *machine) newerPackages() {
	m.t.Helper()
	m.run(`for package in /var/cache/apt/archives/dpkg_*.deb imaseal-installer_*.deb; do
	rm -rf newer
	dpkg-deb -R "$package" newer
	sed -i 's/^Version: .*/&+newer/; /^Depends: imaseal/d' newer/DEBIAN/control
	printf newer >> newer/usr/bin/dpkg-deb 2>/dev/null || printf newer >> newer/usr/lib/imaseal/dpkg-deb
	name=$(basename "$package")
	dpkg-deb -Znone --root-owner-group -b newer "newer-${name%%_*}.deb"
done`)
}

// TestHookUpgrades upgrades dpkg, and imaseal itself, in each state of the hook, half
// done ones included, and then takes the hook out of use.
func TestHookUpgrades(t *testing.T) {
	first := newHooked(t, "bookworm")
	first.newerPackages()
	const half = `imaseal hook enable --scope all && ln /usr/bin/dpkg-deb.distrib /usr/bin/x && mv -f /usr/bin/x /usr/bin/dpkg-deb`
	for name, c := range map[string]struct{ state, scope string }{
		"none":                    {"true", "none"},
		"apt":                     {"imaseal hook enable", "apt"},
		"all":                     {"imaseal hook enable --scope all", "all"},
		"kept but not diverted":   {"ln /usr/bin/dpkg-deb /usr/bin/dpkg-deb.distrib", ""},
		"diverted but not in use": {half, ""},
		"not diverted but kept":   {half + " && dpkg-divert --no-rename --package imaseal-installer --divert /usr/bin/dpkg-deb.distrib --remove /usr/bin/dpkg-deb", ""},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			m := first.copy(t)
			m.run(c.state)
			m.run("dpkg -i newer-dpkg.deb && dpkg-deb --version && dpkg-query -W -f '${Version}' dpkg | grep -q newer")
			if c.scope == "" {
				if out, err := m.try("imaseal hook status"); err == nil || !strings.Contains(out, "was interrupted") {
					t.Errorf("status of half a change: %v\n%s", err, out)
				}
				m.run("imaseal hook enable --scope all")
				c.scope = "all"
			}
			if scope := m.hookScope(); scope != c.scope {
				t.Errorf("after an upgrade of dpkg the scope is %s, not %s", scope, c.scope)
			}
			// Of itself: the copy in dpkg-deb's place is renewed.
			m.run("dpkg -i newer-imaseal-installer.deb")
			if scope := m.hookScope(); scope != c.scope {
				t.Errorf("after an upgrade of imaseal-installer the scope is %s, not %s", scope, c.scope)
			}
			m.run("imaseal hook disable && tail -c 5 /usr/bin/dpkg-deb | grep -qx newer && ! test -e /usr/bin/dpkg-deb.distrib && test -z \"$(dpkg-divert --listpackage /usr/bin/dpkg-deb)\" && dpkg --verify dpkg && dpkg-deb --version")
			if scope := m.hookScope(); scope != "none" {
				t.Errorf("after disable the scope is %s", scope)
			}
		})
	}
}

// TestHookRemoval removes the package in each state and way: nothing of the hook stays.
func TestHookRemoval(t *testing.T) {
	first := newMachine(t, "trixie")
	first.signedHello()
	before := first.files()
	first.installImaseal()
	first.newerPackages()
	const half = `imaseal hook enable --scope all && ln /usr/bin/dpkg-deb.distrib /usr/bin/x && mv -f /usr/bin/x /usr/bin/dpkg-deb`
	for name, c := range map[string]struct{ state, removal string }{
		"apt purge":                    {"imaseal hook enable", "apt-get purge imaseal imaseal-installer"},
		"all purge":                    {"imaseal hook enable --scope all", "apt-get purge imaseal imaseal-installer"},
		"all remove then purge":        {"imaseal hook enable --scope all", "dpkg --remove imaseal-installer && imaseal hook status | grep -q 'not installed' && dpkg --purge imaseal-installer imaseal"},
		"all without the command":      {"imaseal hook enable --scope all && dpkg --force-depends --purge imaseal", "dpkg --purge imaseal-installer"},
		"half without the command":     {half + " && dpkg --force-depends --purge imaseal", "dpkg --purge imaseal-installer"},
		"half undone without it":       {half + " && dpkg-divert --no-rename --package imaseal-installer --divert /usr/bin/dpkg-deb.distrib --remove /usr/bin/dpkg-deb && dpkg --force-depends --purge imaseal", "dpkg --purge imaseal-installer"},
		"apt without the command":      {"imaseal hook enable && dpkg --force-depends --purge imaseal", "dpkg --purge imaseal-installer"},
		"half":                         {half, "dpkg --purge imaseal-installer imaseal"},
		"enabled behind its back":      {"imaseal hook enable --scope all && sed -i '2i exit 0' /var/lib/dpkg/info/imaseal-installer.prerm", "dpkg --purge imaseal-installer imaseal"},
		"never enabled but with a log": {"mkdir -p /var/log/imaseal && touch /var/log/imaseal/install.log", "apt-get purge imaseal imaseal-installer"},
		"all and a newer one first":    {"imaseal hook enable --scope all && dpkg -i newer-imaseal-installer.deb", "dpkg --purge imaseal-installer imaseal"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			m := first.copy(t)
			m.run(c.state)
			m.run("dpkg-deb --version && dpkg --verify dpkg")
			m.run(c.removal)
			m.run("dpkg-deb --version && dpkg --audit")
			if d := difference(t, before, m.files()); d != "" {
				t.Errorf("the machine is not as it was:\n%s", d)
			}
		})
	}
}

// TestHookStatus says what is wrong, and leaves nothing behind.
func TestHookStatus(t *testing.T) {
	m := newHooked(t, "bookworm")
	m.run("imaseal hook enable --scope all")
	before := m.files()
	m.run("imaseal hook status")
	if d := difference(t, before, m.files()); d != "" {
		t.Errorf("status left something:\n%s", d)
	}
	if out := m.run("setpriv --reuid=65534 --regid=65534 --clear-groups imaseal hook status"); !strings.Contains(out, "in use for every dpkg") || !strings.Contains(out, "not proven: only root can install packages") {
		t.Errorf("nobody is told\n%s", out)
	}
	for _, c := range []struct{ do, want string }{
		{"echo 'modus = warn' > /etc/imaseal/install.conf.d/1.conf", `install.conf.d/1.conf:1: unknown key \"modus\"`},
		{"rm /etc/imaseal/install.conf.d/1.conf; echo x > /etc/imaseal/certs/broken.crt", "/etc/imaseal/certs/broken.crt"},
		{"rm /etc/imaseal/certs/broken.crt; imaseal hook enable; echo 'DPkg::Path \"/usr/sbin:/usr/bin\";' > /etc/apt/apt.conf", "the hook is to be in use for apt, which runs /usr/bin/dpkg-deb"},
	} {
		m.run(c.do)
		out, err := m.try("imaseal hook status --json")
		if err == nil || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v\n%s", c.do, err, out)
		}
	}
	m.run("rm /etc/apt/apt.conf; echo 'mode = off' > /etc/imaseal/install.conf.d/off.conf")
	if out := m.run("imaseal hook status"); !strings.Contains(out, "mode = off, has it do nothing") {
		t.Error(out)
	}
}

// TestReadKernel reads what kernels say, and do not say, of appraisal.
func TestReadKernel(t *testing.T) {
	for name, c := range map[string]struct {
		cmdline, policy string // "" is a system without IMA, "-" one whose policy can't be read
		want            string
	}{
		"no IMA":       {"quiet", "", "IMA is not in this kernel, or /sys/kernel/security is not mounted"},
		"no policy":    {"quiet ima_appraise=log", "-", "IMA is there; its policy can't be read; ima_appraise=log"},
		"it measures":  {"", "measure func=BPRM_CHECK\n", "IMA is there, but no rule of its policy appraises"},
		"it appraises": {"evm=fix lsm=x ima_policy=secure_boot", "dont_appraise fsmagic=0x1\nappraise func=BPRM_CHECK appraise_type=imasig\nappraise func=MODULE_CHECK\n", "appraises: 2 rules of the policy; evm=fix ima_policy=secure_boot"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			dir := t.TempDir()
			write := func(name, text string) {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			write("cmdline", c.cmdline)
			switch c.policy {
			case "":
			case "-":
				write("ima/violations", "0")
			default:
				write("ima/policy", c.policy)
			}
			if got := readKernel(filepath.Join(dir, "cmdline"), filepath.Join(dir, "ima")).String(); got != c.want {
				t.Errorf("it says %q, not %q", got, c.want)
			}
		})
	}
}

// TestHookExamples runs the examples of the commands of hook.
func TestHookExamples(t *testing.T) {
	m := newHooked(t, "bookworm")
	m.run("mkdir -p /srv/image && tar -C / --one-file-system --exclude=./srv/image --exclude=./proc --exclude=./var/cache -c . | tar -x -C /srv/image && mkdir /srv/image/proc")
	n := 0
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
		if !cmd.HasSubCommands() && strings.HasPrefix(cmd.CommandPath(), "imaseal hook ") {
			for _, line := range exampleLines(m.run(fmt.Sprintf("imaseal help %s", strings.TrimPrefix(cmd.CommandPath(), "imaseal ")))) {
				m.run(line)
				n++
			}
		}
	}
	visit(newRootCommand())
	if n < 6 {
		t.Errorf("only %d examples were found", n)
	}
	if _, err := os.Stat(filepath.Join(m.base, "upper/srv/image/usr/bin/dpkg-deb.distrib")); err != nil {
		t.Error(err)
	}
}
