package main_test

import (
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// policyPackage has a conffile of each kind, and a script that calls dpkg-deb itself.
func policyPackage(name string) made {
	return made{name: name, version: "1", arch: "all",
		files: []madeFile{
			{path: "usr/bin/" + name, content: "#!/bin/sh\n", mode: 0o755},
			{path: "etc/" + name + ".conf", content: name},
			{path: "etc/" + name + ".sh", content: "#!/bin/sh\n# " + name + "\n", mode: 0o755},
		},
		control: []madeFile{
			{path: "conffiles", content: "/etc/" + name + ".conf\n/etc/" + name + ".sh\n"},
			{path: "postinst", content: "#!/bin/sh\nset -e\n" +
				"dpkg-deb --fsys-tarfile /repository/" + name + "_1_all.deb | tar -t >/tmp/listed\n" +
				"dpkg-deb --control /repository/" + name + "_1_all.deb /tmp/control-" + name + "\n", mode: 0o755},
		}}
}

// TestPolicies installs sound packages under each policy.
func TestPolicies(t *testing.T) {
	needNamespace(t)
	dir := t.TempDir()
	var debs []string
	for _, name := range []string{"known", "unknown"} {
		debs = append(debs, policyPackage(name).build(t, dir))
	}
	repo := newRepository(t, debs...)
	policyPackage("unsigned").build(t, repo.dir)
	r := newRoot(t, "forky")
	r.use(repo)

	const all, conffile, script = "usr/bin/%", "etc/%.conf", "etc/%.sh"
	for name, c := range map[string]struct {
		pkg     string
		certs   string // the certificate that is trusted
		config  []string
		dropIns map[string]string
		refused bool
		says    string // "" for nothing
		labels  []string
	}{
		"known":                        {pkg: "known", certs: "test", labels: []string{all, script}},
		"known, DER":                   {pkg: "known", certs: "test.der", labels: []string{all, script}},
		"no certificate":               {pkg: "known", labels: []string{all, script}},
		"all conffiles":                {pkg: "known", certs: "test", config: []string{"label-conffiles = all"}, labels: []string{all, script, conffile}},
		"no conffiles":                 {pkg: "known", certs: "test", config: []string{"label-conffiles = none"}, labels: []string{all}},
		"off":                          {pkg: "known", certs: "test", config: []string{"mode = off"}},
		"a later drop-in wins":         {pkg: "known", certs: "test", config: []string{"mode = off"}, dropIns: map[string]string{"20.conf": "mode = enforce\n", "10.conf": "mode = warn\n"}, labels: []string{all, script}},
		"a setting that is not known":  {pkg: "known", certs: "test", config: []string{"modus = off"}, says: "modus", labels: []string{all, script}},
		"another key":                  {pkg: "known", certs: "other", says: "known 1: warning: not labelled: control member ima-package: unknown key"},
		"another key, refused":         {pkg: "known", certs: "other", config: []string{"unknown-key = refuse"}, refused: true, says: "known 1: refused: control member ima-package: unknown key"},
		"another key, only warned":     {pkg: "known", certs: "other", config: []string{"unknown-key = refuse", "mode = warn"}, says: "known 1: unlabelled: control member ima-package: unknown key"},
		"unsigned":                     {pkg: "unsigned", certs: "test"},
		"unsigned, warned":             {pkg: "unsigned", certs: "test", config: []string{"unsigned = warn"}, says: "unsigned 1: warning: it has no file signatures"},
		"unsigned, refused":            {pkg: "unsigned", certs: "test", config: []string{"unsigned = refuse"}, refused: true, says: "unsigned 1: refused: it has no file signatures"},
		"unsigned, refused but warned": {pkg: "unsigned", certs: "test", config: []string{"unsigned = refuse", "mode = warn"}, says: "unsigned 1: unlabelled: it has no file signatures"},
		"unsigned, allowed by name":    {pkg: "unsigned", certs: "test", config: []string{"unsigned = refuse", "allow = other un*"}},
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			r.trust(c.certs)
			r.configure(c.config...)
			must(t, os.RemoveAll(r.name("etc/imaseal/install.conf.d")))
			for name, text := range c.dropIns {
				r.write("etc/imaseal/install.conf.d/"+name, text, 0o644)
			}
			must(t, os.RemoveAll(r.name("var/log/imaseal")))
			out, err := r.try("dpkg", "-i", deb(c.pkg, "1", "all"))
			if (err != nil) != c.refused {
				t.Errorf("refused: %v, want %v\n%s", err != nil, c.refused, tail(out))
			}
			if says := strings.Contains(out, "imaseal: "); says != (c.says != "") || !strings.Contains(out, c.says) {
				t.Errorf("want a message %q:\n%s", c.says, tail(out))
			}
			labels := r.labels()
			for path := range labels {
				if strings.HasPrefix(path, "var/lib/dpkg/info/") {
					delete(labels, path)
				}
			}
			for _, want := range c.labels {
				path := strings.ReplaceAll(want, "%", c.pkg)
				if labels[path] == "" {
					t.Errorf("%s has no label", path)
				}
			}
			if len(labels) != len(c.labels) {
				t.Errorf("%d files labelled, want %d", len(labels), len(c.labels))
			}
			want := 1
			if strings.Contains(strings.Join(c.config, " "), "mode = off") && c.dropIns == nil {
				want = 0
			}
			r.logged(c.pkg, want, len(c.labels))
			r.audit()
			if _, err := os.Stat(r.name("tmp/control-" + c.pkg + "/control")); (err == nil) == c.refused {
				t.Errorf("the script's own call of dpkg-deb: %v", err)
			}
			r.run("dpkg", "--purge", c.pkg)
			must(t, os.RemoveAll(r.name("tmp/control-"+c.pkg)))
			if left := r.labels(); len(left) > 0 {
				t.Errorf("purged, and still labelled: %v", left)
			}
		})
	}
}

// trust leaves a certificate of testdata as the only one that is trusted, or none.
func (r *root) trust(name string) {
	r.t.Helper()
	for _, dir := range []string{"etc/imaseal/certs", "etc/keys/ima"} {
		must(r.t, os.RemoveAll(r.name(dir)))
	}
	if name == "" {
		return
	}
	base, isDER := strings.CutSuffix(name, ".der")
	content, err := os.ReadFile(sharedFile("keys/" + base + ".crt"))
	must(r.t, err)
	if isDER {
		r.write("etc/keys/ima/x509_ima.der", string(derOf(r.t, content)), 0o644)
		return
	}
	r.write("etc/imaseal/certs/"+base+".crt", string(content), 0o644)
}

func derOf(t testing.TB, text []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatal("no PEM")
		return nil
	}
	return block.Bytes
}

// logged demands lines in the log: one a package, with what became of it.
func (r *root) logged(pkg string, lines, labelled int) {
	r.t.Helper()
	content, err := os.ReadFile(r.name("var/log/imaseal/install.log"))
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	if n := strings.Count(string(content), "\n"); n != lines {
		r.t.Errorf("%d lines in the log, want %d:\n%s", n, lines, content)
		return
	}
	for line := range strings.Lines(string(content)) {
		var entry struct {
			Package, Version string
			Labelled         int
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Package != pkg || entry.Version != "1" || entry.Labelled != labelled {
			r.t.Errorf("log (%v): %s", err, line)
		}
	}
}

// TestPassThrough calls dpkg-deb as everybody but dpkg does: what comes out, and the
// exit status, are those of the real one, and nothing is logged or labelled.
func TestPassThrough(t *testing.T) {
	repo := makePackages(t, policyPackage("known"))
	r := newRoot(t, "bookworm")
	r.use(repo)
	must(t, os.WriteFile(filepath.Join(repo.dir, "broken.deb"), []byte("!<arch>\nbroken"), 0o644))
	for _, call := range []string{
		"--version", "--help", "--no-such-option", "",
		"-I /repository/known_1_all.deb", "-c /repository/known_1_all.deb", "-f /repository/known_1_all.deb Version",
		"-x /repository/known_1_all.deb /tmp/x", "-x /repository/none.deb /tmp/x", "-I /repository/broken.deb",
		"--control /repository/known_1_all.deb /tmp/e", "--fsys-tarfile /repository/known_1_all.deb | md5sum", "--fsys-tarfile /repository/broken.deb | md5sum",
		"--ctrl-tarfile /repository/known_1_all.deb | md5sum", "-R /repository/known_1_all.deb /tmp/R",
	} {
		var results [2]string
		for i, program := range []string{"/usr/bin/dpkg-deb", hookDir + "/dpkg-deb"} {
			must(t, os.RemoveAll(r.name("tmp")))
			must(t, os.Mkdir(r.name("tmp"), 0o1777))
			// The variables are those that a maintainer script inherits from dpkg.
			out, err := r.try("bash", "-c", "export DPKG_ADMINDIR=/var/lib/dpkg DPKG_ROOT=; set -o pipefail; "+program+" "+call+"; echo status $?; cd /tmp; find . -type f -printf '%p %m %u %g %s %T@\\n' -o -printf '%p %m %u %g %l\\n' | sort")
			must(t, err)
			results[i] = strings.ReplaceAll(out, program, "dpkg-deb")
		}
		if results[0] != results[1] {
			t.Errorf("dpkg-deb %s: the real one says\n%s\nand the hook\n%s", call, results[0], results[1])
		}
	}
	if _, err := os.Stat(r.name("var/log/imaseal")); err == nil {
		t.Error("something was logged")
	}
	if labels := r.labels(); len(labels) > 0 {
		t.Errorf("labelled: %v", labels)
	}
}
