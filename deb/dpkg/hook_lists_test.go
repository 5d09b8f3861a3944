package dpkg

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDiversions(t *testing.T) {
	d, err := readDiversions(strings.NewReader("/usr/bin/a\n/usr/bin/a.distrib\nwinner\n./usr/bin/b\n/opt/b\n:\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, pkg, want string }{
		{"usr/bin/a", "hello", "usr/bin/a.distrib"},
		{"usr/bin/a", "winner", "usr/bin/a"},
		{"usr/bin/b", "winner", "opt/b"},
		{"usr/bin/b", ":", "usr/bin/b"}, // no package is called so
		{"usr/bin/a.distrib", "hello", "usr/bin/a.distrib"},
		{"usr/bin/c", "hello", "usr/bin/c"},
	} {
		if got := d.Name(c.path, c.pkg); got != c.want {
			t.Errorf("%s of %s is at %s, not %s", c.path, c.pkg, got, c.want)
		}
	}
	if got := new(Diversions).Name("usr/bin/a", "x"); got != "usr/bin/a" {
		t.Errorf("without diversions it is at %s", got)
	}
	for text, want := range map[string]string{
		"/a\n/b\n":                             "has 2 lines instead of 3",
		"/a\n\nx\n":                            "line 2 is empty",
		"/a\n/b\nx":                            "does not end in a newline",
		"/a\n/b\nx\n/a\n/c\nx\n":               "part of two diversions",
		"/a\n/b\nx\n/b\n/c\nx\n":               "part of two diversions",
		"/a\n./a\nx\n":                         "part of two diversions",
		"/" + strings.Repeat("x", 5000) + "\n": "line 1 has more than",
	} {
		if _, err := readDiversions(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v", text, err)
		}
	}
}

func FuzzDiversions(f *testing.F) {
	f.Add("/usr/bin/a\n/usr/bin/a.distrib\nwinner\n", "usr/bin/a", "hello")
	f.Add("/a\n/b\n:\n./c\n//d\nx\n", "c", "x")
	f.Fuzz(func(t *testing.T, text, path, pkg string) {
		d, err := readDiversions(strings.NewReader(text))
		if err != nil {
			return
		}
		name := d.Name(path, pkg)
		if name != path && d.Name(name, pkg) != name {
			t.Errorf("%q leads to %q, which leads on", path, name)
		}
		if strings.HasPrefix(name, "/") && name != path {
			t.Errorf("%q is not relative", name)
		}
	})
}

func FuzzConffiles(f *testing.F) {
	f.Add("/etc/a\nremove-on-upgrade /etc/b\n/etc/c d \n")
	f.Fuzz(func(t *testing.T, text string) {
		found, err := readConffiles(strings.NewReader(text))
		if err != nil {
			return
		}
		for name := range found {
			if strings.HasPrefix(name, "/") || strings.Contains(name, "\n") {
				t.Errorf("%q is no path of a package", name)
			}
		}
	})
}

func TestStatoverrides(t *testing.T) {
	found, err := readStatoverrides(strings.NewReader("root mail 2755 /usr/bin/a b\n#12 #34 0640 ./etc/c\n"))
	if err != nil || len(found) != 2 || found["usr/bin/a b"] != (statoverride{"root", "mail", 0o2755}) || found["etc/c"] != (statoverride{"#12", "#34", 0o640}) {
		t.Errorf("%v, %v", found, err)
	}
	for _, text := range []string{"root root 755\n", "root root 999 /a\n", "root root 77777 /a\n", "root root -1 /a\n", "root root 644 /a"} {
		if _, err := readStatoverrides(strings.NewReader(text)); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestAccounts(t *testing.T) {
	root, system := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		root + "/etc/passwd":   "root:x:0:0::/:/bin/sh\nmail:x:8:8:::\nbad\nmail:x:9:9:::\n+nis\nhuge:x:99999999999:1:::\n",
		root + "/etc/group":    "mail:x:80:\n",
		system + "/etc/passwd": "mail:x:18:8:::\nsystem:x:19:1:::\n",
	} {
		must(t, os.MkdirAll(filepath.Dir(name), 0o755))
		must(t, os.WriteFile(name, []byte(text), 0o644))
	}
	a := openAccounts(root, system)
	for _, c := range []struct {
		id     uint32
		name   string
		number int64
		want   bool
	}{
		{8, "mail", 5, true}, {18, "mail", 5, true}, {9, "mail", 5, false}, {5, "mail", 5, false},
		{19, "system", 7, true}, {7, "system", 7, true}, {8, "system", 7, false},
		{0, "root", 0, true}, {1, "root", 0, false}, {0, "root", 7, true},
		{7, "nobody-here", 7, true}, {0, "nobody-here", 7, false}, {7, "", 7, true}, {0, "", 7, false},
		{12, "#12", 7, true}, {7, "#12", 7, false}, {7, "#x", 7, true}, {7, "huge", 7, true},
	} {
		if got := a.isUser(c.id, c.name, c.number); got != c.want {
			t.Errorf("user %q (%d) may be %d: %v", c.name, c.number, c.id, got)
		}
	}
	if !a.isGroup(80, "mail", 5) || a.isGroup(8, "mail", 5) {
		t.Error("group mail is not 80")
	}
}

func TestFnmatch(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"/usr/share/doc/*", "/usr/share/doc/a/b", true},
		{"/usr/share/doc/*", "/usr/share/do", false},
		{"*", "", true}, {"**", "a/b", true}, {"", "", true}, {"", "a", false}, {"a", "", false},
		{"*.gz", "/a/.x.gz", true}, {"a?c", "a/c", true}, {"a?c", "aüc", true}, {"a?c", "abbc", false},
		{"a*b*c", "aXbXbYc", true}, {"a*b*c", "aXbXbY", false}, {"*a", "aaab", false},
		{"[a-c]x", "bx", true}, {"[!a-c]x", "bx", false}, {"[^a-c]x", "dx", true}, {"[]a]x", "]x", true}, {"[a-]x", "-x", true},
		{"[[:digit:]]", "5", true}, {"[[:alpha:][:digit:]]", "-", false}, {"[x", "[x", true}, {"[x", "x", false},
		{`\*`, "*", true}, {`\*`, "a", false}, {`a\`, `a\`, false}, {`[\]]`, "]", true},
		{"[[:upper:]]", "A", true}, {"[[:space:]]", " ", true}, {"[[:nonsense:]]", "a", false},
		{"\xff?", "\xff\xfe", true}, {"/usr/share/locale/*/LC_MESSAGES/*.mo", "/usr/share/locale/de/LC_MESSAGES/hello.mo", true},
	} {
		if got := fnmatch(c.pattern, c.name); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.name, got)
		}
	}
	// It takes no time to see that this does not match.
	if fnmatch(strings.Repeat("a*", 1000)+"b", strings.Repeat("a", 4000)) {
		t.Error("it matches")
	}
}

func FuzzFnmatch(f *testing.F) {
	f.Add("/usr/*/[a-z]?\\*", "/usr/x/ab*")
	f.Add("[[:alpha:]-]*[", "a-[")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 200 || len(name) > 200 {
			return
		}
		if !fnmatch("*", name) || fnmatch(pattern, name) && !fnmatch(pattern+"*", name) {
			t.Errorf("%q, %q", pattern, name)
		}
	})
}

func TestFilters(t *testing.T) {
	system, home := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		filepath.Join(system, "etc/dpkg/dpkg.cfg.d/docker"):   "# x\npath-exclude=/usr/share/doc/*\npath-include /usr/share/doc/*/copyright\n",
		filepath.Join(system, "etc/dpkg/dpkg.cfg.d/docker.x"): "path-exclude=*\n",
		filepath.Join(system, "etc/dpkg/dpkg.cfg"):            "no-debsig\nlog /var/log/dpkg.log\npath-exclude = \"/usr/share/man/*\"\n",
		filepath.Join(home, ".dpkg.cfg"):                      "path-exclude='/opt/x y/*'  \n",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found := dpkgFilters(system, home, []string{"dpkg", "--unpack", "--path-exclude=/a/*", "--path-include", "/a/b", "x.deb", "--path-exclude"})
	for path, want := range map[string]bool{
		"usr/share/doc/hello/README": true, "usr/share/doc/hello/copyright": false, "usr/share/man/man1/x": true,
		"opt/x y/z": true, "a/c": true, "a/b": false, "usr/bin/hello": false,
	} {
		if excluded(found, path) != want {
			t.Errorf("%s is excluded: %v (%v)", path, !want, found)
		}
	}
	if len(dpkgFilters(t.TempDir(), "", nil)) != 0 {
		t.Error("filters out of nothing")
	}
}
