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

// ownPackages are imaseal's own packages for this machine, not signed. They are built by
// a user with settings of their own, so that TestPackages can compare.
var ownPackages = sync.OnceValues(func() (map[string][]byte, error) {
	arch, err := exec.Command("dpkg", "--print-architecture").Output()
	if err != nil {
		return nil, err
	}
	caches, err := exec.Command("go", "env", "GOCACHE", "GOMODCACHE", "GOPATH").Output()
	if err != nil {
		return nil, err
	}
	home, err := os.MkdirTemp("", "home-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(home)
	dirs := strings.Fields(string(caches))
	return buildPackages([]string{
		"TZ=UTC", "LC_ALL=C.UTF-8", "TMPDIR=" + home, "HOME=" + home,
		"GOCACHE=" + dirs[0], "GOMODCACHE=" + dirs[1], "GOPATH=" + dirs[2],
	}, "--arch", strings.TrimSpace(string(arch)))
})

// writePackages lays imaseal's own packages for installed systems into dir.
func writePackages(t *testing.T, dir string) {
	t.Helper()
	made, err := ownPackages()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range made {
		if strings.HasPrefix(name, "imaseal-kms-") {
			continue // they sign, elsewhere
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPackages has dpkg, rpm, lintian and rpmlint judge imaseal's own packages, for
// all machines. They are built signed, which unsign takes off again; those for this
// machine are built twice.
func TestPackages(t *testing.T) {
	needTools(t, "git", "cpio", "dpkg-deb", "lintian", "rpm", "rpmbuild", "rpmlint", "objdump")
	scratch, dir := t.TempDir(), t.TempDir()
	runIn(t, scratch, "imaseal keys init --dir keys --no-passphrase")
	signed, err := buildPackages([]string{"TZ=Pacific/Auckland"}, "--key", filepath.Join(scratch, "keys/signing.key"), "--cert", filepath.Join(scratch, "keys/signing.crt"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name, content := range signed {
		names = append(names, name)
		if err := os.WriteFile(filepath.Join(scratch, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out := runIn(t, scratch, "imaseal verify --require all --cert keys/signing.crt .")
	if n := strings.Count(out, "  ok\n"); n != len(names) {
		t.Errorf("%d packages of %d are good:\n%s", n, len(names), out)
	}
	runIn(t, scratch, "imaseal unsign --quiet --output "+dir+" .")
	slices.Sort(names)
	if want := []string{
		"imaseal-0.0.1~test-1.aarch64.rpm", "imaseal-0.0.1~test-1.x86_64.rpm",
		"imaseal-installer_0.0.1~test_amd64.deb", "imaseal-installer_0.0.1~test_arm64.deb", "imaseal-installer_0.0.1~test_armhf.deb",
		"imaseal-kms-aws-0.0.1~test-1.aarch64.rpm", "imaseal-kms-aws-0.0.1~test-1.x86_64.rpm",
		"imaseal-kms-aws_0.0.1~test_amd64.deb", "imaseal-kms-aws_0.0.1~test_arm64.deb", "imaseal-kms-aws_0.0.1~test_armhf.deb",
		"imaseal-kms-azure-0.0.1~test-1.aarch64.rpm", "imaseal-kms-azure-0.0.1~test-1.x86_64.rpm",
		"imaseal-kms-azure_0.0.1~test_amd64.deb", "imaseal-kms-azure_0.0.1~test_arm64.deb", "imaseal-kms-azure_0.0.1~test_armhf.deb",
		"imaseal-kms-gcp-0.0.1~test-1.aarch64.rpm", "imaseal-kms-gcp-0.0.1~test-1.x86_64.rpm",
		"imaseal-kms-gcp_0.0.1~test_amd64.deb", "imaseal-kms-gcp_0.0.1~test_arm64.deb", "imaseal-kms-gcp_0.0.1~test_armhf.deb",
		"imaseal-rpm-trigger-0.0.1~test-1.noarch.rpm",
		"imaseal_0.0.1~test_amd64.deb", "imaseal_0.0.1~test_arm64.deb", "imaseal_0.0.1~test_armhf.deb",
	}; !slices.Equal(names, want) {
		t.Errorf("the packages are %v", names)
	}

	t.Run("the same bytes again", func(t *testing.T) {
		again, err := ownPackages()
		if err != nil {
			t.Fatal(err)
		}
		if len(again) != 10 {
			t.Errorf("%d packages are for this machine or for every one", len(again))
		}
		for name, content := range again {
			first, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil || !bytes.Equal(content, first) {
				t.Errorf("%s differs: %x and %x, %v", name, sha256.Sum256(content), sha256.Sum256(first), err)
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
		// nfpm writes absolute names, and the cpio that rpmlint runs would follow them out
		// of its folder, onto this machine, where rpmlint does not look.
		out := runIn(t, dir, `mkdir within
printf '#!/bin/sh\n%s --no-absolute-filenames "$@" && find . -type f >>%s\n' "$(command -v cpio)" "$PWD/extracted" >within/cpio
chmod +x within/cpio
PATH=$PWD/within:$PATH rpmlint -c `+config+` *.rpm`)
		if !strings.Contains(out, " 0 errors,") {
			t.Error(out)
		}
		for _, program := range []string{"./usr/bin/imaseal", "./usr/lib/imaseal/imaseal-kms-aws"} {
			if extracted, _ := os.ReadFile(filepath.Join(dir, "extracted")); !strings.Contains(string(extracted), program+"\n") {
				t.Errorf("rpmlint did not see %s", program)
			}
		}
	})
	t.Run("what is in them", func(t *testing.T) {
		files := runIn(t, dir, `for deb in *_amd64.deb; do dpkg-deb --fsys-tarfile $deb | tar -t; dpkg-deb -f $deb; done; rpm -qlp *.x86_64.rpm; rpm -qp --suggests *.x86_64.rpm`)
		for _, want := range []string{
			"./usr/bin/imaseal\n", "./usr/lib/imaseal/dpkg-deb\n", "./etc/imaseal/install.conf\n", "./etc/imaseal/install.conf.d/\n",
			"./etc/imaseal/certs/\n", "./etc/logrotate.d/imaseal\n", "./usr/share/man/man1/imaseal-sign.1.gz\n", "./usr/share/man/man1/imaseal-hook-enable.1.gz\n",
			"./usr/share/man/man5/imaseal-install.conf.5.gz\n", "./usr/share/man/man8/imaseal-dpkg-deb.8.gz\n",
			"./usr/share/bash-completion/completions/imaseal\n", "./usr/share/zsh/vendor-completions/_imaseal\n", "./usr/share/fish/vendor_completions.d/imaseal.fish\n",
			"./usr/lib/imaseal/imaseal-kms-aws\n", "./usr/lib/imaseal/imaseal-kms-gcp\n", "./usr/lib/imaseal/imaseal-kms-azure\n",
			"\n/usr/lib/imaseal/imaseal-kms-aws\n", "\n/usr/share/doc/imaseal-kms-aws/services.md\n", "Depends: ca-certificates, imaseal\n",
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
		said := runIn(t, dir, `for deb in imaseal_*.deb imaseal-installer_*.deb; do rm -rf root; dpkg-deb -x $deb root; file -b root/usr/bin/imaseal root/usr/lib/imaseal/dpkg-deb 2>/dev/null | grep ELF | sed "s/^/$deb: /"; done`)
		for arch, machine := range map[string]string{"amd64": "64-bit LSB [a-z ]*, x86-64", "arm64": "64-bit LSB [a-z ]*, ARM aarch64", "armhf": "32-bit LSB [a-z ]*, ARM, EABI5"} {
			// The hook runs while the C library is replaced; imaseal loads PKCS #11 modules.
			for name, kind := range map[string]string{"imaseal-installer": "statically linked", "imaseal": "dynamically linked"} {
				if n := len(regexp.MustCompile(`(?m)^`+name+`_.*_`+arch+`\.deb: ELF `+machine+`.*`+kind+`.* stripped$`).FindAllString(said, -1)); n != 1 {
					t.Errorf("%d programs of %s are for %s and %s:\n%s", n, name, arch, kind, said)
				}
			}
		}
	})
	t.Run("the programs of the clouds", func(t *testing.T) {
		for arch, machine := range map[string]string{"amd64": "x86-64", "arm64": "ARM aarch64", "armhf": "ARM, EABI5"} {
			for cloud, module := range map[string]string{"aws": "github.com/aws/aws-sdk-go-v2", "gcp": "google.golang.org/api", "azure": "github.com/Azure/azure-sdk-for-go/sdk/azidentity"} {
				name := "imaseal-kms-" + cloud
				out := runIn(t, dir, "rm -rf root; dpkg-deb -x "+name+"_*_"+arch+".deb root; file -b root/usr/lib/imaseal/"+name+"; zcat root/usr/share/doc/"+name+"/third-party-notices.gz")
				if !regexp.MustCompile(`^ELF .*`+machine+`.*statically linked.* stripped\n`).MatchString(out) || !strings.Contains(out, "\n"+module+" v") || strings.Contains(out, "pkcs11") {
					t.Errorf("%s for %s: %.300s", name, arch, out)
				}
			}
		}
		// The program for this machine is one, and says so.
		arch := strings.TrimSpace(runIn(t, dir, "dpkg --print-architecture"))
		out := runIn(t, dir, "rm -rf root; dpkg-deb -x imaseal-kms-gcp_*_"+arch+`.deb root; echo '{"imaseal":"sign-1","key":"gcpkms://x"}' | root/usr/lib/imaseal/imaseal-kms-gcp || true`)
		if !strings.Contains(out, `"error":"key \"gcpkms://x\": it should read gcpkms://projects/`) {
			t.Errorf("%s", out)
		}
	})
	t.Run("the C library that they need", func(t *testing.T) {
		// What the program says of itself, not what scripts/package has read.
		out := runIn(t, dir, `for deb in imaseal_*.deb; do rm -rf root; dpkg-deb -x $deb root
			echo "$(objdump -T root/usr/bin/imaseal | sed -n 's/.*GLIBC_\([0-9.]*\).*/\1/p' | sort -V | tail -n 1) $(dpkg-deb -f $deb Depends)"; done
			rm -rf root; dpkg-deb -x imaseal_*_amd64.deb root
			objdump -T root/usr/bin/imaseal | grep -o 'GLIBC_[0-9.]*' | sort -u | sed 's/.*/libc.so.6(&)(64bit)/' >uses
			rpm -qp --requires *.x86_64.rpm | sort -u >requires; comm -23 uses requires`)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if len(lines) != 3 {
			t.Errorf("what the programs and the packages need: %q", lines) // a fourth is missing in the .rpm
		}
		for _, line := range lines {
			if version, depends, _ := strings.Cut(line, " "); version == "" || depends != "libc6 (>= "+version+")" {
				t.Errorf("symbols up to %s are used, and the package depends on %s", version, depends)
			}
		}
	})
	t.Run("they have PKCS #11", func(t *testing.T) {
		out := runIn(t, dir, `rm -rf root; dpkg-deb -x imaseal_*_amd64.deb root; ! root/usr/bin/imaseal sign --key 'pkcs11:token=a?module-path=/missing.so' imaseal_*_amd64.deb 2>&1; zcat root/usr/share/doc/imaseal/third-party-notices.gz`)
		if !strings.Contains(out, "/missing.so: no such file") || !strings.Contains(out, "github.com/miekg/pkcs11") {
			t.Errorf("%.500s", out)
		}
	})
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
