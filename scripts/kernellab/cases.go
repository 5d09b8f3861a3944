package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/scripts/kernellab/plan"
	"github.com/imaseal/imaseal/sign"
)

// hashes are the algorithms that files are signed with.
var hashes = []sign.Hash{sign.SHA256, sign.SHA384, sign.SHA512}

// A scene is one boot while it is put together: a root file system on this side,
// and the plan for the other.
type scene struct {
	lab    *lab
	kernel *kernel
	root   string
	judge  judge
	keys   []signingKey // whose certificates the kernel trusts
	plan   plan.Plan
	then   *plan.Plan // of a second boot of what the first one left; nil: there is none
	files  map[string][]byte
}

// execPolicy appraises, and measures, all that is executed. The one exemption is the
// initramfs, a ramfs, which has no attributes.
const execPolicy = bootPolicy + `dont_measure fsmagic=0x858458f6
measure func=BPRM_CHECK
measure func=MMAP_CHECK mask=MAY_EXEC
`

// bootPolicy is that of docs/enforcing.md.
const bootPolicy = `dont_appraise fsmagic=0x858458f6
appraise func=BPRM_CHECK appraise_type=imasig
appraise func=MMAP_CHECK mask=MAY_EXEC appraise_type=imasig
appraise func=MODULE_CHECK appraise_type=imasig
appraise func=FIRMWARE_CHECK appraise_type=imasig
appraise func=POLICY_CHECK appraise_type=imasig
`

// newScene begins a boot of k: it makes, below the folder work, a root of Debian 12 with
// the packages besides.
func (l *lab) newScene(ctx context.Context, k *kernel, work, besides string) (*scene, error) {
	good, odd, err := l.signingKeys()
	if err != nil {
		return nil, err
	}
	s := &scene{lab: l, kernel: k, root: filepath.Join(work, "root"), keys: good, files: map[string][]byte{}, judge: judge{new(sign.TrustedKeys)}}
	s.plan = plan.Plan{Device: k.device, Keyring: k.keyring, Policy: execPolicy}
	for _, name := range diskModules {
		if content, ok := k.modules["/"+name+".ko"]; ok {
			s.files["/"+name+".ko"] = content
			s.plan.Modules = append(s.plan.Modules, "/"+name+".ko")
		}
	}
	for _, key := range slices.Concat(good, odd) {
		if err := s.addKey(key, slices.Contains(good, key)); err != nil {
			return nil, err
		}
	}
	if err := l.build(ctx, s.key(k.systemKey)); err != nil {
		return nil, err
	}
	if err := os.Mkdir(s.root, 0o755); err != nil {
		return nil, err
	}
	return s, l.systemRoot(ctx, s.root, "bookworm", besides, s.key(k.systemKey))
}

func (s *scene) addKey(key signingKey, trusted bool) error {
	cert, err := readCertificate(key.cert)
	if err != nil {
		return err
	}
	if trusted && s.kernel.verifies(key) {
		if err := s.judge.keys.AddCertificate(cert); err != nil {
			return err
		}
	} else if !trusted && !s.kernel.path {
		// A keyring that takes any certificate would make the odd keys trusted ones.
		return nil
	}
	name := "/" + key.name + ".der"
	s.files[name] = cert.Raw
	s.plan.Keys = append(s.plan.Keys, plan.Key{ID: certificateName(key.name), File: name, Expect: key.expect})
	return nil
}

// reboot makes a second boot, with those keys, of which checks adds the checks.
func (s *scene) reboot(keys []plan.Key, checks func()) {
	first := s.plan
	s.plan.Keys, s.plan.Checks = keys, nil
	checks()
	second := s.plan
	s.plan, s.then = first, &second
}

// certificateName is what the certificate of a key is called in a keyring.
func certificateName(key string) string { return "certificate " + key }

func (s *scene) key(name string) signingKey {
	i := slices.IndexFunc(s.keys, func(k signingKey) bool { return k.name == name })
	return s.keys[i]
}

func (s *scene) run(number int, id, expect string, argv ...string) {
	s.plan.Checks = append(s.plan.Checks, plan.Check{ID: id, Case: number, Expect: expect, Run: argv})
}

// signedRuns is case 1: what is signed runs.
func (s *scene) signedRuns(ctx context.Context) error {
	s.run(1, "program", plan.Allowed, "/usr/bin/true")
	s.run(1, "program with libraries", plan.Allowed, "/usr/bin/apt-get", "--version")
	s.run(1, "interpreter", plan.Allowed, "/usr/bin/perl", "-e", "exit 0")
	s.run(1, "script by its own name", plan.Allowed, "/usr/bin/ldd", "/usr/bin/true")
	s.run(1, "loader", plan.Allowed, "/lib64/ld-linux-x86-64.so.2", "--list", "/usr/bin/bash")
	s.run(1, "shell and children", plan.Allowed, "/bin/sh", "-c", "ls / | sort | tail -n 1 >/dev/null")
	return s.everyAlgorithm(ctx)
}

// everyAlgorithm installs one small package for each kind of key and hash, through
// the hook and dpkg, in a folder of its own, and runs its program.
func (s *scene) everyAlgorithm(ctx context.Context) error {
	defer s.lab.step("installing a package for each kind of key and hash")()
	deb, err := s.oneOf(ctx, "debianutils")
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "imaseal-lab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	for _, key := range s.keys {
		for _, h := range hashes {
			name := key.name + "-" + h.String()
			signed := filepath.Join(work, name)
			if err := s.lab.run(ctx, "", nil, s.lab.imaseal, "sign", "--quiet", "--hash", h.String(), "--key", key.key, "--cert", key.cert,
				"--output", signed, deb); err != nil {
				return err
			}
			inside := "/lab/" + name
			if err := s.unpack(ctx, filepath.Join(signed, filepath.Base(deb)), inside); err != nil {
				return err
			}
			expect := plan.Denied
			if s.kernel.verifies(key) {
				expect = plan.Allowed
			}
			s.run(1, ".deb by "+name, expect, inside+"/bin/run-parts", "--version")
			s.run(1, "script by "+name, expect, inside+"/usr/bin/which.debianutils", "ls")
		}
	}
	return nil
}

// oneOf returns the .deb of a package of the scene's suite.
func (s *scene) oneOf(ctx context.Context, name string) (string, error) {
	root, err := s.lab.script(ctx, "debian-root", "bookworm")
	if err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(root, "var/cache/apt/archives", name+"_*.deb"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("%d packages %s in %s", len(found), name, root)
	}
	return found[0], nil
}

// unpack unpacks a package by dpkg and the hook into a folder of the root, which is
// a root of its own for dpkg.
func (s *scene) unpack(ctx context.Context, deb, inside string) error {
	dir := filepath.Join(s.root, inside)
	admin := filepath.Join(dir, "var/lib/dpkg")
	for _, d := range []string{admin + "/info", admin + "/updates", admin + "/triggers"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	for _, f := range []string{"status", "available"} {
		if err := os.WriteFile(filepath.Join(admin, f), nil, 0o644); err != nil {
			return err
		}
	}
	return s.lab.dpkg(ctx, dir, "--force-depends", "--force-script-chrootless", "--no-triggers", "--unpack", deb)
}

// A variation is a file of case 2.
type variation struct {
	name           string
	content, label []byte
	expect         string
}

// tamperedIsDenied is case 2: what is not signed, or signed for something else,
// does not run, and imaseal's own verdict is the kernel's.
func (s *scene) tamperedIsDenied(ctx context.Context) error {
	program, err := os.ReadFile(filepath.Join(s.root, "usr/bin/true"))
	if err != nil {
		return err
	}
	script := []byte("#!/bin/sh\nexit 0\n")
	for _, what := range []struct {
		name    string
		content []byte
	}{{"program", program}, {"script", script}} {
		if err := s.variations(ctx, what.name, what.content); err != nil {
			return err
		}
	}
	if err := s.policyFiles(ctx); err != nil {
		return err
	}
	return s.mutatedLabels(ctx, script)
}

// policyFiles has the kernel load a policy by its file's name, which POLICY_CHECK
// appraises. Debian's kernels load one policy and no other.
func (s *scene) policyFiles(ctx context.Context) error {
	if !s.kernel.manyPolicies {
		return nil
	}
	text := []byte("dont_measure fsmagic=0x9fa0\n")
	label, err := signFile(ctx, s.key(s.kernel.systemKey), sign.SHA256, text)
	if err != nil {
		return err
	}
	for name, label := range map[string][]byte{"signed": label, "unsigned": nil} {
		if err := s.place("/lab/policy/"+name, text, label); err != nil {
			return err
		}
	}
	load := func(name string) string { return "echo /lab/policy/" + name + " >/sys/kernel/security/ima/policy" }
	s.shell(2, "policy file without a signature", plan.Denied, "I/O error", load("unsigned"))
	s.shell(2, "signed policy file", plan.Allowed, "", load("signed"))
	return nil
}

func (s *scene) variations(ctx context.Context, what string, content []byte) error {
	label, err := signFile(ctx, s.key(s.kernel.systemKey), sign.SHA256, content)
	if err != nil {
		return err
	}
	_, odd, err := s.lab.signingKeys()
	if err != nil {
		return err
	}
	stranger, err := signFile(ctx, odd[0], sign.SHA256, content)
	if err != nil {
		return err
	}
	unfindable, err := signFile(ctx, odd[slices.IndexFunc(odd, func(k signingKey) bool { return k.name == "no-subject-key-identifier" })], sign.SHA256, content)
	if err != nil {
		return err
	}
	changed := slices.Clone(content)
	changed[len(changed)-2] ^= 1
	for _, v := range []variation{
		{"signed", content, label, plan.Allowed},
		{"unsigned", content, nil, plan.Denied},
		{"signed by a key that is not trusted", content, stranger, plan.Denied},
		{"signed by a key whose certificate has no identifier", content, unfindable, plan.Denied},
		{"with one byte changed", changed, label, plan.Denied},
		{"with one byte appended", append(slices.Clone(content), '\n'), label, plan.Denied},
		{"cut short", content[:len(content)-1], label, plan.Denied},
		{"with the label of another file", append(slices.Clone(content), "# another\n"...), label, plan.Denied},
	} {
		if got := s.judge.verdict(v.content, v.label); got != v.expect {
			return fmt.Errorf("imaseal calls a %s %s %s", what, v.name, got)
		}
		path := "/lab/no/" + what + "-" + strings.ReplaceAll(v.name, " ", "-")
		if err := s.place(path, v.content, v.label); err != nil {
			return err
		}
		s.run(2, what+" "+v.name, v.expect, path)
	}
	return nil
}

// labelID begins the ID of every record of one label.
const labelID = "label by "

// mutatedLabels has the kernel judge thousands of labels of one file.
func (s *scene) mutatedLabels(ctx context.Context, content []byte) error {
	const path = "/lab/no/mutated"
	if err := s.place(path, content, nil); err != nil {
		return err
	}
	for _, key := range s.keys {
		label, err := signFile(ctx, key, sign.SHA256, content)
		if err != nil {
			return err
		}
		check := plan.Check{ID: labelID + key.name, Case: 2, Map: path}
		for name, value := range mutations(label) {
			check.Labels = append(check.Labels, plan.Label{ID: name, Value: value, Expect: s.judge.verdict(content, value)})
		}
		slices.SortFunc(check.Labels, func(a, b plan.Label) int { return strings.Compare(a.ID, b.ID) })
		s.plan.Checks = append(s.plan.Checks, check)
	}
	return nil
}

// place writes a program into the root, with a label where there is one.
func (s *scene) place(path string, content, label []byte) error {
	name := filepath.Join(s.root, path)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(name, content, 0o755); err != nil {
		return err
	}
	if label == nil {
		return nil
	}
	if err := unix.Lsetxattr(name, sign.XattrName, label, 0); err != nil {
		return fmt.Errorf("labelling %s: %w", name, err)
	}
	return nil
}
