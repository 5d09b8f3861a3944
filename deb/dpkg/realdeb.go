package dpkg

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// hookMark is in every build of the hook and in no dpkg-deb: a copy of the hook, of
// this version or another, is known by it.
const hookMark = "imaseal-dpkg-deb: this program is not dpkg's own dpkg-deb (7c1d8a5e)"

const (
	// systemDpkgDeb is where dpkg installs its own.
	systemDpkgDeb = "/usr/bin/dpkg-deb"
	// divertedSuffix is what dpkg-divert adds to a name when it is not told another.
	divertedSuffix = ".distrib"
	// backupSuffix is what dpkg adds to the name of a file while it replaces it, the
	// DPKGTEMPEXT of lib/dpkg/dpkg.h.
	backupSuffix = ".dpkg-tmp"
)

// findReal returns the path of the dpkg-deb of dpkg itself. The first of these that
// can be executed and is no copy of the hook:
//
//   - where dpkg-divert moved it, if it did;
//   - the one that the configuration names;
//   - the dpkg-deb of each folder in PATH;
//   - dpkg's own in /usr/bin, for a PATH without it, and the name that dpkg-divert
//     would have given it, should the list of diversions be lost;
//   - what dpkg keeps beside these while it replaces itself. It does so by rename, so
//     that the name itself is never missing; but dpkg may have been killed.
func findReal(system, configured, path string) (string, error) {
	var self unix.Stat_t
	// Without /proc copies of the hook are known by their content alone.
	_ = unix.Stat("/proc/self/exe", &self)
	for _, candidate := range candidates(divertedDpkgDeb(system), configured, path) {
		if canBeReal(candidate, &self) == nil {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("dpkg's own dpkg-deb is neither in PATH (%s) nor at %s: name it in %s (dpkg-deb = /path)", path, systemDpkgDeb, configFile)
}

// candidates returns where dpkg's own dpkg-deb may be, the likeliest first.
func candidates(diverted, configured, path string) (found []string) {
	if diverted != systemDpkgDeb {
		found = append(found, diverted)
	}
	if configured != "" {
		found = append(found, configured)
	}
	for _, dir := range filepath.SplitList(path) {
		found = append(found, filepath.Join(dir, "dpkg-deb"))
	}
	found = append(found, systemDpkgDeb, systemDpkgDeb+divertedSuffix)
	if diverted != systemDpkgDeb && diverted != systemDpkgDeb+divertedSuffix {
		found = append(found, diverted+backupSuffix)
	}
	return append(found, systemDpkgDeb+divertedSuffix+backupSuffix, systemDpkgDeb+backupSuffix)
}

// divertedDpkgDeb returns the name under which the system keeps dpkg's own dpkg-deb.
func divertedDpkgDeb(system string) string {
	f, err := openPlain(filepath.Join(system, AdminDir, diversionsFile))
	if err != nil {
		return systemDpkgDeb
	}
	defer f.Close()
	d, err := readDiversions(f)
	if err != nil {
		return systemDpkgDeb
	}
	return "/" + d.Name(strings.TrimPrefix(systemDpkgDeb, "/"), "dpkg")
}

// canBeReal returns why the file is not dpkg's own dpkg-deb.
func canBeReal(name string, self *unix.Stat_t) error {
	f, err := openPlain(name)
	if err != nil {
		return err
	}
	defer f.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if stat.Mode&0o111 == 0 {
		return &fs.PathError{Op: "execute", Path: name, Err: fs.ErrPermission}
	}
	if stat.Dev == self.Dev && stat.Ino == self.Ino {
		return errIsHook
	}
	return withoutMark(f)
}

var errIsHook = errors.New("it is the installer hook itself")

// withoutMark reads a program and fails if hookMark is in it.
func withoutMark(r io.Reader) error {
	buf := make([]byte, 256<<10)
	kept := 0
	for {
		n, err := r.Read(buf[kept:])
		have := buf[:kept+n]
		if bytes.Contains(have, []byte(hookMark)) {
			return errIsHook
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		kept = copy(buf, have[max(0, len(have)-len(hookMark)+1):])
	}
}

// execReal becomes the real dpkg-deb, with arguments, environment and streams as they
// are. It returns only when that failed.
func execReal(path string) error {
	// The name is kept in argv[0], as dpkg-deb prints it.
	return &fs.PathError{Op: "execute", Path: path, Err: unix.Exec(path, os.Args, os.Environ())}
}
