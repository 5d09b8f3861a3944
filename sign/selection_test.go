package sign_test

import (
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

func TestSelectionGlobs(t *testing.T) {
	for _, test := range []struct {
		glob     string
		yes, not []string
	}{
		{"/usr/bin/hello", []string{"usr/bin/hello"}, []string{"usr/bin/hello2", "usr/bin", "usr/bin/hello/x", "bin/hello"}},
		{"/usr/bin/*", []string{"usr/bin/a", "usr/bin/.b"}, []string{"usr/bin/a/b", "usr/bin", "bin/a"}},
		{"/usr/**", []string{"usr/a", "usr/a/b/c", "usr"}, []string{"usrx/a", "x/usr/a"}},
		{"/**", []string{"a", "a/b"}, nil},
		{"/**/doc/**", []string{"usr/share/doc/x", "doc/x", "doc/doc"}, []string{"usr/docs/x", "usr/adoc"}},
		{"/**/*.so", []string{"a.so", "usr/lib/a.so"}, []string{"usr/lib/a.so.1", "a.so/b"}},
		{"/usr/**/lib/*.so", []string{"usr/lib/a.so", "usr/x/y/lib/b.so", "usr/lib/lib/c.so"}, []string{"usr/lib/x/a.so"}},
		{"/a/**/b/**/c", []string{"a/b/c", "a/x/b/y/z/c", "a/b/b/c/c"}, []string{"a/c", "a/b", "a/x/c/b"}},
		{"/a**b/c", []string{"axxb/c", "ab/c"}, []string{"a/b/c", "ax/xb/c"}},
		{"/etc/[a-c]?", []string{"etc/ax", "etc/c "}, []string{"etc/dx", "etc/a", "etc/a/"}},
		{`/a\*`, []string{"a*"}, []string{"ab"}},
		{"/ü?", []string{"üß"}, []string{"ü"}},
	} {
		s, err := sign.NewSelection([]string{test.glob}, nil)
		if err != nil {
			t.Fatal(err)
		}
		x, err := sign.NewSelection(nil, []string{test.glob})
		if err != nil {
			t.Fatal(err)
		}
		for want, names := range map[bool][]string{true: test.yes, false: test.not} {
			for _, name := range names {
				f := &sign.File{Path: name}
				if s.Match(f, nil) != want || x.Match(f, nil) == want {
					t.Errorf("%s and %s: not %v", test.glob, name, want)
				}
			}
		}
	}
}

func TestSelectionRules(t *testing.T) {
	elf, script := []byte("\x7fELF"), []byte("#!/bin/sh")
	for _, test := range []struct {
		name             string
		selects, exclude []string
		file             sign.File
		head             []byte
		want             bool
	}{
		{"all", []string{"all"}, nil, sign.File{Path: "a"}, nil, true},
		{"nothing means all", nil, nil, sign.File{Path: "a"}, nil, true},
		{"exclude wins", []string{"all", "/a"}, []string{"/a"}, sign.File{Path: "a"}, nil, false},
		{"control files always", []string{"/x"}, []string{"/**"}, sign.File{Path: "postinst", Control: true}, nil, true},
		{"exec: x bit", []string{"exec"}, nil, sign.File{Path: "a", Mode: 0o010}, []byte{}, true},
		{"exec: set-user-id alone", []string{"exec"}, nil, sign.File{Path: "a", Mode: fs.ModeSetuid | 0o644}, []byte{}, false},
		{"exec: ELF", []string{"exec"}, nil, sign.File{Path: "a", Content: io.MultiReader()}, elf, true},
		{"exec: script", []string{"exec"}, nil, sign.File{Path: "a", Content: io.MultiReader()}, script, true},
		{"exec: text", []string{"exec"}, nil, sign.File{Path: "a", Content: io.MultiReader()}, []byte("hello"), false},
		{"exec: content before class", []string{"exec"}, nil, sign.File{Path: "a", Class: sign.ClassELF, Content: io.MultiReader()}, []byte("hello"), false},
		{"exec: link to content", []string{"exec"}, nil, sign.File{Path: "a", Link: "b"}, elf, true},
		{"exec: class", []string{"exec"}, nil, sign.File{Path: "a", Class: sign.ClassScript}, nil, true},
		{"exec: no class", []string{"exec"}, nil, sign.File{Path: "a"}, nil, false},
		{"exec: module", []string{"exec"}, nil, sign.File{Path: "lib/modules/x.ko.zst"}, []byte{}, true},
		{"exec: no module", []string{"exec"}, nil, sign.File{Path: "x.ko/y"}, []byte{}, false},
		{"exec or a glob", []string{"exec", "/etc/**"}, nil, sign.File{Path: "etc/x"}, []byte{}, true},
	} {
		s, err := sign.NewSelection(test.selects, test.exclude)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Match(&test.file, test.head); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

func TestNewSelectionIsCanonical(t *testing.T) {
	a, err := sign.NewSelection([]string{"exec", "/b", "/a", "exec"}, []string{"/y", "/x", "/y"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a.Select, []string{"/a", "/b", "exec"}) || !slices.Equal(a.Exclude, []string{"/x", "/y"}) {
		t.Errorf("%q", a)
	}
	b, _ := sign.NewSelection([]string{"/a", "exec", "/b"}, []string{"/x", "/y"})
	all, _ := sign.NewSelection([]string{"all"}, nil)
	if !a.Equal(b) || a.Equal(all) || !all.Equal(sign.Selection{}) || a.Equal(sign.Selection{Select: a.Select}) {
		t.Error("Equal")
	}
	for _, glob := range []string{"", "x", "usr/bin", "All", "/", "/a/", "//a", "/a/./b", "/a/../b", "/a/[", "/a[/]b", `/a\`, "/a\n", "/a ", "/\x7f", "/" + strings.Repeat("a", 1024)} {
		if s, err := sign.NewSelection([]string{glob}, nil); err == nil {
			t.Errorf("rule %q is taken: %q", glob, s)
		}
		if s, err := sign.NewSelection(nil, []string{glob}); err == nil {
			t.Errorf("exclusion %q is taken: %q", glob, s)
		}
	}
	if _, err := sign.NewSelection(nil, []string{"exec"}); err == nil {
		t.Error("exec is taken for an exclusion")
	}
	if _, err := sign.NewSelection(make([]string, 257), nil); err == nil {
		t.Error("257 rules")
	}
}

// The worst cases of a matcher that tries all ways took longer than the universe.
func TestSelectionIsNotExponential(t *testing.T) {
	deep := strings.Repeat("a/", 2000) + "b"
	for _, glob := range []string{
		strings.Repeat("/**/a", 100) + "/c",
		strings.Repeat("/**", 300) + "/c",
		"/**" + strings.Repeat("/a", 400) + "/c",
		"/" + strings.Repeat("*a", 400) + "c",
	} {
		s, err := sign.NewSelection([]string{glob}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if s.Match(&sign.File{Path: deep}, nil) || s.Match(&sign.File{Path: strings.Repeat("a", 4000)}, nil) {
			t.Errorf("%.20s… matches", glob)
		}
	}
}

// matchSlowly is what a glob means, tried in all ways.
func matchSlowly(glob, name []string) bool {
	switch {
	case len(glob) == 0:
		return len(name) == 0
	case glob[0] == "**":
		return matchSlowly(glob[1:], name) || len(name) > 0 && matchSlowly(glob, name[1:])
	case len(name) == 0:
		return false
	}
	ok, err := path.Match(glob[0], name[0])
	return ok && err == nil && matchSlowly(glob[1:], name[1:])
}

func FuzzGlob(f *testing.F) {
	f.Add("/usr/**/lib/*.so", "usr/x/lib/a.so")
	f.Add("/a/**/b/**/c", "a/b/b/c/c")
	f.Add("/**/**/[a-c]?", "b/cc")
	f.Add(`/a\*b`, "a*b")
	f.Fuzz(func(t *testing.T, glob, name string) {
		s, err := sign.NewSelection([]string{glob}, nil)
		if err != nil || glob == "all" || glob == "exec" {
			return
		}
		got := s.Match(&sign.File{Path: name}, nil)
		g, n := strings.Split(glob, "/"), strings.Split("/"+name, "/")
		if len(g) > 8 || len(n) > 12 {
			return
		}
		if want := matchSlowly(g, n); got != want {
			t.Fatalf("%q and %q: %v", glob, name, got)
		}
	})
}
