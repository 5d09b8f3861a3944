package dpkg

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign/installed"
	"golang.org/x/sys/unix"
)

func TestReadConfig(t *testing.T) {
	c := DefaultConfig()
	problems := ReadConfig(&c, "x.conf", strings.NewReader(`
# a comment
mode = warn
  unsigned=refuse
allow = linux-image-* hello
allow = other
unknown-key = refuse
unsupported = refuse
label-conffiles = all
dpkg-deb = /usr/bin/dpkg-deb.distrib
`))
	want := Config{ModeWarn, Refuse, []string{"linux-image-*", "hello", "other"}, Refuse, Refuse, installed.ConffilesAll, "/usr/bin/dpkg-deb.distrib"}
	if len(problems) > 0 || !reflect.DeepEqual(c, want) {
		t.Errorf("%+v, %q", c, problems)
	}
	for name, want := range map[string]bool{"hello": true, "linux-image-6.1": true, "hell": false, "Hello": false, "": false} {
		if c.allowsUnsigned(name) != want {
			t.Errorf("%q is allowed: %v", name, !want)
		}
	}
	if problems := ReadConfig(&c, "y.conf", strings.NewReader("allow =\nallow = last\nmode = off")); len(problems) > 0 || !reflect.DeepEqual(c.Allowed, []string{"last"}) || c.Mode != ModeOff {
		t.Errorf("%+v, %q", c, problems)
	}
}

func TestReadConfigSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"mode = enforced":          `x.conf:1: mode: "enforced" is none of enforce, warn, off`,
		"\nunsigned = no":          `x.conf:2: unsigned: "no" is none of allow, warn, refuse`,
		"unknown-key = allow":      "none of warn, refuse",
		"unsupported = allow":      "none of warn, refuse",
		"label-conffiles = yes":    "none of executable, all, none",
		"colour = red":             `unknown key "colour"`,
		"mode":                     `"mode" is not of the form key = value`,
		"allow = [":                `"[" is no pattern`,
		"dpkg-deb = dpkg-deb":      "no absolute path",
		strings.Repeat("#", 2<<20): "more than 1048576 bytes",
	} {
		c := DefaultConfig()
		problems := ReadConfig(&c, "x.conf", strings.NewReader(text))
		if len(problems) != 1 || !strings.Contains(problems[0], want) {
			t.Errorf("%.40q: %q", text, problems)
		}
		if !reflect.DeepEqual(c, DefaultConfig()) {
			t.Errorf("%.40q changed something: %+v", text, c)
		}
	}
}

func TestLoadConfig(t *testing.T) {
	dir := t.TempDir()
	if c, problems := LoadConfig(dir); len(problems) > 0 || !reflect.DeepEqual(c, DefaultConfig()) {
		t.Errorf("of nothing: %+v, %q", c, problems)
	}
	folder := filepath.Join(dir, configFolder)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		configFile: "mode = warn\nunsigned = warn\n", configFolder + "/10-a.conf": "mode = off\nallow = a\n",
		configFolder + "/20-b.conf": "mode = enforce\nallow = b\nnonsense = 1\n", configFolder + "/30-c.conf.bak": "mode = off\n",
		configFolder + "/.40.conf": "mode = off\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(folder, "50-pipe.conf"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nonexistent", filepath.Join(folder, "60-dangling.conf")); err != nil {
		t.Fatal(err)
	}
	c, problems := LoadConfig(dir)
	want := DefaultConfig()
	want.Unsigned, want.Allowed = Warn, []string{"a", "b"}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%+v", c)
	}
	if len(problems) != 2 || !strings.Contains(problems[0], `install.conf.d/20-b.conf:3: unknown key "nonsense"`) || !strings.Contains(problems[1], "not a regular file") {
		t.Errorf("%q", problems)
	}
}

func FuzzReadConfig(f *testing.F) {
	f.Add([]byte("mode = warn\nallow = a* b\n\n# x\nunsigned=refuse"))
	f.Add([]byte("=\n = \nallow\x00= \xff"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c := DefaultConfig()
		problems := ReadConfig(&c, "x", strings.NewReader(string(text)))
		for _, p := range problems {
			if !strings.HasPrefix(p, "x:") {
				t.Errorf("problem %q does not say where", p)
			}
		}
		again := DefaultConfig()
		ReadConfig(&again, "x", strings.NewReader(string(text)))
		if !reflect.DeepEqual(c, again) {
			t.Error("read twice, it differs")
		}
		c.allowsUnsigned("hello")
	})
}
