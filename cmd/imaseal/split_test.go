package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// splitScene makes what docs/split.md begins with: 150 .debs and 150 RPMs. One spec has
// them all, as starting rpmbuild is what takes time.
const splitScene = `
mkdir -p build/packages signer rpm tree/DEBIAN tree/usr/bin tree/usr/share/split
printf '#!/bin/sh\n' > tree/DEBIAN/postinst
chmod 755 tree/DEBIAN/postinst
{
	printf 'Name: split\nVersion: 1\nRelease: 1\nSummary: a test\nLicense: MIT\nBuildArch: noarch\n%%description\nA test.\n'
	for n in $(seq 150); do
		printf '%%package -n split-r%s\nSummary: a test\n%%description -n split-r%s\nA test.\n%%files -n split-r%s\n/usr/bin/split-r%s\n/usr/share/split-r%s\n' $n $n $n $n $n
	done
	printf '%%install\nmkdir -p %%{buildroot}/usr/bin\nfor n in $(seq 150); do\n'
	printf 'mkdir -p %%{buildroot}/usr/share/split-r$n\necho "$n" > %%{buildroot}/usr/bin/split-r$n\necho same > %%{buildroot}/usr/share/split-r$n/same\nln %%{buildroot}/usr/share/split-r$n/same %%{buildroot}/usr/share/split-r$n/link\ndone\n'
} > split.spec
rpmbuild -bb --quiet --define "_topdir $PWD/rpm" --define '_build_id_links none' split.spec
mv rpm/RPMS/noarch/*.rpm build/packages
for n in $(seq 150); do
	printf 'Package: split-d%s\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: a test\n' $n > tree/DEBIAN/control
	echo "$n" > tree/usr/bin/split
	echo same > tree/usr/share/split/same
	dpkg-deb --root-owner-group -Zgzip -z1 -b tree build/packages/split-d${n}_1_all.deb >/dev/null
done
cp -r build/packages unsigned
`

// documented finds the commands among the indented lines.
var documented = regexp.MustCompile(`^(imaseal|cp|printf|\(cd) `)

// TestSplitSigningAsDocumented runs all commands of docs/split.md as they are printed,
// and compares every package with what sign makes of it.
func TestSplitSigningAsDocumented(t *testing.T) {
	needTools(t, "dpkg-deb", "rpmbuild")
	text, err := os.ReadFile("../../docs/split.md")
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	for line := range strings.Lines(string(text)) {
		command, ok := strings.CutPrefix(line, "    ")
		if ok && documented.MatchString(command) && !strings.Contains(command, "─►") {
			commands = append(commands, command)
		}
	}
	if len(commands) != 11 {
		t.Fatalf("%d commands found: %q", len(commands), commands)
	}
	dir := t.TempDir()
	runIn(t, dir, splitScene)
	t.Log(runIn(t, dir, strings.Join(commands, "")))

	runIn(t, dir, "imaseal sign --quiet --key signer/keys/signing.key --cert signer/keys/signing.crt --output direct build/packages")
	runIn(t, dir, "cmp build/request signer/request && diff -r build/packages unsigned")
	signed, err := filepath.Glob(filepath.Join(dir, "build/signed/*"))
	if err != nil || len(signed) != 300 {
		t.Fatalf("%d packages are signed, %v", len(signed), err)
	}
	for _, path := range signed {
		ours, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		direct, err := os.ReadFile(filepath.Join(dir, "direct", filepath.Base(path)))
		if err != nil {
			t.Fatal(err)
		}
		before, err := os.ReadFile(filepath.Join(dir, "unsigned", filepath.Base(path)))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(ours, direct) || bytes.Equal(ours, before) {
			t.Errorf("%s is not what sign makes", filepath.Base(path))
		}
	}
	// 150 .debs of two files and a script, 150 RPMs of three files.
	log := runIn(t, dir, "cat signer/audit.log")
	if !strings.Contains(log, `"requester":"build host 7"`) || !strings.Contains(log, `"packages":300,"digests":900,`) || !strings.Contains(log, `"outcome":"signed"`) {
		t.Errorf("the log has\n%s", log)
	}

	runIn(t, dir, "cmp build/request signer/requests/$(sha256sum < build/request | cut -c 1-64)")

	// The same request again gives the same response, in one package or in all.
	runIn(t, dir, "imaseal sign-digests --quiet --key signer/keys/signing.key --cert signer/keys/signing.crt --output again signer/request && cmp again signer/response")
	// Packages that were exchanged under their names still find their own signatures.
	runIn(t, dir, `
		cp -r unsigned swapped
		cd swapped
		mv split-d1_1_all.deb x && mv split-d2_1_all.deb split-d1_1_all.deb && mv x split-d2_1_all.deb
		imaseal embed --quiet --cert ../signer/keys/signing.crt ../signer/response split-d1_1_all.deb split-d2_1_all.deb
		cmp split-d1_1_all.deb ../direct/split-d2_1_all.deb
		cmp split-d2_1_all.deb ../direct/split-d1_1_all.deb`)
	// A forged statement that was listed as a file is found in the requests as documented.
	runIn(t, dir, `
		mkdir requests
		printf 'Format: imaseal-package-1\nPackage: sudo\nVersion: 9\n' > body
		digest=$(sha256sum < body | cut -c 1-64)
		sed "0,/^file [0-9a-f]*/s//file $digest/" build/request > requests/bad
		cp build/request requests/good
		sha256sum < body | cut -c 1-64 | grep -lf - requests/* | grep -qx requests/bad`)
}
