// System tests: the hook under real dpkgs, in Debian roots of their own. This file
// gives them a mount namespace and the two programs.
package main_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// inNamespace is set in the process that has a mount namespace of its own: to a folder
// for what the tests build and mount.
const inNamespace = "IMASEAL_TEST_NAMESPACE"

// hasNamespace reports whether this process may mount without anybody noticing.
func hasNamespace() bool { return os.Getenv(inNamespace) != "" }

func needNamespace(t testing.TB) {
	t.Helper()
	if !hasNamespace() {
		t.Skip("only root may make a mount namespace and chroot")
	}
}

// TestMain runs the tests in a mount namespace of their own where it may: whatever
// they mount is gone with the last of their processes, however they end.
func TestMain(m *testing.M) {
	if hasNamespace() || os.Getuid() != 0 {
		os.Exit(m.Run())
	}
	code, err := runInNamespace()
	if errors.Is(err, errors.ErrUnsupported) { // the system tests skip
		code, err = m.Run(), nil
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// runInNamespace runs this test program there and returns its exit status.
func runInNamespace() (int, error) {
	dir, err := os.MkdirTemp("", "imaseal-test-")
	if err != nil {
		return 2, err
	}
	defer os.RemoveAll(dir)
	// A root is entered by other users as well, such as apt's.
	if err := os.Chmod(dir, 0o755); err != nil {
		return 2, err
	}
	self := exec.Command("/proc/self/exe", os.Args[1:]...)
	self.Args[0] = os.Args[0]
	self.Stdin, self.Stdout, self.Stderr = os.Stdin, os.Stdout, os.Stderr
	self.Env = append(os.Environ(), inNamespace+"="+dir)
	self.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = self.Run()
	if self.ProcessState == nil {
		return 2, fmt.Errorf("no mount namespace: %w: %w", errors.ErrUnsupported, err)
	}
	if code := self.ProcessState.ExitCode(); code >= 0 {
		return code, nil
	}
	return 2, err
}

// programs are what is tested, built as it is shipped.
type programs struct{ imaseal, hook string }

var buildPrograms = sync.OnceValues(func() (programs, error) {
	dir := os.Getenv(inNamespace)
	p := programs{filepath.Join(dir, "imaseal"), filepath.Join(dir, "dpkg-deb")}
	for out, pkg := range map[string]string{p.imaseal: "../imaseal", p.hook: "."} {
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := build.CombinedOutput(); err != nil {
			return programs{}, fmt.Errorf("go build %s: %w: %s", pkg, err, text)
		}
	}
	return p, nil
})
