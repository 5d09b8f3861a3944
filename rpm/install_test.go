package rpm

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/sign"
)

// A piece is an entry of a payload: a file of the package, and its content there.
type piece struct {
	file    int
	content string
}

// pieces makes a payload of list.
func (p testPackage) pieces(list ...piece) func([]byte) []byte {
	return func([]byte) []byte {
		var b []byte
		for _, c := range list {
			f := p.files[c.file]
			mode := f.mode
			if mode == 0 {
				mode = 0o100644
			}
			b = append(b, cpioEntryOf("."+f.path, mode, int(f.inode), len(c.content))...)
			b = pad4(append(b, c.content...))
		}
		return append(b, cpioEntryOf(cpioTrailer, 0, 0, 0)...)
	}
}

// An oddPayload is a package whose headers are in order and whose payload is odd. Of
// those that we refuse rpm installs something else, without a word, or nothing.
type oddPayload struct {
	testPackage
	refuse string // in our error; empty where it is read as rpm does
}

func oddPayloads() map[string]oddPayload {
	p := testPackage{files: []testFile{
		{path: "/d", mode: 0o040755},
		{path: "/d/a1", content: "one", inode: 70},
		{path: "/d/a2", content: "one", inode: 70},
		{path: "/d/b1", content: "other", inode: 80},
		{path: "/d/b2", content: "other", inode: 80},
		{path: "/d/ghost", content: "ghost", flags: fileGhost},
		{path: "/d/x", content: "alone"},
	}}
	of := func(refuse string, list ...piece) oddPayload {
		q := p
		q.editCpio = p.pieces(list...)
		return oddPayload{q, refuse}
	}
	d, a1, a2, b1, b2, x := piece{0, ""}, piece{1, ""}, piece{2, "one"}, piece{3, ""}, piece{4, "other"}, piece{6, "alone"}
	list := map[string]oddPayload{
		"usual":                     {usual(), ""},
		"in order":                  of("", d, a1, a2, b1, b2, x),
		"in another order":          of("", x, b1, b2, a1, a2, d),
		"folder between the names":  of("", a1, d, a2, b1, b2, x),
		"ghost is there":            of("", d, a1, a2, b1, b2, piece{5, "ghost"}, x),
		"content with another name": of("by the main header 0", d, piece{1, "one"}, piece{2, ""}, b1, b2, x),
		"content with each name":    of("by the main header 0", d, piece{1, "one"}, a2, b1, b2, x),
		"content with no name":      of("by the main header 3", d, a1, piece{2, ""}, b1, b2, x),
		"name after the content":    of("comes before", d, a2, a1, b1, b2, x),
		"name missing":              of("comes before", d, a2, b1, b2, x),
		"file between the names":    of("comes between", d, a1, x, a2, b1, b2),
		"names mixed":               of("comes between", d, a1, b1, a2, b2, x),
		"folder missing":            of("not in the payload", a1, a2, b1, b2, x),
	}
	// rpm knows of no links where it knows no inode or device.
	for name, edit := range map[string]func([]entry) []entry{
		"inodes 0":   func(e []entry) []entry { return replace(e, intsEntry(tagFileInodes, typeInt32, 0, 0, 0, 0, 0, 0, 0)) },
		"no inodes":  func(e []entry) []entry { return without(e, tagFileInodes) },
		"no devices": func(e []entry) []entry { return without(e, tagFileDevices) },
	} {
		apart := of("", d, piece{1, "one"}, a2, piece{3, "other"}, b2, x)
		apart.editMain = edit
		list[name] = apart
	}
	stripped := usual()
	stripped.stripped = true
	list["stripped"] = oddPayload{testPackage: stripped}
	return list
}

// TestOddPayloads wants each read to the end, or refused with the reason.
func TestOddPayloads(t *testing.T) {
	for name, c := range oddPayloads() {
		files, err := walk(t, open(t, c.build(t), Options{}))
		if c.refuse != "" {
			if err == nil || !strings.Contains(err.Error(), c.refuse) {
				t.Errorf("%s: error %v does not speak of %q", name, err, c.refuse)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		contents := map[string]string{}
		for _, f := range files {
			if contents[f.Path] = f.Content; f.Link != "" {
				contents[f.Path] = contents[f.Link]
			}
		}
		for _, f := range c.files {
			if f.installs() && contents[f.path[1:]] != f.content {
				t.Errorf("%s: %q has the content %q", name, f.path, contents[f.path[1:]])
			}
		}
	}
}

// installs reports whether f is a regular file that is installed.
func (f testFile) installs() bool {
	return (f.mode == 0 || f.mode&modeType == modeRegular) && f.flags&fileGhost == 0
}

// TestInstalledAsRead has rpm install them. What we refuse has to be wrong there.
func TestInstalledAsRead(t *testing.T) {
	rpm := system(t)
	if os.Getuid() != 0 {
		t.Skip("only root may install into a folder")
	}
	for name, c := range oddPayloads() {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			out, err := try(nil, rpm, "--root", root, "-U", "--nodeps", "--ignoreos", "--nosignature",
				save(t, filepath.Join(t.TempDir(), "x.rpm"), c.build(t)))
			right := err == nil
			for _, f := range c.files {
				if content, err := os.ReadFile(filepath.Join(root, f.path)); f.installs() && (err != nil || string(content) != f.content) {
					right = false
				}
			}
			if right != (c.refuse == "") {
				t.Errorf("rpm installs the right files: %v; we refuse: %q; rpm says: %v %s", right, c.refuse, err, out)
			}
		})
	}
}

// getfattr returns what getfattr dumps of security.ima below root: of the files in
// list, in their order, or of all.
func getfattr(t *testing.T, root string, list []sign.Entry) []byte {
	t.Helper()
	args := []string{"--dump", "--no-dereference", "--physical", "--match=^security\\.ima$", "--encoding=base64", "--recursive", "--", "."}
	if list != nil {
		args = append(args[:len(args)-3], "--")
		for _, e := range list {
			args = append(args, e.Path)
		}
	}
	cmd := exec.Command("getfattr", args...)
	cmd.Dir = root
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("getfattr: %v", err)
	}
	return text
}

// install has rpm, whose plugin for IMA is in the folder plugins, install raw, and
// compares the attributes with m.
func install(t *testing.T, rpm, plugins string, raw []byte, m *sign.Manifest, options ...string) {
	t.Helper()
	need(t, "getfattr")
	root := t.TempDir()
	probe := save(t, filepath.Join(root, "probe"), nil)
	if err := unix.Setxattr(probe, sign.XattrName, []byte{3, 2}, 0); err != nil {
		t.Skipf("no security.ima in %s: %v", root, err)
	}
	if err := os.Remove(probe); err != nil {
		t.Fatal(err)
	}
	path := save(t, filepath.Join(t.TempDir(), "x.rpm"), raw)
	run(t, nil, rpm, append([]string{"--root", root, "-U", "--nodeps", "--noscripts", "--nosignature", "--define", "__plugindir " + plugins, path}, options...)...)
	if got, want := getfattr(t, root, m.Files), sign.FormatAttributes(m.Files); !bytes.Equal(got, want) {
		t.Errorf("getfattr shows\n%s\nnot\n%s", got, want)
	}
	if n := bytes.Count(getfattr(t, root, nil), []byte("# file: ")); n != len(m.Files) {
		t.Errorf("%d files have the attribute, not %d", n, len(m.Files))
	}
}

// TestPlugin has rpm's plugin set the attributes. Debian 12 has it in a folder that
// is not the one of rpm's macro __plugindir.
func TestPlugin(t *testing.T) {
	rpm := system(t)
	if os.Getuid() != 0 {
		t.Skip("only root may set security.ima")
	}
	found, _ := filepath.Glob("/usr/lib*/rpm-plugins/ima.so")
	more, _ := filepath.Glob("/usr/lib/*/rpm-plugins/ima.so")
	if found = append(found, more...); len(found) == 0 {
		t.Skip("rpm-plugin-ima is not installed")
	}
	plugins := filepath.Dir(found[0])
	raw := spec{install: someFiles, files: someList}.build(t, "")
	out, m := signed(t, raw, Options{})
	if len(m.Files) != 8 {
		t.Errorf("%d files were signed", len(m.Files))
	}
	install(t, rpm, plugins, out, m, "--define", "_ima_sign_config_files 1")

	// RSA, and files of which some have none. The plugin leaves %config alone.
	_, key := keyFile(t, "rsa")
	selection, err := sign.NewSelection([]string{"exec", "/etc/**"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := open(t, raw, Options{})
	if m, err = sign.Sign(t.Context(), p, key, sign.Options{Selection: selection}); err != nil {
		t.Fatal(err)
	}
	if len(m.Files) != 4 || m.Files[0].Path != "etc/x.conf" {
		t.Fatalf("signed %v", m.Files)
	}
	install(t, rpm, plugins, write(t, p, m, sign.WriteOptions{}), &sign.Manifest{Files: m.Files[1:]})
}

// TestPlugin61 has that of rpm 6 set those of a package of format 6.
func TestPlugin61(t *testing.T) {
	p := peer61(t)
	root := forky(t)
	out, m := signed(t, spec{install: someFiles, files: someList, defines: []string{"_rpmformat 6"}}.build(t, root), Options{})
	if len(m.Files) != 8 {
		t.Errorf("%d files were signed", len(m.Files))
	}
	install(t, p.rpm, filepath.Dir(filepath.Dir(p.rpm))+"/lib/rpm-plugins", out, m, "--define", "_ima_sign_config_files 1")
}
