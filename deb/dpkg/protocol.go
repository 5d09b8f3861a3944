package dpkg

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A stage is one of the two calls of dpkg-deb that dpkg makes for each package it
// unpacks, src/main/unpack.c.
type stage int

const (
	// stageControl: `dpkg-deb --control FILE $DPKG_ADMINDIR/tmp.ci`, before anything
	// of the package is executed.
	stageControl stage = iota + 1
	// stageFiles: `dpkg-deb --fsys-tarfile FILE` into a pipe of dpkg's.
	stageFiles
)

// controlFolder is where dpkg has the control members unpacked, below its admindir.
const controlFolder = "tmp.ci"

// A call is one that dpkg itself made.
type call struct {
	stage    stage
	adminDir string // dpkg's database
	root     string // the folder below which dpkg installs
}

// A caller is what a call of dpkg-deb is told apart by.
type caller struct {
	args   []string
	getenv func(string) string
	// parent returns what the parent process is called: the base name of its program,
	// and the name that the kernel keeps; known is false where there is no /proc.
	parent       func() (program, comm string, known bool)
	stdoutIsPipe func() bool
}

// call returns which call of dpkg's this is; ok is false when somebody else calls.
//
// Maintainer scripts inherit dpkg's environment and call dpkg-deb for their own ends,
// so the parent process decides. Without /proc it is not known, and then the variables
// that dpkg sets for scripts decide: where one is set, the call is none of dpkg's.
func (c *caller) call() (found call, ok bool) {
	adminDir := c.getenv("DPKG_ADMINDIR")
	if adminDir == "" {
		return call{}, false
	}
	found = call{adminDir: adminDir, root: c.getenv("DPKG_ROOT")}
	if found.root == "" {
		found.root = "/"
	}
	switch {
	case len(c.args) == 4 && c.args[1] == "--control" &&
		filepath.Clean(c.args[3]) == filepath.Join(adminDir, controlFolder):
		found.stage = stageControl
	case len(c.args) == 3 && c.args[1] == "--fsys-tarfile" && c.stdoutIsPipe():
		found.stage = stageFiles
	default:
		return call{}, false
	}
	program, comm, known := c.parent()
	if !known {
		return found, c.getenv("DPKG_MAINTSCRIPT_PACKAGE") == "" && c.getenv("DPKG_MAINTSCRIPT_NAME") == ""
	}
	return found, isDpkg(program) || isDpkg(comm)
}

// isDpkg takes dpkg under the names, too, that it is given where something else stands
// in its place.
func isDpkg(name string) bool {
	return name == "dpkg" || name == "dpkg.distrib" || name == "dpkg.real"
}

// currentCaller returns the caller of this process.
func currentCaller() *caller {
	return &caller{
		args: os.Args, getenv: os.Getenv,
		parent: func() (string, string, bool) { return processNames("/proc", os.Getpid(), os.Getppid()) },
		stdoutIsPipe: func() bool {
			var stat unix.Stat_t
			return unix.Fstat(1, &stat) == nil && stat.Mode&unix.S_IFMT == unix.S_IFIFO
		},
	}
}

// processNames returns what proc says of the process parent. It is not known where
// proc is not mounted, or shows the processes of another namespace than that of self.
func processNames(proc string, self, parent int) (program, comm string, known bool) {
	link, err := os.Readlink(proc + "/self")
	if err != nil || link != strconv.Itoa(self) {
		return "", "", false
	}
	dir := proc + "/" + strconv.Itoa(parent)
	// A dpkg that has just replaced itself is "/usr/bin/dpkg (deleted)".
	if exe, err := os.Readlink(dir + "/exe"); err == nil {
		program = filepath.Base(strings.TrimSuffix(exe, " (deleted)"))
	}
	name, err := os.ReadFile(dir + "/comm")
	if err == nil {
		comm = strings.TrimSuffix(string(name), "\n")
	}
	return program, comm, program != "" || err == nil
}
