package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A scene is a folder with a package, keys, and the command built as users run it.
type scene struct {
	t       *testing.T
	dir     string
	command string
	pkg     string
	content []byte // of the unsigned package
}

// buildFolder holds the command once it was built.
var buildFolder string

var buildOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "imaseal-test-")
	if err != nil {
		return "", err
	}
	buildFolder = dir
	command := filepath.Join(dir, "imaseal")
	out, err := exec.Command("go", "build", "-o", command, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return command, os.Chmod(dir, 0o755)
})

// formats are those of the packages that are disturbed.
var formats = []string{"deb", "rpm"}

// newScene makes a package of n files of some KiB each, so that signing it takes
// long enough to be disturbed.
func newScene(t *testing.T, format string, n int) *scene {
	t.Helper()
	command, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &scene{t: t, dir: dir, command: command, pkg: filepath.Join(dir, "big."+format)}
	s.content = bigPackages[format](t, n)
	s.write(s.pkg, s.content)
	copyKeys(t, s.path("keys"))
	return s
}

// copyKeys puts the test key, which only its owner may read, and its certificate into
// dir. A clone of the repository cannot keep that mode.
func copyKeys(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, mode := range map[string]os.FileMode{"test.key": 0o600, "test.crt": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, file), readShared(t, "keys/"+file), mode); err != nil {
			t.Fatal(err)
		}
	}
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

func (s *scene) sign(more ...string) *exec.Cmd {
	args := append([]string{"sign", "--key", s.path("keys/test.key"), "--cert", s.path("keys/test.crt")}, more...)
	return exec.Command(s.command, args...)
}

// must runs cmd, which has to succeed.
func (s *scene) must(cmd *exec.Cmd) string {
	s.t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v: %s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}

// signed returns what signing the package gives.
func (s *scene) signed() []byte {
	s.t.Helper()
	out := s.path("reference")
	s.must(s.sign("--output", out, s.pkg))
	content, err := os.ReadFile(filepath.Join(out, filepath.Base(s.pkg)))
	if err != nil {
		s.t.Fatal(err)
	}
	return content
}

// span is how long signing takes at best.
func (s *scene) span() time.Duration {
	s.t.Helper()
	best := time.Hour
	for range 5 {
		start := time.Now()
		s.signed()
		best = min(best, time.Since(start))
	}
	return best
}

// leftovers are the temporary files beside the package.
func (s *scene) leftovers() []string {
	left, err := filepath.Glob(filepath.Join(filepath.Dir(s.pkg), ".*.tmp"))
	if err != nil {
		s.t.Fatal(err)
	}
	return left
}

// whole fails unless the package is the original or the finished one.
func (s *scene) whole(signed []byte) (isSigned bool) {
	s.t.Helper()
	content, err := os.ReadFile(s.pkg)
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

// A running is a command that runs.
type running struct {
	cmd    *exec.Cmd
	output bytes.Buffer
	done   chan struct{} // closed when it has ended
}

func (s *scene) start(cmd *exec.Cmd) *running {
	s.t.Helper()
	r := &running{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &r.output, &r.output
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		cmd.Wait()
		close(r.done)
	}()
	return r
}

func (r *running) send(sig syscall.Signal) { r.cmd.Process.Signal(sig) }

// code waits for the end and returns the exit code, -1 when a signal ended it.
func (r *running) code() int {
	<-r.done
	return r.cmd.ProcessState.ExitCode()
}

// frozen starts commands until one stands still with a temporary file beside the
// package: it has begun to write, and has not renamed.
func (s *scene) frozen(command func() *exec.Cmd) *running {
	s.t.Helper()
	for range 100 {
		s.write(s.pkg, s.content)
		watch := watchFolder(s.t, filepath.Dir(s.pkg))
		r := s.start(command())
		watch.wait(r.done)
		r.send(syscall.SIGSTOP)
		if r.stopped() && s.isWritten() {
			s.t.Cleanup(func() { r.send(syscall.SIGKILL); <-r.done })
			return r
		}
		r.send(syscall.SIGKILL)
		<-r.done
		for _, left := range s.leftovers() {
			os.Remove(left)
		}
	}
	s.t.Fatal("no run was ever caught while it wrote: the test shows nothing")
	return nil
}

// isWritten reports whether there is a temporary file for the package itself whose
// lock is held: before it is, others may remove it.
func (s *scene) isWritten() bool {
	return slices.ContainsFunc(s.leftovers(), func(path string) bool {
		f, err := os.Open(path)
		if err != nil {
			return false
		}
		defer f.Close()
		ours := strings.HasPrefix(filepath.Base(path), "."+filepath.Base(s.pkg)+".")
		return ours && unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == unix.EWOULDBLOCK
	})
}

// stopped waits until all threads stand still, and reports false if the process has
// ended.
func (r *running) stopped() bool {
	for {
		select {
		case <-r.done:
			return false
		default:
		}
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", r.cmd.Process.Pid))
		still := len(tasks) > 0
		for _, task := range tasks {
			stat, _ := os.ReadFile(task)
			_, state, _ := bytes.Cut(stat, []byte(") "))
			still = still && bytes.HasPrefix(state, []byte("T"))
		}
		if still {
			return true
		}
	}
}

// A folderWatch tells when a file is made in a folder.
type folderWatch struct {
	t  *testing.T
	fd int
}

func watchFolder(t *testing.T, dir string) *folderWatch {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, dir, unix.IN_CREATE)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &folderWatch{t, fd}
}

// wait waits until a file was made or done is closed, and reports whether one was.
func (w *folderWatch) wait(done <-chan struct{}) bool {
	defer unix.Close(w.fd)
	for {
		ended := false
		select {
		case <-done:
			ended = true
		default:
		}
		fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}
		if n, _ := unix.Poll(fds, 10); n > 0 || ended {
			return n > 0
		}
	}
}

// fails runs cmd and expects exit code 2, each text on stderr, and the package as it
// was.
func (s *scene) fails(cmd *exec.Cmd, texts ...string) {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitError {
		s.t.Errorf("%v, not exit code %d: %s%s", err, exitError, &stdout, &stderr)
	}
	for _, text := range texts {
		if !strings.Contains(stderr.String(), text) {
			s.t.Errorf("the message does not say %q: %s", text, &stderr)
		}
	}
	if n := strings.Count(stderr.String(), "\n"); n != 1 {
		s.t.Errorf("%d lines, not one: %s", n, &stderr)
	}
	if s.whole(nil) {
		s.t.Error("the package was changed")
	}
	if left := s.leftovers(); len(left) > 0 {
		s.t.Errorf("left: %v", left)
	}
}
