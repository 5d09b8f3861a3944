package layout

import (
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/keys/ca"
)

// bootScene runs in a user namespace, whose keyrings are its own, and in a root of the
// machine's programs with the files of a layout: first the hook, as mkinitramfs does,
// then, in what the hook made, the script.
const bootScene = `
set -e
cd "$1"
mkdir -p usr proc dev dest scripts
for name in bin sbin lib lib64; do [ ! -e /$name ] || ln -s usr/$name $name; done
mount --rbind /usr usr
mount --rbind /proc proc
mount --rbind /dev dev
mount -t tmpfs none usr/share
mkdir usr/share/initramfs-tools
echo 'copy_exec() { mkdir -p "$DESTDIR${2%/*}" && cp "$1" "$DESTDIR$2"; }' >usr/share/initramfs-tools/hook-functions
echo 'log_failure_msg() { echo "failure: $*"; }' >scripts/functions
DESTDIR=/dest chroot . /etc/initramfs-tools/hooks/imaseal-keys
test -x dest/usr/bin/keyctl
rm -r etc
cp -r dest/etc .
for again in 1 2; do chroot . /boot-script; done
chroot . keyctl show @u
cat /proc/keys
`

// The scripts of the layout for initramfs-tools are run by a shell, and the keys of
// the kernel are looked at.
func TestLayoutForInitramfsToolsLoadsKeys(t *testing.T) {
	need(t, "unshare", "keyctl", "chroot")
	if out, err := exec.Command("unshare", "--user", "--map-root-user", "--mount", "true").CombinedOutput(); err != nil {
		t.Skipf("no user namespaces here: %s", out)
	}
	// RSA, which every kernel takes.
	cert := initKeys(t, ca.InitOptions{Dir: t.TempDir(), Type: "rsa2048"}).Signing[0].Certificate
	other := initKeys(t, ca.InitOptions{Dir: t.TempDir(), Type: "rsa2048"}).Signing[0].Certificate
	l, err := New(Options{For: "initramfs-tools", Certs: []*x509.Certificate{cert, other},
		Config: configOf(t, "CONFIG_IMA_LOAD_X509=y\nCONFIG_IMA_X509_PATH=\"/etc/keys/own.der\"\n")})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	place(t, l, dir, PlaceOptions{})
	// The hook does not take scripts along: mkinitramfs does.
	script, err := os.ReadFile(filepath.Join(dir, "etc/initramfs-tools/scripts/init-bottom/imaseal-keys"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "boot-script"), script, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "etc/keys/ima/broken.der"), []byte("no certificate"))
	out, err := exec.Command("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", bootScene, "sh", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text := string(out)
	if strings.Contains(text, " .ima: ") {
		t.Skip("this kernel has a trusted keyring, which takes no certificate of ours")
	}
	for _, c := range []*x509.Certificate{cert, other} {
		id, _, err := keys.KeyID(c, c.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text, "X509.rsa "+id.String()+" []") {
			t.Errorf("key %s is not in the kernel:\n%s", id, text)
		}
	}
	// The second time its keys take the place of the first ones, in the same keyring.
	if rings, in := strings.Count(text, "\\_ keyring: _ima"), strings.Count(text, "\\_ asymmetric: "); rings != 1 || in != 2 {
		t.Errorf("%d keyrings with %d keys, not one with two:\n%s", rings, in, text)
	}
	if n := strings.Count(text, "failure: imaseal-keys: the kernel does not take certificate /etc/keys/ima/broken.der"); n != 2 {
		t.Errorf("the certificate that is none was told %d times, not 2:\n%s", n, text)
	}
	if content, err := os.ReadFile(filepath.Join(dir, "dest/etc/keys/own.der")); err != nil || string(content) != string(cert.Raw) {
		t.Errorf("the kernel's own certificate is not in the initramfs: %v", err)
	}
}
