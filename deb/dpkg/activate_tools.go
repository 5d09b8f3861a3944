package dpkg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// This file holds what an [Activation] asks stock dpkg and apt for, and the locks
// by which it keeps out of dpkg's way.

// APTPath returns the PATH that apt gives to dpkg.
func (a *Activation) APTPath(ctx context.Context) (string, error) {
	// Set before apt reads its configuration, Dir makes it read that of the root.
	conf, err := os.CreateTemp("", "imaseal-apt-")
	if err != nil {
		return "", err
	}
	defer os.Remove(conf.Name())
	defer conf.Close()
	dir, err := filepath.Abs(a.dir)
	if err != nil {
		return "", err
	}
	if strings.ContainsAny(dir, "\"\n") {
		return "", fmt.Errorf("the name of the root %q can't be told to apt", dir)
	}
	if _, err := fmt.Fprintf(conf, "Dir \"%s\";\n", dir); err != nil {
		return "", err
	}
	value, err := stock(ctx, []string{"APT_CONFIG=" + conf.Name()}, "apt-config", "dump", "--format", "%v%n", "DPkg::Path")
	if value == "" && err == nil {
		value = defaultAPTPath
	}
	return value, err
}

// divertedBy returns the package that diverts dpkg-deb, "LOCAL" for an
// administrator, empty for none.
func (a *Activation) divertedBy(ctx context.Context) (string, error) {
	if _, err := a.root.Lstat(below(dpkgFolder)); errors.Is(err, fs.ErrNotExist) {
		return "", nil // no Debian system
	}
	return stock(ctx, nil, "dpkg-divert", "--root", a.dir, "--listpackage", NamePath)
}

// dpkgDivert adds or removes the diversion.
func (a *Activation) dpkgDivert(ctx context.Context, change string) error {
	_, err := stock(ctx, nil, "dpkg-divert", "--root", a.dir, "--package", HookOwner, "--divert", KeptPath, "--no-rename", "--quiet", change, NamePath)
	if err != nil {
		return err
	}
	return a.sync(dpkgFolder) // dpkg-divert syncs the file, not its name
}

// stock runs a stock tool and returns what it prints.
func stock(ctx context.Context, env []string, name string, args ...string) (string, error) {
	// A maintainer script's DPKG_* would speak of another root.
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "DPKG_") && !strings.HasPrefix(v, "LC_ALL=") {
			env = append(env, v)
		}
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(env, "LC_ALL=C")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w%s", name, err, prefixed(": ", strings.TrimSpace(said.String())))
	}
	return strings.TrimSpace(string(out)), nil
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// lock takes dpkg's locks, as dpkg reads the diversions once and apt starts several
// dpkgs in a row. In a maintainer script they are its dpkg's.
func (a *Activation) lock() (unlock func(), err error) {
	var held []*os.File
	unlock = func() {
		for _, f := range held {
			f.Close()
		}
	}
	if os.Getenv("DPKG_RUNNING_VERSION") != "" {
		return unlock, nil
	}
	for _, name := range []string{"lock-frontend", "lock"} {
		f, err := a.root.OpenFile(below(dpkgFolder)+"/"+name, os.O_RDWR|os.O_CREATE, 0o640)
		if errors.Is(err, fs.ErrNotExist) {
			return unlock, nil // no Debian system
		}
		if err != nil {
			unlock()
			return nil, err
		}
		held = append(held, f)
		err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			err = errors.New("another program works on dpkg's database now; try again when it is done")
		}
		if err != nil {
			unlock()
			return nil, fmt.Errorf("%s/%s: %w", dpkgFolder, name, err)
		}
	}
	return unlock, nil
}
