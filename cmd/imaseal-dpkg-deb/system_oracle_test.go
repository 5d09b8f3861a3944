package main_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// The oracle says which label each file must have. It shares no code with what is
// tested: it reads the format by docs/format.md, dpkg's database by dpkg's manual,
// and asks the kernel and crypto/ecdsa.

// labels returns the value of security.ima of each file of the root that has one, by
// path without the leading slash.
func (r *root) labels() map[string]string {
	r.t.Helper()
	found := map[string]string{}
	r.walk(func(path string, d fs.DirEntry) {
		value, err := attribute(r.name(path))
		must(r.t, err)
		if value == "" {
			return
		}
		if !d.Type().IsRegular() {
			r.t.Errorf("%s is labelled and no regular file", path)
		}
		found[path] = value
	})
	return found
}

// attribute returns the label of a file, "" where it has none.
func attribute(name string) (string, error) {
	buf := make([]byte, 4096)
	n, err := unix.Lgetxattr(name, "security.ima", buf)
	if err == unix.ENODATA || err == unix.EOPNOTSUPP {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return string(buf[:n]), nil
}

// A count is what the oracle found.
type count struct {
	packages, files, scripts int // that are signed; of files and scripts those that are labelled and right
	of                       int // how many files and scripts there are that have to be
	problems                 []string
}

func (c *count) add(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// check compares the labels of the whole root with the signatures of the installed
// packages, both ways, and fails the test on any difference. It returns what it
// counted.
func (r *root) check() count {
	r.t.Helper()
	c := r.compare()
	if n := len(c.problems); n > 0 {
		r.t.Errorf("%s: %d problems, such as\n%s", r.suite, n, strings.Join(c.problems[:min(n, 20)], "\n"))
	}
	return c
}

// compare is check without a verdict.
func (r *root) compare() count {
	r.t.Helper()
	var c count
	labels := r.labels()
	expected := map[string][]string{} // values that each path may have
	scripts := map[string]bool{}
	for _, p := range r.installed() {
		if p.signatures == nil {
			continue
		}
		c.packages++
		for path, value := range p.signatures {
			if slices.Contains(r.excluded, path) {
				continue
			}
			name := r.resolve(p.diverted(path))
			if mode, ok := p.conffiles["/"+path]; ok && mode&0o111 == 0 {
				continue
			}
			expected[name] = append(expected[name], value)
		}
		for script, value := range p.scripts {
			expected[p.info+script] = []string{value}
			scripts[p.info+script] = true
		}
	}
	for _, path := range slices.Sorted(maps.Keys(expected)) {
		info, err := os.Lstat(r.name(path))
		switch {
		case err != nil:
			c.add("%s is signed and not there: %v", path, err)
		case !info.Mode().IsRegular():
			c.add("%s is signed and no regular file: %v", path, info.Mode())
		case labels[path] == "":
			c.add("%s has no label", path)
		case !slices.Contains(expected[path], labels[path]):
			c.add("%s has the label of something else", path)
		case scripts[path]:
			c.scripts++
		default:
			c.files++
		}
	}
	c.of = len(expected)
	kept := r.conffiles()
	for _, path := range slices.Sorted(maps.Keys(labels)) {
		// A conffile that its package brings no more stays, with its label.
		if expected[path] == nil && !kept[path] {
			c.add("%s has a label and no package signs it", path)
		}
	}
	c.problems = append(c.problems, r.wrong(labels)...)
	return c
}

// wrong returns which of the labels are not over the content of their file.
func (r *root) wrong(labels map[string]string) []string {
	r.t.Helper()
	var problems []string
	for _, path := range slices.Sorted(maps.Keys(labels)) {
		content, err := os.ReadFile(r.name(path))
		must(r.t, err)
		if err := verify(labels[path], content); err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", path, err))
		}
	}
	return problems
}

// testKey is the public key of the test certificate.
var testKey = sync.OnceValues(func() (*ecdsa.PublicKey, error) { return keyOf(sharedFile("keys/test.crt")) })

// keyOf returns the public key of a certificate.
func keyOf(file string) (*ecdsa.PublicKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s is no PEM", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	return cert.PublicKey.(*ecdsa.PublicKey), nil
}

// nextKey is a second key that signs packages, while a test has one.
var nextKey *ecdsa.PublicKey

// verify reports whether value is a SHA-256 file signature by the test key, or the next
// one, over content, in docs/format.md's words.
func verify(value string, content []byte) error {
	key, err := testKey()
	if err != nil {
		return err
	}
	if len(value) < 9 || value[:3] != "\x03\x02\x04" {
		return fmt.Errorf("the label %x is no signature", value)
	}
	digest := sha256.Sum256(content)
	next := nextKey != nil && ecdsa.VerifyASN1(nextKey, digest[:], []byte(value[9:]))
	if !next && !ecdsa.VerifyASN1(key, digest[:], []byte(value[9:])) {
		return errors.New("the label is not over this content")
	}
	return nil
}

// A signedPackage is an installed package as dpkg's database shows it.
type signedPackage struct {
	name string // as in diversions
	// info is the beginning of the names of its control members: var/lib/dpkg/info/PKG.
	info                string
	signatures, scripts map[string]string // nil where it is not signed
	conffiles           map[string]fs.FileMode
	diversions          map[string]diversion
}

type diversion struct{ to, by string }

func (p *signedPackage) diverted(path string) string {
	if d, ok := p.diversions["/"+path]; ok && d.by != p.name {
		return strings.TrimPrefix(d.to, "/")
	}
	return path
}

// installed returns the packages that are installed.
func (r *root) installed() []*signedPackage {
	r.t.Helper()
	var packages []*signedPackage
	diversions := r.diversions()
	list := r.run("dpkg-query", "-W", "-f", "${Package}\t${Architecture}\t${db:Status-Status}\\n")
	for line := range strings.Lines(list) {
		fields := strings.Split(strings.TrimSpace(line), "\t")
		if len(fields) != 3 || fields[2] != "installed" {
			continue
		}
		p := &signedPackage{name: fields[0], diversions: diversions, conffiles: map[string]fs.FileMode{}}
		p.info = "var/lib/dpkg/info/" + fields[0] + "."
		if _, err := os.Stat(r.name(p.info + "list")); err != nil {
			p.info = "var/lib/dpkg/info/" + fields[0] + ":" + fields[1] + "."
		}
		if _, err := os.Stat(r.name(p.info + "ima-signatures")); err == nil {
			p.signatures = r.manifest(p.info + "ima-signatures")
			p.scripts = r.manifest(p.info + "ima-control-signatures")
		}
		if _, err := os.Stat(r.name(p.info + "conffiles")); err == nil {
			for path := range strings.FieldsSeq(r.read(p.info + "conffiles")) {
				if info, err := os.Stat(r.name(path)); err == nil {
					p.conffiles[path] = info.Mode()
				}
			}
		}
		packages = append(packages, p)
	}
	if len(packages) == 0 {
		r.t.Fatal("no package is installed")
	}
	return packages
}

// conffiles returns all that dpkg knows of, obsolete ones among them.
func (r *root) conffiles() map[string]bool {
	r.t.Helper()
	found := map[string]bool{}
	for line := range strings.Lines(r.run("dpkg-query", "-W", "-f", "${Conffiles}\\n")) {
		if fields := strings.Fields(line); len(fields) > 1 {
			found[r.resolve(strings.TrimPrefix(fields[0], "/"))] = true
		}
	}
	return found
}

func (r *root) diversions() map[string]diversion {
	r.t.Helper()
	found := map[string]diversion{}
	content, err := os.ReadFile(r.name("var/lib/dpkg/diversions"))
	if errors.Is(err, fs.ErrNotExist) {
		return found
	}
	must(r.t, err)
	lines := strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
	for ; len(lines) >= 3; lines = lines[3:] {
		found[lines[0]] = diversion{to: lines[1], by: lines[2]}
	}
	return found
}

// manifest reads the text of getfattr --dump.
func (r *root) manifest(path string) map[string]string {
	r.t.Helper()
	entries := map[string]string{}
	name := ""
	for line := range strings.Lines(r.read(path)) {
		line = strings.TrimSuffix(line, "\n")
		if file, ok := strings.CutPrefix(line, "# file: "); ok {
			name = unescape(file)
		} else if text, ok := strings.CutPrefix(line, "security.ima=0s"); ok {
			value, err := base64.StdEncoding.DecodeString(text)
			must(r.t, err)
			entries[name] = string(value)
		} else if line != "" {
			r.t.Fatalf("%s: %q", path, line)
		}
	}
	return entries
}

// unescape undoes the octal escapes of attr's names.
func unescape(name string) string {
	return strings.NewReplacer(`\012`, "\n", `\015`, "\r", `\134`, `\`).Replace(name)
}

// resolve follows the links among the folders of path, which dpkg does: /bin/sh is
// at usr/bin/sh.
func (r *root) resolve(path string) string {
	r.t.Helper()
	folder := r.follow(filepath.Dir(path), 0)
	return strings.TrimPrefix(filepath.Join(folder, filepath.Base(path)), "/")
}

// follow resolves all links of path below the root.
func (r *root) follow(path string, depth int) string {
	if depth > 40 {
		r.t.Fatalf("%s: too many links", path)
	}
	done := ""
	parts := strings.Split(strings.Trim(path, "/"), "/")
	for i, part := range parts {
		next := filepath.Join(done, part)
		target, err := os.Readlink(r.name(next))
		if err != nil {
			done = next
			continue
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join("/", done, target)
		}
		return r.follow(filepath.Join(append([]string{target}, parts[i+1:]...)...), depth+1)
	}
	return done
}

// TestOracle shows that the oracle is not blind: it reports each kind of wrong label.
func TestOracle(t *testing.T) {
	repo := makePackages(t, made{name: "sealed", version: "1", arch: "all",
		files:   []madeFile{{path: "usr/bin/sealed", content: "one", mode: 0o755}, {path: "usr/share/sealed", content: "two"}},
		control: []madeFile{{path: "postinst", content: "#!/bin/sh\n", mode: 0o755}}})
	r := newRoot(t, "bookworm")
	r.withoutHook()
	r.use(repo)
	r.run("dpkg", "-i", deb("sealed", "1", "all"))
	one, two, script := "usr/bin/sealed", "usr/share/sealed", "var/lib/dpkg/info/sealed.postinst"
	right := map[string]string{}
	for info, paths := range map[string][]string{"signatures": {one, two}, "control-signatures": {"postinst"}} {
		entries := r.manifest("var/lib/dpkg/info/sealed.ima-" + info)
		for _, path := range paths {
			right[path] = entries[path]
		}
	}
	right[script] = right["postinst"]
	delete(right, "postinst")
	set := func(path, value string) {
		t.Helper()
		must(t, unix.Lsetxattr(r.name(path), "security.ima", []byte(value), 0))
	}
	all := func(path string, value string) {
		t.Helper()
		for name, value := range right {
			set(name, value)
		}
		if value == "" {
			must(t, unix.Lremovexattr(r.name(path), "security.ima"))
		} else {
			set(path, value)
		}
	}
	if c := r.compare(); len(c.problems) != 3 || c.files != 0 {
		t.Errorf("without any label: %+v", c)
	}
	all(one, right[one])
	if c := r.check(); c.packages != 1 || c.files != 2 || c.scripts != 1 {
		t.Errorf("with the right labels: %+v", c)
	}
	for name, c := range map[string]struct{ path, value, want string }{
		"none":              {one, "", "has no label"},
		"of another file":   {one, right[two], "has the label of something else"},
		"script without":    {script, "", "has no label"},
		"on a foreign file": {"usr/bin/env", right[one], "no package signs it"},
	} {
		all(c.path, c.value)
		found := strings.Join(r.compare().problems, "\n")
		if !strings.Contains(found, c.path) || !strings.Contains(found, c.want) {
			t.Errorf("%s: %q", name, found)
		}
		if _, ours := right[c.path]; !ours {
			must(t, unix.Lremovexattr(r.name(c.path), "security.ima"))
		}
	}
	all(one, right[one])
	must(t, os.WriteFile(r.name(one), []byte("three"), 0o755))
	if found := r.compare().problems; len(found) != 1 || !strings.Contains(found[0], "not over this content") {
		t.Errorf("with changed content: %q", found)
	}
}
