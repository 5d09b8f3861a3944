package layout

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/keys/ca"
	"github.com/imaseal/imaseal/keys/kernel"
)

// madeKeys makes a CA with a signing key below dir.
func madeKeys(t testing.TB, dir string) (caCert, cert *x509.Certificate) {
	t.Helper()
	made := initKeys(t, ca.InitOptions{Dir: dir, Type: "p256"})
	cas, err := keys.LoadCertificates(made.CACert)
	if err != nil {
		t.Fatal(err)
	}
	return cas[0], made.Signing[0].Certificate
}

func configOf(t testing.TB, text string) *kernel.Config {
	t.Helper()
	c, err := kernel.ReadConfig(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLayouts(t *testing.T) {
	caCert, cert := madeKeys(t, t.TempDir())
	id, _, err := keys.KeyID(cert, cert.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	caID, _, err := keys.KeyID(caCert, caCert.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	loads := configOf(t, "CONFIG_IMA_LOAD_X509=y\nCONFIG_IMA_X509_PATH=\"/etc/keys/own.der\"\n")
	der := id.String() + ".der"
	for _, test := range []struct {
		system string
		cas    []*x509.Certificate
		config *kernel.Config
		want   []string
	}{
		{"debian", nil, nil, []string{"etc/imaseal/certs/" + der}},
		{"debian", nil, loads, []string{"etc/imaseal/certs/" + der, "etc/keys/own.der"}},
		{"dracut", nil, nil, []string{"etc/keys/ima/" + der, "etc/dracut.conf.d/98-imaseal.conf"}},
		{"dracut", nil, loads, []string{"etc/keys/ima/" + der, "etc/keys/own.der", "etc/dracut.conf.d/98-imaseal.conf"}},
		{"fedora", nil, nil, []string{"etc/keys/ima/" + der, "etc/dracut.conf.d/98-imaseal.conf"}},
		{"fedora", []*x509.Certificate{caCert}, nil, []string{"etc/keys/ima/" + der, "etc/dracut.conf.d/98-imaseal.conf", "etc/keys/mok/" + caID.String() + ".der"}},
		{"initramfs-tools", nil, nil, []string{"etc/keys/ima/" + der, "etc/initramfs-tools/hooks/imaseal-keys", "etc/initramfs-tools/scripts/init-bottom/imaseal-keys"}},
		{"mok", []*x509.Certificate{caCert}, nil, []string{"etc/keys/mok/" + caID.String() + ".der"}},
	} {
		l, err := New(Options{For: test.system, Certs: []*x509.Certificate{cert, cert}, CAs: test.cas, Config: test.config})
		if err != nil {
			t.Errorf("%s: %v", test.system, err)
			continue
		}
		var got []string
		for _, f := range l.Files {
			got = append(got, f.Path)
			if strings.Contains(string(f.Content), "@X509@") {
				t.Errorf("%s: the placeholder is left in", f.Path)
			}
			wantsOwn := test.config != nil && f.Path == "etc/dracut.conf.d/98-imaseal.conf"
			if wantsOwn && !strings.Contains(string(f.Content), `install_items+=" /etc/keys/own.der "`) {
				t.Errorf("%s does not take the kernel's own certificate along:\n%s", f.Path, f.Content)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, not %q", test.system, got, test.want)
		}
		if len(l.Next) == 0 {
			t.Errorf("%s: nothing is said of what comes next", test.system)
		}
	}

	l, err := New(Options{For: "initramfs-tools", Certs: []*x509.Certificate{cert}, Config: loads})
	if err != nil {
		t.Fatal(err)
	}
	hook := slices.IndexFunc(l.Files, func(f File) bool { return strings.HasSuffix(f.Path, "hooks/imaseal-keys") })
	if text := string(l.Files[hook].Content); !strings.Contains(text, "in /etc/keys/ima/*.der /etc/keys/own.der; do") {
		t.Errorf("the hook does not take the kernel's own certificate along:\n%s", text)
	}
}

func TestNewRefuses(t *testing.T) {
	caCert, cert := madeKeys(t, t.TempDir())
	twin := *cert // another key that claims the same identifier
	_, other := madeKeys(t, t.TempDir())
	twin.PublicKey, twin.Raw = other.PublicKey, other.Raw
	renewed := *cert
	renewed.Raw = other.Raw
	odd := configOf(t, "CONFIG_IMA_LOAD_X509=y\nCONFIG_IMA_X509_PATH=\"/etc/$(reboot)\"\n")
	for _, test := range []struct {
		name string
		o    Options
		want string
	}{
		{"no system", Options{Certs: []*x509.Certificate{cert}}, "fedora"},
		{"no certificate", Options{For: "debian"}, "--cert"},
		{"a CA that is to sign", Options{For: "debian", Certs: []*x509.Certificate{caCert}}, "--ca-cert"},
		{"machine owner keys without a CA", Options{For: "mok", Certs: []*x509.Certificate{cert}}, "--ca-cert"},
		{"two keys with one key id", Options{For: "debian", Certs: []*x509.Certificate{cert, &twin}}, "same key id"},
		{"two certificates of one key", Options{For: "debian", Certs: []*x509.Certificate{cert, &renewed}}, "one key"},
		{"a path that a shell would run", Options{For: "dracut", Certs: []*x509.Certificate{cert}, Config: odd}, "IMA_X509_PATH"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := New(test.o)
			checkError(t, err, test.want)
		})
	}
}

// What dracut's ima-keys-load.sh does with each file in /etc/keys/ima.
func TestLayoutIsImportedByEvmctl(t *testing.T) {
	need(t, "evmctl", "keyctl")
	rsa := initKeys(t, ca.InitOptions{Dir: t.TempDir(), Type: "rsa2048"}).Signing[0].Certificate
	l, err := New(Options{For: "dracut", Certs: []*x509.Certificate{rsa}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	place(t, l, dir, PlaceOptions{})
	script := `ring=$(keyctl newring _imaseal_test @s) && for key in "$1"/etc/keys/ima/*; do evmctl import "$key" "$ring" >/dev/null; done; cat /proc/keys`
	out := run(t, "keyctl", "session", "-", "sh", "-c", script, "sh", dir)
	id, _, err := keys.KeyID(rsa, rsa.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "X509.rsa "+id.String()+" []") {
		t.Errorf("key %s is not in the kernel:\n%s", id, out)
	}
}

// The scripts that go to a machine are for the shell of an initramfs.
func TestLayoutScriptsAreShell(t *testing.T) {
	for name, text := range map[string]string{"hook": initramfsHook, "script": initramfsScript} {
		file := writeFile(t, filepath.Join(t.TempDir(), name), []byte(text))
		run(t, "sh", "-n", file)
		if !strings.Contains(text, ownFile) {
			t.Errorf("%s does not say who made it", name)
		}
	}
	if !strings.Contains(dracutConf, ownFile) {
		t.Error("the file for dracut does not say who made it")
	}
	run(t, "bash", "-c", "add_dracutmodules=; . ./dracut.conf; [ \"$add_dracutmodules\" = ' integrity ' ]")
}

// place places a layout below dir.
func place(t testing.TB, l *Layout, dir string, o PlaceOptions) []string {
	t.Helper()
	actions, err := tryPlace(t, l, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return actions
}

func tryPlace(t testing.TB, l *Layout, dir string, o PlaceOptions) (actions []string, err error) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	placed, err := l.Place(t.Context(), root, o)
	for _, f := range placed {
		actions = append(actions, f.Action)
	}
	return actions, err
}
