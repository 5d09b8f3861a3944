package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// allowed are the packages that the hook is built of, besides the standard library.
var allowed = []string{
	"github.com/imaseal/imaseal/cmd/imaseal-dpkg-deb",
	"github.com/imaseal/imaseal/deb/dpkg",
	"github.com/imaseal/imaseal/deb/dpkgtar",
	"github.com/imaseal/imaseal/sign",
	"github.com/imaseal/imaseal/sign/installed",
	"github.com/imaseal/imaseal/sign/xattr",
	"golang.org/x/sys/unix",
}

func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	found := strings.Fields(string(out))
	if len(found) < 4 {
		t.Errorf("only %q were found", found)
	}
	for _, name := range found {
		if !slices.Contains(allowed, name) {
			t.Errorf("the hook is built of %s: keep it out, or say here why it is needed", name)
		}
	}
}

// maxSize is what the program may have in bytes, as it is packaged.
const maxSize = 5_000_000

// The program is static and small; scripts/bench-install measures how fast it starts.
func TestProgram(t *testing.T) {
	name := filepath.Join(t.TempDir(), "dpkg-deb")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", name, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > maxSize {
		t.Errorf("it has %d bytes, more than %d", info.Size(), maxSize)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "/lib64/ld-linux") {
		t.Error("it is not static")
	}
	// With a PATH of its own only, and no dpkg-deb elsewhere, it would fail: where there
	// is dpkg it must become that one.
	real, err := exec.LookPath("dpkg-deb")
	if err != nil {
		t.Skip("needs dpkg-deb")
	}
	version := func(program string) string {
		out, err := exec.Command(program, "--version").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	if want, out := version(real), version(name); out != want {
		t.Errorf("it says %q", out)
	}
}
