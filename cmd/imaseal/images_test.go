package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// imagesScene makes a signed repository of the packages that a root of scripts/debian-root
// was made from, and imaseal's own.
const imagesScene = `
imaseal keys init --dir keys --no-passphrase
cp keys/signing.crt .
rm -f imaseal-rpm-trigger* *.rpm
mkdir -p repo/pool repo/dists/bookworm/main/binary-$arch
cp "$root"/var/cache/apt/archives/*.deb repo/pool/
imaseal sign --quiet --key keys/signing.key --cert keys/signing.crt repo/pool ./*.deb
cp ./*.deb repo/pool/
cd repo
apt-ftparchive packages pool > dists/bookworm/main/binary-$arch/Packages
apt-ftparchive -o APT::FTPArchive::Release::Codename=bookworm -o APT::FTPArchive::Release::Components=main \
	-o APT::FTPArchive::Release::Architectures=$arch release dists/bookworm > Release
mv Release dists/bookworm/
`

// pageCommands returns the commands of a section of docs/target.md.
func pageCommands(t *testing.T, section string) string {
	t.Helper()
	return commandsOf(t, "target.md", section)
}

// commandsOf returns the commands of a section of a page in docs.
func commandsOf(t *testing.T, page, section string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n## "+section+"\n")
	rest, _, _ = strings.Cut(rest, "\n## ")
	var commands strings.Builder
	for line := range strings.Lines(rest) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			commands.WriteString(command)
		}
	}
	return commands.String()
}

// TestImages makes images by the commands of docs/target.md, as they are printed, and
// looks at what mmdebstrap and debootstrap left.
func TestImages(t *testing.T) {
	needTools(t, "mmdebstrap", "debootstrap", "apt-ftparchive", "getfattr")
	m := newMachine(t, "bookworm") // for its root only
	dir := t.TempDir()
	writePackages(t, dir)
	runIn(t, dir, imagesScene, "root="+m.lower, "arch="+strings.TrimSpace(runIn(t, dir, "dpkg --print-architecture")))
	commands := pageCommands(t, "Images")
	if n := strings.Count(commands, "\n"); n < 12 {
		t.Fatalf("only %d commands found:\n%s", n, commands)
	}
	claims := map[string]string{
		"every package of image-c went through the hook": `test $(grep -c '"result":"labelled","verified":true' image-c/var/log/imaseal/install.log) = $(grep -c '^Package:' image-c/var/lib/dpkg/status)`,
		"dpkg of image-c finds nothing wrong":            `chroot image-c dpkg --audit && chroot image-c dpkg --verify && chroot image-c dpkg-deb --version`,
		"the hook of image-c has dpkg-deb's name":        `cmp image-c/usr/bin/dpkg-deb image-c/usr/lib/imaseal/dpkg-deb`,
		"the archive kept the labels":                    `cmp <(cd image-c && getfattr -R -d -m security.ima . | sort) <(cd image-d && getfattr -R -d -m security.ima . | sort)`,
		"no name of image-c is another's or nobody's":    `imaseal check --root image-c --unowned`,
		"no name of image-e is another's or nobody's":    `imaseal check --root image-e --unowned`,
		"dpkg of image-e finds nothing wrong":            `chroot image-e dpkg --audit && chroot image-e dpkg --verify && imaseal hook status --root image-e`,
		"image-b has labels":                             `getfattr -m security.ima image-b/usr/bin/dpkg | grep -q security.ima`,
		"nothing of the hook is in image-a":              `! test -e image-a/usr/lib/imaseal && ! grep -q imaseal image-a/var/lib/dpkg/status`,
	}
	for claim, check := range claims {
		commands += fmt.Sprintf("if (%s); then echo %q; fi\n", check, "HOLDS: "+claim)
	}
	if err := os.WriteFile(filepath.Join(dir, "commands"), []byte(commands), 0o644); err != nil {
		t.Fatal(err)
	}
	// debootstrap mounts into the image. In memory dpkg's many syncs take no time.
	out := runIn(t, dir, `unshare --mount bash -euo pipefail -c '
mkdir memory
mount -t tmpfs -o mode=755 memory memory
cp -r repo signing.crt commands ./*.deb memory/
cd memory
bash -euxo pipefail commands 2>&1'`)
	t.Log(out[max(0, len(out)-6000):])
	for claim := range claims {
		if !strings.Contains(out, "\nHOLDS: "+claim) {
			t.Errorf("it does not hold that %s", claim)
		}
	}
}

// TestFleet labels what was installed unsigned, by the commands of docs/target.md.
func TestFleet(t *testing.T) {
	m := newMachine(t, "bookworm")
	m.signedHello()
	m.run("apt-get install ./imaseal_*.deb && mkdir signed && mv hello_*.deb signed/ && cp -r signed unsigned && imaseal unsign --quiet unsigned && apt-get install ./unsigned/hello_*.deb")
	m.run("mkdir -p /etc/imaseal/certs && cp signing.crt /etc/imaseal/certs/")
	if out := m.onHost(`cd "$system" && getfattr --absolute-names -m security.ima usr/bin/hello`); strings.Contains(out, "security.ima") {
		t.Fatal("the unsigned package has labels")
	}
	out := m.run(pageCommands(t, "A machine that runs the unsigned build already"))
	t.Log(out)
	if labels := m.onHost(`cd "$system" && getfattr --absolute-names -m security.ima usr/bin/hello var/lib/dpkg/info/hello.postinst`); strings.Count(labels, "security.ima") != 2 {
		t.Errorf("the labels are %s", labels)
	}
}
