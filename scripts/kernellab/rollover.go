package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imaseal/imaseal/scripts/kernellab/plan"
	"github.com/imaseal/imaseal/sign"
)

// rollOver is case 9: a machine that enforces is moved from one key to another, as
// docs/keys.md tells it, while programs are run all the time; then the old key is revoked.
//
// The system is signed by the kernel's usual key, here key 1. Key 2 is made by imaseal,
// of the same CA, and its certificate is loaded while the machine runs.
func (s *scene) rollOver(ctx context.Context) error {
	first := s.key(s.kernel.systemKey)
	second, err := s.keyTwo(ctx, first)
	if err != nil {
		return err
	}
	if err := s.rolledPackages(ctx, first, second); err != nil {
		return err
	}
	script := []byte("#!/bin/sh\nexit 0\n")
	for i, name := range []string{"straggler", "straggler-that-ran"} {
		content := append(script, fmt.Sprintf("# %d\n", i)...)
		label, err := signFile(ctx, first, sign.SHA256, content)
		if err != nil {
			return err
		}
		if err := s.place("/lab/"+name, content, label); err != nil {
			return err
		}
	}
	s.shell(9, "no label is replaced before the kernel has key 2", plan.Denied, "this kernel would not find key",
		"cp /lab/key-2.crt /etc/imaseal/certs/ && imaseal apply --replace --dry-run --from /lab/rolled")
	s.change(9, "certificate 2 is loaded beside certificate 1", plan.Allowed, plan.KeyChange{Keyring: s.kernel.keyring, File: "/key-2.der", Name: "key 2"})
	s.shell(9, "a package by key 2 installs", plan.Allowed, "made", throughHook+"dpkg -i /lab/made/by-key-2.deb && imaseal-lab-made")
	s.tell(9, "labels are replaced while programs run", rollScript)
	s.tell(9, "imaseal check finds nothing wrong", "imaseal check >/tmp/check && ! grep -q 'other key' /tmp/check && grep 'signed packages' /tmp/check")
	s.run(9, "a file by key 1 still runs", plan.Allowed, "/lab/straggler-that-ran")
	s.tell(9, "imaseal check --revoked finds what is left", `imaseal check --revoked /etc/imaseal/certs/lab.crt >/tmp/left; test $? = 1 &&
grep -q '^problem: /lab/straggler: revoked key' /tmp/left && grep -q '^problem: /lab/straggler-that-ran: revoked key' /tmp/left &&
grep '2 of .* files, and in the database 0 of' /tmp/left`)
	s.change(9, "key 1 is taken out of the keyring", plan.Allowed,
		plan.KeyChange{Keyring: s.kernel.keyring, Name: certificateName(first.name), Unlink: true})
	s.keyOneIsRefused("taken out", "straggler", "straggler-that-ran")
	hash := ""
	if s.kernel.path {
		s.blacklistKeyOne(first)
		if hash, err = s.signedHash(ctx, first); err != nil {
			return err
		}
	}
	keys := slices.DeleteFunc(slices.Clone(s.plan.Keys), func(k plan.Key) bool { return k.ID == certificateName(first.name) })
	keys = append(keys, plan.Key{ID: "certificate 2, and not certificate 1", File: "/key-2.der", Expect: plan.Allowed})
	s.reboot(keys, func() { s.withoutKeyOne(first, hash) })
	return nil
}

// keyOneIsRefused adds the checks of a running kernel that does not verify by key 1 any
// more, since something was done: of a file that it has not appraised, and of one that it
// has.
func (s *scene) keyOneIsRefused(since, fresh, ran string) {
	s.run(9, since+": a file by key 1 is refused at once", plan.Denied, "/lab/"+fresh)
	// The kernel remembers what it appraised as long as it keeps the inode in memory.
	s.run(9, since+": one that was appraised before is not looked at again", plan.Allowed, "/lab/"+ran)
	s.shell(9, since+": the kernel forgets its verdicts", plan.Allowed, "", "sync; echo 3 >/proc/sys/vm/drop_caches")
	s.run(9, since+": then it is refused, too", plan.Denied, "/lab/"+ran)
}

// everythingElseRuns adds the checks that files by key 2 run.
func (s *scene) everythingElseRuns(since string) {
	s.plan.Checks = append(s.plan.Checks, plan.Check{ID: since + ": files of packages are mapped", Case: 9, Expect: plan.Allowed, MapSigned: 1000})
	s.shell(9, since+": programs run", plan.Allowed, "made", "/usr/bin/true && apt-get --version && perl -e 1 && ldd /usr/bin/true && imaseal-lab-made")
}

// withoutKeyOne are the checks of a boot without certificate 1, whose hash has that name
// in .blacklist, "" where this kernel takes none.
func (s *scene) withoutKeyOne(first signingKey, hash string) {
	const since = "after a reboot without key 1"
	for _, name := range []string{"straggler", "straggler-that-ran"} {
		s.run(9, since+": "+name, plan.Denied, "/lab/"+name)
	}
	s.everythingElseRuns(since)
	if hash != "" {
		s.blacklistHash(first, hash)
	}
	s.tell(9, "imaseal check by certificate 2 alone finds nothing wrong", "rm /etc/imaseal/certs/lab.crt && imaseal check >/tmp/check && grep 'signed packages' /tmp/check")
	s.shell(9, "a package by key 1 is refused", plan.Denied, "Permission denied", throughHook+"dpkg -i /lab/made/signed/1.deb")
}

// rollScript replaces all labels of the system while programs, a script among them, are
// run one after the other. It fails when one of them was not run.
const rollScript = `
rm -f /tmp/stop /tmp/refused
(
	rounds=0
	while test ! -e /tmp/stop; do
		/usr/bin/true && /usr/bin/dpkg --print-architecture >/dev/null && /usr/bin/perl -e 1 && /usr/bin/ldd /usr/bin/true >/dev/null || { touch /tmp/refused; break; }
		rounds=$((rounds + 1))
	done
	echo $rounds >/tmp/rounds
) &
imaseal apply --quiet --replace --from /lab/rolled >/tmp/applied
status=$?
touch /tmp/stop
wait
cat /tmp/applied
labels=$(grep 'signed packages' /tmp/applied | awk '{print $6}')
test $status = 0 && test ! -e /tmp/refused && test "$(cat /tmp/rounds)" -gt 0 && test "$labels" -gt 1000 || exit 1
echo "$labels labels were replaced in the course of $(cat /tmp/rounds) rounds of four programs, without a refusal"
`

// keyTwo has imaseal make a key with a certificate of the laboratory's CA.
func (s *scene) keyTwo(ctx context.Context, first signingKey) (signingKey, error) {
	authority, err := s.lab.ca()
	if err != nil {
		return signingKey{}, err
	}
	dir := filepath.Join(filepath.Dir(s.root), "key-2")
	kind := "p256"
	if strings.HasPrefix(first.name, "rsa") {
		kind = "rsa2048"
	}
	if err := s.lab.run(ctx, "", nil, s.lab.imaseal, "keys", "init", "--dir", dir, "--ca-dir", filepath.Dir(authority.file),
		"--type", kind, "--name", "key 2", "--no-passphrase"); err != nil {
		return signingKey{}, err
	}
	second := signingKey{name: "key-2", key: filepath.Join(dir, "signing.key"), cert: filepath.Join(dir, "signing.crt")}
	der, err := os.ReadFile(filepath.Join(dir, "signing.der"))
	if err != nil {
		return second, err
	}
	s.files["/key-2.der"] = der
	return second, s.lab.run(ctx, "", nil, "install", "-D", "-m", "644", second.cert, filepath.Join(s.root, "lab/key-2.crt"))
}

// rolledPackages puts into the root all packages of the system, as resign makes them of
// those that the system was labelled by, and a small one that is not installed yet.
func (s *scene) rolledPackages(ctx context.Context, first, second signingKey) error {
	if err := s.placePackages(ctx); err != nil {
		return err
	}
	signed, err := s.lab.signedPackages(ctx, "bookworm", "", first)
	if err != nil {
		return err
	}
	defer s.lab.step("resigning the packages of the system")()
	rolled := filepath.Join(s.root, "lab/rolled")
	resign := []string{"resign", "--quiet", "--from-cert", first.cert, "--key", second.key, "--cert", second.cert, "--output"}
	if err := s.lab.run(ctx, "", nil, s.lab.imaseal, append(resign, rolled, signed, s.lab.packages)...); err != nil {
		return err
	}
	made := filepath.Join(s.root, "lab/made")
	if err := s.lab.run(ctx, "", nil, s.lab.imaseal, append(resign, filepath.Join(made, "rolled"), filepath.Join(made, "signed/2.deb"))...); err != nil {
		return err
	}
	return os.Rename(filepath.Join(made, "rolled/2.deb"), filepath.Join(made, "by-key-2.deb"))
}

// change adds a check that loads a certificate into a keyring, or takes a key out.
func (s *scene) change(number int, id, expect string, c plan.KeyChange) {
	s.plan.Checks = append(s.plan.Checks, plan.Check{ID: id, Case: number, Expect: expect, Key: &c})
}

// tell is shell for a script whose last line is worth reading.
func (s *scene) tell(number int, id, script string) {
	s.plan.Checks = append(s.plan.Checks, plan.Check{ID: id, Case: number, Expect: plan.Allowed, Tell: true, Run: []string{"/bin/sh", "-c", script}})
}
