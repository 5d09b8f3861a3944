// The init of a laboratory kernel: it carries out the plan in its initramfs, writes
// a record of each check to the console, and powers the machine off.
//
// It is a static program, so that the initramfs holds nothing else, and no other
// program has to be trusted for what is reported.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/scripts/kernellab/plan"
)

// root is where the root file system is mounted.
const root = "/root"

func main() {
	err := run()
	if err != nil {
		fmt.Printf("%s%s\n", plan.Marker, mustJSON(plan.Record{ID: "init", Expect: plan.Allowed, Seen: err.Error()}))
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	text, err := os.ReadFile(plan.File)
	if err != nil {
		return err
	}
	var p plan.Plan
	if err := json.Unmarshal(text, &p); err != nil {
		return fmt.Errorf("%s: %w", plan.File, err)
	}
	if err := mountKernel(); err != nil {
		return err
	}
	for _, m := range p.Modules {
		if err := loadModule(m); err != nil {
			return err
		}
	}
	if err := mountRoot(p.Device); err != nil {
		return err
	}
	g, err := newGuest()
	if err != nil {
		return err
	}
	if err := g.loadKeys(p); err != nil {
		return err
	}
	if p.Policy != "" {
		if err := os.WriteFile("/sys/kernel/security/ima/policy", []byte(p.Policy), 0); err != nil {
			return fmt.Errorf("loading the policy: %w", err)
		}
	}
	for _, c := range p.Checks {
		g.check(c)
	}
	if p.Shell {
		return shell()
	}
	return nil
}

// shell runs a shell on the console, until it ends.
func shell() error {
	cmd := exec.Command("/bin/bash", "--login")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Setsid: true, Setctty: true}
	cmd.Dir = "/"
	cmd.Env = append(environment, "TERM="+os.Getenv("TERM"))
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}

// environment is that of programs in the root file system.
var environment = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}

func mountKernel() error {
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"securityfs", "/sys/kernel/security"},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mounting %s: %w", m.at, err)
		}
	}
	// All of the kernel's lines are read from /dev/kmsg; none is dropped for coming fast.
	os.WriteFile("/proc/sys/kernel/printk_ratelimit", []byte("0"), 0)
	os.WriteFile("/proc/sys/kernel/printk_devkmsg", []byte("on"), 0)
	return os.WriteFile("/proc/sys/kernel/printk", []byte("1"), 0)
}

func loadModule(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
		return fmt.Errorf("loading %s: %w", name, err)
	}
	return nil
}

func tryModule(path string) string {
	if err := loadModule(filepath.Join(root, path)); err != nil {
		return verdict(err)
	}
	return plan.Allowed
}

func mountRoot(device string) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	// The driver may need a moment to find its disk.
	for range 100 {
		if _, err := os.Stat(device); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := unix.Mount(device, root, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", device, err)
	}
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if err := unix.Mount(dir, root+dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("binding %s below the root: %w", dir, err)
		}
	}
	return nil
}

// A guest carries out checks.
type guest struct {
	kernel string
	kmsg   int
	rings  map[string]int // keyrings that were used, by name
}

func newGuest() (*guest, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, err
	}
	kmsg, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/kmsg: %w", err)
	}
	if _, err := unix.Seek(kmsg, 0, io.SeekEnd); err != nil {
		return nil, fmt.Errorf("/dev/kmsg: %w", err)
	}
	return &guest{kernel: unix.ByteSliceToString(name.Release[:]), kmsg: kmsg, rings: map[string]int{}}, nil
}

// report writes a record of what began at a time.
func (g *guest) report(began time.Time, r plan.Record) {
	r.Kernel, r.Audit = g.kernel, append(r.Audit, g.audit(began)...)
	fmt.Printf("%s%s\n", plan.Marker, mustJSON(r))
}

// audit returns what the kernel's log says of refusals since a time, which was not
// returned before: the integrity subsystem's records with res=0, and its complaints of
// unknown keys. The kernel may write a record some time after what it is about.
func (g *guest) audit(since time.Time) (lines []string) {
	buf := make([]byte, 8192)
	for {
		n, err := unix.Read(g.kmsg, buf)
		if err == unix.EPIPE || err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return lines
		}
		_, line, _ := strings.Cut(strings.SplitN(string(buf[:n]), "\n", 2)[0], ";")
		refusal := strings.Contains(line, "type=18") && strings.Contains(line, "res=0") && !auditTime(line).Before(since)
		if refusal || strings.Contains(line, "integrity:") {
			lines = append(lines, line)
		}
	}
}

// settle is audit, and waits for the record of a refusal, so that it is not taken for
// one of the next check.
func (g *guest) settle(since time.Time, seen string) (lines []string) {
	for range 50 {
		if lines = append(lines, g.audit(since)...); len(lines) > 0 || seen == plan.Allowed {
			break
		}
		time.Sleep(4 * time.Millisecond)
	}
	return lines
}

// auditTime returns the time that a line of the kernel's audit states, to the
// millisecond, rounded up.
func auditTime(line string) time.Time {
	var seconds, millis int64
	if _, text, ok := strings.Cut(line, "audit("); ok {
		fmt.Sscanf(text, "%d.%d:", &seconds, &millis)
	}
	return time.Unix(seconds, (millis+1)*int64(time.Millisecond))
}

func (g *guest) check(c plan.Check) {
	began := time.Now()
	switch {
	case len(c.Labels) > 0:
		for _, l := range c.Labels {
			began := time.Now()
			seen := g.tryLabel(c.Map, l.Value)
			g.report(began, plan.Record{ID: c.ID + " " + l.ID, Case: c.Case, Expect: l.Expect, Seen: seen})
		}
		g.settle(time.Now(), plan.Denied)
	case c.Map != "":
		g.report(began, plan.Record{ID: c.ID, Case: c.Case, Expect: c.Expect, Seen: tryMap(c.Map)})
	case c.Module != "":
		g.report(began, plan.Record{ID: c.ID, Case: c.Case, Expect: c.Expect, Seen: tryModule(c.Module)})
	case c.Key != nil:
		g.report(began, plan.Record{ID: c.ID, Case: c.Case, Expect: c.Expect, Seen: g.tryKey(*c.Key)})
	case c.MapSigned > 0:
		seen, output := tryMapSigned(c.MapSigned)
		r := plan.Record{ID: c.ID, Case: c.Case, Expect: c.Expect, Seen: seen, Told: output}
		r.Audit = g.settle(began, seen)
		g.report(began, r)
	case c.Measure > 0:
		seen, output := tryMeasure(c.Measure)
		g.report(began, plan.Record{ID: c.ID, Case: c.Case, Expect: c.Expect, Seen: seen, Told: lastLine(output)})
	default:
		seen, output := tryRun(c)
		r := plan.Record{ID: c.ID, Case: c.Case, Seen: seen, Expect: c.Expect, Output: output,
			Micros: time.Since(began).Microseconds()}
		if c.Tell {
			r.Told = lastLine(output)
		}
		r.Audit = g.settle(began, seen)
		// A program may go on after something that it started was refused.
		if len(r.Audit) > 0 && seen == plan.Allowed {
			r.Seen = fmt.Sprintf("allowed, with %d refusals", len(r.Audit))
		}
		g.report(began, r)
	}
}

// tryLabel gives the file a label and maps it. A label that the kernel does not
// even store is one that it denies.
func (g *guest) tryLabel(path string, value []byte) string {
	err := unix.Lsetxattr(filepath.Join(root, path), "security.ima", value, 0)
	if err == unix.EINVAL || err == unix.EPERM || err == unix.EACCES {
		return plan.Denied
	}
	if err != nil {
		return "setting the label: " + err.Error()
	}
	return tryMap(path)
}

func tryMap(path string) string {
	f, err := os.Open(filepath.Join(root, path))
	if err != nil {
		return verdict(err)
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, 1, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	if err != nil {
		return verdict(err)
	}
	unix.Munmap(m)
	return plan.Allowed
}

func tryRun(c plan.Check) (seen, output string) {
	cmd := exec.Command(c.Run[0], c.Run[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	cmd.Dir = "/"
	cmd.Env = environment
	text, err := cmd.CombinedOutput()
	output = tail(string(text), 2000)
	var exit *exec.ExitError
	switch {
	case err == nil && !strings.Contains(output, c.Needs):
		return fmt.Sprintf("ran, but did not say %q", c.Needs), output
	case err == nil:
		return plan.Allowed, output
	case errors.As(err, &exit) && c.Needs != "" && strings.Contains(output, c.Needs):
		return plan.Denied, output
	}
	return verdict(err), output
}

// verdict tells a refusal by appraisal from other errors.
func verdict(err error) string {
	if errors.Is(err, unix.EACCES) {
		return plan.Denied
	}
	return err.Error()
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

func tail(s string, n int) string {
	if len(s) > n {
		return s[len(s)-n:]
	}
	return s
}

func mustJSON(r plan.Record) []byte {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // a Record has nothing that can't be marshalled
	}
	return text
}
