package main_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// longName has a component as long as dpkg can unpack, and is longer than what a
// tar header holds.
var longName = "usr/lib/sealed/" + strings.Repeat("folder/", 20) + strings.Repeat("n", 255-len(".dpkg-new"))

// lifecyclePackages are a package with one of everything in two versions, one that
// diverts a file of it, and a library for two architectures.
func lifecyclePackages() []made {
	script := "#!/bin/sh\nset -e\n# "
	native, foreign := architectures()
	sealed := func(version string, more ...madeFile) made {
		return made{name: "sealed", version: version, arch: "all",
			files: append([]madeFile{
				{path: "usr/bin/sealed", content: script + version, mode: 0o755},
				{path: "usr/bin/sealed-suid", content: script + "suid " + version, mode: 0o4755},
				{path: "usr/bin/sealed-override", content: script + "override " + version, mode: 0o755},
				{path: "usr/bin/sealed-diverted", content: script + "diverted " + version, mode: 0o755},
				{path: "usr/lib/sealed/by-package", content: "diverted by a package " + version},
				{path: "usr/lib/sealed/one", content: "one inode " + version},
				{path: "usr/lib/sealed/three", like: "usr/lib/sealed/one"},
				{path: "usr/lib/sealed/two", like: "usr/lib/sealed/one"},
				{path: "usr/lib/sealed/empty"},
				{path: "usr/lib/sealed/same", content: "the same in both versions"},
				{path: "usr/lib/sealed/link", to: "one"},
				{path: "usr/lib/sealed/folder/"},
				{path: "lib/sealed-merged", content: "by way of a link " + version},
				{path: longName, content: "long " + version},
				{path: "usr/lib/sealed/a name with spaces, ünïcode and 100%", content: "odd " + version},
				{path: `usr/lib/sealed/back\slash`, content: "odd too " + version},
				{path: "usr/share/doc/excluded/file", content: "left out by path-exclude"},
				{path: "etc/sealed.conf", content: "version = " + version + "\n"},
				{path: "etc/sealed/edited.conf", content: "edited = " + version + "\n"},
				{path: "etc/sealed/executable.conf", content: script + "conffile " + version, mode: 0o755},
			}, more...),
			control: []madeFile{
				{path: "preinst", content: script + "preinst " + version + "\n", mode: 0o755},
				{path: "postinst", content: script + "postinst " + version + "\n", mode: 0o755},
				{path: "prerm", content: script + "prerm " + version + "\n", mode: 0o755},
				{path: "postrm", content: script + "postrm " + version + "\n", mode: 0o755},
				{path: "config", content: script + "config " + version + "\n", mode: 0o755},
				{path: "triggers", content: "interest-noawait /usr/share/sealed-trigger\n"},
				{path: "conffiles", content: "/etc/sealed.conf\n/etc/sealed/edited.conf\n/etc/sealed/executable.conf\n"},
			}}
	}
	library := func(arch, version string) made {
		return made{name: "libsealed", version: version, arch: arch, fields: []string{"Multi-Arch: same"},
			files: []madeFile{
				{path: "usr/lib/sealed-" + arch + "/lib.so", content: "library " + arch + version},
				{path: "usr/share/libsealed/shared", content: "shared " + version},
			},
			control: []madeFile{{path: "postinst", content: script + arch + version + "\n", mode: 0o755}}}
	}
	return []made{
		sealed("1", madeFile{path: "usr/lib/sealed/gone", content: "only here"}, madeFile{path: "usr/lib/sealed/swap", content: "a file"}),
		sealed("2", madeFile{path: "usr/lib/sealed/new", content: "only there"}, madeFile{path: "usr/lib/sealed/swap/inside", content: "a folder"}),
		{name: "diverter", version: "1", arch: "all",
			files: []madeFile{{path: "usr/lib/sealed/by-package", content: "the other one"}},
			control: []madeFile{
				{path: "preinst", content: script + "\ndpkg-divert --package diverter --rename --divert /usr/lib/sealed/by-package.diverted --add /usr/lib/sealed/by-package\n", mode: 0o755},
				{path: "postrm", content: script + "\n[ \"$1\" != remove ] || dpkg-divert --package diverter --rename --divert /usr/lib/sealed/by-package.diverted --remove /usr/lib/sealed/by-package\n", mode: 0o755},
			}},
		library(native, "1"), library(foreign, "1"), library(native, "2"), library(foreign, "2"),
	}
}

// TestLifecycle takes a package through its whole life under each dpkg, and compares
// every label of the system after each step.
func TestLifecycle(t *testing.T) {
	repo := makePackages(t, lifecyclePackages()...)
	native, foreign := architectures()
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			r := newRoot(t, suite)
			r.use(repo)
			r.run("dpkg", "--add-architecture", foreign)
			r.run("dpkg-statoverride", "--add", "daemon", "mail", "2755", "/usr/bin/sealed-override")
			r.run("dpkg-divert", "--local", "--rename", "--add", "/usr/bin/sealed-diverted")
			r.write("etc/dpkg/dpkg.cfg.d/test", "path-exclude=/usr/share/doc/excluded/*\nforce-confold\n", 0o644)
			r.excluded = []string{"usr/share/doc/excluded/file"}

			step := func(name string, want count, args ...string) {
				t.Helper()
				r.run(args...)
				c := r.check()
				if c.of != c.files+c.scripts || c.packages != want.packages || c.files != want.files || c.scripts != want.scripts {
					t.Errorf("%s: found %+v, want %+v", name, c, want)
				}
				r.audit()
				if left := r.leftovers(); len(left) > 0 {
					t.Errorf("%s: left over: %q", name, left)
				}
			}
			one := []string{"dpkg", "-i", deb("sealed", "1", "all")}
			two := []string{"dpkg", "-i", deb("sealed", "2", "all")}

			// Two conffiles that are not executable and the excluded file have no label.
			step("install", count{packages: 1, files: 17, scripts: 5}, one...)
			r.write("etc/sealed/edited.conf", "by the administrator\n", 0o644)
			step("a package that diverts", count{packages: 2, files: 18, scripts: 7}, "dpkg", "-i", deb("diverter", "1", "all"))
			step("upgrade", count{packages: 2, files: 18, scripts: 7}, two...)
			step("reinstall", count{packages: 2, files: 18, scripts: 7}, two...)
			step("downgrade", count{packages: 2, files: 18, scripts: 7}, one...)
			step("one architecture", count{packages: 3, files: 20, scripts: 8}, "dpkg", "-i", deb("libsealed", "1", native))
			step("the other", count{packages: 4, files: 21, scripts: 9}, "dpkg", "-i", deb("libsealed", "1", foreign))
			step("upgrade of both", count{packages: 4, files: 21, scripts: 9}, "dpkg", "-i", deb("libsealed", "2", native), deb("libsealed", "2", foreign))
			// dpkg keeps both inodes, as their content is what the package has.
			r.unlabel("etc/sealed/executable.conf")
			step("reinstall over a conffile without a label", count{packages: 4, files: 21, scripts: 9}, one...)
			r.unlabel("usr/share/libsealed/shared")
			step("reinstall of one where the shared file lost its label", count{packages: 4, files: 21, scripts: 9}, "dpkg", "-i", deb("libsealed", "2", foreign))
			step("without the diverter", count{packages: 3, files: 20, scripts: 7}, "dpkg", "--purge", "diverter")

			r.run("dpkg", "--remove", "sealed")
			want := []string{"etc/sealed/executable.conf", "var/lib/dpkg/info/sealed.postrm"}
			var kept []string
			for path := range r.labels() {
				if strings.Contains(path, "sealed") && !strings.Contains(path, "libsealed") && !strings.HasPrefix(path, "usr/lib/sealed-") {
					kept = append(kept, path)
				}
			}
			slices.Sort(kept)
			if !slices.Equal(kept, want) {
				t.Errorf("removed, labelled are %q, want %q", kept, want)
			}
			step("install of what was removed", count{packages: 3, files: 20, scripts: 7}, two...)
			if got := r.read("etc/sealed/edited.conf"); got != "by the administrator\n" {
				t.Errorf("edited.conf is now %q", got)
			}
			r.unlabel("etc/sealed/executable.conf")
			r.write("etc/sealed/executable.conf", "#!/bin/sh\n# by the administrator\n", 0o755)
			r.run(two...)
			if label, err := attribute(r.name("etc/sealed/executable.conf")); err != nil || label != "" {
				t.Errorf("an edited conffile got the label %x (%v)", label, err)
			}
			r.run("dpkg", "--purge", "sealed", "libsealed:"+native, "libsealed:"+foreign)
			if left := r.labels(); len(left) > 0 {
				t.Errorf("purged, and still labelled are %d files: %q", len(left), left)
			}
			r.audit()
		})
	}
}

// TestOtherRoot installs with --root, where dpkg and the hook see names differently.
func TestOtherRoot(t *testing.T) {
	repo := makePackages(t, made{name: "rooted", version: "1", arch: "all", files: []madeFile{
		{path: "usr/bin/rooted", content: "#!/bin/sh\n", mode: 0o755}, {path: "usr/share/rooted", content: "data"}}})
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			r := newRoot(t, suite)
			r.use(repo)
			for _, file := range []string{"status", "available", "info/format", "updates/x"} {
				r.write("mnt/target/var/lib/dpkg/"+file, "", 0o644)
			}
			must(t, os.Remove(r.name("mnt/target/var/lib/dpkg/updates/x")))
			r.write("mnt/target/var/lib/dpkg/info/format", "1\n", 0o644)
			r.run("dpkg", "--root=/mnt/target", "-i", deb("rooted", "1", "all"))
			signed := r.manifest("mnt/target/var/lib/dpkg/info/rooted.ima-signatures")
			labels := r.labels()
			for _, path := range []string{"usr/bin/rooted", "usr/share/rooted"} {
				if value := labels["mnt/target/"+path]; value == "" || value != signed[path] {
					t.Errorf("%s: label %x, signature %x", path, value, signed[path])
				}
			}
			if wrong := r.wrong(labels); len(labels) != 2 || len(wrong) > 0 {
				t.Errorf("%d labels; %q", len(labels), wrong)
			}
		})
	}
}

// unlabel takes the label off a file.
func (r *root) unlabel(path string) {
	r.t.Helper()
	must(r.t, unix.Lremovexattr(r.name(path), "security.ima"))
}
