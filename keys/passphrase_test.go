package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

var passphraseCases = []struct {
	name, text string
	want       string // the passphrase, or
	err        string
}{
	{name: "a line", text: "secret words\n", want: "secret words"},
	{name: "a line without its end", text: "secret words", want: "secret words"},
	{name: "the first of two lines", text: "first\nsecond\n", want: "first"},
	{name: "a line of DOS", text: "secret\r\n", want: "secret"},
	{name: "spaces are kept", text: "  secret \t\n", want: "  secret \t"},
	{name: "any bytes", text: "\x00\xff\r\x80\n", want: "\x00\xff\r\x80"},
	{name: "the longest", text: strings.Repeat("a", maxPassphrase) + "\n", want: strings.Repeat("a", maxPassphrase)},
	{name: "one byte more", text: strings.Repeat("a", maxPassphrase+1) + "\n", err: "more than 4096 bytes"},
	{name: "nothing", text: "", err: "the first line is empty"},
	{name: "an empty line", text: "\nsecond\n", err: "the first line is empty"},
	{name: "an empty line of DOS", text: "\r\n", err: "the first line is empty"},
}

func TestPassphraseFromFile(t *testing.T) {
	for _, tt := range passphraseCases {
		t.Run(tt.name, func(t *testing.T) {
			ask := PassphraseFromFile(writeFile(t, filepath.Join(t.TempDir(), "pass"), []byte(tt.text)))
			for range 2 {
				got, err := ask("")
				if tt.err != "" {
					checkError(t, err, "reading the passphrase", tt.err)
				} else if err != nil || string(got) != tt.want {
					t.Fatalf("%q, %v", got, err)
				}
				clear(got)
			}
		})
	}
	_, err := PassphraseFromFile(filepath.Join(t.TempDir(), "missing"))("")
	checkError(t, err, "reading the passphrase", "missing")
}

func TestPassphraseFromFD(t *testing.T) {
	for _, tt := range passphraseCases {
		t.Run(tt.name, func(t *testing.T) {
			ask := PassphraseFromFD(pipeOf(t, tt.text))
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					got, err := ask("")
					if tt.err != "" {
						if err == nil || !strings.Contains(err.Error(), tt.err) {
							t.Errorf("%v, want %q", err, tt.err)
						}
					} else if err != nil || string(got) != tt.want {
						t.Errorf("%q, %v", got, err)
					}
					clear(got) // the caller's own
				})
			}
			wg.Wait()
		})
	}
	for _, fd := range []int{-1, 9999} {
		_, err := PassphraseFromFD(fd)("")
		checkError(t, err, "reading the passphrase", fmt.Sprint(fd))
	}
}

// After a failure the number may be that of another file, which is not read.
// TestPassphraseFromFDIsNotInherited has another program started, as gpg and signing
// programs are, before the passphrase is asked for.
func TestPassphraseFromFDIsNotInherited(t *testing.T) {
	f, err := os.Open(writeFile(t, filepath.Join(t.TempDir(), "pass"), []byte("secret words\n")))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.Dup(int(f.Fd())) // one that programs inherit, as from a shell
	if err != nil {
		t.Fatal(err)
	}
	read := func() string {
		out, _ := exec.Command("cat", fmt.Sprintf("/proc/self/fd/%d", fd)).Output()
		return string(out)
	}
	if read() == "" {
		t.Fatal("nothing is inherited: the test shows nothing")
	}
	ask := PassphraseFromFD(fd)
	if got := read(); got != "" {
		t.Errorf("another program could read %q", got)
	}
	if got, err := ask(""); err != nil || string(got) != "secret words" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestPassphraseFromFDReadsNothingElse(t *testing.T) {
	fd := pipeOf(t, "\n")
	ask := PassphraseFromFD(fd)
	if _, err := ask(""); err == nil {
		t.Fatal("an empty passphrase is taken")
	}
	other := pipeOf(t, "of another file\n")
	if other != fd {
		if err := unix.Dup3(other, fd, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(other)
	}
	defer unix.Close(fd)
	if got, err := ask(""); err == nil {
		t.Errorf("it read %q", got)
	}
}

// pipeOf returns a descriptor that nothing in Go's runtime knows of.
func pipeOf(t *testing.T, text string) int {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(fds[1], []byte(text)); err != nil && text != "" {
		t.Fatal(err)
	}
	unix.Close(fds[1])
	return fds[0]
}

// openPTY returns a terminal and the end that a person sits at.
func openPTY(t *testing.T) (person, tty *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminal can be made: %v", err)
	}
	t.Cleanup(func() { person.Close() })
	number, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Skipf("no terminal can be made: %v", err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminal can be made: %v", err)
	}
	t.Cleanup(func() { tty.Close() })
	return person, tty
}

func TestATerminalIsAskedWithoutEcho(t *testing.T) {
	person, tty := openPTY(t)
	type answer struct {
		line []byte
		err  error
	}
	answers := make(chan answer)
	go func() {
		line, err := ask(tty, "Passphrase: ")
		answers <- answer{line, err}
	}()
	waitFor(t, person, "Passphrase: ")
	waitForEcho(t, tty, false)
	fmt.Fprint(person, "secret words\n")
	a := <-answers
	if a.err != nil || string(a.line) != "secret words" {
		t.Fatalf("%q, %v", a.line, a.err)
	}
	fmt.Fprint(tty, "end")
	if shown := waitFor(t, person, "end"); strings.Contains(shown, "secret") {
		t.Errorf("the terminal shows %q", shown)
	}
	waitForEcho(t, tty, true)
}

func TestAnInterruptPutsTheEchoBack(t *testing.T) {
	person, tty := openPTY(t)
	errs := make(chan error)
	go func() {
		_, err := ask(tty, "Passphrase: ")
		errs <- err
	}()
	waitFor(t, person, "Passphrase: ")
	waitForEcho(t, tty, false)
	if err := unix.Kill(os.Getpid(), unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
	waitForEcho(t, tty, true)
	fmt.Fprint(person, "\n") // ends the reader that stayed behind
}

// waitFor reads until the terminal has shown want.
func waitFor(t *testing.T, person *os.File, want string) string {
	t.Helper()
	var shown bytes.Buffer
	buf := make([]byte, 256)
	for !strings.Contains(shown.String(), want) {
		n, err := person.Read(buf)
		if err != nil {
			t.Fatalf("reading the terminal after %q: %v", shown.String(), err)
		}
		shown.Write(buf[:n])
	}
	return shown.String()
}

func waitForEcho(t *testing.T, tty *os.File, want bool) {
	t.Helper()
	for {
		state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		if (state.Lflag&unix.ECHO != 0) == want {
			return
		}
	}
}
