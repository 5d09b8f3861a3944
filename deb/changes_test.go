package deb

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func sumsOf(name string, content []byte) ChangesFile {
	return ChangesFile{
		Name: name, Size: int64(len(content)),
		MD5:    fmt.Sprintf("%x", md5.Sum(content)),
		SHA1:   fmt.Sprintf("%x", sha1.Sum(content)),
		SHA256: fmt.Sprintf("%x", sha256.Sum256(content)),
	}
}

// exampleChanges has what real ones have: fields on several lines, sections with
// a slash, lists that are not in one order.
func exampleChanges() string {
	a, b := sumsOf("hello_2.10-3_amd64.deb", []byte("a")), sumsOf("hello_2.10-3_amd64.buildinfo", []byte("bb"))
	return "Format: 1.8\nDate: Tue, 24 Nov 2026 10:00:00 +0000\nSource: hello\nBinary: hello\n" +
		"Description:\n hello      - example package\nChanges:\n hello (2.10-3) unstable; urgency=medium\n .\n   * Files: none\n" +
		"Checksums-Sha1:\n " + a.SHA1 + " 1 " + a.Name + "\n " + b.SHA1 + " 2 " + b.Name + "\n" +
		"Checksums-Sha256:\n " + b.SHA256 + " 2 " + b.Name + "\n " + a.SHA256 + " 1 " + a.Name + "\n" +
		"Files:\n " + a.MD5 + " 1 contrib/devel optional " + a.Name + "\n " + b.MD5 + " 2 - - " + b.Name + "\n"
}

func exampleBuildinfo() string {
	a := sumsOf("hello_2.10-3_amd64.deb", []byte("a"))
	return "Format: 1.0\nSource: hello\nChecksums-Md5:\n " + a.MD5 + " 1 " + a.Name + "\n" +
		"Checksums-Sha1:\n " + a.SHA1 + " 1 " + a.Name + "\nChecksums-Sha256:\n " + a.SHA256 + " 1 " + a.Name + "\n" +
		"Environment:\n LANG=\"C.UTF-8\"\n"
}

func TestChangesListsFiles(t *testing.T) {
	c, err := ParseChanges([]byte(exampleChanges()))
	if err != nil {
		t.Fatal(err)
	}
	want := []ChangesFile{sumsOf("hello_2.10-3_amd64.deb", []byte("a")), sumsOf("hello_2.10-3_amd64.buildinfo", []byte("bb"))}
	if got := c.Files(); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := string(c.Bytes()); got != exampleChanges() {
		t.Errorf("without an update the text changes:\n%s", got)
	}
}

func TestChangesUpdateReplacesOnlyTheDigits(t *testing.T) {
	was := sumsOf("hello_2.10-3_amd64.deb", []byte("a"))
	now := sumsOf(was.Name, bytes.Repeat([]byte("signed"), 1000))
	replace := strings.NewReplacer(
		was.SHA1+" 1 ", now.SHA1+" 6000 ", was.SHA256+" 1 ", now.SHA256+" 6000 ", was.MD5+" 1 ", now.MD5+" 6000 ")
	for _, test := range []struct {
		name  string
		parse func([]byte) (*Changes, error)
		text  string
	}{
		{"changes", ParseChanges, exampleChanges()},
		{"changes with odd blanks", ParseChanges, strings.ReplaceAll(strings.ReplaceAll(exampleChanges(), "contrib/devel", "  contrib/devel\t"), "Files:\n", "files: \t\n") + "\n\n"},
		{"changes without a last newline", ParseChanges, strings.TrimSuffix(exampleChanges(), "\n")},
		{"buildinfo", ParseBuildinfo, exampleBuildinfo()},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := test.parse([]byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time it is no news
				if err := c.Update(now); err != nil {
					t.Fatal(err)
				}
				if got, want := string(c.Bytes()), replace.Replace(test.text); got != want {
					t.Fatalf("got:\n%s\nwant:\n%s", got, want)
				}
			}
			again, err := test.parse(c.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(again.Files(), c.Files()) || c.Files()[0] != now {
				t.Errorf("read again: %+v, want %+v", again.Files(), c.Files())
			}
			if err := c.Update(was); err != nil || string(c.Bytes()) != test.text {
				t.Errorf("updating back does not give the text back: %v", err)
			}
		})
	}
}

func TestChangesUpdateRefuses(t *testing.T) {
	good := sumsOf("hello_2.10-3_amd64.deb", []byte("x"))
	for name, change := range map[string]func(*ChangesFile){
		"a file that is not listed": func(f *ChangesFile) { f.Name = "other.deb" },
		"a negative size":           func(f *ChangesFile) { f.Size = -1 },
		"a missing MD5":             func(f *ChangesFile) { f.MD5 = "" },
		"a short SHA-1":             func(f *ChangesFile) { f.SHA1 = f.SHA1[1:] },
		"an upper-case SHA-256":     func(f *ChangesFile) { f.SHA256 = strings.Repeat("A", 64) },
		"a sum with a newline":      func(f *ChangesFile) { f.SHA256 = f.SHA256[:63] + "\n" },
	} {
		c, err := ParseChanges([]byte(exampleChanges()))
		if err != nil {
			t.Fatal(err)
		}
		f := good
		change(&f)
		if err := c.Update(f); err == nil {
			t.Errorf("%s: no error", name)
		}
		if string(c.Bytes()) != exampleChanges() {
			t.Errorf("%s: the text changed", name)
		}
	}
}

func TestParseChangesRefuses(t *testing.T) {
	a := sumsOf("hello_2.10-3_amd64.deb", []byte("a"))
	b := sumsOf("hello_2.10-3_amd64.buildinfo", []byte("bb"))
	swap := func(old, new string) string { return strings.Replace(exampleChanges(), old, new, 1) }
	rename := func(name string) string { return strings.ReplaceAll(exampleChanges(), a.Name, name) }
	shaLine := " " + b.SHA256 + " 2 " + b.Name + "\n"
	for name, test := range map[string]struct{ text, want string }{
		"clear signature":             {"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n" + exampleChanges(), "inside its signature"},
		"empty":                       {"", "no list Files"},
		"no Files":                    {exampleChanges()[:strings.Index(exampleChanges(), "Files:\n")], "no list Files"},
		"no Checksums-Sha1":           {swap("Checksums-Sha1:", "X-Sha1:"), "no list Checksums-Sha1"},
		"no Checksums-Sha256":         {swap("Checksums-Sha256:", "X-Sha256:"), "no list Checksums-Sha256"},
		"unknown checksums":           {swap("Format:", "Checksums-Sha512:\n x\nFormat:"), "not known"},
		"field twice":                 {swap("Source:", "format: 1.8\nSource:"), "a second field format"},
		"list twice":                  {exampleChanges() + "files:\n", "a second field"},
		"file missing in a list":      {swap(shaLine, ""), "lists 1 files"},
		"file twice in a list":        {swap(shaLine, shaLine+shaLine), "listed twice"},
		"file twice in the first":     {swap(" "+a.SHA1, " "+a.SHA1+" 1 "+a.Name+"\n "+a.SHA1), "listed twice"},
		"file only in a later list":   {swap(shaLine, strings.Replace(shaLine, b.Name, "other", 1)), "other is not in the other lists"},
		"sizes differ":                {swap(b.SHA256+" 2", b.SHA256+" 3"), "has 3 bytes, but 2"},
		"MD5 sums differ":             {exampleChanges() + "Checksums-Md5:\n " + b.MD5 + " 1 " + a.Name + "\n " + b.MD5 + " 2 " + b.Name + "\n", "another sum"},
		"Files of a .dsc":             {swap(" contrib/devel optional ", " "), "3 columns, not 5"},
		"six columns":                 {swap(" contrib/devel optional ", " a b c "), "6 columns"},
		"list on its first line":      {swap("Files:\n", "Files: "), "on its first line"},
		"upper-case sum":              {swap(b.SHA256, strings.ToUpper(b.SHA256)), "not a sum"},
		"short sum":                   {swap(b.SHA1, b.SHA1[1:]), "not a sum of 40"},
		"sum of other letters":        {swap(b.SHA1, b.SHA1[1:]+"g"), "not a sum of 40"},
		"negative size":               {strings.ReplaceAll(exampleChanges(), " 2 ", " -2 "), "size \"-2\""},
		"signed size":                 {strings.ReplaceAll(exampleChanges(), " 2 ", " +2 "), "size \"+2\""},
		"size with a zero":            {strings.ReplaceAll(exampleChanges(), " 2 ", " 02 "), "size \"02\""},
		"size that overflows":         {strings.ReplaceAll(exampleChanges(), " 2 ", " 9223372036854775808 "), "not a number of bytes"},
		"size in hexadecimal":         {strings.ReplaceAll(exampleChanges(), " 2 ", " 0x2 "), "not a number of bytes"},
		"name with a folder":          {rename("../x.deb"), "not a plain file name"},
		"absolute name":               {rename("/x.deb"), "not a plain file name"},
		"name ..":                     {rename(".."), "not a plain file name"},
		"name .":                      {rename("."), "not a plain file name"},
		"long name":                   {rename(strings.Repeat("x", 256)), "not a plain file name"},
		"name with a control byte":    {rename("a\x1b[1mb"), "not a plain file name"},
		"NUL":                         {swap("hello      -", "hello\x00-"), "NUL"},
		"CRLF":                        {strings.ReplaceAll(exampleChanges(), "\n", "\r\n"), "carriage return"},
		"second paragraph":            {exampleChanges() + "\nSource: x\n", "second paragraph"},
		"continuation after the end":  {exampleChanges() + "\n x\n", "second paragraph"},
		"line of blanks":              {swap(" .\n", " \t\n"), "is blank"},
		"blank first line":            {"\n" + exampleChanges(), "line 1 is blank"},
		"continuation of nothing":     {" x\n" + exampleChanges(), "continues nothing"},
		"comment":                     {swap("Source:", "# x: y\nSource:"), "is no field"},
		"no colon":                    {swap("Source: hello", "Source hello"), "is no field"},
		"field name with a blank":     {swap("Source:", "Sou rce:"), "is no field"},
		"field name not ASCII":        {swap("Source:", "Sourcé:"), "is no field"},
		"no field name":               {swap("Source:", ":"), "is no field"},
		"signature behind the fields": {exampleChanges() + "-----BEGIN PGP SIGNATURE-----\n", "is no field"},
		"too long":                    {exampleChanges() + "X: " + strings.Repeat("x", maxChanges) + "\n", "too many"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := ParseChanges([]byte(test.text))
			if err == nil {
				t.Fatalf("accepted: %+v", c.Files())
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q does not say %q", err, test.want)
			}
		})
	}
	if _, err := ParseBuildinfo([]byte(exampleChanges())); err == nil || !strings.Contains(err.Error(), "Files") {
		t.Errorf("a .changes passes for a .buildinfo: %v", err)
	}
	if _, err := ParseChanges([]byte(exampleBuildinfo())); err == nil {
		t.Error("a .buildinfo passes for a .changes")
	}
}

func TestParseChangesBoundsTheNumberOfFiles(t *testing.T) {
	var lists [3]strings.Builder
	for i := range maxChangesFiles + 1 {
		f := sumsOf(fmt.Sprintf("f%d", i), nil)
		fmt.Fprintf(&lists[0], " %s 0 %s\n", f.SHA1, f.Name)
		fmt.Fprintf(&lists[1], " %s 0 %s\n", f.SHA256, f.Name)
		fmt.Fprintf(&lists[2], " %s 0 - - %s\n", f.MD5, f.Name)
	}
	_, err := ParseChanges([]byte("Checksums-Sha1:\n" + lists[0].String() + "Checksums-Sha256:\n" + lists[1].String() + "Files:\n" + lists[2].String()))
	if err == nil || !strings.Contains(err.Error(), "more than 20000 files") {
		t.Error(err)
	}
}

// TestChangesOfDpkg lets dpkg-genchanges judge: what we make of its .changes after
// the package grew is what it makes itself of the grown package.
func TestChangesOfDpkg(t *testing.T) {
	for _, tool := range []string{"dpkg-deb", "dpkg-genchanges", "dpkg-genbuildinfo"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	dir := t.TempDir()
	tree := filepath.Join(dir, "hello-1")
	run := func(name string, args ...string) []byte {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = tree
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "SOURCE_DATE_EPOCH=1700000000", "DEB_BUILD_ARCH=", "DEB_HOST_ARCH=")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %q: %v: %s", name, args, err, stderr.Bytes())
		}
		return out
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const deb, more = "hello_1-1_all.deb", "hello-doc_1-1_all.deb"
	stanza := "Package: %s\nArchitecture: all\nDescription: example\n of nothing\n"
	write(filepath.Join(tree, "debian/control"), "Source: hello\nMaintainer: A <a@example.org>\nSection: contrib/devel\nPriority: optional\nStandards-Version: 4.6.2\n\n"+
		fmt.Sprintf(stanza, "hello")+"\n"+fmt.Sprintf(stanza, "hello-doc"))
	write(filepath.Join(tree, "debian/changelog"), "hello (1-1) unstable; urgency=medium\n\n  * Files: and Checksums-Sha1: are fields.\n\n -- A <a@example.org>  Tue, 24 Nov 2026 10:00:00 +0000\n")
	write(filepath.Join(tree, "debian/files"), deb+" contrib/devel optional\n"+more+" contrib/devel optional automatic=yes\n")
	for _, name := range []string{"hello", "hello-doc"} {
		write(filepath.Join(tree, name, "DEBIAN/control"), "Package: "+name+"\nVersion: 1-1\nArchitecture: all\nMaintainer: A <a@example.org>\nSection: contrib/devel\nPriority: optional\nDescription: example\n of nothing\n")
		run("dpkg-deb", "--build", "--root-owner-group", name, "..")
	}
	buildinfo := filepath.Join(dir, "hello_1-1.buildinfo")
	run("dpkg-genbuildinfo", "--build=binary", "-O"+buildinfo)
	before := run("dpkg-genchanges", "--build=binary")
	ours, err := ParseChanges(before)
	if err != nil {
		t.Fatalf("%v in\n%s", err, before)
	}
	names := []string{deb, more, filepath.Base(buildinfo)}
	for _, f := range ours.Files() {
		content, err := os.ReadFile(filepath.Join(dir, f.Name))
		if err != nil {
			t.Fatal(err)
		}
		if want := sumsOf(f.Name, content); f != want {
			t.Errorf("read %+v, want %+v", f, want)
		}
		names = slices.DeleteFunc(names, func(name string) bool { return name == f.Name })
	}
	if len(names) > 0 {
		t.Fatalf("not listed: %q in\n%s", names, before)
	}

	// The package grows as by signing, and what lists it follows.
	write(filepath.Join(tree, "hello/DEBIAN/ima-signatures"), strings.Repeat("x", 5000))
	run("dpkg-deb", "--build", "--root-owner-group", "hello", "..")
	grown, err := os.ReadFile(filepath.Join(dir, deb))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(buildinfo)
	if err != nil {
		t.Fatal(err)
	}
	info, err := ParseBuildinfo(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if err := info.Update(sumsOf(deb, grown)); err != nil {
		t.Fatal(err)
	}
	write(buildinfo, string(info.Bytes()))
	for name, content := range map[string][]byte{deb: grown, filepath.Base(buildinfo): info.Bytes()} {
		if err := ours.Update(sumsOf(name, content)); err != nil {
			t.Fatal(err)
		}
	}
	after := run("dpkg-genchanges", "--build=binary")
	if bytes.Equal(before, after) {
		t.Fatal("dpkg-genchanges did not notice that the package grew")
	}
	if got := ours.Bytes(); !bytes.Equal(got, after) {
		t.Errorf("ours:\n%s\ndpkg-genchanges:\n%s", got, after)
	}
	// And a second .buildinfo, which differs in its environment only.
	run("dpkg-genbuildinfo", "--build=binary", "-O"+buildinfo)
	if text, err = os.ReadFile(buildinfo); err != nil {
		t.Fatal(err)
	}
	theirs, err := ParseBuildinfo(text)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Files(), theirs.Files(); !slices.Equal(got, want) {
		t.Errorf(".buildinfo: ours %+v, dpkg-genbuildinfo's %+v", got, want)
	}
}

// FuzzParseChanges: what is accepted is reproduced, and an update is read back.
func FuzzParseChanges(f *testing.F) {
	f.Add([]byte(exampleChanges()))
	f.Add([]byte(exampleBuildinfo()))
	f.Add([]byte("Files:\n 0 0 - - x\nChecksums-Sha1:\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, parse := range []func([]byte) (*Changes, error){ParseChanges, ParseBuildinfo} {
			c, err := parse(text)
			if err != nil {
				continue
			}
			if !bytes.Equal(c.Bytes(), text) {
				t.Fatalf("accepted %q is written as %q", text, c.Bytes())
			}
			before := c.Files()
			if len(before) == 0 {
				t.Fatal("accepted without files")
			}
			for i, old := range before {
				if old.Name != filepath.Base(old.Name) {
					t.Fatalf("accepted the name %q", old.Name)
				}
				if err := c.Update(sumsOf(old.Name, []byte(old.Name))); err != nil {
					t.Fatal(err)
				}
				again, err := parse(c.Bytes())
				if err != nil {
					t.Fatalf("updated %q is not read: %v", c.Bytes(), err)
				}
				if !slices.Equal(again.Files(), c.Files()) {
					t.Fatalf("updated: %+v, read back: %+v", c.Files(), again.Files())
				}
				if err := c.Update(old); err != nil {
					t.Fatal(err)
				}
				if i == 3 {
					break
				}
			}
			if !bytes.Equal(c.Bytes(), text) {
				t.Fatalf("%q is not restored: %q", text, c.Bytes())
			}
		}
	})
}
