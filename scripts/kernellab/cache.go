package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A lab makes what kernels are booted from, keeps it in a folder outside the tree,
// and boots them.
type lab struct {
	// cache holds one folder for each thing that was made, named for what it
	// depends on. A folder is complete or absent.
	cache string
	// source is the root of the repository.
	source string
	// packages is a folder of imaseal's own packages, imaseal the command in them and
	// hook the installer hook.
	packages, imaseal, hook string
	// built is the folder that holds these, builtBy the key that signed them.
	built, builtBy string
	// log is told what is being done.
	log io.Writer
}

// cacheFolder returns where artifacts are kept.
func cacheFolder() (string, error) {
	if dir := os.Getenv("IMASEAL_CACHE"); dir != "" {
		return filepath.Join(dir, "lab"), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("%w: set IMASEAL_CACHE to a folder for artifacts", err)
	}
	return filepath.Join(dir, "imaseal", "lab"), nil
}

// made returns the folder name of the cache, and has it filled by fill first where
// it is not there. Two processes never fill the same one, and one that was killed
// leaves nothing that is taken for complete.
func (l *lab) made(name string, fill func(dir string) error) (string, error) {
	dir := filepath.Join(l.cache, name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(l.cache, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("waiting for another process to make %s: %w", name, err)
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	half := dir + ".half"
	if err := os.RemoveAll(half); err != nil {
		return "", err
	}
	if err := os.Mkdir(half, 0o755); err != nil {
		return "", err
	}
	done := l.step("making %s", name)
	if err := fill(half); err != nil {
		os.RemoveAll(half)
		return "", fmt.Errorf("making %s: %w", name, err)
	}
	done()
	return dir, os.Rename(half, dir)
}

// step tells that something begins, and the function it returns that it is done
// and how long it took.
func (l *lab) step(format string, args ...any) (done func()) {
	what, start := fmt.Sprintf(format, args...), time.Now()
	fmt.Fprintf(l.log, "lab: %s\n", what)
	return func() {
		fmt.Fprintf(l.log, "lab: %s: %.1f s\n", what, time.Since(start).Seconds())
	}
}

// run runs a program in dir. Its output is shown only when it fails.
func (l *lab) run(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, lastLines(string(out), 20))
	}
	return nil
}

// output returns what a program prints.
func (l *lab) output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, lastLines(stderr.String(), 20))
	}
	return string(out), nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
