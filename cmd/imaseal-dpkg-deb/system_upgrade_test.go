package main_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestWholeSystem installs every package of a Debian system anew through the hook,
// with apt, dpkg and all that they call among them. All of them are signed, so every
// regular file that dpkg knows, and every maintainer script, must be labelled. The
// hook is brought into use as an administrator does it, in both ways.
func TestWholeSystem(t *testing.T) {
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			r := newRoot(t, suite)
			r.use(newRepository(t, debsIn(t, r.name("var/cache/apt/archives"), 50)...))
			scope := "apt"
			if suite == "trixie" {
				scope = "all"
			}
			r.enable(scope)
			r.reinstallAll()
			if suite == "bookworm" {
				// By the other way, so that dpkg's own dpkg-deb is replaced behind it.
				r.enable("all")
				r.fullUpgrade("trixie")
			}
			r.imaseal("hook", "disable")
			if c := r.check(); c.files+c.scripts != c.of {
				t.Errorf("hook disabled: %+v", c)
			}
		})
	}
}

// enable brings the hook into use; PATH does not lead to it by itself any more.
func (r *root) enable(scope string) {
	r.t.Helper()
	r.withoutHook()
	built, err := buildPrograms()
	must(r.t, err)
	program, err := os.ReadFile(built.imaseal)
	must(r.t, err)
	r.write("usr/bin/imaseal", string(program), 0o755)
	r.imaseal("hook", "enable", "--scope", scope)
}

// imaseal runs the command in the root.
func (r *root) imaseal(args ...string) {
	r.t.Helper()
	r.run(append([]string{"imaseal"}, args...)...)
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
	w, out, err := r.watch(r.unlabelledConffile, aptGet("full-upgrade")...)
	if err != nil {
		r.t.Fatalf("full-upgrade to %s: %v\n%s", suite, err, tail(out))
	}
	if len(w.violations) > 0 || w.renames < 2000 || w.scripts < 80 {
		r.t.Errorf("%d renames and %d scripts were right, and %d not: %q", w.renames, w.scripts, len(w.violations), w.violations[:min(20, len(w.violations))])
	}
	r.t.Logf("full-upgrade to %s: %d renames after their label, %d maintainer scripts run with theirs, none without", suite, w.renames, w.scripts)
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
	r.run(aptGet(args...)...)
}

// aptGet is a call of apt-get that asks nothing.
func aptGet(args ...string) []string {
	return append([]string{"apt-get", "--yes", "--quiet=2", "-o", "Dpkg::Options::=--force-confnew"}, args...)
}

// unlabelledConffile reports whether path is one of a conffile that gets no label.
func (r *root) unlabelledConffile(path string) bool {
	path = strings.TrimSuffix(strings.TrimPrefix(path, "/"), ".dpkg-dist")
	info, err := os.Stat(r.name(path))
	return err == nil && info.Mode()&0o111 == 0 && r.conffiles()[path]
}

// policy returns the version that the repository has of a package.
func (r *root) policy(pkg string) string { return r.run("apt-cache", "madison", pkg) }

// whole checks and counts a system of which every package is signed.
func (r *root) whole(what string, atLeast int, start time.Time) {
	r.t.Helper()
	took := time.Since(start)
	c := r.check()
	r.audit()
	for _, p := range r.installed() {
		if p.signatures == nil {
			r.t.Errorf("%s: %s is installed and not signed", what, p.name)
		}
	}
	if c.packages < atLeast || c.files < 1000 || c.scripts < 50 || c.files+c.scripts != c.of {
		r.t.Errorf("%s: only %+v", what, c)
	}
	if left := r.leftovers(); len(left) > 0 {
		r.t.Errorf("%s: left over: %q", what, left)
	}
	r.t.Logf("%s in %.1f s: %d packages, %d files and %d maintainer scripts of %d are labelled and right, %.4g %%",
		what, took.Seconds(), c.packages, c.files, c.scripts, c.of, 100*float64(c.files+c.scripts)/float64(c.of))
	r.imasealCheck(what, c)
}

// imasealCheck demands that imaseal check comes to the oracle's result.
func (r *root) imasealCheck(what string, c count) {
	r.t.Helper()
	built, err := buildPrograms()
	must(r.t, err)
	start := time.Now()
	out, err := exec.Command(built.imaseal, "check", "--quiet", "--json", "--root", r.dir, "--cert", sharedFile("keys/test.crt")).Output()
	took := time.Since(start)
	var result struct {
		Packages, Signed, Files, Labelled int
		Verdict                           string
		Findings                          []struct{ Severity, Reason, Package, Path, Detail string }
	}
	if jsonErr := json.Unmarshal(out, &result); jsonErr != nil {
		r.t.Fatalf("%s: imaseal check: %v\n%s", what, err, tail(string(out)))
	}
	for _, f := range result.Findings {
		r.t.Logf("%s: imaseal check: %s: %s %s: %s %s", what, f.Severity, f.Package, f.Path, f.Reason, f.Detail)
	}
	if err != nil || result.Verdict != "ok" || result.Signed != c.packages || result.Labelled != c.of {
		r.t.Errorf("%s: imaseal check: %v: verdict %s, %d packages signed, %d of %d files labelled; the oracle counts %+v",
			what, err, result.Verdict, result.Signed, result.Labelled, result.Files, c)
	}
	r.t.Logf("%s: imaseal check: %d of %d files labelled, in %.2f s", what, result.Labelled, result.Files, took.Seconds())
}
