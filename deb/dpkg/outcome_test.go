package dpkg

import (
	"crypto/sha256"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/sign"
)

// silently runs f with stderr going into a file, whose text it returns.
func silently(t *testing.T, f func()) string {
	t.Helper()
	to, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	was := os.Stderr
	os.Stderr = to
	defer func() { os.Stderr = was }()
	f()
	text, err := os.ReadFile(to.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestOutcomeIsLogged(t *testing.T) {
	system := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(system, "var/log"), 0o755))
	must(t, os.MkdirAll(filepath.Join(system, "dev"), 0o755))
	syslog, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(system, "dev/log"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer syslog.Close()
	heard := func() string {
		buf := make([]byte, 5000)
		must(t, syslog.SetReadDeadline(time.Now().Add(5*time.Second)))
		n, err := syslog.Read(buf)
		must(t, err)
		return string(buf[:n])
	}

	o := outcome{Package: "hello", Version: "1", Arch: "all", Root: "/", Result: resultLabelled, Labelled: 3, Scripts: 1, Microseconds: 12}
	for range 150 {
		o.skip("etc/x", reasonConffile)
	}
	if text := silently(t, func() { o.write(system) }); text != "" {
		t.Errorf("stderr has %q without trouble", text)
	}
	if got := heard(); !strings.HasPrefix(got, "<30>imaseal-dpkg-deb[") || !strings.HasSuffix(got, "]: hello 1: labelled: 3 files, 1 maintainer scripts") {
		t.Errorf("syslog has %q", got)
	}
	o = outcome{Package: "hello", Version: "1", Result: resultRefused, Problem: "a\nb\x1b[31m"}
	o.warn("careful: %d", 7)
	if text := silently(t, func() { o.tell(system); o.write(system) }); text != "imaseal: hello 1: warning: careful: 7\nimaseal: hello 1: refused: a?b?[31m\n" {
		t.Errorf("stderr has %q", text)
	}
	if got := heard(); !strings.HasPrefix(got, "<28>") || !strings.HasSuffix(got, "careful: 7") {
		t.Errorf("syslog has %q", got)
	}
	if got := heard(); !strings.HasPrefix(got, "<27>") || !strings.Contains(got, "refused: a?b") {
		t.Errorf("syslog has %q", got)
	}

	name := filepath.Join(system, logFile)
	text, err := os.ReadFile(name)
	must(t, err)
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines: %s", len(lines), text)
	}
	var first, second outcome
	must(t, json.Unmarshal([]byte(lines[0]), &first))
	must(t, json.Unmarshal([]byte(lines[1]), &second))
	if first.Labelled != 3 || first.Skipped[reasonConffile] != 150 || len(first.SkippedFiles) != maxSkipped || first.SkippedFiles[0].Path != "etc/x" {
		t.Errorf("%+v", first)
	}
	if _, err := time.Parse(time.RFC3339, first.Time); err != nil || second.Problem != o.Problem || len(second.Warnings) != 1 {
		t.Errorf("%v, %+v", err, second)
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm()&0o027 != 0 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// docs/json.md names every field of the log.
func TestLogIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/json.md")
	must(t, err)
	_, section, _ := strings.Cut(string(text), "/var/log/imaseal/install.log")
	fields := reflect.TypeFor[outcome]()
	found := 0
	for i := range fields.NumField() {
		name, _, _ := strings.Cut(fields.Field(i).Tag.Get("json"), ",")
		if name == "" {
			continue
		}
		found++
		if !strings.Contains(section, "`"+name+"`") {
			t.Errorf("%s is not documented", name)
		}
	}
	for _, r := range []result{resultLabelled, resultUnsigned, resultUnlabelled, resultNoSupport, resultRefused} {
		if !strings.Contains(section, "`"+string(r)+"`") {
			t.Errorf("the result %s is not documented", r)
		}
	}
	if found < 10 {
		t.Errorf("%d fields", found)
	}
}

// A log that can't be written is no reason to fail, to wait, or to write elsewhere.
func TestBrokenLogIsSilent(t *testing.T) {
	for what, breakIt := range map[string]func(t *testing.T, name string){
		"no folder": func(t *testing.T, name string) { must(t, os.RemoveAll(filepath.Dir(filepath.Dir(name)))) },
		"a folder":  func(t *testing.T, name string) { must(t, os.Mkdir(name, 0o755)) },
		"a pipe":    func(t *testing.T, name string) { must(t, unix.Mkfifo(name, 0o600)) },
		"a link": func(t *testing.T, name string) {
			must(t, os.Symlink(filepath.Join(filepath.Dir(name), "victim"), name))
		},
		"full disk": func(t *testing.T, name string) { must(t, os.Symlink("/dev/full", name)) },
	} {
		system := t.TempDir()
		name := filepath.Join(system, logFile)
		must(t, os.MkdirAll(filepath.Dir(name), 0o755))
		breakIt(t, name)
		o := outcome{Package: "hello", Result: resultLabelled}
		done := make(chan string)
		go func() { done <- silently(t, func() { o.write(system) }) }()
		select {
		case text := <-done:
			if text != "" {
				t.Errorf("%s: stderr has %q", what, text)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: it waits", what)
		}
		if _, err := os.Lstat(filepath.Join(filepath.Dir(name), "victim")); err == nil {
			t.Errorf("%s: the link was followed", what)
		}
	}
}

// decideOn returns what a configuration says of a package.
func decideOn(t *testing.T, p *testPackage, key *testKey, config Config, certs ...[]byte) (decision, outcome) {
	t.Helper()
	dir, system := t.TempDir(), t.TempDir()
	for i, der := range certs {
		name := filepath.Join(system, CertificateFolders[0], string(rune('a'+i))+".der")
		must(t, os.MkdirAll(filepath.Dir(name), 0o755))
		must(t, os.WriteFile(name, der, 0o644))
	}
	p.unpack(t, key, dir)
	h := &hook{system: system, config: config}
	_, decided := h.decide(openTestControl(t, dir))
	return decided, h.out
}

func TestDecisions(t *testing.T) {
	key, other := newTestKey(t), newTestKey(t)
	config := func(lines string) Config {
		c := DefaultConfig()
		if problems := ReadConfig(&c, "x", strings.NewReader(lines)); len(problems) > 0 {
			t.Fatal(problems)
		}
		return c
	}
	unsigned := func() *testPackage { p := hello(); p.unsigned = true; return p }
	bad := func() *testPackage {
		p := hello()
		p.control = replaced("postinst", func(f *testFile) { f.body += "evil\n" })
		return p
	}
	otherVersion := func() *testPackage {
		p := hello()
		p.statement = func(s *sign.Statement) { s.Version = "0" }
		return p
	}
	mine, theirs := [][]byte{key.der}, [][]byte{other.der}
	for name, c := range map[string]struct {
		p      *testPackage
		config string
		certs  [][]byte
		want   decision
		result result
		says   string // in the problem, or else in a warning
	}{
		"unsigned, default":             {unsigned(), "", mine, decidePass, resultUnsigned, ""},
		"unsigned, warn":                {unsigned(), "unsigned = warn", nil, decidePass, resultUnsigned, "it has no file signatures"},
		"unsigned, refuse":              {unsigned(), "unsigned = refuse", nil, decideRefuse, resultRefused, "it has no file signatures: sign it"},
		"unsigned, refuse, mode warn":   {unsigned(), "unsigned = refuse\nmode = warn", nil, decidePass, resultUnlabelled, "it has no file signatures"},
		"unsigned, refuse, allowed":     {unsigned(), "unsigned = refuse\nallow = he*", nil, decidePass, resultUnsigned, ""},
		"unsigned, warn, allowed":       {unsigned(), "unsigned = warn\nallow = he*", nil, decidePass, resultUnsigned, ""},
		"unsigned, refuse, not allowed": {unsigned(), "unsigned = refuse\nallow = other", nil, decideRefuse, resultRefused, "no file signatures"},
		"signed, no certificates":       {hello(), "", nil, decideLabel, "", ""},
		"signed, verified":              {hello(), "", mine, decideLabel, "", ""},
		"unknown key, default":          {hello(), "", theirs, decidePass, resultUnlabelled, "unknown key id"},
		"unknown key, refuse":           {hello(), "unknown-key = refuse", theirs, decideRefuse, resultRefused, "unknown key id"},
		"unknown key, refuse, warn":     {hello(), "unknown-key = refuse\nmode = warn", theirs, decidePass, resultUnlabelled, "unknown key id"},
		"bad script":                    {bad(), "", mine, decideRefuse, resultRefused, "maintainer script postinst: bad signature"},
		"bad script, no certificates":   {bad(), "", nil, decideLabel, "", ""}, // the kernel judges
		"bad script, warn":              {bad(), "mode = warn", mine, decidePass, resultUnlabelled, "bad signature"},
		"bad statement":                 {otherVersion(), "", nil, decideRefuse, resultRefused, "version is 1.0-1, but the statement says 0"},
		"bad statement, warn":           {otherVersion(), "mode = warn", nil, decidePass, resultUnlabelled, "the statement says 0"},
		"broken certificates":           {hello(), "unknown-key = refuse", [][]byte{[]byte("junk")}, decideRefuse, resultRefused, "unknown key id"},
	} {
		t.Run(name, func(t *testing.T) {
			decided, out := decideOn(t, c.p, key, config(c.config), c.certs...)
			if decided != c.want || out.Result != c.result {
				t.Errorf("decided %d, want %d; result %q, want %q; %+v", decided, c.want, out.Result, c.result, out)
			}
			said := strings.Join(append([]string{out.Problem}, out.Warnings...), "\n")
			if c.says == "" && name != "broken certificates" && strings.TrimSpace(said) != "" || !strings.Contains(said, c.says) {
				t.Errorf("it says %q, not %q", said, c.says)
			}
			if out.Package != "hello" || out.Version != "1.0-1" {
				t.Errorf("of %q %q", out.Package, out.Version)
			}
			if verified := c.want == decideLabel && c.certs != nil; out.Verified != verified {
				t.Errorf("verified: %v", out.Verified)
			}
		})
	}
}

func TestScriptsAreLabelled(t *testing.T) {
	s := newLabelScene(t)
	tmp := filepath.Join(s.admin, "tmp.ci")
	s.p.unpack(t, s.key, tmp)
	h := &hook{call: call{adminDir: s.admin, root: s.root}, system: s.system, config: s.config}
	if text := silently(t, func() {
		if h.judge() != decideLabel {
			t.Errorf("%+v", h.out)
		}
	}); text != "" {
		t.Errorf("stderr has %q", text)
	}
	for _, name := range []string{"preinst", "postinst"} {
		if !s.has(t, filepath.Join(tmp, name), "#!/bin/sh\nexit 0\n") {
			t.Errorf("%s has no label", name)
		}
	}
	if _, err := unix.Lgetxattr(filepath.Join(tmp, "control"), sign.XattrName, nil); err != unix.ENODATA {
		t.Errorf("control has a label: %v", err)
	}
	root := openTestControl(t, tmp)
	sealed, err := readSeal(root)
	must(t, err)
	if n := labelledScripts(root, sealed); n != 2 || h.out.Scripts != 2 {
		t.Errorf("%d, %d scripts are labelled", n, h.out.Scripts)
	}
	// tmp.ci itself is no link to another folder.
	must(t, os.Rename(tmp, tmp+".real"))
	must(t, os.Symlink(tmp+".real", tmp))
	silently(t, func() {
		if h.judge() != decideRefuse || !strings.Contains(h.out.Problem, "is a link") {
			t.Errorf("%+v", h.out)
		}
	})
}

// FuzzSeal reads lists of signatures and of conffiles under a statement that holds.
func FuzzSeal(f *testing.F) {
	key := newTestKey(f)
	control, _ := hello().parts(f, key)
	bodies := map[string]string{}
	for _, m := range control {
		bodies[strings.TrimPrefix(m.Name, "./")] = m.body
	}
	f.Add(bodies["ima-signatures"], bodies["ima-control-signatures"], bodies["conffiles"])
	f.Add("", "", "/etc/a\nremove-on-upgrade /etc/b\n")
	dir := f.TempDir()
	for _, name := range []string{"control", "preinst", "postinst"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(bodies[name]), 0o644); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, files, scripts, conffiles string) {
		s := &sign.Statement{Package: "hello", Version: "1.0-1", Arch: "all", Hash: sign.SHA256, Signature: []byte("x")}
		write := func(name, body string) {
			must(t, os.WriteFile(filepath.Join(dir, name), []byte(body), 0o644))
		}
		for name, body := range map[string]string{"control": bodies["control"], "conffiles": conffiles, "ima-signatures": files, "ima-control-signatures": scripts} {
			if name != "control" {
				write(name, body)
			}
			s.Members = append(s.Members, sign.MemberDigest{Name: name, SHA256: sha256.Sum256([]byte(body))})
		}
		s.Members = append(s.Members, sign.MemberDigest{Name: "data.tar"})
		text, err := s.MarshalText()
		must(t, err)
		write("ima-package", string(text))
		root := openTestControl(t, dir)
		read, err := readSeal(root)
		if err != nil {
			if strings.Contains(err.Error(), "digest of") {
				t.Errorf("the statement holds, and it says %v", err)
			}
			return
		}
		for i, e := range append(read.files, read.control...) {
			if err := sign.CheckPath(e.Path); err != nil {
				t.Error(err)
			}
			if i < len(read.files) {
				if at, ok := find(read.files, e.Path); !ok || at != i {
					t.Errorf("%q is not found", e.Path)
				}
			}
		}
		if len(read.control) != 2 {
			t.Errorf("%d scripts have signatures, the package has 2", len(read.control))
		}
	})
}
