package dpkg

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/xattr"
)

// The lists of a package are read once and kept to the end, so there is little garbage
// to collect. A usual package has ended before the first collection, which is due at
// 16 MiB (4 MiB times smallGC); one of more than manyFiles gets them often, as what is
// kept of it is large enough.
const (
	smallGC   = 400
	largeGC   = 50
	manyFiles = 10000
)

// exitFailed is the exit status that makes dpkg roll the package back.
const exitFailed = 2

// A hook is one run of the installer hook for a call that dpkg made.
type hook struct {
	call
	system string // the root of the system whose configuration and log these are
	config Config
	real   string // path of the real dpkg-deb
	out    outcome
}

// RunHook is the whole of imaseal-dpkg-deb, which dpkg runs in place of dpkg-deb. It
// returns the exit status, unless the process becomes the real dpkg-deb. system is the
// root of the running system, "/".
func RunHook(system string) int {
	config, problems := LoadConfig(system)
	real, err := findReal(system, config.DpkgDeb, os.Getenv("PATH"))
	if err != nil {
		complain("%v", err)
		return exitFailed
	}
	called, ok := currentCaller().call()
	if !ok || config.Mode == ModeOff {
		return become(real)
	}
	debug.SetGCPercent(smallGC)
	h := &hook{call: called, system: system, config: config, real: real}
	h.out.Root = called.root
	for _, p := range problems {
		h.out.warn("%s", p)
	}
	if called.stage == stageFiles {
		return h.files()
	}
	return h.controlStage()
}

// become turns the process into the real dpkg-deb.
func become(real string) int {
	complain("%v", execReal(real))
	return exitFailed
}

// start starts the real dpkg-deb with the arguments of this process. It is killed when
// this process is: what it does is worth nothing then.
func (h *hook) start(stdout *os.File) (*exec.Cmd, error) {
	// The kernel sends the signal when the thread ends that started the process.
	runtime.LockOSThread()
	cmd := &exec.Cmd{
		Path: h.real, Args: os.Args, Stdin: os.Stdin, Stdout: stdout, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}
	return cmd, cmd.Start()
}

// wait returns the exit status of the real dpkg-deb as this process is to have it. One
// that a signal killed makes this process die of the same.
func wait(cmd *exec.Cmd) int {
	err := cmd.Wait()
	if err == nil {
		return 0
	}
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		status := exit.Sys().(syscall.WaitStatus)
		if status.Signaled() {
			_ = syscall.Kill(os.Getpid(), status.Signal())
			return 128 + int(status.Signal())
		}
		return status.ExitStatus()
	}
	complain("%v", err)
	return exitFailed
}

// A decision is what the configuration says of a package.
type decision int

const (
	decideLabel decision = iota + 1
	decidePass           // it is installed without labels
	decideRefuse
)

// decide reads the control members and says what becomes of the package. What is known
// of it then is in h.out.
func (h *hook) decide(dir *xattr.Root) (*seal, decision) {
	s, err := readSeal(dir)
	if s != nil {
		h.out.Package, h.out.Version, h.out.Arch = s.name, s.version, s.arch
	}
	if err != nil {
		return nil, h.fail(err)
	}
	if s.statement == nil {
		return nil, h.unsigned()
	}
	if len(s.files) > manyFiles {
		debug.SetGCPercent(largeGC)
	}
	keys, problems := loadCertificates(h.system)
	for _, p := range problems {
		h.out.warn("certificate: %s", p)
	}
	if keys == nil {
		return s, decideLabel // the kernel judges
	}
	err = s.verify(keys, dir)
	if errors.Is(err, sign.ErrUnknownKey) {
		err = fmt.Errorf("%w: of that key there is no certificate in %s", err, strings.Join(CertificateFolders, " or "))
		if h.config.UnknownKey == Refuse {
			return nil, h.fail(err)
		}
		h.out.Result = resultUnlabelled
		h.out.warn("not labelled: %v", err)
		return nil, decidePass
	}
	if err != nil {
		return nil, h.fail(err)
	}
	h.out.Verified = true
	return s, decideLabel
}

// unsigned decides on a package without signatures.
func (h *hook) unsigned() decision {
	h.out.Result = resultUnsigned
	verdict := h.config.Unsigned
	if h.config.allowsUnsigned(h.out.Package) {
		verdict = Allow
	}
	switch verdict {
	case Refuse:
		return h.fail(fmt.Errorf("it has no file signatures: sign it with imaseal sign, or allow it in %s", configFile))
	case Warn:
		h.out.warn("it has no file signatures")
	}
	return decidePass
}

// fail decides on a package that is not as it should be.
func (h *hook) fail(err error) decision {
	h.out.Problem = err.Error()
	if h.config.Mode == ModeWarn {
		h.out.Result = resultUnlabelled
		return decidePass
	}
	h.out.Result = resultRefused
	return decideRefuse
}

// shown returns a path for a person.
func shown(path string) string { return filepath.Join("/", path) }
