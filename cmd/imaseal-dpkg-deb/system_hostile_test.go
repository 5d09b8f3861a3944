package main_test

import (
	"archive/tar"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// hostilePackage is an honest package; the forgeries are made of its version 2.
func hostilePackage(name, version string) made {
	return made{name: name, version: version, arch: "all",
		files: []madeFile{{path: "usr/bin/" + name, content: "#!/bin/sh\n: " + version + "\n", mode: 0o755},
			{path: "usr/share/" + name, content: "data of " + version}, {path: "usr/share/folder/"}},
		control: []madeFile{{path: "preinst", content: "#!/bin/sh\n: " + version + "\n", mode: 0o755}}}
}

// A trick is what somebody may do to a package.
type trick struct {
	name string
	do   func(f *forgery, others map[string]*forgery)
	// reason is what the message says.
	reason string
	// trusting says that there is no certificate, and the statement's digests are
	// made right after the trick.
	trusting bool
	// dpkg says that dpkg itself refuses it in any mode.
	dpkg bool
}

var tricks = []trick{
	{name: "signatures swapped", do: func(f *forgery, _ map[string]*forgery) {
		m := f.member("ima-signatures")
		m.content = strings.NewReplacer("usr/bin/hostile", "usr/share/hostile", "usr/share/hostile", "usr/bin/hostile").Replace(m.content)
	}, reason: "ima-signatures"},
	{name: "a signature of no file", do: func(f *forgery, _ map[string]*forgery) { f.claim("usr/bin/nothing") }, reason: "ima-signatures"},
	{name: "a signature of no file, stated", trusting: true, do: func(f *forgery, _ map[string]*forgery) { f.claim("usr/bin/nothing") }, reason: "/usr/bin/nothing"},
	{name: "a manifest of 100 MB", do: func(f *forgery, _ map[string]*forgery) {
		f.member("ima-signatures").content = strings.Repeat("# file: x\n", 10<<20)
	}, reason: "ima-signatures"},
	{name: "a manifest of one line of 100 MB", do: func(f *forgery, _ map[string]*forgery) {
		f.member("ima-signatures").content = "# file: " + strings.Repeat("x", 100<<20)
	}, reason: "ima-signatures"},
	{name: "no manifest", do: func(f *forgery, _ map[string]*forgery) {
		f.control = slices.DeleteFunc(f.control, func(e entry) bool { return filepath.Clean(e.Name) == "ima-signatures" })
	}, reason: "ima-signatures is missing"},
	{name: "a manifest with ..", trusting: true, do: func(f *forgery, _ map[string]*forgery) { f.claim("usr/../etc/outside") }, reason: "ima-signatures"},
	{name: "statement of another version", do: func(f *forgery, others map[string]*forgery) {
		f.member("ima-package").content = others["hostile 1"].member("ima-package").content
	}, reason: "ersion"},
	{name: "statement of another package", do: func(f *forgery, others map[string]*forgery) {
		f.member("ima-package").content = others["other 2"].member("ima-package").content
	}, reason: "ackage"},
	{name: "signatures of another package", do: func(f *forgery, others map[string]*forgery) {
		for _, name := range []string{"ima-package", "ima-signatures", "ima-control-signatures"} {
			f.member(name).content = others["other 2"].member(name).content
		}
	}, reason: "ackage"},
	{name: "statement cut off", do: func(f *forgery, _ map[string]*forgery) {
		m := f.member("ima-package")
		m.content = m.content[:len(m.content)/2]
	}, reason: "ima-package"},
	{name: "a bad signature of the statement", do: func(f *forgery, _ map[string]*forgery) {
		f.member("usr/share/hostile").content = "other data"
		f.state()
	}, reason: "bad signature"},
	{name: "another script", do: func(f *forgery, _ map[string]*forgery) {
		f.member("preinst").content = "#!/bin/sh\ntouch /executed\n"
	}, reason: "preinst"},
	{name: "a script more", do: func(f *forgery, _ map[string]*forgery) {
		e := *f.member("preinst")
		e.Name, e.content = "./postinst", "#!/bin/sh\ntouch /executed\n"
		f.control = append(f.control, e)
	}, reason: "postinst"},
	{name: "a script twice", do: func(f *forgery, _ map[string]*forgery) {
		e := *f.member("preinst")
		e.content = "#!/bin/sh\ntouch /executed\n"
		f.control = append(f.control, e)
	}, reason: "preinst"},
	{name: "a script that is a link", do: func(f *forgery, _ map[string]*forgery) {
		e := f.member("preinst")
		e.Typeflag, e.Linkname, e.content = tar.TypeSymlink, "/usr/bin/touch-executed", ""
	}, reason: "preinst"},
	{name: "a script that is a hard link", do: func(f *forgery, _ map[string]*forgery) {
		e := *f.member("preinst")
		e.Name, e.Typeflag, e.Linkname, e.content = "./postinst", tar.TypeLink, "./preinst", ""
		f.control = append(f.control, e)
	}, reason: "names"},
	{name: "other content", do: func(f *forgery, _ map[string]*forgery) { f.member("usr/share/hostile").content = "other data" }, reason: "SHA-256"},
	{name: "junk after the end", do: func(f *forgery, _ map[string]*forgery) { f.tail = "junk" }, reason: "the end of the archive"},
	{name: "another mode", do: func(f *forgery, _ map[string]*forgery) { f.member("usr/bin/hostile").Mode = 0o4755 }, reason: "SHA-256"},
	{name: "a hard link to a file outside", trusting: true, do: func(f *forgery, _ map[string]*forgery) {
		f.add(entry{Header: tar.Header{Name: "./usr/share/link", Typeflag: tar.TypeLink, Linkname: "./etc/outside"}})
	}, reason: "usr/share/link"},
	{name: "a hard link to a link", trusting: true, do: func(f *forgery, _ map[string]*forgery) {
		f.data = append(f.data, entry{Header: tar.Header{Name: "./usr/share/symbolic", Typeflag: tar.TypeSymlink, Linkname: "/etc/outside"}})
		f.add(entry{Header: tar.Header{Name: "./usr/share/link", Typeflag: tar.TypeLink, Linkname: "./usr/share/symbolic"}})
	}, reason: "usr/share/link", dpkg: true},
	{name: "a name with ..", trusting: true, do: func(f *forgery, _ map[string]*forgery) {
		f.data = append(f.data, entry{Header: tar.Header{Name: "./usr/share/../../etc/outside", Mode: 0o644, Typeflag: tar.TypeReg}, content: "spoilt"})
	}, reason: ".."},
	{name: "a name twice", trusting: true, do: func(f *forgery, _ map[string]*forgery) {
		e := *f.member("usr/bin/hostile")
		e.content = "#!/bin/sh\nevil\n"
		f.data = append(f.data, e)
	}, reason: "usr/bin/hostile"},
	{name: "a signature of a fifo", trusting: true, do: func(f *forgery, _ map[string]*forgery) {
		f.add(entry{Header: tar.Header{Name: "./usr/share/fifo", Typeflag: tar.TypeFifo}})
	}, reason: "usr/share/fifo"},
	{name: "a signature of a symbolic link", trusting: true, do: func(f *forgery, _ map[string]*forgery) {
		f.add(entry{Header: tar.Header{Name: "./usr/share/symbolic", Typeflag: tar.TypeSymlink, Linkname: "/etc/outside"}})
	}, reason: "usr/share/symbolic"},
	{name: "a file below a link that leads outside", trusting: true, do: func(f *forgery, _ map[string]*forgery) {
		f.data = append(f.data, entry{Header: tar.Header{Name: "./usr/share/away", Typeflag: tar.TypeSymlink, Linkname: "/etc"}})
		f.add(entry{Header: tar.Header{Name: "./usr/share/away/outside", Typeflag: tar.TypeReg}, content: "spoilt"})
	}, reason: "usr/share/away", dpkg: true},
}

// TestTricks gives dpkg forged packages in place of an upgrade. Where the policy
// enforces they are refused before their code runs, and the old version stays whole;
// where it warns they pass, as dpkg would have them. In no case does anything get a
// label that is not a file of the package with that content.
func TestTricks(t *testing.T) {
	repo := makePackages(t, hostilePackage("hostile", "1"), hostilePackage("hostile", "2"), hostilePackage("other", "2"))
	has(t, "prlimit")
	for _, mode := range []string{"enforce", "warn"} {
		t.Run(mode, func(t *testing.T) {
			r := newRoot(t, "bookworm")
			r.use(repo)
			r.configure("mode = " + mode)
			r.write("etc/outside", "outside\n", 0o600)
			r.write("usr/bin/touch-executed", "#!/bin/sh\ntouch /executed\n", 0o755)
			r.run("dpkg", "-i", deb("hostile", "1", "all"))
			certificates := r.name("etc/imaseal/certs")
			for _, trick := range tricks {
				t.Run(trick.name, func(t *testing.T) {
					r.t = t
					others := map[string]*forgery{}
					for _, other := range [][2]string{{"hostile", "1"}, {"hostile", "2"}, {"other", "2"}} {
						others[other[0]+" "+other[1]] = forge(t, filepath.Join(repo.dir, filepath.Base(deb(other[0], other[1], "all"))))
					}
					f := others["hostile 2"]
					trick.do(f, others)
					if trick.trusting {
						f.state()
						must(t, os.Rename(certificates, certificates+".away"))
						defer os.Rename(certificates+".away", certificates)
					}
					f.write(r.name("tmp/forged.deb"))
					r.tricked(trick, mode == "enforce")
				})
			}
		})
	}
}

// tricked installs the forged package, and demands that nothing came of it.
func (r *root) tricked(trick trick, enforce bool) {
	r.t.Helper()
	// What a Go program maps at least fits in, a manifest of 100 MB would not.
	out, err := output(r.command([]string{"prlimit", "--data=80000000"}, "dpkg", "-i", "/tmp/forged.deb"))
	if refused := err != nil; refused != enforce && !trick.dpkg {
		r.t.Errorf("refused: %v, want %v\n%s", refused, enforce, tail(out))
	}
	ours := false
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "imaseal: hostile 2: ") && strings.Contains(line, trick.reason) {
			ours = true
		}
	}
	if !ours {
		r.t.Errorf("no message of imaseal names hostile 2 and %q:\n%s", trick.reason, tail(out))
	}
	labels := r.labels()
	if wrong := r.wrong(labels); len(wrong) > 0 {
		r.t.Errorf("wrongly labelled: %q", wrong)
	}
	for path := range labels {
		if !strings.Contains(path, "hostile") {
			r.t.Errorf("labelled, and not of the package: %s", path)
		}
	}
	r.audit()
	if left := r.leftovers(); len(left) > 0 {
		r.t.Errorf("left over: %q", left)
	}
	if enforce {
		if status := r.status("hostile"); status != "ii 1" {
			r.t.Errorf("hostile is %q, want version 1", status)
		}
		r.check()
		if _, err := os.Lstat(r.name("executed")); err == nil {
			r.t.Error("its code was executed")
		}
		info, err := os.Stat(r.name("etc/outside"))
		must(r.t, err)
		if stat := info.Sys().(*syscall.Stat_t); stat.Nlink != 1 || info.Mode() != 0o600 || r.read("etc/outside") != "outside\n" {
			r.t.Errorf("the file outside has %d names, mode %v and content %q", stat.Nlink, info.Mode(), r.read("etc/outside"))
		}
	}
	// The next trick begins where this one did.
	os.Remove(r.name("executed"))
	os.Remove(r.name("etc/outside"))
	r.write("etc/outside", "outside\n", 0o600)
	r.try("dpkg", "--purge", "hostile")
	r.run("dpkg", "-i", deb("hostile", "1", "all"))
}
