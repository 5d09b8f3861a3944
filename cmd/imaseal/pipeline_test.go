package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pipelineScene makes what docs/pipeline.md begins with, and a system for apt to
// install into.
const pipelineScene = `
mkdir -p hello-1.0/debian
cd hello-1.0
cat > debian/control <<'E'
Source: hello
Maintainer: Nobody <nobody@example.org>
Section: misc
Priority: optional
Standards-Version: 4.6.2

Package: hello
Architecture: any
Description: says hello
 A test.
E
printf 'hello (1.0) stable; urgency=low\n\n  * One.\n\n -- Nobody <nobody@example.org>  Tue, 14 Nov 2023 22:13:20 +0000\n' > debian/changelog
cat > debian/rules <<'E'
#!/usr/bin/make -f
clean build build-arch build-indep binary-indep:
binary binary-arch:
	mkdir -p debian/tmp/DEBIAN debian/tmp/usr/bin
	printf '#!/bin/sh\necho hello\n' > debian/tmp/usr/bin/hello
	chmod 755 debian/tmp/usr/bin/hello
	dpkg-gencontrol
	dpkg-deb --root-owner-group -b debian/tmp ..
E
chmod 755 debian/rules
cd ..
cat > hello.spec <<'E'
Name: hello
Version: 1.0
Release: 1
Summary: says hello
License: MIT
BuildArch: noarch
%description
A test.
%install
mkdir -p %{buildroot}/usr/bin
printf '#!/bin/sh\necho hello\n' > %{buildroot}/usr/bin/hello
%files
/usr/bin/hello
E
mkdir -p system/var/lib/dpkg/info system/var/lib/dpkg/updates system/var/lib/apt/lists/partial \
	system/var/cache/apt/archives/partial system/var/log/apt system/etc/apt/apt.conf.d system/etc/apt/preferences.d system/etc/apt/trusted.gpg.d
touch system/var/lib/dpkg/status system/var/lib/dpkg/available
cat > apt.conf <<E
Dir "$PWD/system";
Dir::State::status "$PWD/system/var/lib/dpkg/status";
Dir::Bin::dpkg "/usr/bin/dpkg";
APT::Architecture "$(dpkg --print-architecture)";
APT::Sandbox::User "root";
DPkg::Options { "--root=$PWD/system"; "--log=$PWD/dpkg.log"; };
DPkg::Path "/usr/sbin:/usr/bin:/sbin:/bin";
E
`

// TestPipeline runs all commands of docs/pipeline.md as they are printed, and looks
// at the repositories and at the system that come of it.
func TestPipeline(t *testing.T) {
	needTools(t, "dpkg-buildpackage", "make", "apt-get", "apt-ftparchive", "reprepro", "rpmbuild", "createrepo_c", "rpm")
	if os.Getuid() != 0 {
		t.Skip("apt installs as root only")
	}
	text, err := os.ReadFile("../../docs/pipeline.md")
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	for line := range strings.Lines(string(text)) {
		if command, ok := strings.CutPrefix(line, "    "); ok && !strings.Contains(command, "─►") {
			commands = append(commands, command)
		}
	}
	if len(commands) < 15 {
		t.Fatalf("only %d commands found", len(commands))
	}
	dir := t.TempDir()
	runIn(t, dir, pipelineScene)
	out := runIn(t, dir, strings.Join(commands, ""), "APT_CONFIG="+filepath.Join(dir, "apt.conf"), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
	t.Log(out)

	for claim, check := range map[string]string{
		"apt installed the signed package":      `cmp <(dpkg-deb --ctrl-tarfile signed/hello_1.0_*.deb | tar -xO ./ima-signatures 2>/dev/null || dpkg-deb --ctrl-tarfile signed/hello_1.0_*.deb | tar -xO ima-signatures) system/var/lib/dpkg/info/hello.ima-signatures`,
		"the installed file is the one built":   `cmp system/usr/bin/hello hello-1.0/debian/tmp/usr/bin/hello`,
		"dpkg knows it":                         `dpkg-query --admindir system/var/lib/dpkg -W -f '${Version} ${db:Status-Status}\n' hello | grep -qx '1.0 installed'`,
		"the index has the signed package":      `grep -q "^SHA256: $(sha256sum < signed/hello_1.0_*.deb | cut -c 1-64)$" repo/Packages`,
		"reprepro took the signed package":      `cmp signed/hello_1.0_*.deb reprepro/pool/main/h/hello/hello_1.0_*.deb`,
		"the build's output is untouched":       `! imaseal verify --quiet --cert keys/signing.crt hello_1.0_*.deb`,
		"createrepo_c indexed the signed RPM":   `zcat -f rpmbuild/RPMS/repodata/*primary.xml* 2>/dev/null | grep -q "$(sha256sum < rpmbuild/RPMS/noarch/hello-1.0-1.noarch.rpm | cut -c 1-64)" || zstd -dcq rpmbuild/RPMS/repodata/*primary.xml.zst | grep -q "$(sha256sum < rpmbuild/RPMS/noarch/hello-1.0-1.noarch.rpm | cut -c 1-64)"`,
		"rpm sees the file signature":           `rpm -qp --nosignature --qf '[%{FILESIGNATURES}\n]' rpmbuild/RPMS/noarch/*.rpm | grep -q '^0302'`,
		"the cache has the file and statement":  `imaseal cache stats signatures.db | grep -q ': 2 signatures'`,
		"the .changes file lists what is there": `(cd signed && sed -n '/^Checksums-Sha256/,/^Files/p' *.changes | awk '/^ / {print $1 "  " $3}' | sha256sum --quiet -c)`,
	} {
		t.Run(strings.ReplaceAll(claim, " ", "_"), func(t *testing.T) { runIn(t, dir, check) })
	}
}
