package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A terminal is a pseudo terminal; what is written to it is kept.
type terminal struct {
	t       *testing.T
	master  *os.File
	slave   *os.File
	closed  chan struct{}
	written sync.Cond
	text    bytes.Buffer
}

// patience is how long anything may take on a busy machine.
const patience = 60 * time.Second

func openTerminal(t *testing.T) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 140})
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, master: master, slave: slave, closed: make(chan struct{}), written: sync.Cond{L: new(sync.Mutex)}}
	go term.read()
	return term
}

func (term *terminal) read() {
	defer close(term.closed)
	buffer := make([]byte, 4096)
	for {
		n, err := term.master.Read(buffer)
		term.written.L.Lock()
		term.text.Write(buffer[:n])
		term.written.Broadcast()
		term.written.L.Unlock()
		if err != nil { // EIO, when the last of the other side has gone
			return
		}
	}
}

// start runs the command with this as its controlling terminal.
func (term *terminal) start(cmd *exec.Cmd) {
	term.t.Helper()
	cmd.Stdin = term.slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Start(); err != nil {
		term.t.Fatal(err)
	}
	term.slave.Close()
	kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	term.t.Cleanup(func() { kill.Stop() })
}

// wait returns what the terminal shows once it shows want n times.
func (term *terminal) wait(want string, n int) {
	term.t.Helper()
	late := time.AfterFunc(patience, func() { term.written.Broadcast() })
	defer late.Stop()
	begin := time.Now()
	term.written.L.Lock()
	defer term.written.L.Unlock()
	for strings.Count(term.text.String(), want) < n {
		if time.Since(begin) >= patience {
			term.t.Fatalf("%q is not shown: %q", want, term.text.String())
		}
		term.written.Wait()
	}
}

// typeLine answers a prompt. Until that has put the echo off, what is typed is
// shown, as with every such prompt.
func (term *terminal) typeLine(text string) {
	term.t.Helper()
	term.waitEcho(false)
	if _, err := io.WriteString(term.master, text+"\n"); err != nil {
		term.t.Fatal(err)
	}
}

func (term *terminal) waitEcho(on bool) {
	term.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); ; {
		// The settings are those of the pair, so they can be read on this side.
		mode, err := unix.IoctlGetTermios(int(term.master.Fd()), unix.TCGETS)
		if err != nil {
			term.t.Fatal(err)
		}
		if (mode.Lflag&unix.ECHO != 0) == on {
			return
		}
		select {
		case <-late:
			term.t.Fatalf("the echo never is %v", on)
		case <-tick.C:
		}
	}
}

// end waits for the command and returns all that was shown, and its exit code.
func (term *terminal) end(cmd *exec.Cmd) (shown string, code int) {
	term.t.Helper()
	err := cmd.Wait()
	<-term.closed
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		term.t.Fatal(err)
	}
	return term.text.String(), cmd.ProcessState.ExitCode()
}

// TestPassphrasePrompts: asked on the terminal, twice for a new key, without echo.
func TestPassphrasePrompts(t *testing.T) {
	needTools(t, "dpkg-deb")
	dir := t.TempDir()
	runIn(t, dir, exampleScene)
	talk := func(line string, answers ...string) (string, int) {
		t.Helper()
		term := openTerminal(t)
		cmd := exec.Command("bash", "-c", "exec "+line)
		cmd.Dir = dir
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		term.start(cmd)
		for i, answer := range answers {
			term.wait(": ", i+1)
			term.typeLine(answer)
			term.wait("\n", i+1) // so that the next prompt is not mistaken
		}
		shown, code := term.end(cmd)
		for _, answer := range answers {
			if answer != "" && strings.Contains(shown+stdout.String()+stderr.String(), answer) {
				t.Errorf("%s: the passphrase is shown: %q", line, shown)
			}
		}
		return shown + stderr.String(), code
	}

	shown, code := talk("imaseal keys init --dir keys", "battery", "battery", "anchor", "anchor")
	if code != exitOK || !regexp.MustCompile(`Passphrase for the new keys.*\s+Again: \s+Passphrase for the new CA key keys/ca.key .*\s+Again: `).MatchString(shown) {
		t.Fatalf("keys init: exit code %d: %q", code, shown)
	}
	runIn(t, dir, "grep -q ENCRYPTED keys/signing.key && grep -q ENCRYPTED keys/ca.key && printf battery > secret && openssl pkey -in keys/signing.key -passin file:secret -noout && printf anchor > secret && openssl pkey -in keys/ca.key -passin file:secret -noout")

	const signLine = "imaseal sign --key keys/signing.key --cert keys/signing.crt hello_2.10-3_amd64.deb"
	if shown, code = talk(signLine, "staple"); code != exitError || !strings.Contains(shown, "passphrase") {
		t.Errorf("a wrong passphrase: exit code %d: %q", code, shown)
	}
	if shown, code = talk(signLine, "battery"); code != exitOK || !strings.Contains(shown, "keys/signing.key") {
		t.Errorf("sign: exit code %d: %q", code, shown)
	}
	runIn(t, dir, "imaseal verify --cert keys/signing.crt hello_2.10-3_amd64.deb")

	if shown, code = talk("imaseal keys init --dir differ", "battery", "staple"); code != exitError || !strings.Contains(shown, "differ") {
		t.Errorf("two passphrases: exit code %d: %q", code, shown)
	}
	if _, err := os.Stat(filepath.Join(dir, "differ")); err == nil {
		t.Error("two passphrases left a folder behind")
	}
	if shown, code = talk("imaseal keys init --dir plain", "", "", "", ""); code != exitOK {
		t.Errorf("no passphrase: exit code %d: %q", code, shown)
	}
	runIn(t, dir, "! grep -q ENCRYPTED plain/signing.key plain/ca.key")

	// The passphrase of a CA that is there, another than that of the new key.
	if shown, code = talk("imaseal keys init --dir second --ca-dir keys", "staple", "staple", "anchor"); code != exitOK || !strings.Contains(shown, "(CA) Passphrase for keys/ca.key: ") {
		t.Errorf("the CA's passphrase: exit code %d: %q", code, shown)
	}
}

// TestInterruptAtPrompt: Ctrl-C at a prompt ends the command and puts the echo back.
func TestInterruptAtPrompt(t *testing.T) {
	term := openTerminal(t)
	cmd := exec.Command("imaseal", "keys", "init", "--dir", filepath.Join(t.TempDir(), "keys"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	term.start(cmd)
	term.wait(": ", 1)
	term.waitEcho(false)
	if _, err := io.WriteString(term.master, "\x03"); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("exit code %d, stderr %q", code, &stderr)
	}
	term.waitEcho(true)
}

// TestProgress: on a terminal bars with files and bytes, for each package and in
// total, when the work takes longer than a second; with --verbose lines.
func TestProgress(t *testing.T) {
	targets := []*target{{path: "build/one.deb"}, {path: "two.rpm"}}
	each := func(out *output, during func()) {
		f := targetFlags{jobs: 2}
		var both sync.WaitGroup
		both.Add(len(targets))
		f.each(t.Context(), out, targets, func(_ context.Context, target *target, _ int, p *packageProgress) *result {
			p.expect(2 << 20)
			p.add(3, 1<<20)
			out.note("a note on %s", target.path)
			both.Done()
			both.Wait()
			during()
			return &result{Path: target.path, Action: "signed", Verdict: verdictOK}
		})
	}
	// shown runs the work on a terminal. It lasts until that shows all of want.
	shown := func(t *testing.T, flags *output, want ...string) string {
		term := openTerminal(t)
		flags.stderr, flags.terminal = term.slave, true
		each(flags, func() {
			for _, w := range want {
				term.wait(w, 1)
			}
		})
		term.slave.Close()
		<-term.closed
		return term.text.String()
	}
	t.Run("bars", func(t *testing.T) {
		const one, total = "3 files, 1.0 MiB of 2.0 MiB", "0 of 2 packages, 6 files, 2.0 MiB"
		begin := time.Now()
		text := shown(t, &output{}, one, total)
		if took := time.Since(begin); took < progressDelay {
			t.Errorf("drawn after %v", took)
		}
		for _, want := range []string{`one\.deb +\[[=>-]+\] ` + one, `two\.rpm +\[[=>-]+\] ` + one, `total +\[-+\] ` + total} {
			if !regexp.MustCompile(want).MatchString(text) {
				t.Errorf("%s is not shown: %q", want, text)
			}
		}
		if i := strings.Index(text, "imaseal: a note"); i < strings.LastIndex(text, "[") || strings.Count(text, "imaseal: ") != 2 {
			t.Errorf("the notes do not come after the bars: %q", text)
		}
	})
	t.Run("quiet", func(t *testing.T) {
		if text := shown(t, &output{quiet: true}); text != "" {
			t.Errorf("shown: %q", text)
		}
	})
	for name, flags := range map[string]*output{"verbose": {verbose: true}, "verbose and json": {verbose: true, json: true}} {
		t.Run(name, func(t *testing.T) {
			text := shown(t, flags)
			for _, want := range []string{"imaseal: 1 of 2: ", "imaseal: 2 of 2: ", ": signed, 3 files, 1.0 MiB"} {
				if !strings.Contains(text, want) || strings.Contains(text, "[") {
					t.Errorf("%q is not shown: %q", want, text)
				}
			}
		})
	}
}

// TestShortWork: nothing is drawn for work of less than a second; colours mark the
// result unless NO_COLOR is set; notes come after the bars.
func TestShortWork(t *testing.T) {
	needTools(t, "dpkg-deb")
	dir := t.TempDir()
	runIn(t, dir, exampleScene+"imaseal keys init --dir keys --no-passphrase; echo x > build/x.src.rpm")
	for name, test := range map[string]struct{ env, want string }{
		"coloured":      {"NO_COLOR=", "\x1b[32msigned\x1b[0m"},
		"NO_COLOR":      {"NO_COLOR=1", "signed"},
		"TERM is dumb":  {"TERM=dumb", "signed"},
		"json is plain": {"NO_COLOR=", `"action":"signed"`},
	} {
		t.Run(name, func(t *testing.T) {
			term := openTerminal(t)
			args := []string{"sign", "--key", "keys/signing.key", "--cert", "keys/signing.crt", "--output", t.TempDir(), "build"}
			if strings.Contains(name, "json") {
				args = append(args, "--json")
			}
			cmd := exec.Command("imaseal", args...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "TERM=xterm", test.env)
			cmd.Stdout, cmd.Stderr = term.slave, term.slave
			begin := time.Now()
			term.start(cmd)
			shown, code := term.end(cmd)
			if took := time.Since(begin); took >= progressDelay {
				t.Skipf("it took %v on this machine: that is no short work", took)
			}
			if code != exitOK || !strings.Contains(shown, test.want) || strings.Contains(shown, "\x1b") != strings.Contains(test.want, "\x1b") {
				t.Errorf("exit code %d: %q", code, shown)
			}
			if !strings.Contains(shown, "imaseal: build/x.src.rpm: skipped") || strings.Contains(shown, "files,") || strings.Contains(shown, "total") {
				t.Errorf("shown: %q", shown)
			}
		})
	}
}

func TestWarningsAreShownAsText(t *testing.T) {
	var b bytes.Buffer
	(&output{stderr: &b}).warn("%s: it is broken\nand says so", "a\u009b2J\xff")
	if want := "imaseal: a\\u009b2J\\xff: it is broken\nand says so\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
