package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A secret is what nobody but the command may ever see, by a name for messages.
type secret struct {
	name  string
	bytes []byte
}

// secretsOf returns the forms in which a private key could get away: the lines of
// its file, the bytes in it, the bare number; raw, in hexadecimal and in base64.
func secretsOf(t *testing.T, file string) []secret {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s is no key", file)
	}
	all := []secret{{"a line of the key", bytes.Split(text, []byte("\n"))[1]}}
	add := func(name string, b []byte) {
		all = append(all, secret{name, b}, secret{name + " in hexadecimal", []byte(hex.EncodeToString(b))},
			secret{name + " in base64", []byte(base64.RawStdEncoding.EncodeToString(b))})
	}
	add("the key", block.Bytes)
	if block.Type == "PRIVATE KEY" {
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		number, err := key.(*ecdsa.PrivateKey).Bytes()
		if err != nil {
			t.Fatal(err)
		}
		add("the private number", number)
		all = append(all, secret{"the private number in decimal", []byte(new(big.Int).SetBytes(number).String())})
	}
	return all
}

// A lookout searches all that others could see of a process for secrets: arguments
// and environment, of its children too, files that it has open or leaves in dirs.
type lookout struct {
	secrets []secret
	dirs    []string
	may     []string // files that hold a secret by right

	found map[string]bool // secrets, and where
	seen  map[string]int  // how often what was looked at
}

func (l *lookout) look(where string, text []byte) {
	l.seen[where]++
	for _, s := range l.secrets {
		if bytes.Contains(text, s.bytes) {
			l.found[s.name+" in "+where] = true
		}
	}
}

// process looks at a process and its children.
func (l *lookout) process(pid int) {
	for _, name := range []string{"cmdline", "environ"} {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name)); err == nil && len(text) > 0 {
			l.look(name, text)
		}
	}
	open, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range open {
		if text, ok := l.openFile(fd); ok {
			l.look("open file", text)
		}
	}
	children, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range children {
		text, _ := os.ReadFile(file)
		for _, child := range strings.Fields(string(text)) {
			var id int
			if _, err := fmt.Sscan(child, &id); err == nil {
				l.process(id)
			}
		}
	}
}

// openFile reads a regular file that a process has open, unless it may hold a secret.
// It is opened before its name is asked for: the process may have another file by the
// same number a moment later.
func (l *lookout) openFile(fd string) ([]byte, bool) {
	f, err := os.OpenFile(fd, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if info, statErr := f.Stat(); err != nil || statErr != nil || !info.Mode().IsRegular() || slices.Contains(l.may, name) {
		return nil, false
	}
	text, err := io.ReadAll(f)
	return text, err == nil
}

// files looks at all files in the folders.
func (l *lookout) files() {
	for _, dir := range l.dirs {
		filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || slices.Contains(l.may, path) {
				return nil
			}
			if text, err := os.ReadFile(path); err == nil {
				l.look("file", text)
				if strings.HasSuffix(path, ".tmp") {
					l.look("temporary file", text)
				}
			}
			return nil
		})
	}
}

// watch runs cmd to its end and looks at it all the time.
func (l *lookout) watch(s *scene, cmd *exec.Cmd) string {
	s.t.Helper()
	cmd.Env = append(os.Environ(), "TMPDIR="+s.path("tmp"))
	// A file there for a moment would be missed; none has any business to be there.
	made := watchFolder(s.t, s.path("tmp"))
	r := s.start(cmd)
	for {
		l.process(cmd.Process.Pid)
		l.files()
		select {
		case <-r.done:
			l.files()
			l.look("output", r.output.Bytes())
			if made.wait(r.done) {
				s.t.Errorf("%s: a file was made in TMPDIR", strings.Join(cmd.Args, " "))
			}
			return r.output.String()
		default:
		}
	}
}

func newLookout(s *scene, secrets []secret, may ...string) *lookout {
	if err := os.MkdirAll(s.path("tmp"), 0o755); err != nil {
		s.t.Fatal(err)
	}
	return &lookout{secrets: secrets, dirs: []string{s.dir}, may: may, found: map[string]bool{}, seen: map[string]int{}}
}

const passphrase = "swordfish-7f3a9c-never-to-be-seen"

// TestSecrets watches everything that another user of the machine, or a log, could
// see of runs with an encrypted key and with a plain one.
func TestSecrets(t *testing.T) {
	for _, format := range formats {
		t.Run(format, func(t *testing.T) { testSecrets(t, newScene(t, format, 20)) })
	}
}

func testSecrets(t *testing.T, s *scene) {
	file := s.path("passphrase")
	s.write(file, []byte(passphrase+"\n"))
	plain, locked := s.path("keys/test.key"), s.path("locked/signing.key")
	cert := s.path("locked/signing.crt")
	secrets := append(secretsOf(t, plain), secret{"the passphrase", []byte(passphrase)})

	// The keys that keys init makes are known only afterwards; while it makes them no
	// file but those may hold the passphrase.
	l := newLookout(s, secrets, file, plain)
	l.watch(s, exec.Command(s.command, "keys", "init", "--dir", s.path("locked"), "--passphrase-file", file))

	l.secrets = append(l.secrets, secretsOf(t, locked)...)
	l.may = append(l.may, locked, s.path("locked/ca.key"))
	opened := unlocked(t, s, locked)
	l.secrets = append(l.secrets, opened...)
	for try := 0; l.seen["temporary file"] == 0; try++ {
		if try == 50 {
			t.Fatal("no temporary file was ever seen: the test shows nothing")
		}
		s.write(s.pkg, s.content)
		out := l.watch(s, exec.Command(s.command, "sign", "--verbose", "--key", locked, "--cert", cert, "--passphrase-file", file, s.pkg))
		if !strings.Contains(out, "signed") {
			t.Fatalf("the package was not signed: %s", out)
		}
	}
	s.write(s.pkg, s.content)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(w, passphrase)
	w.Close()
	byDescriptor := exec.Command(s.command, "sign", "--json", "--key", locked, "--cert", cert, "--passphrase-fd", "3", s.pkg)
	byDescriptor.ExtraFiles = []*os.File{r}
	if out := l.watch(s, byDescriptor); !strings.Contains(out, `"verdict":"ok"`) {
		t.Fatalf("the package was not signed: %s", out)
	}
	r.Close()
	l.watch(s, s.sign("--verbose", "--force", s.pkg)) // with the plain key

	// Wrong use puts what it was given into messages.
	for _, args := range [][]string{
		{"sign", "--key", file, s.pkg},
		{"sign", "--key", locked, "--cert", file, "--passphrase-file", file, s.pkg},
		{"sign", "--key", locked, "--cert", locked, "--passphrase-file", file, s.pkg},
		{"sign", "--key", locked, "--cert", cert, "--passphrase-file", plain, s.pkg},
		{"sign", "--key", plain, "--cert", cert, s.pkg},
		{"sign", "--key", plain, "--openpgp-key", plain, "--cert", s.path("keys/test.crt"), s.pkg},
		{"verify", "--cert", plain, s.pkg},
		{"verify", "--cert", cert, "--ca", plain, s.pkg},
		{"verify", "--cert", cert, "--openpgp-keyring", plain, s.pkg},
		{"verify", "--cert", cert, plain},
		{"inspect", plain, file},
		{"keys", "init", "--dir", s.path("again"), "--ca-dir", s.path("locked"), "--passphrase-file", plain},
	} {
		if out := l.watch(s, exec.Command(s.command, args...)); !strings.Contains(out, "imaseal: ") {
			t.Errorf("imaseal %s was no wrong use: %s", strings.Join(args, " "), out)
		}
	}
	for found := range l.found {
		t.Errorf("others could see %s", found)
	}
	for _, where := range []string{"cmdline", "environ", "open file", "file", "output"} {
		if l.seen[where] == 0 {
			t.Errorf("no %s was ever seen: the test shows nothing", where)
		}
	}
	t.Logf("looked at %v for %d secrets", l.seen, len(l.secrets))
}

// unlocked returns the secrets of an encrypted key, which openssl decrypts.
func unlocked(t *testing.T, s *scene, file string) []secret {
	t.Helper()
	return unlockedBy(t, file, s.path("passphrase"))
}

// unlockedBy does it with the passphrase in a file.
func unlockedBy(t *testing.T, file, passphraseFile string) []secret {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed: scripts/test installs it")
	}
	dir := t.TempDir() // where nobody looks
	plain := filepath.Join(dir, "plain.key")
	out, err := exec.Command("openssl", "pkcs8", "-topk8", "-nocrypt", "-in", file, "-passin", "file:"+passphraseFile, "-out", plain).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl: %v: %s", err, out)
	}
	return secretsOf(t, plain)
}

// TestLookout has a process give a secret away in every way that is looked for.
func TestLookout(t *testing.T) {
	for where, script := range map[string]string{
		"cmdline":        "read x; : " + passphrase,
		"environ":        "read x",
		"output":         "cat secret; read x",
		"file":           "cat secret >copy; read x",
		"temporary file": "cat secret >tmp/a.tmp; read x",
		"open file":      "exec 4<>tmp/gone; rm tmp/gone; cat secret >&4; read x",
	} {
		t.Run(where, func(t *testing.T) {
			s := &scene{t: t, dir: t.TempDir()}
			l := newLookout(s, []secret{{"the passphrase", []byte(passphrase)}}, s.path("secret"))
			s.write(s.path("secret"), []byte(passphrase))
			// The shell is a child of the process that is watched.
			cmd := exec.Command("sh", "-c", `sh -c "$0"; true`, script)
			if where != "cmdline" {
				s.write(s.path("script"), []byte(script))
				cmd = exec.Command("sh", "-c", "sh ./script; true")
			}
			cmd.Dir, cmd.Env = s.dir, os.Environ()
			if where == "environ" {
				cmd.Env = append(cmd.Env, "PASSWORD="+passphrase)
			}
			wait, release, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer wait.Close()
			cmd.Stdin = wait
			r := s.start(cmd)
			found := "the passphrase in " + where
			for deadline := time.Now().Add(10 * time.Second); !l.found[found] && time.Now().Before(deadline) && where != "output"; {
				l.process(cmd.Process.Pid)
				l.files()
			}
			release.Close()
			<-r.done
			l.look("output", r.output.Bytes())
			if !l.found[found] {
				t.Errorf("not found, but %v, of %v", l.found, l.seen)
			}
		})
	}
}

const caPassphrase = "marlin-c41d07-of-the-ca"

// TestSecretsOfKeys watches what makes keys and certificates, with a passphrase for
// the CA and another one for the signing key.
func TestSecretsOfKeys(t *testing.T) {
	s := newScene(t, "deb", 1)
	file, caFile := s.path("passphrase"), s.path("ca-passphrase")
	s.write(file, []byte(passphrase+"\n"))
	s.write(caFile, []byte(caPassphrase+"\n"))
	l := newLookout(s, []secret{{"the passphrase", []byte(passphrase)}, {"the CA's passphrase", []byte(caPassphrase)}}, file, caFile)
	by := func(args ...string) *exec.Cmd {
		return exec.Command(s.command, append([]string{"keys"}, args...)...)
	}
	// Both secrets by descriptors, which nobody sees the content of.
	made := by("init", "--dir", s.path("made"), "--ca-dir", s.path("ca"), "--passphrase-fd", "3", "--ca-passphrase-fd", "4")
	for _, text := range []string{passphrase, caPassphrase} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		fmt.Fprintln(w, text)
		w.Close()
		made.ExtraFiles = append(made.ExtraFiles, r)
	}
	l.watch(s, made)

	key, caKey := s.path("made/signing.key"), s.path("ca/ca.key")
	l.may = append(l.may, key, caKey, s.path("made/signing-2.key"))
	l.secrets = append(l.secrets, unlockedBy(t, key, file)...)
	l.secrets = append(l.secrets, unlockedBy(t, caKey, caFile)...)
	ca := []string{"--ca-key", caKey, "--ca-cert", s.path("ca/ca.crt"), "--ca-passphrase-file", caFile}
	with := func(args ...string) *exec.Cmd { return by(append(args, ca...)...) }
	for want, cmd := range map[string]*exec.Cmd{
		"Made a certificate request": by("request", "--key", key, "--passphrase-file", file, "--out", s.path("csr")),
		"Issued a certificate":       with("issue", "--name", "x", "--out", s.path("issued"), "--passphrase-file", file, key),
		"Renewed the certificate":    with("renew", "--out", s.path("renewed"), s.path("made/signing.crt")),
	} {
		if out := l.watch(s, cmd); !strings.Contains(out, want) {
			t.Errorf("not done: %s", out)
		}
	}
	// A new key is a secret from the moment on when it is known.
	l.watch(s, with("renew", "--new-key", "--passphrase-file", file, s.path("made/signing.crt")))
	l.secrets = append(l.secrets, unlockedBy(t, s.path("made/signing-2.key"), file)...)
	l.files()

	for _, cmd := range []*exec.Cmd{
		with("issue", "--name", "x", "--out", s.path("x"), "--passphrase-file", caFile, key),
		with("issue", "--name", "x", "--out", s.path("x"), file),
		with("issue", "--name", "x", "--out", s.path("x"), caKey),
		by("issue", "--ca-key", caKey, "--ca-cert", s.path("ca/ca.crt"), "--ca-passphrase-file", file, s.path("csr")),
		by("issue", "--ca-key", caKey, "--ca-cert", caKey, "--ca-passphrase-file", caFile, s.path("csr")),
		by("issue", "--ca-key", caFile, "--ca-cert", s.path("ca/ca.crt"), s.path("csr")),
		with("renew", key),
		with("renew", caFile),
		by("request", "--key", key, "--passphrase-file", caFile, "--out", s.path("x")),
		by("init", "--dir", s.path("again"), "--ca-dir", s.path("ca"), "--passphrase-file", file),
	} {
		if out := l.watch(s, cmd); !strings.Contains(out, "imaseal: ") {
			t.Errorf("%s was no wrong use: %s", strings.Join(cmd.Args, " "), out)
		}
	}
	for found := range l.found {
		t.Errorf("others could see %s", found)
	}
	for _, where := range []string{"cmdline", "environ", "open file", "file", "output"} {
		if l.seen[where] == 0 {
			t.Errorf("no %s was ever seen: the test shows nothing", where)
		}
	}
}
