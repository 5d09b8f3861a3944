package dpkg

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"
)

// A system with programs, where the hook is one that has the mark.
func realSystem(t *testing.T, programs map[string]string, diversions string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, body := range programs {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(body), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if diversions != "" {
		if err := os.MkdirAll(filepath.Join(dir, "var/lib/dpkg"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "var/lib/dpkg/diversions"), []byte(strings.ReplaceAll(diversions, "DIR", dir)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFindRealPassesOverTheHook(t *testing.T) {
	const hook, real = "\x7fELF " + hookMark + " x", "\x7fELF real"
	for name, c := range map[string]struct {
		programs   map[string]string
		configured string
		diversions string
		want       string
	}{
		"the hook's folder comes first":    {map[string]string{"hook/dpkg-deb": hook, "bin/dpkg-deb": real}, "", "", "bin/dpkg-deb"},
		"a copy of another version":        {map[string]string{"hook/dpkg-deb": "x" + hook, "bin/dpkg-deb": real}, "", "", "bin/dpkg-deb"},
		"diverted":                         {map[string]string{"bin/dpkg-deb": hook, "distrib/dpkg-deb": real}, "", "/usr/bin/dpkg-deb\nDIR/distrib/dpkg-deb\nimaseal\n", "distrib/dpkg-deb"},
		"diverted, local":                  {map[string]string{"bin/dpkg-deb": hook, "distrib/dpkg-deb": real}, "", "/usr/bin/dpkg-deb\nDIR/distrib/dpkg-deb\n:\n", "distrib/dpkg-deb"},
		"diverted wins over PATH":          {map[string]string{"bin/dpkg-deb": real, "distrib/dpkg-deb": real}, "", "/usr/bin/dpkg-deb\nDIR/distrib/dpkg-deb\nimaseal\n", "distrib/dpkg-deb"},
		"diverted, but moved back already": {map[string]string{"bin/dpkg-deb": real}, "", "/usr/bin/dpkg-deb\nDIR/distrib/dpkg-deb\nimaseal\n", "bin/dpkg-deb"},
		"diverted to a copy of the hook":   {map[string]string{"bin/dpkg-deb": real, "distrib/dpkg-deb": hook}, "", "/usr/bin/dpkg-deb\nDIR/distrib/dpkg-deb\nimaseal\n", "bin/dpkg-deb"},
		"diversions that can't be read":    {map[string]string{"bin/dpkg-deb": real}, "", "/usr/bin/dpkg-deb\n", "bin/dpkg-deb"},
		"configured":                       {map[string]string{"hook/dpkg-deb": hook, "bin/dpkg-deb": real, "opt/deb": real}, "opt/deb", "", "opt/deb"},
		"configured, but the hook":         {map[string]string{"hook/dpkg-deb": hook, "bin/dpkg-deb": real}, "hook/dpkg-deb", "", "bin/dpkg-deb"},
		"configured, but missing":          {map[string]string{"bin/dpkg-deb": real}, "none", "", "bin/dpkg-deb"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := realSystem(t, c.programs, c.diversions)
			configured := c.configured
			if configured != "" {
				configured = filepath.Join(dir, configured)
			}
			found, err := findReal(dir, configured, dir+"/hook:"+dir+"/bin")
			if err != nil || found != filepath.Join(dir, c.want) {
				t.Errorf("%s, %v", found, err)
			}
		})
	}
}

// ownStat is the inode of no file.
var ownStat unix.Stat_t

func statOf(t *testing.T, name string) *unix.Stat_t {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Stat(name, &stat); err != nil {
		t.Fatal(err)
	}
	return &stat
}

func TestCanBeReal(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{program, dir, filepath.Join(dir, "none")} {
		if canBeReal(name, &ownStat) == nil {
			t.Errorf("%s could be executed", name)
		}
	}
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := canBeReal(program, &ownStat); err != nil {
		t.Error(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// By its inode, and by its content, which is how a copy is known.
	if canBeReal(self, statOf(t, self)) != errIsHook {
		t.Error("the program takes itself for dpkg-deb")
	}
	if canBeReal(self, &ownStat) != errIsHook {
		t.Error("the program takes a copy of itself for dpkg-deb")
	}
}

func TestWithoutMarkSeesItAcrossReads(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 256<<10)
	for _, at := range []int{0, 100, 256<<10 - 30, 256 << 10} {
		text := append(bytes.Clone(long[:at]), hookMark...)
		for _, r := range []io.Reader{bytes.NewReader(text), iotest.HalfReader(bytes.NewReader(text))} {
			if withoutMark(r) != errIsHook {
				t.Errorf("not seen at %d", at)
			}
		}
	}
	if err := withoutMark(bytes.NewReader(long)); err != nil {
		t.Error(err)
	}
	if withoutMark(iotest.ErrReader(io.ErrClosedPipe)) == nil {
		t.Error("what can't be read passes")
	}
}

func TestCandidates(t *testing.T) {
	for _, c := range []struct{ diverted, configured, want string }{
		{systemDpkgDeb, "", "/a/dpkg-deb /b/dpkg-deb /usr/bin/dpkg-deb /usr/bin/dpkg-deb.distrib /usr/bin/dpkg-deb.distrib.dpkg-tmp /usr/bin/dpkg-deb.dpkg-tmp"},
		{"/usr/bin/dpkg-deb.distrib", "/opt/deb", "/usr/bin/dpkg-deb.distrib /opt/deb /a/dpkg-deb /b/dpkg-deb /usr/bin/dpkg-deb /usr/bin/dpkg-deb.distrib /usr/bin/dpkg-deb.distrib.dpkg-tmp /usr/bin/dpkg-deb.dpkg-tmp"},
		{"/opt/real", "", "/opt/real /a/dpkg-deb /b/dpkg-deb /usr/bin/dpkg-deb /usr/bin/dpkg-deb.distrib /opt/real.dpkg-tmp /usr/bin/dpkg-deb.distrib.dpkg-tmp /usr/bin/dpkg-deb.dpkg-tmp"},
	} {
		if got := strings.Join(candidates(c.diverted, c.configured, "/a:/b"), " "); got != c.want {
			t.Errorf("%s: %s", c.diverted, got)
		}
	}
}
