package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// splitFiles makes a request for the package of s, and a folder for temporary files.
func (s *scene) splitFiles() (request string) {
	s.t.Helper()
	request = s.path("request")
	s.must(exec.Command(s.command, "digests", "--quiet", "--output", request, s.pkg))
	if err := os.MkdirAll(s.path("tmp"), 0o755); err != nil {
		s.t.Fatal(err)
	}
	return request
}

// signDigests is the signing host, with its temporary files in the scene.
func (s *scene) signDigests(more ...string) *exec.Cmd {
	args := append([]string{"sign-digests", "--key", s.path("keys/test.key"), "--cert", s.path("keys/test.crt")}, more...)
	cmd := exec.Command(s.command, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+s.path("tmp"))
	return cmd
}

// TestSigningHostInterrupted ends the signing host while it waits for the rest of a
// request: there is no response and no temporary file, and the log is whole.
func TestSigningHostInterrupted(t *testing.T) {
	for name, test := range map[string]struct {
		signal syscall.Signal
		code   int
	}{
		"interrupted": {syscall.SIGINT, exitInterrupted},
		"terminated":  {syscall.SIGTERM, exitInterrupted},
		"killed":      {syscall.SIGKILL, -1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, "deb", 2)
			request, err := os.ReadFile(s.splitFiles())
			if err != nil {
				t.Fatal(err)
			}
			log, response := s.path("audit.log"), s.path("response")
			s.must(s.signDigests("--log", log, "--output", s.path("first"), s.path("request")))
			cmd := s.signDigests("--log", log, "--output", response, "-")
			in, out, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stdin = in
			r := s.start(cmd)
			in.Close()
			if _, err := out.Write(request[:len(request)-40]); err != nil {
				t.Fatal(err)
			}
			waitForSpool(t, r, cmd.Process.Pid, s.path("tmp"))
			r.send(test.signal)
			if code := r.code(); code != test.code {
				t.Errorf("exit code %d, not %d: %s", code, test.code, r.output.String())
			}
			out.Close()
			if _, err := os.Stat(response); err == nil {
				t.Error("there is a response")
			}
			if left, _ := filepath.Glob(s.path("tmp/*")); len(left) > 0 {
				t.Errorf("temporary files are left: %v", left)
			}
			if text := s.must(exec.Command(s.command, "log", "verify", log)); !strings.Contains(text, "entries that hold: 1;") {
				t.Error(text)
			}
		})
	}
}

// waitForSpool waits until the process has read something: its spool, which has no
// name, is not empty.
func waitForSpool(t *testing.T, r *running, pid int, dir string) {
	t.Helper()
	for {
		select {
		case <-r.done:
			t.Fatalf("it has ended: %s", r.output.String())
		default:
		}
		open, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range open {
			target, _ := os.Readlink(fd)
			info, err := os.Stat(fd)
			if err == nil && strings.HasPrefix(target, dir) && info.Size() > 0 {
				return
			}
		}
	}
}

// TestResponseThatCannotBeWritten: the exit code says so, and the packages refuse what
// there is of it.
func TestResponseThatCannotBeWritten(t *testing.T) {
	s := newScene(t, "deb", 20)
	request := s.splitFiles()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	cmd := s.signDigests("--log", s.path("audit.log"), request)
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = full, &text
	if err := cmd.Run(); err == nil || !strings.Contains(text.String(), "the response was not written to its end") {
		t.Errorf("%v: %s", err, text.String())
	}
	if cmd.ProcessState.ExitCode() != exitError {
		t.Errorf("exit code %d", cmd.ProcessState.ExitCode())
	}
}

// TestSignaturesHaveNoNameBeforeTheLog looks beside the response while the key signs:
// what a killed process leaves there nobody has written down.
func TestSignaturesHaveNoNameBeforeTheLog(t *testing.T) {
	s := newService(t, p256Key(t), "deb", readShared(t, helloDeb))
	request := s.splitFiles()
	out := s.path("out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	s.vault.SetDisturb(func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		asked.Add(1)
		if names, err := os.ReadDir(out); err != nil || len(names) > 0 {
			t.Errorf("%v, %v", names, err)
		}
		return false
	})
	s.must(exec.Command(s.command, "sign-digests", "--key", vaultKey, "--cert", s.cert, "--log", s.path("audit.log"), "--output", filepath.Join(out, "response"), request))
	if _, err := os.Stat(filepath.Join(out, "response")); err != nil || asked.Load() == 0 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
}

// TestLogOnAFullDisk: what cannot be written down is not released, and of its line
// nothing is left.
func TestLogOnAFullDisk(t *testing.T) {
	s := newScene(t, "deb", 2)
	request := s.splitFiles()
	small := s.smallDisk(len(s.content)+3<<12, false)
	log, response := filepath.Join(small, "audit.log"), s.path("response")
	s.must(s.signDigests("--log", log, "--output", response, request))
	if err := os.Remove(response); err != nil {
		t.Fatal(err)
	}
	filler, err := os.Create(filepath.Join(small, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	io.Copy(filler, zeros{}) // until there is no room
	refused := false
	for range 20 { // a page of the log has room left
		before, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		cmd := s.signDigests("--log", log, "--output", response, request)
		out, err := cmd.CombinedOutput()
		if err == nil {
			os.Remove(response)
			continue
		}
		refused = true
		if !strings.Contains(string(out), "nothing is released") || !strings.Contains(string(out), "no space left") {
			t.Errorf("%s", out)
		}
		if _, err := os.Stat(response); err == nil {
			t.Error("there is a response")
		}
		if after, _ := os.ReadFile(log); !bytes.Equal(before, after) {
			t.Errorf("a part of a line is left: %q", after[len(before):])
		}
		break
	}
	if !refused {
		t.Fatal("the disk was never full: the test shows nothing")
	}
	s.must(exec.Command(s.command, "log", "verify", log))
}

// TestHostileClient gives the command what never ends.
func TestHostileClient(t *testing.T) {
	s := newScene(t, "deb", 2)
	s.splitFiles()
	for name, head := range map[string]string{
		"a line of zeros":            "",
		"a line of zeros in a field": "Format: imaseal-digests-request-1\n\nType: ",
	} {
		t.Run(name, func(t *testing.T) {
			cmd := s.signDigests("--log", s.path("audit.log"), "-")
			cmd.Stdin = io.MultiReader(strings.NewReader(head), zeros{})
			out, _ := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != exitError || !strings.Contains(string(out), "it has more than 32768 bytes; nothing was signed") {
				t.Errorf("%.300q", out)
			}
			const most = 256 << 10 // KiB: what the Go runtime takes, and not what the client sends
			if used := peakMemory(t, cmd); used > most {
				t.Errorf("it took %d KiB", used)
			}
		})
	}
}

// TestNamesOfAnotherHostAreShownAsText: what a request or a response calls a package
// moves no cursor and turns no line around.
func TestNamesOfAnotherHostAreShownAsText(t *testing.T) {
	s := newScene(t, "deb", 2)
	s.splitFiles()
	stanza := func(name string) string {
		return "\nType: rpm\nFile-SHA256: " + strings.Repeat("a", 64) + "\nPackage: " + name + "\nVersion: 1\nArchitecture: all\nSelect: all\nHash: sha256\nFiles: 0\nScripts: 0\n"
	}
	// Both are in the wrong order, which an error tells with the names.
	text := stanza("\u009b2J\u202e\xff") + stanza("a") + "\nEnd: 2 packages, 0 digests\n"
	request, response, rules := s.path("bad-request"), s.path("bad-response"), s.path("rules")
	s.write(request, []byte("Format: imaseal-digests-request-1\n"+text))
	s.write(response, []byte("Format: imaseal-digests-response-1\nRequest-SHA256: "+strings.Repeat("a", 64)+"\n"+text))
	s.write(rules, []byte("packages = none\n"))
	for name, cmd := range map[string]*exec.Cmd{
		"a request":                 s.signDigests(request),
		"a request that is refused": s.signDigests("--rules", rules, request),
		"a response":                exec.Command(s.command, "embed", "--cert", s.path("keys/test.crt"), response, s.pkg),
	} {
		out, err := cmd.CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte(`\u009b2J\u202e\xff 1 (all`)) || bytes.Contains(out, []byte("\u202e")) {
			t.Errorf("%s: %v: %q", name, err, out)
		}
	}
}

// TestSecretsOfSplitSigning has the key, a passphrase and a wrong file used with the
// verbs of split signing, and looks for them everywhere.
func TestSecretsOfSplitSigning(t *testing.T) {
	s := newScene(t, "deb", 2)
	request := s.splitFiles()
	plain, cert, file := s.path("keys/test.key"), s.path("keys/test.crt"), s.path("passphrase")
	s.write(file, []byte(passphrase+"\n"))
	s.must(exec.Command(s.command, "keys", "init", "--dir", s.path("locked"), "--passphrase-file", file))
	locked := s.path("locked/signing.key")
	secrets := append(secretsOf(t, plain), secret{"the passphrase", []byte(passphrase)})
	secrets = append(secrets, secretsOf(t, locked)...)
	l := newLookout(s, append(secrets, unlocked(t, s, locked)...), plain, file, locked, s.path("locked/ca.key"))
	log := s.path("audit.log")
	out := l.watch(s, exec.Command(s.command, "sign-digests", "--key", locked, "--cert", s.path("locked/signing.crt"), "--passphrase-file", file, "--log", log, "--output", s.path("response"), request))
	if !strings.Contains(out, "imaseal: signed ") {
		t.Fatal(out)
	}
	host := []string{"sign-digests", "--key", locked, "--cert", s.path("locked/signing.crt"), "--passphrase-file", file, "--log", log}
	for _, args := range [][]string{
		append(host, file),
		append(host, plain),
		append(host, "--rules", file, request),
		append(host, "--rules", plain, request),
		{"sign-digests", "--key", file, "--log", log, request},
		{"sign-digests", "--key", locked, "--passphrase-file", plain, "--log", log, request},
		{"sign-digests", "--key", plain, "--cert", cert, "--log", file, request},
		{"embed", "--cert", cert, file, s.pkg},
		{"embed", "--cert", cert, plain, s.pkg},
		{"embed", "--cert", plain, s.path("response"), s.pkg},
		{"digests", "--cert", plain, s.pkg},
		{"digests", file, plain},
		{"log", "verify", file},
		{"log", "verify", plain},
	} {
		if out := l.watch(s, exec.Command(s.command, args...)); !strings.Contains(out, "imaseal: ") {
			t.Errorf("imaseal %s was no wrong use: %s", strings.Join(args, " "), out)
		}
	}
	for found := range l.found {
		t.Errorf("others could see %s", found)
	}
	if l.seen["file"] == 0 || l.seen["output"] == 0 || l.seen["cmdline"] == 0 {
		t.Errorf("only %v was looked at", l.seen)
	}
}
