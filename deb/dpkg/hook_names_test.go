package dpkg

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/sign"
)

// Where dpkg puts files, under stock dpkg.

func TestDpkgDivertsFiles(t *testing.T) {
	s := newDpkgScene(t)
	must(t, os.WriteFile(filepath.Join(s.root, "var/lib/dpkg/diversions"),
		[]byte("/usr/share/hello/empty\n/usr/share/hello/empty.moved\nother\n/usr/bin/hello\n/usr/bin/hello.moved\nhello\n"), 0o644))
	s.install(hello())
	if !s.labelled("usr/share/hello/empty.moved", "") || !s.labelled("usr/bin/hello", "#!/bin/sh\necho hello\n") {
		t.Error("a diverted file has no label")
	}
}

func TestDpkgLeavesFilesOut(t *testing.T) {
	s := newDpkgScene(t)
	s.options = []string{"--path-exclude=/usr/share/hello/*", "--path-include=/usr/share/hello/e*"}
	s.install(hello())
	if o, _ := s.last(); o.Skipped[reasonExcluded] != 2 || !s.labelled("usr/share/hello/empty", "") {
		t.Errorf("%+v", o)
	}
	s.clean()
}

// Of a hard link the last name counts: dpkg sets owner and mode for each.
func TestDpkgOverridesModes(t *testing.T) {
	s := newDpkgScene(t)
	must(t, os.WriteFile(filepath.Join(s.root, "var/lib/dpkg/statoverride"),
		[]byte("#12 #34 4711 /usr/share/hello/empty\n#1 #1 1700 /usr/bin/hello\n#56 root 2750 /usr/bin/hi\n"), 0o644))
	s.install(hello())
	for name, want := range map[string]unix.Stat_t{
		"usr/share/hello/empty": {Mode: 0o4711, Uid: 12, Gid: 34}, "usr/bin/hello": {Mode: 0o2750, Uid: 56},
	} {
		var stat unix.Stat_t
		must(t, unix.Stat(filepath.Join(s.root, name), &stat))
		if s.unlabelled(name) || stat.Mode&0o7777 != want.Mode || stat.Uid != want.Uid || stat.Gid != want.Gid {
			t.Errorf("%s: mode %o, owner %d, group %d", name, stat.Mode, stat.Uid, stat.Gid)
		}
	}
}

// Names of owners win over numbers where the root knows them.
func TestDpkgGivesFilesToUsersOfTheRoot(t *testing.T) {
	s := newDpkgScene(t)
	must(t, os.MkdirAll(filepath.Join(s.root, "etc"), 0o755))
	must(t, os.WriteFile(filepath.Join(s.root, "etc/passwd"), []byte("root:x:0:0::/:/bin/sh\nhello:x:77:88::/:/bin/sh\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(s.root, "etc/group"), []byte("root:x:0:\nhello:x:88:\n"), 0o644))
	p := hello()
	f := p.file("usr/share/hello/empty")
	f.Uname, f.Gname, f.Uid, f.Gid, f.Mode = "hello", "hello", 5, 6, 0o6755
	s.install(p)
	var stat unix.Stat_t
	must(t, unix.Stat(filepath.Join(s.root, f.Name), &stat))
	if !s.labelled(f.Name, f.body) || stat.Uid != 5 && stat.Uid != 77 {
		t.Errorf("owner %d", stat.Uid)
	}
}

func TestDpkgUnpacksThroughLinkedFolders(t *testing.T) {
	s := newDpkgScene(t)
	must(t, os.MkdirAll(filepath.Join(s.root, "usr/lib"), 0o755))
	must(t, os.Symlink("usr/lib", filepath.Join(s.root, "lib")))
	p := hello()
	p.files = append(p.files, folders("lib")[1], plainFile("lib/libhello.so", "lib", 0o644))
	s.install(p)
	if !s.labelled("usr/lib/libhello.so", "lib") {
		t.Error("a file below a linked folder has no label")
	}
	// Below --root dpkg follows an absolute link out of it. The hook does not.
	s.newRoot()
	away := t.TempDir()
	must(t, os.Symlink(away, filepath.Join(s.root, "lib")))
	out, err := s.dpkg("-i", p.write(t, s.key))
	if err == nil || !strings.Contains(out, "/lib/libhello.so") {
		t.Errorf("%v: %s", err, out)
	}
	if !s.unlabelled(filepath.Join(away, "libhello.so")) && !os.IsNotExist(unix.Access(filepath.Join(away, "libhello.so"), 0)) {
		t.Error("a file outside of the root has a label")
	}
}

func TestDpkgReplacesFilesByFoldersAndBack(t *testing.T) {
	s := newDpkgScene(t)
	one, two := hello(), hello()
	two.version = "2"
	one.files = append(one.files, plainFile("usr/share/hello/thing", "a file", 0o644), folders("usr/share/hello/other")[1], plainFile("usr/share/hello/other/in", "in", 0o644))
	two.files = append(two.files, folders("usr/share/hello/thing")[1], plainFile("usr/share/hello/thing/in", "in it", 0o644), plainFile("usr/share/hello/other", "now a file", 0o644))
	s.install(one)
	s.install(two)
	if !s.labelled("usr/share/hello/thing/in", "in it") || !s.labelled("usr/share/hello/other", "now a file") {
		t.Error("no label after a file became a folder, and a folder a file")
	}
	s.clean()
	s.install(one)
	if !s.labelled("usr/share/hello/thing", "a file") || !s.labelled("usr/share/hello/other/in", "in") {
		t.Error("no label after it all went back")
	}
	s.clean()
}

func TestDpkgUnpacksLongAndOddNames(t *testing.T) {
	s := newDpkgScene(t)
	p := hello()
	deep := "usr/share/hello/" + strings.Repeat(strings.Repeat("d", 50)+"/", 20)
	for at := len("usr/share/hello/"); at < len(deep); at++ {
		if deep[at] == '/' {
			p.files = append(p.files, folders(deep[:at])[1])
		}
	}
	odd := []string{deep + "file", "usr/share/hello/" + strings.Repeat("n", 246), `usr/share/hello/back\slash "quoted"`, "usr/share/hello/\x01\xff\t%s", "usr/share/hello/#file: x", "usr/share/hello/ "}
	for _, name := range odd {
		p.files = append(p.files, plainFile(name, name, 0o644))
	}
	s.install(p)
	for _, name := range odd {
		if !s.labelled(name, name) {
			t.Errorf("%q has no label", name)
		}
	}
}

func TestDpkgUnpacksConffilesThatAreLinks(t *testing.T) {
	s := newDpkgScene(t)
	s.configure("label-conffiles = all\n")
	s.install(hello())
	at := filepath.Join(s.root, "etc/init.d/hello")
	must(t, os.MkdirAll(filepath.Join(s.root, "srv"), 0o755))
	must(t, os.Rename(at, filepath.Join(s.root, "srv/hello")))
	must(t, os.Symlink("../../srv/hello", at))
	two := hello()
	two.version = "2"
	two.file("etc/init.d/hello").body = "#!/bin/sh\nexit 3\n"
	s.options = []string{"--force-confnew"}
	s.install(two)
	// dpkg 1.21 to 1.23 unpack the new one beside the link, and never find it again.
	found := 0
	for _, name := range []string{"etc/init.d/hello", "etc/init.d/hello.dpkg-new", "srv/hello"} {
		if info, err := os.Lstat(filepath.Join(s.root, name)); err == nil && info.Mode().IsRegular() && s.labelled(name, "#!/bin/sh\nexit 3\n") {
			found++
		}
	}
	if found != 1 {
		t.Errorf("the new conffile has its label at %d places", found)
	}
}

// An instance for another architecture brings no file that is there already.
func TestDpkgSharesFilesBetweenInstances(t *testing.T) {
	s := newDpkgScene(t)
	s.configure("", s.key.der)
	native, err := s.command("--print-architecture").Output()
	must(t, err)
	if _, err := s.dpkg("--add-architecture", "riscv64"); err != nil {
		t.Fatal(err)
	}
	instance := func(arch string, unsigned bool) *testPackage {
		p := hello()
		p.arch, p.fields, p.unsigned, p.members = arch, "Multi-Arch: same\n", unsigned, nil
		p.files = append(folders("usr", "usr/share", "usr/lib", "usr/lib/"+arch), plainFile("usr/share/common", "common", 0o644), plainFile("usr/lib/"+arch+"/own", arch, 0o644))
		return p
	}
	first, second := instance(strings.TrimSpace(string(native)), true), instance("riscv64", false)
	s.install(first)
	if !s.unlabelled("usr/share/common") {
		t.Fatal("a file of an unsigned package has a label")
	}
	s.install(second)
	if !s.labelled("usr/share/common", "common") || !s.labelled("usr/lib/riscv64/own", "riscv64") {
		t.Error("the shared file has no label")
	}
	if o, _ := s.last(); o.Labelled != 2 {
		t.Errorf("%+v", o)
	}
	// A valid label of another key stays, and so does that of the first when it comes anew.
	other := newTestKey(t)
	s.configure("", s.key.der, other.der)
	must(t, unix.Setxattr(filepath.Join(s.root, "usr/share/common"), sign.XattrName, other.value(t, "common"), 0))
	s.install(second)
	if s.labelled("usr/share/common", "common") {
		t.Error("the label of the other key is gone")
	}
	if o, _ := s.last(); o.Skipped[reasonOtherLabel] != 1 {
		t.Errorf("%+v", o)
	}
	s.clean()
}

// A file that a newer package took over is not extracted any more.
func TestDpkgKeepsFilesOfAPackageThatReplaces(t *testing.T) {
	s := newDpkgScene(t)
	newer := &testPackage{name: "newer", version: "1", arch: "all", fields: "Replaces: hello\n", unsigned: true,
		files: append(folders("usr", "usr/share", "usr/share/hello"), plainFile("usr/share/hello/empty", "taken", 0o644))}
	s.install(newer)
	s.install(hello())
	if o, _ := s.last(); o.Skipped[reasonReplaced] != 1 || !s.unlabelled("usr/share/hello/empty") {
		t.Errorf("%+v", o)
	}
	s.clean()
}

// dpkg makes links, devices and pipes without a content, which have no label.
func TestDpkgMakesWhatIsNoFile(t *testing.T) {
	s := newDpkgScene(t)
	p := hello()
	p.files = append(p.files, special(tar.TypeFifo, "usr/share/hello/pipe", ""), special(tar.TypeSymlink, "usr/share/hello/away", s.outside))
	device := special(tar.TypeChar, "usr/share/hello/null", "")
	device.Devmajor, device.Devminor = 1, 3
	p.files = append(p.files, device)
	s.install(p)
	if !s.unlabelled("usr/share/hello/pipe") || !s.unlabelled("usr/share/hello/null") || !s.unlabelled(s.outside) {
		t.Error("something that is no file of the package has a label")
	}
}
