package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// troubledFiles is how many files the package has that gets into trouble. Each takes
// a block of a small file system, and its label another.
const troubledFiles = 300

// troubledPackage installs into a folder where a test mounts something.
func troubledPackage(version string) made {
	m := made{name: "troubled", version: version, arch: "all",
		control: []madeFile{{path: "preinst", content: "#!/bin/sh\n: " + version + "\n", mode: 0o755}}}
	for i := range troubledFiles {
		m.files = append(m.files, madeFile{path: fmt.Sprintf("opt/troubled/%03d", i), content: fmt.Sprintf("file %d of version %s", i, version)})
	}
	return m
}

// A trouble is a reason for which labels can not be set.
type trouble struct {
	name string
	// make brings it about, in a root where version 1 is installed without labels; it
	// returns what stands in front of dpkg.
	make func(r *root) []string
	// reason is what messages have to say.
	reason string
	// unsupported says that the setting of this name decides.
	unsupported bool
	// always says that dpkg itself fails, whatever the hook does.
	always bool
}

var troubles = []trouble{
	{name: "a file system without attributes", make: func(r *root) []string { return nil }, reason: "not supported", unsupported: true},
	{name: "no right to set attributes", make: func(r *root) []string {
		has(r.t, "setpriv")
		return []string{"setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"}
	}, reason: "CAP_SYS_ADMIN", unsupported: true},
	{name: "root of a user namespace", make: func(r *root) []string {
		has(r.t, "unshare")
		namespace := []string{"unshare", "--user", "--map-root-user"}
		if out, err := output(r.command(namespace, "true")); err != nil {
			r.t.Skipf("no user namespace: %v: %s", err, out)
		}
		return namespace
	}, reason: "CAP_SYS_ADMIN", unsupported: true},
	{name: "no space for attributes", make: func(r *root) []string { r.fill(troubledFiles + troubledFiles/2); return nil }, reason: "no space"},
	{name: "no space for files", make: func(r *root) []string { r.fill(troubledFiles / 2); return nil }, reason: "o space left", always: true},
}

// mountFor mounts the file system that a trouble takes on /opt, before anything is
// installed there.
func (r *root) mountFor(name string) {
	r.t.Helper()
	switch name {
	case "a file system without attributes":
		r.mount("ramfs", r.name("opt"), "ramfs", 0, "mode=755")
	case "no space for attributes", "no space for files":
		r.mountSmall()
	}
}

// mountSmall mounts an ext4 on /opt whose inodes have no room for attributes.
func (r *root) mountSmall() {
	r.t.Helper()
	has(r.t, "mke2fs", "mount")
	image := filepath.Join(r.memory, "image")
	for _, args := range [][]string{
		{"truncate", "--size=8M", image},
		{"mke2fs", "-q", "-t", "ext4", "-I", "128", "-b", "1024", "-m", "0", "-N", "2048", "-O", "^has_journal", image},
		{"mount", "-o", "loop", image, r.name("opt")},
	} {
		if out, err := output(exec.Command(args[0], args[1:]...)); err != nil {
			if args[0] == "mount" {
				r.t.Skipf("no loop device to mount: %v: %s", err, out)
			}
			r.t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	r.t.Cleanup(func() { unix.Unmount(r.name("opt"), unix.MNT_DETACH) })
}

// fill leaves so many free blocks of 1 KiB on /opt.
func (r *root) fill(free uint64) {
	r.t.Helper()
	f, err := os.Create(r.name("opt/filler"))
	must(r.t, err)
	defer f.Close()
	for {
		must(r.t, unix.Syncfs(int(f.Fd())))
		var st unix.Statfs_t
		must(r.t, unix.Statfs(r.name("opt"), &st))
		if st.Bavail <= free {
			return
		}
		info, err := f.Stat()
		must(r.t, err)
		// Not all at once: the list of the blocks takes some as well.
		step := max(int64(st.Bavail-free)*9/10, 1)
		must(r.t, unix.Fallocate(int(f.Fd()), 0, info.Size(), step*1024))
	}
}

// TestTrouble upgrades a package where labels can not be set, under each policy: it
// is refused or passes as the policy says, a message names package and reason, and
// dpkg's state is clean either way.
func TestTrouble(t *testing.T) {
	repo := makePackages(t, troubledPackage("1"), troubledPackage("2"))
	for _, trouble := range troubles {
		t.Run(trouble.name, func(t *testing.T) {
			for _, mode := range []string{"enforce", "warn", "off"} {
				for _, unsupported := range []string{"warn", "refuse"} {
					t.Run("mode "+mode+", unsupported "+unsupported, func(t *testing.T) {
						r := newRoot(t, "bookworm")
						r.use(repo)
						r.mountFor(trouble.name)
						r.configure("mode = off")
						r.run("dpkg", "-i", deb("troubled", "1", "all"))
						r.configure("mode = "+mode, "unsupported = "+unsupported)
						before := trouble.make(r)
						out, err := output(r.command(before, "dpkg", "-i", deb("troubled", "2", "all")))

						refused := trouble.always || mode == "enforce" && (!trouble.unsupported || unsupported == "refuse")
						if (err != nil) != refused {
							t.Errorf("refused: %v, want %v\n%s", err != nil, refused, tail(out))
						}
						if silent := mode == "off" && !trouble.always; !silent && (!strings.Contains(out, "troubled") || !strings.Contains(out, trouble.reason)) {
							t.Errorf("no message with package and reason %q:\n%s", trouble.reason, tail(out))
						} else if silent && strings.Contains(out, "imaseal") {
							t.Errorf("not silent:\n%s", tail(out))
						}
						if lines := strings.Count(out, trouble.reason); lines > 10 {
							t.Errorf("the reason is given %d times:\n%s", lines, tail(out))
						}
						version := "2"
						if refused {
							version = "1"
						}
						r.troubled(version)
					})
				}
			}
		})
	}
}

// troubled demands that a version of the package is installed, whole, and no label
// wrong.
func (r *root) troubled(version string) {
	r.t.Helper()
	if status := r.status("troubled"); status != "ii "+version {
		r.t.Errorf("troubled is %q, want version %s", status, version)
	}
	for i := range troubledFiles {
		path := fmt.Sprintf("opt/troubled/%03d", i)
		if content := r.read(path); content != fmt.Sprintf("file %d of version %s", i, version) {
			r.t.Fatalf("%s is %q, want version %s", path, content, version)
		}
	}
	if wrong := r.wrong(r.labels()); len(wrong) > 0 {
		r.t.Errorf("wrongly labelled: %q", wrong[:min(5, len(wrong))])
	}
	r.audit()
	if left := r.leftovers(); len(left) > 0 {
		r.t.Errorf("left over: %q", slices.Compact(left)[:min(5, len(left))])
	}
}
