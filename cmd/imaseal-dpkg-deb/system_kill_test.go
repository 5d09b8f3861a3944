package main_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// kills is how often each of dpkg and the hook is killed.
const kills = 50

// victimPackage has so many files that dpkg can be killed among them.
func victimPackage(version string) made {
	m := made{name: "victim", version: version, arch: "all",
		files: []madeFile{{path: "usr/bin/victim", content: "#!/bin/sh\necho " + version + "\n", mode: 0o755},
			{path: "etc/victim.conf", content: "version = " + version + "\n"}},
		control: []madeFile{{path: "conffiles", content: "/etc/victim.conf\n"}}}
	for _, script := range []string{"preinst", "postinst", "prerm", "postrm"} {
		m.control = append(m.control, madeFile{path: script, content: "#!/bin/sh\n: " + script + version + "\n", mode: 0o755})
	}
	for i := range 400 {
		m.files = append(m.files, madeFile{path: fmt.Sprintf("usr/lib/victim/%03d", i), content: strings.Repeat(fmt.Sprintf("file %d of version %s\n", i, version), 200)})
	}
	return m
}

// newVictim returns a root where version 1 is installed, and random numbers of which
// the seed is in the log.
func newVictim(t *testing.T) (*root, *rand.Rand) {
	t.Helper()
	repo := makePackages(t, victimPackage("1"), victimPackage("2"))
	r := newRoot(t, "trixie")
	r.use(repo)
	r.write("etc/dpkg/dpkg.cfg.d/test", "force-unsafe-io\n", 0o644)
	r.run("dpkg", "-i", deb("victim", "1", "all"))
	r.check()
	r.within = []string{"etc", "usr/bin", "usr/lib/victim", "var/lib/dpkg"}
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("IMASEAL_TEST_SEED"); given != "" {
		var err error
		seed, err = strconv.ParseUint(given, 10, 64)
		must(t, err)
	}
	t.Logf("IMASEAL_TEST_SEED=%d", seed)
	return r, rand.New(rand.NewPCG(seed, 0))
}

// other returns the version that is not installed.
func other(version string) string {
	if version == "1" {
		return "2"
	}
	return "1"
}

// TestDpkgIsKilled kills dpkg at random moments of an upgrade. At each of them every
// name of the package leads to a whole file with its label, and dpkg recovers.
func TestDpkgIsKilled(t *testing.T) {
	r, random := newVictim(t)
	start := time.Now()
	r.run("dpkg", "-i", deb("victim", "2", "all"))
	duration := time.Since(start)
	target := "1"
	states := map[string]int{}
	for i := range kills {
		cmd := r.command(nil, "dpkg", "-i", deb("victim", target, "all"))
		must(t, cmd.Start())
		moment := time.Duration(random.Float64() * float64(duration))
		time.Sleep(moment)
		cmd.Process.Kill()
		cmd.Wait()
		if left := r.processes(5 * time.Second); len(left) > 0 {
			t.Errorf("kill %d after %v: still running: %q", i, moment, left)
		}
		states[r.status("victim")]++
		r.whole400(fmt.Sprintf("kill %d after %v", i, moment))

		r.try("dpkg", "--configure", "-a") // a half-installed package has to be installed again
		r.run("dpkg", "-i", deb("victim", target, "all"))
		r.recovered(fmt.Sprintf("kill %d after %v", i, moment), target)
		if t.Failed() {
			return
		}
		target = other(target)
	}
	r.within = nil
	r.recovered("at the end", other(target))
	t.Logf("%d kills in %v of an upgrade that takes %v; states that dpkg was left in: %v", kills, time.Since(start), duration, states)
	if len(states) < 3 {
		t.Errorf("the moments were too much alike: %v", states)
	}
}

// TestDpkgIsKilledWhileTheHookWaits kills a dpkg that has stopped reading: what is in
// the pipe will never be read, and the hook must not wait for it.
func TestDpkgIsKilledWhileTheHookWaits(t *testing.T) {
	// All of it fits into the pipe.
	repo := makePackages(t, made{name: "small", version: "1", arch: "all", files: []madeFile{{path: "usr/bin/small", content: "#!/bin/sh\n", mode: 0o755}}})
	r := newRoot(t, "trixie")
	r.use(repo)
	const enough = 5
	waited, attempts := 0, 0
	for ; waited < enough; attempts++ {
		if attempts == 50 {
			t.Fatalf("the hook waited in %d of %d runs only", waited, attempts)
		}
		cmd := r.command(nil, "dpkg", "-i", deb("small", "1", "all"))
		must(t, cmd.Start())
		hook := r.waitForHook(cmd.Process.Pid, "--fsys-tarfile")
		must(t, cmd.Process.Signal(syscall.SIGSTOP))
		time.Sleep(50 * time.Millisecond)
		if exe, _ := os.Readlink("/proc/" + hook + "/exe"); exe == r.name(hookDir+"/dpkg-deb") {
			waited++
		}
		must(t, cmd.Process.Kill())
		cmd.Wait()
		if left := r.processes(10 * time.Second); len(left) > 0 {
			t.Fatalf("still running: %q", left)
		}
		r.try("dpkg", "--configure", "-a")
		r.run("dpkg", "-i", deb("small", "1", "all"))
		r.check()
		r.audit()
		r.run("dpkg", "--purge", "small")
	}
	t.Logf("the hook waited in %d of %d runs, and ended with dpkg", waited, attempts)
}

// TestHookIsKilled kills the hook at random moments of its two calls. dpkg notices,
// and the old version stays whole.
func TestHookIsKilled(t *testing.T) {
	r, random := newVictim(t)
	start := time.Now()
	installed, hits := "1", map[string]int{}
	for attempt := 0; hits["--control"]+hits["--fsys-tarfile"] < kills; attempt++ {
		if attempt > 20*kills {
			t.Fatalf("only %v kills in %d attempts", hits, attempt)
		}
		verb := []string{"--control", "--fsys-tarfile", "--fsys-tarfile"}[random.IntN(3)]
		delay := time.Duration(random.Float64() * float64(40*time.Millisecond))
		if verb == "--control" {
			delay /= 10
		}
		what := fmt.Sprintf("attempt %d, %s after %v", attempt, verb, delay)
		cmd := r.command(nil, "dpkg", "-i", deb("victim", other(installed), "all"))
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		must(t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		r.killHook(cmd.Process.Pid, verb, delay)
		if err := <-ended; err == nil { // the hook was quicker
			installed = other(installed)
			r.recovered(what, installed)
		} else {
			hits[verb]++
			// dpkg notices the end of the pipe, or of the process, whichever it sees first.
			if !strings.Contains(out.String(), "killed by signal (Killed)") && !strings.Contains(out.String(), "unexpected end of file") {
				t.Errorf("%s: dpkg says\n%s", what, out.String())
			}
			if left := r.processes(5 * time.Second); len(left) > 0 {
				t.Errorf("%s: still running: %q", what, left)
			}
			r.recovered(what, installed)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("killed in %v: %v", time.Since(start), hits)
	r.within = nil
	r.run("dpkg", "-i", deb("victim", other(installed), "all"))
	r.recovered("at the end", other(installed))
}

// killHook kills the hook that dpkg calls with verb, so long after it began.
func (r *root) killHook(dpkg int, verb string, delay time.Duration) {
	hook := r.waitForHook(dpkg, verb)
	time.Sleep(delay)
	// Its number is nobody else's before dpkg has waited for it.
	if exe, _ := os.Readlink("/proc/" + hook + "/exe"); exe == r.name(hookDir+"/dpkg-deb") {
		pid, err := strconv.Atoi(hook)
		must(r.t, err)
		process, err := os.FindProcess(pid)
		must(r.t, err)
		process.Kill()
	}
}

// waitForHook returns the number of the hook that dpkg calls with verb, "" when dpkg
// ends before.
func (r *root) waitForHook(dpkg int, verb string) string {
	for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(100 * time.Microsecond) {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", dpkg, dpkg))
		if err != nil {
			break
		}
		for child := range strings.FieldsSeq(string(children)) {
			exe, _ := os.Readlink("/proc/" + child + "/exe")
			args, _ := os.ReadFile("/proc/" + child + "/cmdline")
			if exe == r.name(hookDir+"/dpkg-deb") && strings.Contains(string(args), verb) {
				return child
			}
		}
	}
	return ""
}

// processes returns what still runs in the root after a time that all have to end in.
func (r *root) processes(within time.Duration) []string {
	r.t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		var running []string
		roots, err := filepath.Glob("/proc/[0-9]*/root")
		must(r.t, err)
		for _, link := range roots {
			if dir, err := os.Readlink(link); err == nil && dir == r.dir {
				args, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline"))
				running = append(running, strings.ReplaceAll(string(args), "\x00", " "))
			}
		}
		if len(running) == 0 || time.Since(began) > within {
			return running
		}
	}
}

// whole400 demands that every file of the victim is there and labelled, and that no
// label of the system is wrong, at a moment when dpkg was cut off.
func (r *root) whole400(when string) {
	r.t.Helper()
	labels := r.labels()
	paths := []string{"usr/bin/victim"}
	for i := range 400 {
		paths = append(paths, fmt.Sprintf("usr/lib/victim/%03d", i))
	}
	for _, path := range paths {
		if _, err := os.Lstat(r.name(path)); err != nil {
			r.t.Errorf("%s: lost: %v", when, err)
		} else if labels[path] == "" {
			r.t.Errorf("%s: %s has its name and no label", when, path)
		}
	}
	if wrong := r.wrong(labels); len(wrong) > 0 {
		r.t.Errorf("%s: wrongly labelled: %q", when, wrong)
	}
}

// recovered demands that a version of the victim is installed, whole, and that
// nothing is left of what was cut off.
func (r *root) recovered(when, version string) {
	r.t.Helper()
	if status := r.status("victim"); status != "ii "+version {
		r.t.Errorf("%s: victim is %q, want %q", when, status, "ii "+version)
	}
	if c := r.check(); c.files != 401 || c.scripts != 4 {
		r.t.Errorf("%s: only %+v", when, c)
	}
	for _, path := range []string{"usr/bin/victim", "usr/lib/victim/000", "usr/lib/victim/399", "etc/victim.conf"} {
		if content := r.read(path); !strings.Contains(content, "version "+version) && !strings.Contains(content, "echo "+version) && !strings.Contains(content, "= "+version) {
			r.t.Errorf("%s: %s is not of version %s: %.60q", when, path, version, content)
		}
	}
	r.audit()
	if left := r.leftovers(); len(left) > 0 {
		r.t.Errorf("%s: left over: %q", when, left)
	}
}

// has reports whether a program is there, for tests that may skip.
func has(t testing.TB, programs ...string) {
	t.Helper()
	for _, program := range slices.Sorted(slices.Values(programs)) {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed: scripts/test installs it", program)
		}
	}
}
