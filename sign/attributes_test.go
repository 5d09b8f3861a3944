package sign_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

var oddNames = []string{
	" leading", "# file: x", "-rf", "a\tb", "a b ", "a=b", "back\\slash", "dir/in it/file", "line\nbreak",
	"octal\\012", "quote\"'`", "return\r", "security.ima=0sAw", "usr/bin/hello", "\x01\x7f", "\xff\xfe", "ünï", strings.Repeat("x", 255),
}

// getfattr and setfattr judge the text: it is what the one writes and what the
// other reads.
func TestAttributesAreThoseOfGetfattr(t *testing.T) {
	for _, tool := range []string{"getfattr", "setfattr"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	dir := t.TempDir()
	run := func(stdin []byte, name string, args ...string) ([]byte, error) {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
		cmd.Stdin = bytes.NewReader(stdin)
		return cmd.Output()
	}
	var entries []sign.Entry
	for i, name := range oddNames {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		value := bytes.Repeat([]byte{3, 2, 4, byte(i), 0, '\n'}, 1+i%7)
		entries = append(entries, sign.Entry{Path: name, Value: value[:len(value)-i%3]})
	}
	m := sign.Manifest{Files: entries}
	m.Sort()
	entries = m.Files
	text := sign.FormatAttributes(entries)
	if _, err := run(text, "setfattr", "--restore=-"); err != nil {
		t.Skipf("security.ima cannot be set here, which takes a capability: %v", err)
	}
	args := []string{"--dump", "--encoding=base64", "--match=^security\\.ima$", "--"}
	for _, e := range entries {
		args = append(args, e.Path)
	}
	got, err := run(nil, "getfattr", args...)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, text) {
		t.Errorf("getfattr:\n%q\nours:\n%q", got, text)
	}
	read, err := sign.ParseAttributes(got)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(read, entries, func(a, b sign.Entry) bool { return a.Path == b.Path && bytes.Equal(a.Value, b.Value) }) {
		t.Errorf("read %q, want %q", read, entries)
	}
}

func TestFormatAttributesQuotes(t *testing.T) {
	got := string(sign.FormatAttributes([]sign.Entry{{Path: "a\\\r\nb", Value: []byte{3, 2}}, {Path: "c", Value: nil}}))
	want := "# file: a\\134\\015\\012b\nsecurity.ima=0sAwI=\n\n# file: c\nsecurity.ima=0s\n\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if entries, err := sign.ParseAttributes(nil); err != nil || len(entries) != 0 {
		t.Errorf("an empty text: %v, %v", entries, err)
	}
}

func TestParseAttributesRefuses(t *testing.T) {
	entry := func(name string) string { return "# file: " + name + "\nsecurity.ima=0sAwIE\n\n" }
	for name, test := range map[string]struct{ text, want string }{
		"no last newline":        {strings.TrimSuffix(entry("a"), "\n"), "line 3 does not end"},
		"cut off in the name":    {"# file: a", "line 1 does not end"},
		"no value":               {"# file: a\n", "line 2"},
		"two blank lines":        {entry("a") + "\n", "line 4 does not begin"},
		"no blank line":          {"# file: a\nsecurity.ima=0sAwIE\n# file: b\n", "line 3 is not empty"},
		"comment":                {"# made by x\n" + entry("a"), "line 1 does not begin"},
		"second attribute":       {"# file: a\nsecurity.ima=0sAwIE\nsecurity.evm=0sAwIE\n\n", "line 3 is not empty"},
		"other attribute":        {"# file: a\nsecurity.evm=0sAwIE\n\n", "line 2 does not begin"},
		"hexadecimal value":      {"# file: a\nsecurity.ima=0x030204\n\n", "line 2 does not begin"},
		"no base64":              {"# file: a\nsecurity.ima=0sA!IE\n\n", "line 2: the value is not base64"},
		"base64 without padding": {"# file: a\nsecurity.ima=0sAwI\n\n", "not base64"},
		"base64 with loose bits": {"# file: a\nsecurity.ima=0sAwJ=\n\n", "not base64"},
		"value with a return":    {"# file: a\nsecurity.ima=0sAw\rIE\n\n", "not base64"},
		"CRLF":                   {strings.ReplaceAll(entry("a"), "\n", "\r\n"), "carriage return"},
		"unsorted":               {entry("b") + entry("a"), "line 4: \"a\" stands after \"b\""},
		"twice":                  {entry("a") + entry("a"), "line 4"},
		"sorted by folders":      {entry("a/b") + entry("a!b"), "line 4"},
		"empty name":             {entry(""), "not relative"},
		"absolute":               {entry("/a"), "not relative"},
		"climbs":                 {entry("a/../b"), `component ".."`},
		"climbs first":           {entry("../b"), `component ".."`},
		"dot":                    {entry("./a"), `component "."`},
		"double slash":           {entry("a//b"), `component ""`},
		"slash at the end":       {entry("a/"), `component ""`},
		"NUL":                    {entry("a\x00"), "NUL"},
		"escape of a letter":     {entry(`\141`), "needs no escape"},
		"escape past a byte":     {entry(`\412`), "needs no escape"},
		"short escape":           {entry(`a\01`), "ends within"},
		"lone backslash":         {entry(`a\`), "ends within"},
		"escape not octal":       {entry(`\x0a`), "not octal"},
		"escape with 8":          {entry(`\018`), "not octal"},
		"escaped NUL":            {entry(`\000`), "needs no escape"},
		"escaped climb":          {entry(`\056\056`), "needs no escape"},
	} {
		entries, err := sign.ParseAttributes([]byte(test.text))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %q, error %v does not say %q", name, entries, err, test.want)
		}
	}
}

func FuzzParseAttributes(f *testing.F) {
	var entries []sign.Entry
	for _, name := range slices.Sorted(slices.Values(oddNames)) {
		entries = append(entries, sign.Entry{Path: name, Value: []byte(name)})
		f.Add(sign.FormatAttributes(entries[len(entries)-1:]))
	}
	f.Add(sign.FormatAttributes(entries))
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, err := sign.ParseAttributes(text)
		if err != nil {
			return
		}
		if again := sign.FormatAttributes(entries); !bytes.Equal(again, text) {
			t.Fatalf("accepted %q is written as %q", text, again)
		}
		for i, e := range entries {
			if err := sign.CheckPath(e.Path); err != nil {
				t.Fatal(err)
			}
			if i > 0 && entries[i-1].Path >= e.Path {
				t.Fatalf("%q after %q", e.Path, entries[i-1].Path)
			}
		}
	})
}
