package main

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/sign"
)

// TestRPMRollOver moves a system of RPMs to another key: the package is resigned and
// installed once more, and apply --replace puts the new signatures onto its files.
func TestRPMRollOver(t *testing.T) {
	r := newRPMRoot(t, "rpm")
	old := filepath.Join(r.keys, "signing.crt")
	pkg := r.hello("1")
	r.install(pkg)
	r.system(0, "apply")
	before := r.labels()
	if len(before) != labelled {
		t.Fatalf("%d files are labelled", len(before))
	}
	next := t.TempDir()
	cert := filepath.Join(next, "signing.crt")
	r.imaseal(0, "keys", "init", "--dir", next, "--ca-dir", r.keys, "--no-passphrase")
	r.says(r.imaseal(0, "resign", "--from-cert", old, "--key", filepath.Join(next, "signing.key"), "--cert", cert, pkg), "1 package resigned by key")
	r.says(r.imaseal(1, "check", "--root", r.dir, "--revoked", old), "6 of ", "in the database 1 of 1 signed package", "(hello:noarch)")
	// rpm keeps the files of a package that it replaces by itself, and their labels go.
	r.install("--replacepkgs", pkg)
	for path, value := range before {
		if err := unix.Lsetxattr(r.dir+path, sign.XattrName, []byte(value), 0); err != nil { // as if they had stayed
			t.Fatal(err)
		}
	}
	r.says(r.system(1, "apply", "--cert", cert), "other label")
	r.says(r.system(0, "apply", "--cert", cert, "--replace", "--dry-run"), "WOULD SET", "6          ok")
	r.says(r.system(0, "apply", "--cert", cert, "--replace"), "hello:noarch")
	r.says(r.imaseal(0, "check", "--root", r.dir, "--revoked", old), "0 of ", "in the database 0 of 1")
	r.says(r.imaseal(0, "check", "--root", r.dir, "--cert", cert), "hello:noarch")
	r.imaseal(1, "check", "--root", r.dir, "--revoked", cert)
	for path, value := range r.labels() {
		if before[path] == value {
			t.Errorf("%s still has the old label", path)
		}
	}
}
