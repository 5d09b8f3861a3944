package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A scene is a folder with a package, keys, and the command built as users run it.
type scene struct {
	t       *testing.T
	dir     string
	command string
	deb     string
	content []byte // of the unsigned package
}

var buildOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "imaseal-test-")
	if err != nil {
		return "", err
	}
	command := filepath.Join(dir, "imaseal")
	out, err := exec.Command("go", "build", "-o", command, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return command, os.Chmod(dir, 0o755)
})

// newScene makes a package of n files of some KiB each, so that signing it takes
// long enough to be disturbed.
func newScene(t *testing.T, n int) *scene {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("dpkg-deb is not installed: scripts/test installs it")
	}
	command, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &scene{t: t, dir: dir, command: command, deb: filepath.Join(dir, "big.deb")}
	tree := filepath.Join(dir, "tree")
	s.write(filepath.Join(tree, "DEBIAN/control"), []byte("Package: big\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <n@example.org>\nDescription: a test\n"))
	random := rand.NewChaCha8([32]byte{1})
	for i := range n {
		content := make([]byte, 8<<10)
		random.Read(content)
		s.write(filepath.Join(tree, fmt.Sprintf("usr/share/big/%d", i)), content)
	}
	if out, err := exec.Command("dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "--build", tree, s.deb).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v: %s", err, out)
	}
	if err := os.RemoveAll(tree); err != nil {
		t.Fatal(err)
	}
	if s.content, err = os.ReadFile(s.deb); err != nil {
		t.Fatal(err)
	}
	s.must("keys", "init", "--dir", s.path("keys"), "--no-passphrase")
	return s
}

func (s *scene) path(name string) string { return filepath.Join(s.dir, name) }

func (s *scene) write(path string, content []byte) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) must(args ...string) string {
	s.t.Helper()
	out, err := exec.Command(s.command, args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("imaseal %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (s *scene) sign(more ...string) *exec.Cmd {
	args := append([]string{"sign", "--key", s.path("keys/signing.key"), "--cert", s.path("keys/signing.crt")}, more...)
	return exec.Command(s.command, args...)
}

// signed returns what signing the package gives.
func (s *scene) signed() []byte {
	s.t.Helper()
	out := s.path("reference")
	if text, err := s.sign("--output", out, s.deb).CombinedOutput(); err != nil {
		s.t.Fatalf("sign: %v: %s", err, text)
	}
	content, err := os.ReadFile(filepath.Join(out, "big.deb"))
	if err != nil {
		s.t.Fatal(err)
	}
	return content
}

func (s *scene) leftovers() []string {
	left, err := filepath.Glob(filepath.Join(filepath.Dir(s.deb), ".*.tmp"))
	if err != nil {
		s.t.Fatal(err)
	}
	return left
}

// whole fails unless the package is the original or the finished one.
func (s *scene) whole(signed []byte) (isSigned bool) {
	s.t.Helper()
	content, err := os.ReadFile(s.deb)
	if err != nil {
		s.t.Fatal(err)
	}
	switch {
	case bytes.Equal(content, s.content):
		return false
	case bytes.Equal(content, signed):
		return true
	}
	s.t.Fatalf("the package is neither the original nor the finished one: %d bytes, sha256 %x", len(content), sha256.Sum256(content))
	return false
}

// TestKill kills the command at random moments. After each, the package is the
// original or the finished one; the next run removes what the killed one left.
func TestKill(t *testing.T) {
	s := newScene(t, 300)
	signed := s.signed()
	start := time.Now()
	s.signed()
	span := 3 * time.Since(start) / 2
	rounds := 200
	if testing.Short() {
		rounds = 20
	}
	var finished, killed, stale int
	for range rounds {
		if err := os.WriteFile(s.deb, s.content, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := s.sign(s.deb)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(rand.N(span), func() { cmd.Process.Kill() })
		if err := cmd.Wait(); err == nil {
			finished++
		} else {
			killed++
		}
		timer.Stop()
		s.whole(signed)
		stale += len(s.leftovers())
	}
	t.Logf("of %d runs %d were killed, %d finished; %d temporaries were seen", rounds, killed, finished, stale)
	if killed == 0 {
		t.Error("no run was killed in time: the test shows nothing")
	}
	if out, err := s.sign("--force", s.deb).CombinedOutput(); err != nil {
		t.Fatalf("the next run: %v: %s", err, out)
	}
	if !s.whole(signed) {
		t.Error("the next run did not finish the package")
	}
	if left := s.leftovers(); len(left) > 0 && !bytes.Equal(s.content, signed) {
		t.Errorf("the next run left %v", left)
	}
}

// TestInterrupt ends the command by signals, as a person and an init system do.
func TestInterrupt(t *testing.T) {
	s := newScene(t, 2000)
	signed := s.signed()
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		cmd := s.sign(s.deb)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(60*time.Millisecond, func() { cmd.Process.Signal(sig) })
		err := cmd.Wait()
		var exit *exec.ExitError
		if err == nil {
			t.Logf("%v came too late", sig)
		} else if !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
			t.Errorf("%v: %v, not exit code %d; stderr: %s", sig, err, exitInterrupted, &stderr)
		} else if !strings.Contains(stderr.String(), "interrupted") {
			t.Errorf("%v: stderr does not say so: %s", sig, &stderr)
		}
		s.whole(signed)
		if left := s.leftovers(); len(left) > 0 {
			t.Errorf("%v left %v", sig, left)
		}
	}
}

// TestParallelRuns signs one package by several processes at once: one wins, no
// other's temporary is taken away.
func TestParallelRuns(t *testing.T) {
	s := newScene(t, 100)
	signed := s.signed()
	var runs sync.WaitGroup
	for range 6 {
		runs.Go(func() {
			if out, err := s.sign(s.deb).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	runs.Wait()
	if !s.whole(signed) {
		t.Error("nobody finished the package")
	}
	if left := s.leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestDiskFull signs on a file system that has no room for the copy.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	s := newScene(t, 100)
	small := s.path("small")
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, fmt.Sprintf("size=%d", len(s.content)*3/2)); err != nil {
		t.Skipf("mounting a small tmpfs: %v", err)
	}
	defer syscall.Unmount(small, syscall.MNT_DETACH)
	s.deb = filepath.Join(small, "big.deb")
	if err := os.WriteFile(s.deb, s.content, 0o644); err != nil {
		t.Fatal(err)
	}
	s.fails(s.sign(s.deb), "no space left on device")
}

// fails runs cmd and expects exit code 2, text on stderr, and the package as it was.
func (s *scene) fails(cmd *exec.Cmd, text string) {
	s.t.Helper()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitError {
		s.t.Errorf("%v, not exit code %d: %s", err, exitError, out)
	}
	if !strings.Contains(string(out), text) {
		s.t.Errorf("the message does not say %q: %s", text, out)
	}
	if s.whole(nil) {
		s.t.Error("the package was changed")
	}
	if left := s.leftovers(); len(left) > 0 {
		s.t.Errorf("left: %v", left)
	}
}

// TestNoPermission signs as a user who may not write the folder, or not read the
// package or the key.
func TestNoPermission(t *testing.T) {
	s := newScene(t, 3)
	asNobody := func(cmd *exec.Cmd) *exec.Cmd {
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		return cmd
	}
	for dir := s.dir; dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode()&0o001 == 0 {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Skipf("another user can't reach %s", dir)
			}
		}
	}
	if err := os.Chmod(s.path("keys/signing.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.dir, 0o555); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(s.dir, 0o755)
	s.fails(asNobody(s.sign(s.deb)), "permission denied")
	if err := os.Chmod(s.path("keys/signing.key"), 0o000); err != nil {
		t.Fatal(err)
	}
	s.fails(asNobody(s.sign(s.deb)), "permission denied")
}

// TestSecrets watches everything that another user of the machine, or a log, could
// see of a run with an encrypted key.
func TestSecrets(t *testing.T) {
	s := newScene(t, 300)
	const passphrase = "swordfish-7f3a9c-never-to-be-seen"
	s.write(s.path("passphrase"), []byte(passphrase+"\n"))
	watched := map[string]bool{}
	look := func(cmd *exec.Cmd) string {
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		var watcher sync.WaitGroup
		watcher.Go(func() {
			for ctx.Err() == nil {
				for _, name := range []string{"cmdline", "environ"} {
					text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", cmd.Process.Pid, name))
					if err == nil && len(text) > 0 {
						watched[name] = true
						if bytes.Contains(text, []byte(passphrase)) {
							t.Errorf("the passphrase is in /proc/PID/%s", name)
						}
					}
				}
				for _, name := range s.leftovers() {
					if text, err := os.ReadFile(name); err == nil && bytes.Contains(text, []byte(passphrase)) {
						t.Errorf("the passphrase is in a temporary file")
					}
				}
			}
		})
		cmd.Wait()
		stop()
		watcher.Wait()
		return out.String()
	}
	var outputs []string
	outputs = append(outputs, look(exec.Command(s.command, "keys", "init", "--dir", s.path("locked"), "--passphrase-file", s.path("passphrase"))))
	key, cert := s.path("locked/signing.key"), s.path("locked/signing.crt")
	outputs = append(outputs,
		look(exec.Command(s.command, "sign", "--verbose", "--key", key, "--cert", cert, "--passphrase-file", s.path("passphrase"), s.deb)),
		// Wrong use puts what it was given into messages.
		look(exec.Command(s.command, "sign", "--key", s.path("passphrase"), s.deb)),
		look(exec.Command(s.command, "sign", "--key", key, "--cert", s.path("passphrase"), "--passphrase-file", s.path("passphrase"), s.deb)),
		look(exec.Command(s.command, "verify", "--cert", key, s.deb)),
	)
	if !watched["cmdline"] || !watched["environ"] {
		t.Fatal("no process was ever seen: the test shows nothing")
	}
	secrets := []string{passphrase}
	for _, name := range []string{"keys/signing.key", "locked/signing.key"} {
		pem, err := os.ReadFile(s.path(name))
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, strings.Split(string(pem), "\n")[1])
	}
	for _, out := range outputs {
		for _, secret := range secrets {
			if strings.Contains(out, secret) {
				t.Errorf("a secret is in the output: %s", out)
			}
		}
	}
	if !strings.Contains(outputs[1], "signed") {
		t.Errorf("the package was not signed: %s", outputs[1])
	}
}
