package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/xattr"
)

// systemExampleScene makes the system root, with the names that the examples use:
// signed packages, one of them installed unsigned, an image, and local files.
const systemExampleScene = `
mkdir -p work/debs
for name in hello openssh-server; do
	mkdir -p work/$name/DEBIAN work/$name/usr/bin
	printf 'Package: %s\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <n@example.org>\nDescription: a test\n' $name > work/$name/DEBIAN/control
	printf '#!/bin/sh\nexec %s\n' $name > work/$name/usr/bin/$name
	chmod 755 work/$name/usr/bin/$name
	dpkg-deb --root-owner-group -b work/$name work/debs/$name.deb > /dev/null
done
imaseal keys init --dir root/keys --no-passphrase > /dev/null
imaseal keys init --dir root/old --no-passphrase > /dev/null
cp root/keys/signing.key root/local.key
cp root/keys/signing.crt root/local.crt
imaseal sign --quiet --key root/keys/signing.key --cert root/keys/signing.crt --output root/signed work/debs > /dev/null
for system in root root/srv/image; do
	mkdir -p $system/var/lib/dpkg/info $system/var/lib/dpkg/updates
	: > $system/var/lib/dpkg/status
	dpkg --root=$PWD/$system --log=/dev/null --force-script-chrootless -i work/debs/hello.deb root/signed/openssh-server.deb > /dev/null
done
mkdir -p root/proc root/etc/imaseal/certs root/etc/cron.daily root/usr/local/bin root/opt
cp root/keys/signing.crt root/etc/imaseal/certs
printf '#!/bin/sh\n' | tee root/usr/local/bin/backup root/etc/cron.daily/backup > root/opt/run
imaseal apply --quiet --root root --from root/signed --cert root/keys/signing.crt > /dev/null
imaseal apply --quiet --root root/srv/image --from root/signed --cert root/keys/signing.crt > /dev/null
`

// TestSystemExamples runs the examples of the verbs for installed systems as they are
// printed, in a root of their own in which nothing but the command is.
func TestSystemExamples(t *testing.T) {
	needTools(t, "dpkg", "go", "unshare")
	dir := t.TempDir()
	root, err := xattr.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := root.Probe(sign.XattrName, []byte{3, 2, 4, 0, 0, 0, 1, 0, 1, 1}); err != nil {
		t.Skipf("no labels can be set here: %v", err)
	}
	if out, err := exec.Command("unshare", "--mount", "true").CombinedOutput(); err != nil {
		t.Skipf("no mount namespaces here: %s", out)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "root/usr/bin/imaseal"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	runIn(t, dir, systemExampleScene)
	in := func(line string) string {
		return runIn(t, dir, `unshare --mount sh -c 'mount -t proc proc root/proc && exec env PATH=/usr/bin:/usr/sbin:/bin:/sbin chroot root "$@"' sh `+line)
	}
	for _, verb := range []string{"apply", "check", "clear", "sign-file"} {
		lines := exampleLines(in("imaseal help " + verb))
		if len(lines) < 3 {
			t.Errorf("%s has only the examples %q", verb, lines)
		}
		for _, line := range lines {
			t.Logf("%s\n%s", line, in(line))
		}
	}
	for path, want := range map[string]bool{
		"usr/local/bin/backup": true, "etc/cron.daily/backup": true, "opt/run": true, "usr/bin/imaseal": false,
		"usr/bin/hello": false, "usr/bin/openssh-server": true, "srv/image/usr/bin/hello": false,
	} {
		f, err := root.Open("root/" + path)
		if err != nil {
			t.Fatal(err)
		}
		label, err := f.Get(sign.XattrName)
		f.Close()
		if got := label != nil; err != nil || got != want {
			t.Errorf("%s: labelled is %v, %v", path, got, err)
		}
	}
	if out := in("imaseal check || true"); !strings.Contains(out, "no label") {
		t.Errorf("after clear check found\n%s", out)
	}
}
