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

// inNamespace marks the process that has a mount namespace of its own.
const inNamespace = "IMASEAL_TEST_NAMESPACE"

// hasNamespace reports whether this process may mount without anybody noticing.
func hasNamespace() bool { return os.Getenv(inNamespace) != "" }

// TestMain runs the tests in a mount namespace of their own where it may: whatever
// they mount is gone with the last of their processes, however they end.
func TestMain(m *testing.M) {
	if hasNamespace() || os.Getuid() != 0 {
		os.Exit(m.Run())
	}
	self := exec.Command("/proc/self/exe", os.Args[1:]...)
	self.Args[0] = os.Args[0]
	self.Stdin, self.Stdout, self.Stderr = os.Stdin, os.Stdout, os.Stderr
	self.Env = append(os.Environ(), inNamespace+"=1")
	self.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := self.Run()
	if self.ProcessState == nil { // not allowed: the system tests skip
		os.Exit(m.Run())
	}
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		fmt.Fprintln(os.Stderr, err)
	}
	code := self.ProcessState.ExitCode()
	if code < 0 {
		code = 2
	}
	os.Exit(code)
}

// programs are what is tested, built as it is shipped.
type programs struct{ imaseal, hook string }

var buildPrograms = sync.OnceValues(func() (programs, error) {
	dir, err := os.MkdirTemp("", "imaseal-test-")
	if err != nil {
		return programs{}, err
	}
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
