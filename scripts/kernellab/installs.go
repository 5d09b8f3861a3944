package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/imaseal/imaseal/scripts/kernellab/plan"
	"github.com/imaseal/imaseal/sign"
)

// A skip is why a case can't be run on a kernel.
type skip string

func (s skip) Error() string { return "skipped: " + string(s) }

// shell adds a check that runs a script in the root.
func (s *scene) shell(number int, id, expect, needs, script string) {
	s.plan.Checks = append(s.plan.Checks, plan.Check{
		ID: id, Case: number, Expect: expect, Needs: needs, Run: []string{"/bin/sh", "-c", script},
	})
}

// madePackage is the source of a small package with everything that dpkg executes of
// one: maintainer scripts of each kind, a debconf config script, and a trigger of its
// own, which runs its postinst once more.
const madePackage = `set -e
mkdir -p "$1/DEBIAN" "$1/usr/bin" "$1/usr/share/imaseal-lab"
printf '#!/bin/sh\necho made\n' >"$1/usr/bin/imaseal-lab-made"
seq 20000 >"$1/usr/share/imaseal-lab/numbers"
printf 'Package: imaseal-lab-made\nVersion: %s\nArchitecture: all\nDepends: debconf\nMaintainer: nobody <nobody@example.org>\nDescription: made for a test\n' "$2" >"$1/DEBIAN/control"
for script in preinst prerm postrm; do
	printf '#!/bin/sh\nset -e\nexit 0\n' >"$1/DEBIAN/$script"
	chmod 755 "$1/DEBIAN/$script"
done
printf 'Template: imaseal-lab-made/question\nType: string\nDefault: answer\nDescription: a question\n' >"$1/DEBIAN/templates"
printf '#!/bin/sh\nset -e\n. /usr/share/debconf/confmodule\ndb_input low imaseal-lab-made/question || true\ndb_go || true\n' >"$1/DEBIAN/config"
printf 'interest-noawait /usr/share/imaseal-lab\n' >"$1/DEBIAN/triggers"
printf '#!/bin/sh\nset -e\nif [ "$1" = triggered ]; then echo triggered; exit 0; fi\n. /usr/share/debconf/confmodule\ndb_get imaseal-lab-made/question\n[ "$RET" = answer ]\n' >"$1/DEBIAN/postinst"
chmod 755 "$1/DEBIAN/config" "$1/DEBIAN/postinst" "$1/usr/bin/imaseal-lab-made"
dpkg-deb --root-owner-group --build "$1" "$3"
`

// placePackages makes a small package in two versions and puts it into the root,
// unsigned and signed.
func (s *scene) placePackages(ctx context.Context) error {
	dir := filepath.Join(s.root, "lab/made")
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	for _, d := range []string{"unsigned", "signed"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	key := s.key(s.kernel.systemKey)
	for _, version := range []string{"1", "2"} {
		work, err := os.MkdirTemp("", "imaseal-lab-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(work)
		deb := filepath.Join(dir, "unsigned", version+".deb")
		if err := s.lab.run(ctx, "", nil, "sh", "-c", madePackage, "sh", work, version, deb); err != nil {
			return err
		}
		if err := s.lab.run(ctx, "", nil, s.lab.imaseal, "sign", "--quiet", "--key", key.key, "--cert", key.cert,
			"--output", filepath.Join(dir, "signed"), deb); err != nil {
			return err
		}
	}
	return nil
}

// throughHook is what runs dpkg with the hook in front of its own dpkg-deb.
const throughHook = "export PATH=/usr/lib/imaseal:$PATH; "

// unsignedIsRefused is case 4: the kernel or the policy refuses a package, and dpkg's
// database is clean afterwards.
func (s *scene) unsignedIsRefused(ctx context.Context) error {
	if err := s.placePackages(ctx); err != nil {
		return err
	}
	clean := `test -z "$(dpkg --audit)" && ! dpkg -s imaseal-lab-made >/dev/null 2>&1 && echo clean`
	s.shell(4, "the policy refuses an unsigned package", plan.Denied, "it has no file signatures",
		"echo unsigned = refuse >/etc/imaseal/install.conf.d/lab.conf; "+throughHook+"dpkg -i /lab/made/unsigned/1.deb")
	s.shell(4, "dpkg is clean after it", plan.Allowed, "clean", clean)
	s.shell(4, "the kernel refuses an unsigned preinst", plan.Denied, "Permission denied",
		"rm /etc/imaseal/install.conf.d/lab.conf; "+throughHook+"dpkg -i /lab/made/unsigned/1.deb")
	// dpkg runs the new postrm to undo what preinst did, which is refused as well.
	s.shell(4, "dpkg forgets the package that the kernel refused", plan.Allowed, "clean",
		"dpkg --force-remove-reinstreq --purge imaseal-lab-made; "+clean)
	s.shell(4, "a signed package installs", plan.Allowed, "made", throughHook+"dpkg -i /lab/made/signed/1.deb && imaseal-lab-made")
	s.shell(4, "its trigger runs", plan.Allowed, "triggered", "dpkg-trigger --by-package=imaseal-lab-made /usr/share/imaseal-lab && dpkg --triggers-only --pending")
	s.shell(4, "a signed package upgrades", plan.Allowed, "made", throughHook+"dpkg -i /lab/made/signed/2.deb && imaseal-lab-made")
	s.shell(4, "a signed package is removed and purged", plan.Allowed, "", "dpkg -r imaseal-lab-made && dpkg -P imaseal-lab-made")
	return nil
}

// afterwardsIsTooLate is case 5: it shows why there is a hook.
func (s *scene) afterwardsIsTooLate(ctx context.Context) error {
	if err := s.placePackages(ctx); err != nil {
		return err
	}
	s.shell(5, "plain dpkg can't run the preinst of a signed package", plan.Denied, "Permission denied",
		"dpkg -i /lab/made/signed/1.deb; status=$?; imaseal apply imaseal-lab-made; exit $status")
	return nil
}

// systemUpgrades is case 3: a minimal Debian 12 becomes a Debian 13.
func (s *scene) systemUpgrades(ctx context.Context) error {
	from, err := s.lab.script(ctx, "debian-root", "--upgrade", "bookworm", "trixie")
	if err != nil {
		return err
	}
	packages, err := s.lab.signed(ctx, "upgrade-trixie", from, s.key(s.kernel.systemKey))
	if err != nil {
		return err
	}
	repository := filepath.Join(s.root, "lab/repository")
	if err := os.MkdirAll(filepath.Dir(repository), 0o755); err != nil {
		return err
	}
	if err := s.lab.run(ctx, "", nil, "cp", "-r", packages, repository); err != nil {
		return err
	}
	index, err := s.lab.output(ctx, repository, "apt-ftparchive", "packages", ".")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(repository, "Packages"), []byte(index), 0o644); err != nil {
		return err
	}
	source := []byte("deb [trusted=yes] file:/lab/repository ./\n")
	if err := os.WriteFile(filepath.Join(s.root, "etc/apt/sources.list"), source, 0o644); err != nil {
		return err
	}
	if err := s.placePackages(ctx); err != nil {
		return err
	}
	// dpkg is killed at several moments of an installation, and all that it started;
	// then it is told to go on.
	s.shell(3, "a dpkg that was killed goes on", plan.Allowed, "recovered", throughHook+`
for pause in 0.05 0.1 0.2 0.3 0.5 0.8 1.2; do
	setsid dpkg -i /lab/made/signed/1.deb >/dev/null 2>&1 & sleep $pause; kill -9 -- -$! 2>/dev/null; wait $! 2>/dev/null
	dpkg --configure -a && dpkg -i /lab/made/signed/2.deb && imaseal-lab-made && imaseal check imaseal-lab-made || exit 1
	test -z "$(dpkg --audit)" || exit 1
	dpkg -P imaseal-lab-made
done
echo recovered`)
	s.shell(3, "apt reads the repository", plan.Allowed, "", ": >/var/log/dpkg.log; apt-get -q update")
	s.shell(3, "apt full-upgrade from Debian 12 to 13", plan.Allowed, "",
		"apt-get -q --yes -o APT::Install-Recommends=false -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-unsafe-io -o Dpkg::Options::=--force-confnew full-upgrade")
	s.plan.Checks = append(s.plan.Checks, plan.Check{ID: "packages that it installed or upgraded", Case: 3, Expect: plan.Allowed, Tell: true,
		Run: []string{"/bin/sh", "-c", "grep -E ' (upgrade|install) ' /var/log/dpkg.log | grep -vc imaseal-lab"}})
	s.shell(3, "it is Debian 13", plan.Allowed, "trixie", ". /etc/os-release && echo $VERSION_CODENAME")
	s.shell(3, "dpkg is clean", plan.Allowed, "clean", `test -z "$(dpkg --audit)" && echo clean`)
	s.plan.Checks = append(s.plan.Checks, plan.Check{ID: "imaseal check finds nothing wrong", Case: 3, Expect: plan.Allowed, Tell: true,
		Run: []string{"/bin/sh", "-c", "imaseal check >/tmp/check && grep 'signed packages' /tmp/check"}})
	return nil
}

// moduleLoads is case 6: a module of a signed package loads, a changed one does not.
func (s *scene) moduleLoads(ctx context.Context) error {
	if s.kernel.other == "" {
		return skip("this kernel has no modules")
	}
	work, err := os.MkdirTemp("", "imaseal-lab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	deb := filepath.Join(work, "module_1_all.deb")
	if err := s.lab.run(ctx, "", nil, "sh", "-c", moduleSource, "sh", filepath.Join(work, "tree"), s.kernel.other, deb); err != nil {
		return err
	}
	key := s.key(s.kernel.systemKey)
	if err := s.lab.run(ctx, "", nil, s.lab.imaseal, "sign", "--quiet", "--key", key.key, "--cert", key.cert, deb); err != nil {
		return err
	}
	if err := s.unpack(ctx, deb, "/lab/module"); err != nil {
		return err
	}
	module, err := os.ReadFile(filepath.Join(s.root, "lab/module/usr/lib/imaseal-lab.ko"))
	if err != nil {
		return err
	}
	label, err := signFile(ctx, key, sign.SHA256, module)
	if err != nil {
		return err
	}
	if err := s.place("/lab/no/unsigned.ko", module, nil); err != nil {
		return err
	}
	if err := s.place("/lab/no/changed.ko", append(module, 0), label); err != nil {
		return err
	}
	for _, m := range []struct{ id, expect, path string }{
		{"module without a signature", plan.Denied, "/lab/no/unsigned.ko"},
		{"module with a byte appended", plan.Denied, "/lab/no/changed.ko"},
		{"module of a signed package", plan.Allowed, "/lab/module/usr/lib/imaseal-lab.ko"},
	} {
		s.plan.Checks = append(s.plan.Checks, plan.Check{ID: m.id, Case: 6, Expect: m.expect, Module: m.path})
	}
	return nil
}

// moduleSource makes a package of one kernel module.
const moduleSource = `set -e
mkdir -p "$1/DEBIAN" "$1/usr/lib"
cp "$2" "$1/usr/lib/imaseal-lab.ko"
printf 'Package: imaseal-lab-module\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: made for a test\n' >"$1/DEBIAN/control"
dpkg-deb --root-owner-group --build "$1" "$3"
`

// isMeasured is case 8: the kernel's measurement list carries the signatures of the
// packages.
func (s *scene) isMeasured(context.Context) error {
	s.plan.Checks = append(s.plan.Checks, plan.Check{ID: "the measurement list has the packages' signatures", Case: 8,
		Expect: plan.Allowed, Measure: 1000})
	return nil
}

// rpmPackages are what a Debian has besides a minimal system for rpm to install an RPM.
const rpmPackages = "rpm"

// signedRPMRuns is the part of case 1 that is about RPMs: rpm, in the enforcing kernel,
// installs a signed one, its plugin labels the files, and they run.
func (s *scene) signedRPMRuns(ctx context.Context) error {
	work, err := os.MkdirTemp("", "imaseal-lab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	key := s.key(s.kernel.systemKey)
	unsigned := filepath.Join(s.lab.source, "testdata/packages/v4-gzip.rpm")
	if err := s.lab.run(ctx, "", nil, s.lab.imaseal, "sign", "--quiet", "--key", key.key, "--cert", key.cert, "--output", work, unsigned); err != nil {
		return err
	}
	for from, to := range map[string]string{filepath.Join(work, "v4-gzip.rpm"): "signed.rpm", unsigned: "unsigned.rpm"} {
		if err := s.lab.run(ctx, "", nil, "install", "-D", from, filepath.Join(s.root, "lab", to)); err != nil {
			return err
		}
	}
	// Debian 12's rpm looks for its plugins where Debian's package does not put them.
	const rpm = "rpm --define '__plugindir /usr/lib/x86_64-linux-gnu/rpm-plugins' --define '__transaction_ima %{__plugindir}/ima.so' --nodeps "
	s.shell(1, "rpm installs a signed RPM", plan.Allowed, "", rpm+"-i /lab/signed.rpm")
	s.run(1, "script of a signed .rpm", plan.Allowed, "/usr/bin/b1")
	s.shell(1, "rpm installs an unsigned RPM", plan.Allowed, "", rpm+"-e test && "+rpm+"-i /lab/unsigned.rpm")
	s.run(1, "script of an unsigned .rpm", plan.Denied, "/usr/bin/b1")
	return nil
}
