package compression

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeXz makes a shell script the only xz of this test. In it REAL is the program,
// and nothing else is in PATH.
func fakeXz(t *testing.T, script string) {
	t.Helper()
	real, err := exec.LookPath("xz")
	if err != nil {
		t.Skip("needs the program xz")
	}
	dir := t.TempDir()
	script = "#!/bin/sh\n" + strings.ReplaceAll(script, "REAL", real) + "\n"
	if err := os.WriteFile(filepath.Join(dir, "xz"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
}

// A program that fails before its first byte is not needed.
func TestXzProgramsThatAreOfNoUse(t *testing.T) {
	compressed, data := big(t)
	size := int64(len(compressed))
	for name, script := range map[string]string{
		"fails at once":              "exit 1",
		"fails after some input":     "read -r line; exit 1",
		"is killed at once":          "kill -9 $$",
		"does not know the options":  "echo \"xz: unrecognized option '$5'\" >&2; exit 1",
		"says nothing":               "exit 0",
		"reads all and says nothing": "while read -r line; do :; done; exit 0",
	} {
		t.Run(name, func(t *testing.T) {
			fakeXz(t, script)
			got, err := readAll(func() (io.ReadCloser, error) { return NewReaderAt(bytes.NewReader(compressed), size, Xz, 2) })
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if parallel.Load() {
				t.Error("the place of the parallel stream is not free")
			}
		})
	}
	for name, make := range map[string]func(path string) error{
		"is missing":         func(string) error { return nil },
		"is a folder":        func(path string) error { return os.Mkdir(path, 0o755) },
		"cannot be started":  func(path string) error { return os.WriteFile(path, []byte("\x7fELF of another machine"), 0o755) },
		"has no interpreter": func(path string) error { return os.WriteFile(path, []byte("#!/nonexistent\n"), 0o755) },
		"is in the folder where one happens to be": func(path string) error {
			return os.WriteFile("xz", []byte("#!/bin/sh\necho this must not run"), 0o755)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Chdir(t.TempDir())
			if err := make(filepath.Join(dir, "xz")); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", dir+":.")
			descriptors := openDescriptors(t)
			r, err := NewReaderAt(bytes.NewReader(compressed), size, Xz, 2)
			if err != nil {
				t.Fatal(err)
			}
			if got := wayOf(r); got != "blocks side by side" {
				t.Errorf("by %s", got)
			}
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			r.Close()
			if got := openDescriptors(t); got != descriptors {
				t.Errorf("%d descriptors, were %d", got, descriptors)
			}
		})
	}
}

// Of a program that gave something nothing else is believed.
func TestXzProgramsThatFailInTheMiddle(t *testing.T) {
	compressed, data := big(t)
	for _, test := range []struct {
		name, script, want string
	}{
		{"is killed", "REAL \"$@\" 2>/dev/null | { read -r line; echo \"$line\"; }; kill -9 $$", "xz: the xz program failed: signal: killed"},
		{"fails without a word", "echo half; exit 3", "xz: the xz program failed: exit status 3"},
		{"fails and says why", "echo half; echo 'xz: (stdin): Disk on fire' >&2; exit 1", "xz: Disk on fire"},
		{"says much", "echo half; echo 'xz: (stdin): First line' >&2; echo second >&2; exit 1", "xz: First line"},
		{"says far too much", "echo half; i=0; while [ $i -lt 20000 ]; do echo a long line >&2; i=$((i+1)); done; exit 1", "xz: a long line"},
		{"warns", "REAL \"$@\"; echo 'xz: (stdin): a warning' >&2; exit 2", "xz: a warning"},
		{"ends early and well", "echo half", fmt.Sprintf("xz: the xz program wrote 5 of the %d bytes of the index", len(data))},
		{"does not end", "while :; do echo garbage garbage garbage garbage garbage garbage garbage garbage garbage garbage; done", fmt.Sprintf("xz: the xz program wrote more than the %d bytes of the index", len(data))},
		{"adds something", "REAL \"$@\"; echo", fmt.Sprintf("xz: the xz program wrote more than the %d bytes of the index", len(data))},
	} {
		t.Run(test.name, func(t *testing.T) {
			fakeXz(t, test.script)
			descriptors := openDescriptors(t)
			got, err := readAll(func() (io.ReadCloser, error) {
				return NewReaderAt(bytes.NewReader(compressed), int64(len(compressed)), Xz, 2)
			})
			if err == nil || err.Error() != test.want {
				t.Errorf("error %v, want %s", err, test.want)
			}
			mustFail(t, Xz, err)
			if len(got) == 0 || len(got) > len(data) {
				t.Errorf("%d bytes came before", len(got))
			}
			if parallel.Load() || openDescriptors(t) != descriptors {
				t.Error("something is still open")
			}
		})
	}
}

func TestXzProgramThatIsKilledByOthers(t *testing.T) {
	compressed, _ := big(t)
	r, c := openChild(t, compressed)
	if _, err := io.ReadFull(r, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, r)
	mustFail(t, Xz, err)
	if err != nil && err.Error() != "xz: the xz program failed: signal: killed" {
		t.Errorf("error %v", err)
	}
}

// openChild returns a reader that is the program.
func openChild(t *testing.T, compressed []byte) (io.ReadCloser, *xzChild) {
	t.Helper()
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("needs the program xz")
	}
	r, err := startBig(bytes.NewReader(compressed), int64(len(compressed)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	c, ok := r.(*reader).body.(*parallelXz).body.(*xzChild)
	if !ok {
		t.Fatal("the program does not run")
	}
	return r, c
}

// Settings of the user's would make the program fail or write something else.
func TestXzProgramIgnoresTheEnvironment(t *testing.T) {
	compressed, data := big(t)
	for name, value := range map[string]string{
		"XZ_OPT":      "--no-such-option",
		"XZ_DEFAULTS": "--no-such-option",
		"LC_ALL":      "de_DE.UTF-8",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			r, c := openChild(t, compressed)
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if c.instead != nil {
				t.Error("the program failed")
			}
		})
	}
}

func TestXzProgramSpeaksEnglish(t *testing.T) {
	fakeXz(t, "echo half; echo \"$LC_ALL\" >&2; exit 1")
	t.Setenv("LC_ALL", "de_DE.UTF-8")
	compressed, _ := big(t)
	r, _ := openChild(t, compressed)
	if _, err := io.ReadAll(r); err == nil || err.Error() != "xz: C" {
		t.Errorf("error %v", err)
	}
}

// The program itself says what it makes of the limits.
func TestXzProgramMemory(t *testing.T) {
	out := stock(t, nil, "xz", append(childOptions(2), "--robot", "--info-memory")...)
	columns := strings.Split(strings.TrimSpace(string(out)), "\t")
	if len(columns) < 4 {
		t.Skip("this xz has one thread only")
	}
	want := fmt.Sprint(childMemory)
	if columns[2] != want || columns[3] != want {
		t.Errorf("limits of %s and with several threads %s bytes, want %s", columns[2], columns[3], want)
	}
	data := text(300 << 10)
	for _, options := range [][]string{{largeDictionary}, {largeDictionary, "--block-size=100KiB"}, {largeDictionary, "-T2", "--block-size=100KiB"}} {
		r, c := openChild(t, xzProgram.with(t, data, options...)) // the largest dictionary fits
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) || c.instead != nil {
			t.Errorf("%v: %d bytes, %v", options, len(got), err)
		}
	}
}

// What the terminal sends to our group must not look like a failed program.
func TestXzProgramHasAGroupOfItsOwn(t *testing.T) {
	compressed, _ := big(t)
	_, c := openChild(t, compressed)
	group, err := unix.Getpgid(c.cmd.Process.Pid)
	if err != nil || group != c.cmd.Process.Pid {
		t.Errorf("group %d of process %d: %v", group, c.cmd.Process.Pid, err)
	}
}

// Close ends a script that is called xz together with what it started. All of them
// hold the pipe: its end tells that they are gone.
func TestXzProgramThatHangsIsEndedByClose(t *testing.T) {
	compressed, _ := big(t)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	// It is what the script has started that says it is up, and stays.
	const hang = "/bin/sh -c 'echo up >&9; exec /bin/sleep 1000'"
	for name, script := range map[string]string{
		"before its first byte": "exec 9>" + pipe + "; " + hang + "; exit",
		"in the middle":         "exec 9>" + pipe + "; echo half; " + hang + "; exit",
		"while it writes":       "exec 9>" + pipe + "; while :; do echo garbage; done & " + hang + "; exit",
	} {
		t.Run(name, func(t *testing.T) {
			fakeXz(t, script)
			descriptors := openDescriptors(t)
			r, err := NewReaderAt(bytes.NewReader(compressed), int64(len(compressed)), Xz, 2)
			if err != nil {
				t.Fatal(err)
			}
			alive, err := os.Open(pipe)
			if err != nil {
				t.Fatal(err)
			}
			defer alive.Close()
			if _, err := io.ReadFull(alive, make([]byte, len("up\n"))); err != nil {
				t.Fatal(err)
			}
			if name != "before its first byte" {
				if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if rest, err := io.ReadAll(alive); err != nil || len(rest) > 0 { // until nobody has it open
				t.Errorf("%q, %v", rest, err)
			}
			alive.Close()
			if got := openDescriptors(t); got != descriptors || parallel.Load() {
				t.Errorf("%d descriptors, were %d", got, descriptors)
			}
		})
	}
}
