package dpkg

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What docs/security.md promises of the hook names the tests that try it, and they exist.
func TestClaimsHaveTests(t *testing.T) {
	text, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "## While dpkg unpacks\n")
	if !ok {
		t.Fatal("the section is gone")
	}
	section, _, _ = strings.Cut(section, "What it does not promise:")
	known := map[string]bool{}
	for _, pattern := range []string{"*_test.go", "../dpkgtar/*_test.go", "../../cmd/imaseal-dpkg-deb/*_test.go", "../../sign/xattr/*_test.go"} {
		files, _ := filepath.Glob(pattern)
		if len(files) == 0 {
			t.Fatalf("no %s", pattern)
		}
		for _, name := range files {
			source, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(string(source), -1) {
				known[m[1]] = true
			}
		}
	}
	claims := strings.Split(section, "\n- ")[1:]
	if len(claims) < 10 {
		t.Errorf("only %d claims are left", len(claims))
	}
	for _, claim := range claims {
		named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(claim, -1)
		if len(named) == 0 {
			t.Errorf("no test tries: %s", claim)
		}
		for _, m := range named {
			if !known[m[1]] {
				t.Errorf("there is no test %s for: %s", m[1], claim)
			}
		}
	}
}
