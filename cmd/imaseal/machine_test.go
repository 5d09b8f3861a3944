package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A machine is a Debian system that a test may spoil: a folder laid over a root that
// scripts/debian-root keeps. What runs in it has mounts of its own.
type machine struct {
	t     *testing.T
	lower string // the root that is kept
	base  string
}

// work is the folder of a machine in which commands run.
const work = "root/work"

func newMachine(t *testing.T, suite string) *machine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root may mount and change the root folder")
	}
	needTools(t, "dpkg-deb", "unshare", "getfattr")
	out, err := exec.Command("../../scripts/debian-root", suite).Output()
	if err != nil {
		t.Skipf("there is no root of Debian %s: scripts/debian-root %s says why", suite, suite)
	}
	m := &machine{t: t, lower: strings.TrimSpace(string(out)), base: t.TempDir()}
	for _, dir := range []string{"upper/" + work, "layer", "system"} {
		if err := os.MkdirAll(filepath.Join(m.base, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Nobody is there to answer, and nothing of this has to survive a loss of power.
	m.write("etc/apt/apt.conf.d/00test", "APT::Get::Assume-Yes \"true\";\nDpkg::Use-Pty \"false\";\nAPT::Sandbox::User \"root\";\n")
	m.write("etc/dpkg/dpkg.cfg.d/test", "force-unsafe-io\n")
	return m
}

// copy returns another machine for t, in the state of this one.
func (m *machine) copy(t *testing.T) *machine {
	t.Helper()
	c := &machine{t: t, lower: m.lower, base: t.TempDir()}
	runIn(t, c.base, "mkdir layer system && cp -a "+m.base+"/upper upper")
	return c
}

// write writes a file before anything runs in the machine.
func (m *machine) write(name, content string) {
	m.t.Helper()
	name = filepath.Join(m.base, "upper", name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// mounts puts the machine together at $system. Nothing of it is brought to the disk,
// for speed; the kernel marks such a layer so that nobody takes it for a good one.
const mounts = `
lower=$1 base=$2 system=$2/system
rm -rf "$base/layer/work/incompat"
mount -t overlay -o "lowerdir=$lower,upperdir=$base/upper,workdir=$base/layer,volatile" overlay "$system"
mount -t proc proc "$system/proc"
`

// try runs a command in the machine and returns what it printed, stderr included.
func (m *machine) try(command string) (string, error) {
	script := mounts + `exec chroot "$system" /usr/bin/env -i HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
	PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin bash -euo pipefail -c "cd /` + work + `; $3"`
	return m.unshare(script, command)
}

func (m *machine) unshare(script, command string) (string, error) {
	out, err := exec.Command("unshare", "--mount", "bash", "-euo", "pipefail", "-c", script, "bash", m.lower, m.base, command).CombinedOutput()
	return string(out), err
}

// run is try for a command that has to succeed.
func (m *machine) run(command string) string {
	m.t.Helper()
	out, err := m.try(command)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

// onHost runs a command outside of the machine, which is at $system.
func (m *machine) onHost(command string) string {
	m.t.Helper()
	out, err := m.unshare(mounts+`eval "$3"`, command)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

// files returns a line for each name of the machine with what a person could find
// different about it, but for what apt and dpkg keep about themselves, and for the
// times of folders. Of their records the list of packages and that of diversions are
// among the lines.
func (m *machine) files() string {
	m.t.Helper()
	return m.onHost(`cd "$system"
find . \( -path ./proc -o -path ./` + work + ` -o -path ./var/lib/dpkg -o -path ./var/lib/apt -o -path ./var/cache -o -path ./var/log/apt \
	-o -path ./var/log/dpkg.log -o -path ./var/log/alternatives.log \) -prune -o \
	\( -type d -printf '%p %y %m %U:%G\n' -o -printf '%p %y %m %U:%G %n %s %T@ %l\n' \) | LC_ALL=C sort
find bin/ etc lib/ opt sbin/ usr var/lib/systemd -type f ! -path '*/cache/*' -print0 2>/dev/null | LC_ALL=C sort -z | xargs -0 sha256sum
getfattr -R -h --absolute-names -d -m security.ima -e hex . 2>/dev/null || true
cat var/lib/dpkg/diversions
sed -n '/^Package:/p;/^Status:/p' var/lib/dpkg/status`)
}

// difference returns the lines that only one of two texts has.
func difference(t *testing.T, before, after string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"before": before, "after": after} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, _ := exec.Command("diff", filepath.Join(dir, "before"), filepath.Join(dir, "after")).CombinedOutput()
	return string(out)
}

// signedHello lays what a target machine gets into the machine: imaseal's packages, a
// certificate, and a package that its key signed.
func (m *machine) signedHello() {
	m.t.Helper()
	dir := filepath.Join(m.base, "upper", work)
	writePackages(m.t, dir)
	runIn(m.t, m.t.TempDir(), `
mkdir -p tree/DEBIAN tree/usr/bin tree/usr/share/doc/hello tree/etc/init.d
printf 'Package: hello\nVersion: 2.10-3\nArchitecture: all\nMaintainer: Nobody <n@example.org>\nDescription: a test\n' > tree/DEBIAN/control
printf '/etc/hello.conf\n/etc/init.d/hello\n' > tree/DEBIAN/conffiles
printf '#!/bin/sh\nexit 0\n' > tree/DEBIAN/postinst
printf 'greeting = hello\n' > tree/etc/hello.conf
printf '#!/bin/sh\necho hello\n' > tree/etc/init.d/hello
printf '#!/bin/sh\necho hello\n' > tree/usr/bin/hello
echo text > tree/usr/share/doc/hello/README
chmod 755 tree/DEBIAN/postinst tree/etc/init.d/hello tree/usr/bin/hello
dpkg-deb --root-owner-group -b tree hello_2.10-3_all.deb >/dev/null
imaseal keys init --dir keys --no-passphrase
imaseal sign --quiet --key keys/signing.key --cert keys/signing.crt hello_2.10-3_all.deb
cp hello_2.10-3_all.deb keys/signing.crt `+dir)
}
