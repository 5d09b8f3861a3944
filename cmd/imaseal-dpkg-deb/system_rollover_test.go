package main_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRollOver moves systems that install through the hook from one key to another: the
// archive is resigned, some packages are upgraded and the rest is labelled anew. After
// each step every label is compared with what the database has, and in the end none is
// by the old key.
func TestRollOver(t *testing.T) {
	repo := makePackages(t, lifecyclePackages()...)
	built, err := buildPrograms()
	must(t, err)
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	imaseal := func(args ...string) string {
		t.Helper()
		out, err := output(exec.Command(built.imaseal, args...))
		if err != nil {
			t.Fatalf("imaseal %q: %v\n%s", args, err, tail(out))
		}
		return out
	}
	imaseal("keys", "init", "--dir", dir, "--no-passphrase")
	oldCert, nextCert, rolled := sharedFile("keys/test.crt"), filepath.Join(dir, "signing.crt"), filepath.Join(dir, "rolled")
	out := imaseal("resign", "--from-cert", oldCert, "--key", filepath.Join(dir, "signing.key"), "--cert", nextCert, "--output", rolled, repo.dir)
	if !strings.Contains(out, "7 packages resigned by key ") {
		t.Fatalf("resign: %s", tail(out))
	}
	nextKey, err = keyOf(nextCert)
	must(t, err)
	defer func() { nextKey = nil }()
	oldID, nextID := keyIDOf(t, built, oldCert), keyIDOf(t, built, nextCert)

	native, foreign := architectures()
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			r := newRoot(t, suite)
			r.use(repo)
			must(t, os.MkdirAll(r.name("rolled"), 0o755))
			r.mount(rolled, r.name("rolled"), "", unix.MS_BIND, "")
			r.run("dpkg", "--add-architecture", foreign)
			r.run("dpkg-divert", "--local", "--rename", "--add", "/usr/bin/sealed-diverted")
			r.write("etc/dpkg/dpkg.cfg.d/test", "path-exclude=/usr/share/doc/excluded/*\nforce-confold\n", 0o644)
			r.excluded = []string{"usr/share/doc/excluded/file"}
			for _, packages := range [][]string{
				{deb("sealed", "1", "all")}, {deb("diverter", "1", "all")}, {deb("libsealed", "1", native), deb("libsealed", "1", foreign)},
			} {
				r.run(append([]string{"dpkg", "-i"}, packages...)...)
			}
			r.write("etc/sealed/edited.conf", "by the administrator\n", 0o644)
			before := r.check()
			if old, next := r.labelsBy(oldID), r.labelsBy(nextID); old != before.of || next != 0 {
				t.Fatalf("before: %d labels by the old key of %d, %d by the next", old, before.of, next)
			}

			cert, err := os.ReadFile(nextCert)
			must(t, err)
			r.write("etc/imaseal/certs/next.crt", string(cert), 0o644)
			r.run("dpkg", "-i", "/rolled/sealed_2_all.deb")
			r.check()
			r.audit()
			if old, next := r.labelsBy(oldID), r.labelsBy(nextID); old == 0 || next == 0 {
				t.Errorf("after an upgrade of one package by the next key: %d and %d labels", old, next)
			}
			system := func(args ...string) (string, error) {
				return output(exec.Command(built.imaseal, append(args, "--root", r.dir)...))
			}
			if out, err := system("check", "--revoked", oldCert); err == nil || !strings.Contains(out, "/usr/share/libsealed/shared (libsealed:") {
				t.Errorf("check --revoked before (%v):\n%s", err, tail(out))
			}
			for _, args := range [][]string{{"apply", "--replace", "--from", rolled}, {"check"}, {"check", "--revoked", oldCert}} {
				if out, err := system(args...); err != nil {
					t.Errorf("imaseal %q: %v\n%s", args, err, tail(out))
				}
			}
			after := r.check()
			if old, next := r.labelsBy(oldID), r.labelsBy(nextID); old != 0 || next != after.of || after.of < before.of-1 {
				t.Errorf("after: %d labels by the old key, %d of %d by the next; before there were %d", old, next, after.of, before.of)
			}

			// Without the old certificate everything is as good, and goes on.
			must(t, os.Remove(r.name("etc/imaseal/certs/test.crt")))
			if out, err := system("check"); err != nil {
				t.Errorf("imaseal check by the next certificate alone: %v\n%s", err, tail(out))
			}
			r.run("dpkg", "-i", "/rolled/libsealed_2_"+native+".deb", "/rolled/libsealed_2_"+foreign+".deb")
			r.configure("unknown-key = refuse")
			if out, err := r.try("dpkg", "-i", deb("sealed", "2", "all")); err == nil {
				t.Errorf("a package by the old key was installed:\n%s", tail(out))
			}
			r.check()
			r.audit()
		})
	}
}

// labelsBy counts the labels of the root that name a key.
func (r *root) labelsBy(id string) int {
	n := 0
	for _, value := range r.labels() {
		if len(value) > 7 && hex.EncodeToString([]byte(value[3:7])) == id {
			n++
		}
	}
	return n
}

// keyIDOf returns the key id of a certificate.
func keyIDOf(t *testing.T, built programs, cert string) string {
	t.Helper()
	out, err := exec.Command(built.imaseal, "keys", "show", "--json", cert).Output()
	must(t, err)
	var shown struct {
		KeyID string `json:"key_id"`
	}
	must(t, json.Unmarshal(out, &shown))
	return shown.KeyID
}
