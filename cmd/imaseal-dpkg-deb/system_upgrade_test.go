package main_test

import (
	"strings"
	"testing"
	"time"
)

// TestWholeSystem installs every package of a Debian system anew through the hook,
// with apt and all that it calls among them. All of them are signed, so every
// regular file that dpkg knows, and every maintainer script, must be labelled.
func TestWholeSystem(t *testing.T) {
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			r := newRoot(t, suite)
			r.use(newRepository(t, debsIn(t, r.name("var/cache/apt/archives"), 50)...))
			r.reinstallAll()
			if suite == "bookworm" {
				r.fullUpgrade("trixie")
			}
		})
	}
}

// reinstallAll lets apt install all that is installed, from the repository.
func (r *root) reinstallAll() {
	r.t.Helper()
	start := time.Now()
	var all []string
	for _, p := range r.installed() {
		all = append(all, p.name)
	}
	r.apt("update")
	r.apt(append([]string{"install", "--reinstall", "--allow-downgrades"}, all...)...)
	r.whole(r.suite+", all installed anew", len(all), start)
}

// fullUpgrade lets apt take the system to the next suite.
func (r *root) fullUpgrade(suite string) {
	r.t.Helper()
	r.use(newRepository(r.t, debsIn(r.t, cached(r.t, r.suite+"-to-"+suite), 50)...))
	before := len(r.installed())
	r.apt("update")
	start := time.Now()
	r.apt("full-upgrade")
	if version := r.status("libc6"); !strings.Contains(version, "2.41") {
		r.t.Errorf("libc6 is %s", version)
	}
	for _, pkg := range []string{"libc6", "dpkg", "apt", "bash", "coreutils", "perl-base"} {
		if status := r.status(pkg); !strings.HasPrefix(status, "ii ") || !strings.Contains(r.policy(pkg), strings.Fields(status)[1]) {
			r.t.Errorf("%s is %q, and the repository has\n%s", pkg, status, r.policy(pkg))
		}
	}
	r.whole(r.suite+" upgraded to "+suite, before-20, start)
}

// apt runs apt-get.
func (r *root) apt(args ...string) {
	r.t.Helper()
	r.run(append([]string{"apt-get", "--yes", "--quiet=2", "-o", "Dpkg::Options::=--force-confnew"}, args...)...)
}

// policy returns the version that the repository has of a package.
func (r *root) policy(pkg string) string { return r.run("apt-cache", "madison", pkg) }

// whole checks and counts a system of which every package is signed.
func (r *root) whole(what string, atLeast int, start time.Time) {
	r.t.Helper()
	took := time.Since(start)
	c := r.check()
	r.audit()
	owned := 0
	for _, p := range r.installed() {
		if p.signatures == nil {
			r.t.Errorf("%s: %s is installed and not signed", what, p.name)
		}
		owned += len(p.signatures)
	}
	if c.packages < atLeast || c.files < 1000 || c.scripts < 50 {
		r.t.Errorf("%s: only %+v", what, c)
	}
	if left := r.leftovers(); len(left) > 0 {
		r.t.Errorf("%s: left over: %q", what, left)
	}
	r.t.Logf("%s in %.1f s: %d packages, %d of %d files and %d maintainer scripts labelled and right", what, took.Seconds(), c.packages, c.files, c.files+len(c.problems), c.scripts)
}
