package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sharedData is where the good packages are that the bad ones are made of;
// its README.md says how they were made.
const sharedData = "../../testdata"

// The good packages, and the names under which each of them is signed.
const (
	helloDeb  = "packages/hello_1_all.deb"
	hello2Deb = "packages/hello_2_all.deb"
	otherDeb  = "packages/other_1_all.deb"
	// helloChanges lists helloDeb.
	helloChanges = "packages/hello_1_all.changes"
	v4RPM        = "packages/v4-gzip.rpm"
	v6RPM        = "packages/v6-zstd.rpm"
)

func signedOf(base string) string { return filepath.Join("packages/signed", filepath.Base(base)) }

// An edit makes one thing of a package wrong. What depends on it, such as a
// checksum, is made right again, unless that is the point.
type edit func(t testing.TB, good []byte) []byte

// A badPackage is a file that must be refused. Its name begins with deb-, rpm- or
// changes- and says what is wrong with it.
type badPackage struct {
	name string
	base string // of sharedData
	edit edit
	// want is a piece of the line on stderr, which also has to say where.
	want string
	// readable says that the package can be read and only its signatures are bad:
	// verify then exits with 1.
	readable bool
	// finds is a piece of what verify says, where that is not want.
	finds string
}

const (
	// maxMemory bounds in KiB what a process may hold, whatever it reads.
	maxMemory = 160 << 10
	// maxTime bounds the processor time that one may take.
	maxTime = 10 * time.Second
)

// located is how a message says where in the package it is wrong: an offset, a tag
// of a header, a line, a file in quotes or parentheses, or a part of the package by
// its name.
var located = regexp.MustCompile(`offset \d+|tag \d+|line \d+|"[^"]+"|\([a-z][-.\w]+: |/[a-z]|(control|data)\.tar|control (member|archive)|(main|signature) header|payload|package statement|list [A-Z]|source package|clear-signed|digests`)

func badPackages() []badPackage {
	return slices.Concat(
		badArchives(), badControlArchives(), badDataArchives(), badCompressions(),
		badSeals(), badStatements(), badDebSignatures(),
		badHeaders(), badTags(), badFileLists(), badPayloads(), badDigests(), badRPMSignatures(),
		badChanges(),
	)
}

// TestBadPackages runs the command over packages that no maintainer made: it says
// in one line what is wrong and where, touches nothing, leaves nothing, and stays
// small and alive.
func TestBadPackages(t *testing.T) {
	command, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	all := badPackages()
	count := map[string]int{}
	seen := map[string]bool{}
	for _, b := range all {
		kind, _, _ := strings.Cut(b.name, "-")
		count[kind]++
		if seen[b.name] {
			t.Errorf("two bad packages are called %s", b.name)
		}
		seen[b.name] = true
	}
	t.Logf("%d bad packages: %v", len(all), count)
	if len(all) < 250 || count["deb"] < 110 || count["rpm"] < 110 {
		t.Errorf("only %d bad packages: %v", len(all), count)
	}
	keys := t.TempDir()
	copyKeys(t, keys)
	for _, b := range all {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			b.check(t, command, keys)
		})
	}
}

func (b *badPackage) check(t *testing.T, command, keys string) {
	good := readShared(t, b.base)
	bad := b.edit(t, good)
	if bytes.Equal(bad, good) {
		t.Fatal("the edit changed nothing")
	}
	dir := t.TempDir()
	pkg := filepath.Join(dir, b.name+filepath.Ext(b.base))
	if err := os.WriteFile(pkg, bad, 0o644); err != nil {
		t.Fatal(err)
	}
	if b.base == helloChanges {
		listed := filepath.Join(dir, filepath.Base(helloDeb))
		if err := os.WriteFile(listed, readShared(t, helloDeb), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b.checkRuns(t, command, keys, dir, pkg)
	if after, err := os.ReadFile(pkg); err != nil || !bytes.Equal(after, bad) {
		t.Errorf("the package was changed (%v)", err)
	}
}

// checkRuns signs and verifies pkg, the file in dir that is bad, and whatever else
// is in dir stays as it is too.
func (b *badPackage) checkRuns(t *testing.T, command, keys, dir, pkg string) {
	before := listing(t, dir)
	cert := filepath.Join(keys, "test.crt")
	sign := runMeasured(t, command, "sign", "--key", filepath.Join(keys, "test.key"), "--cert", cert, pkg)
	if sign.code != exitError {
		t.Errorf("sign: exit code %d, not %d: %s%s", sign.code, exitError, sign.stdout, sign.stderr)
	}
	sign.checkLine(t, pkg, b.want)
	if after := listing(t, dir); after != before {
		t.Errorf("sign changed the folder from\n%sto\n%s", before, after)
	}

	verify := runMeasured(t, command, "verify", "--cert", cert, pkg)
	switch {
	case !b.readable:
		if verify.code != exitError {
			t.Errorf("verify: exit code %d, not %d: %s%s", verify.code, exitError, verify.stdout, verify.stderr)
		}
		verify.checkLine(t, pkg, cmp.Or(b.finds, b.want))
	case verify.code != exitFailed:
		t.Errorf("verify: exit code %d, not %d: %s%s", verify.code, exitFailed, verify.stdout, verify.stderr)
	case !strings.Contains(verify.stdout, cmp.Or(b.finds, b.want)):
		t.Errorf("verify does not find %q: %s", cmp.Or(b.finds, b.want), verify.stdout)
	}
	if after := listing(t, dir); after != before {
		t.Errorf("verify changed the folder from\n%sto\n%s", before, after)
	}
}

// A measured is what a run of the command came to.
type measured struct {
	verb           string
	code           int
	stdout, stderr string
}

// runMeasured runs the command, and fails the test when it holds too much memory,
// takes too long, panics, or leaves something in the folder for temporary files.
func runMeasured(t *testing.T, command string, args ...string) measured {
	t.Helper()
	temporary := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 30*maxTime) // the machine may be busy with others
	defer cancel()
	cmd := exec.CommandContext(ctx, command, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+temporary)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if took := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(); took > maxTime {
		t.Errorf("%s took %v", args[0], took)
	}
	if used := peakMemory(t, cmd); used > maxMemory {
		t.Errorf("%s held %d KiB of memory, more than %d", args[0], used, maxMemory)
	}
	r := measured{args[0], cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	if all := r.stdout + r.stderr; strings.Contains(all, "goroutine") || strings.Contains(all, "panic") {
		t.Errorf("%s panicked: %s", args[0], all)
	}
	if left := listing(t, temporary); left != "" {
		t.Errorf("%s left in TMPDIR:\n%s", args[0], left)
	}
	return r
}

// checkLine demands one line on stderr that names the package, where it is wrong,
// and what.
func (r measured) checkLine(t *testing.T, pkg, want string) {
	t.Helper()
	text, ok := strings.CutPrefix(r.stderr, "imaseal: "+pkg+": ")
	switch {
	case !ok || strings.Index(text, "\n") != len(text)-1:
		t.Errorf("%s: stderr is not one line that names the package: %q", r.verb, r.stderr)
	case want == "" || !strings.Contains(text, want):
		t.Errorf("%s: stderr does not say %q: %q", r.verb, want, text)
	case !located.MatchString(text):
		t.Errorf("%s: stderr does not say where: %q", r.verb, text)
	}
}

// TestGoodPackages: what the bad packages are made of is good, so that each is bad
// for its edit alone; and signing has always given the same bytes.
func TestGoodPackages(t *testing.T) {
	command, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	keys := t.TempDir()
	copyKeys(t, keys)
	key, cert := filepath.Join(keys, "test.key"), filepath.Join(keys, "test.crt")
	for _, base := range []string{helloDeb, hello2Deb, otherDeb, v4RPM, v6RPM} {
		t.Run(filepath.Base(base), func(t *testing.T) {
			out := t.TempDir()
			r := runMeasured(t, command, "sign", "--key", key, "--cert", cert, "--output", out, sharedPath(base))
			if r.code != exitOK {
				t.Fatalf("sign: exit code %d: %s", r.code, r.stderr)
			}
			signed, err := os.ReadFile(filepath.Join(out, filepath.Base(base)))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(signed, readShared(t, signedOf(base))) {
				t.Errorf("signed, it is not %s", signedOf(base))
			}
			if r := runMeasured(t, command, "verify", "--cert", cert, sharedPath(signedOf(base))); r.code != exitOK {
				t.Errorf("verify: exit code %d: %s%s", r.code, r.stdout, r.stderr)
			}
		})
	}
}

func sharedPath(name string) string { return filepath.Join(sharedData, name) }

func readShared(t testing.TB, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(sharedPath(name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// listing describes all that is in dir, so that a file that was replaced, touched or
// added shows.
func listing(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %v %d bytes inode %d %v\n", d.Name(), info.Mode(), info.Size(), info.Sys().(*syscall.Stat_t).Ino, info.ModTime())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// peakMemory returns the most KiB of memory that cmd, or a child that it waited for,
// held. The kernel counts in what this process held when it started cmd: where that may
// be all, it is 0.
func peakMemory(t *testing.T, cmd *exec.Cmd) int64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var own int64
	if _, err := fmt.Sscan(rest, &own); err != nil {
		t.Fatal(err)
	}
	used := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
	if used <= own {
		return 0
	}
	return used
}
