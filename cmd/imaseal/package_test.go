package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/imaseal/imaseal/deb/dpkg"
)

const packageScript = "../../scripts/package"

// buildPackages runs scripts/package and returns what it made by name.
func buildPackages(env []string, args ...string) (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "packages-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command(packageScript, append(args, dir)...)
	// A developer's repository may get a commit at any time.
	cmd.Env = append(append(os.Environ(), "VERSION=0.0.1~test", "SOURCE_DATE_EPOCH=1700000000"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("scripts/package: %w: %s", err, out)
	}
	made := map[string][]byte{}
	found, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		if made[f.Name()], err = os.ReadFile(filepath.Join(dir, f.Name())); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// ownPackages are imaseal's own packages for this machine, not signed.
var ownPackages = sync.OnceValues(func() (map[string][]byte, error) {
	arch, err := exec.Command("dpkg", "--print-architecture").Output()
	if err != nil {
		return nil, err
	}
	return buildPackages(nil, "--arch", strings.TrimSpace(string(arch)))
})

// writePackages lays imaseal's own packages into dir.
func writePackages(t *testing.T, dir string) {
	t.Helper()
	made, err := ownPackages()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range made {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPackages has dpkg, rpm, lintian and rpmlint judge imaseal's own packages, for
// all machines, and builds them twice.
func TestPackages(t *testing.T) {
	needTools(t, "git", "dpkg-deb", "lintian", "rpm", "rpmbuild", "rpmlint")
	first, err := buildPackages([]string{"TZ=Pacific/Auckland"})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var names []string
	for name, content := range first {
		names = append(names, name)
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(names)
	if want := []string{
		"imaseal-0.0.1~test-1.aarch64.rpm", "imaseal-0.0.1~test-1.x86_64.rpm",
		"imaseal-installer_0.0.1~test_amd64.deb", "imaseal-installer_0.0.1~test_arm64.deb", "imaseal-installer_0.0.1~test_armhf.deb",
		"imaseal-rpm-trigger-0.0.1~test-1.noarch.rpm",
		"imaseal_0.0.1~test_amd64.deb", "imaseal_0.0.1~test_arm64.deb", "imaseal_0.0.1~test_armhf.deb",
	}; !slices.Equal(names, want) {
		t.Errorf("the packages are %v", names)
	}

	t.Run("the same bytes again", func(t *testing.T) {
		home := t.TempDir() // of a user with other settings
		cache := runIn(t, ".", "go env GOCACHE GOMODCACHE GOPATH")
		dirs := strings.Fields(cache)
		again, err := buildPackages([]string{
			"TZ=UTC", "LC_ALL=C.UTF-8", "TMPDIR=" + t.TempDir(), "HOME=" + home,
			"GOCACHE=" + dirs[0], "GOMODCACHE=" + dirs[1], "GOPATH=" + dirs[2],
		}, "--arch", "amd64")
		if err != nil {
			t.Fatal(err)
		}
		if len(again) != 4 {
			t.Errorf("%d packages are for amd64 or for every machine", len(again))
		}
		for name, content := range again {
			if !bytes.Equal(content, first[name]) {
				t.Errorf("%s differs: %x and %x", name, sha256.Sum256(content), sha256.Sum256(first[name]))
			}
		}
	})
	t.Run("lintian", func(t *testing.T) {
		out, err := exec.Command("bash", "-c", "cd "+dir+" && lintian --allow-root --fail-on error,warning *_amd64.deb").CombinedOutput()
		if err != nil || bytes.Contains(out, []byte("E:")) {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("rpmlint", func(t *testing.T) {
		config, _ := filepath.Abs("../../scripts/package.d/rpmlint.toml")
		out := runIn(t, dir, "rpmlint -c "+config+" *.rpm")
		if !strings.Contains(out, " 0 errors,") {
			t.Error(out)
		}
	})
	t.Run("what is in them", func(t *testing.T) {
		files := runIn(t, dir, `for deb in *_amd64.deb; do dpkg-deb --fsys-tarfile $deb | tar -t; dpkg-deb -f $deb; done; rpm -qlp *.x86_64.rpm; rpm -qp --suggests *.x86_64.rpm`)
		for _, want := range []string{
			"./usr/bin/imaseal\n", "./usr/lib/imaseal/dpkg-deb\n", "./etc/imaseal/install.conf\n", "./etc/imaseal/install.conf.d/\n",
			"./etc/imaseal/certs/\n", "./etc/logrotate.d/imaseal\n", "./usr/share/man/man1/imaseal-sign.1.gz\n", "./usr/share/man/man1/imaseal-hook-enable.1.gz\n",
			"./usr/share/man/man5/imaseal-install.conf.5.gz\n", "./usr/share/man/man8/imaseal-dpkg-deb.8.gz\n",
			"./usr/share/bash-completion/completions/imaseal\n", "./usr/share/zsh/vendor-completions/_imaseal\n", "./usr/share/fish/vendor_completions.d/imaseal.fish\n",
			"./usr/share/doc/imaseal/copyright\n", "./usr/share/doc/imaseal-installer/changelog.gz\n", "./usr/share/doc/imaseal/third-party-notices.gz\n",
			"\n/usr/share/licenses/imaseal/LICENSE\n", "\n/usr/share/man/man1/imaseal-sign.1.gz\n", "\n/usr/share/zsh/site-functions/_imaseal\n", "\nrpm-plugin-ima",
		} {
			if !strings.Contains(files, want) {
				t.Errorf("%q is missing", want)
			}
		}
		conffiles := runIn(t, dir, `dpkg-deb -I imaseal-installer_*_amd64.deb conffiles`)
		if conffiles != "/etc/imaseal/boot.conf\n/etc/imaseal/install.conf\n/etc/logrotate.d/imaseal\n" {
			t.Errorf("conffiles are %q", conffiles)
		}
	})
	t.Run("rpm installs them", func(t *testing.T) {
		arch := strings.TrimSpace(runIn(t, dir, "uname -m"))
		// --nodeps: the scratch root has no rpm for the trigger to need.
		out := runIn(t, dir, `mkdir -p rpmroot && rpm --root $PWD/rpmroot --initdb && rpm -U --root $PWD/rpmroot --nodeps --nosignature --noscripts --notriggers imaseal-0*.`+arch+`.rpm && rpm -V --root $PWD/rpmroot --nodeps imaseal && rpm -q --root $PWD/rpmroot imaseal && rpmroot/usr/bin/imaseal help >/dev/null`)
		if !strings.Contains(out, "imaseal-0.0.1~test-1") {
			t.Error(out)
		}
	})
	t.Run("they say what they are", func(t *testing.T) {
		said := runIn(t, dir, `for deb in *.deb; do rm -rf root; dpkg-deb -x $deb root; file -b root/usr/bin/imaseal root/usr/lib/imaseal/dpkg-deb 2>/dev/null | grep ELF | sed "s/^/$deb: /"; done`)
		for arch, machine := range map[string]string{"amd64": "x86-64", "arm64": "ARM aarch64", "armhf": "32-bit LSB executable, ARM, EABI5"} {
			if n := len(regexp.MustCompile(arch+`\.deb: .*`+machine+`.*statically linked.*stripped`).FindAllString(said, -1)); n != 2 {
				t.Errorf("%d programs are for %s:\n%s", n, arch, said)
			}
		}
	})
}

// TestPackagesSigned has imaseal sign its own packages.
func TestPackagesSigned(t *testing.T) {
	needTools(t, "git", "dpkg-deb", "rpm", "rpmbuild")
	dir := t.TempDir()
	runIn(t, dir, "imaseal keys init --dir keys --no-passphrase")
	made, err := buildPackages(nil, "--arch", "amd64", "--key", filepath.Join(dir, "keys/signing.key"), "--cert", filepath.Join(dir, "keys/signing.crt"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range made {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out := runIn(t, dir, "imaseal verify --require all --cert keys/signing.crt .")
	if n := strings.Count(out, "  ok\n"); n != 4 {
		t.Errorf("%d packages are good, not 4:\n%s", n, out)
	}
}

// TestInstallConf holds the configuration that the package brings to what holds
// without one: each line behind # can be taken as it is.
func TestInstallConf(t *testing.T) {
	text, err := os.ReadFile("../../scripts/package.d/install.conf")
	if err != nil {
		t.Fatal(err)
	}
	setting := regexp.MustCompile(`(?m)^#([a-z-]+ =.*)$`)
	settings := setting.ReplaceAllString(string(text), "$1")
	c := dpkg.DefaultConfig()
	if problems := dpkg.ReadConfig(&c, "install.conf", strings.NewReader(settings)); len(problems) > 0 {
		t.Error(problems)
	}
	if fmt.Sprint(c) != fmt.Sprint(dpkg.DefaultConfig()) {
		t.Errorf("the lines mean %+v, and without them it is %+v", c, dpkg.DefaultConfig())
	}
	manual, err := os.ReadFile("../../docs/man/imaseal-install.conf.5")
	if err != nil {
		t.Fatal(err)
	}
	found := setting.FindAllStringSubmatch(string(text), -1)
	if len(found) < 6 {
		t.Errorf("only %d settings are listed", len(found))
	}
	for _, m := range found {
		key, value, _ := strings.Cut(m[1], " =")
		value = strings.TrimSpace(value)
		if !regexp.MustCompile(`(?m)^\.BI? "?` + key + `"? ("?= )?.*` + value).MatchString(string(manual)) {
			t.Errorf("the manual does not describe %s = %s", key, value)
		}
	}
}
