package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestTokenKeyVanishes deletes the key from the token while 10,000 files are signed.
func TestTokenKeyVanishes(t *testing.T) {
	s := newTokenScene(t, "deb", 10000)
	r := s.start(s.signToken("rsa", "--cert", s.path("rsa/signing.crt")))
	// Once the token has been read for some time signatures are made: 10,000 take seconds.
	busy(t, r, 500*time.Millisecond)
	s.tool("--delete-object", "--type", "privkey", "--id", "01")
	if code := r.code(); code != exitError {
		t.Fatalf("exit code %d: was it done before the key vanished? %s", code, &r.output)
	}
	// SoftHSM says of a key that it is just about to delete that it may not sign.
	out := r.output.String()
	why := strings.Contains(out, "removed from the token while it was in use") || strings.Contains(out, "CKR_KEY_FUNCTION_NOT_PERMITTED")
	if !why || !strings.Contains(out, `token "release"`) || strings.Contains(out, tokenPIN) {
		t.Errorf("the message: %s", out)
	}
	if s.whole(nil) {
		t.Error("the package was changed")
	}
	if left := s.leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// busy waits until the command has used so much processor time.
func busy(t *testing.T, r *running, much time.Duration) {
	t.Helper()
	for {
		select {
		case <-r.done:
			t.Fatalf("it has ended: %s", &r.output)
		case <-time.After(5 * time.Millisecond):
		}
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.cmd.Process.Pid))
		_, rest, _ := bytes.Cut(stat, []byte(") "))
		fields := strings.Fields(string(rest))
		var user, system int
		if len(fields) > 12 {
			fmt.Sscan(fields[11], &user)
			fmt.Sscan(fields[12], &system)
		}
		if time.Duration(user+system)*10*time.Millisecond >= much { // ticks of 1/100 s
			return
		}
	}
}

// TestTokenInterrupted: the interrupt ends signing by a token, the package is whole.
func TestTokenInterrupted(t *testing.T) {
	s := newTokenScene(t, "rpm", 10000)
	r := s.start(s.signToken("rsa", "--cert", s.path("rsa/signing.crt")))
	busy(t, r, 500*time.Millisecond)
	r.send(syscall.SIGINT)
	if code := r.code(); code != exitInterrupted {
		t.Errorf("exit code %d: %s", code, &r.output)
	}
	if s.whole(nil) || len(s.leftovers()) > 0 {
		t.Errorf("the package was changed, or something is left: %v", s.leftovers())
	}
}

// TestTokenPulledOut ends the process that has the token while 10,000 files are signed.
// When it comes back the work goes on; until then an interrupt ends it.
func TestTokenPulledOut(t *testing.T) {
	clients, _ := filepath.Glob("/usr/lib/*-linux-gnu/pkcs11/p11-kit-client.so")
	if len(clients) == 0 {
		t.Skip("p11-kit's client module is not installed: scripts/test installs it")
	}
	needTools(t, "p11-kit")
	s := newTokenScene(t, "deb", 10000)
	socket := s.path("socket")
	t.Setenv("P11_KIT_SERVER_ADDRESS", "unix:path="+socket)
	serve := func() (stop func()) {
		t.Helper()
		os.Remove(socket)
		server := exec.Command("p11-kit", "server", "--foreground", "--name", socket, "--provider", softHSMModule, "pkcs11:token=release")
		server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
			// The socket has its name before anybody listens at it.
			c, err := net.Dial("unix", socket)
			if err == nil {
				c.Close()
				break
			}
			if time.Since(begin) > patience {
				t.Fatalf("p11-kit server does not listen: %v", err)
			}
		}
		return sync.OnceFunc(func() {
			syscall.Kill(-server.Process.Pid, syscall.SIGKILL) // each connection has a process
			server.Wait()
		})
	}
	for _, back := range []bool{true, false} {
		s.write(s.pkg, s.content)
		stop := serve()
		defer func() { stop() }()
		said, err := os.Create(s.path("said"))
		if err != nil {
			t.Fatal(err)
		}
		defer said.Close()
		key := "pkcs11:token=release;object=rsa?module-path=" + clients[0] + "&pin-source=" + s.pin
		r := &running{cmd: exec.Command(s.command, "sign", "--key", key, "--cert", s.path("rsa/signing.crt"), s.pkg), done: make(chan struct{})}
		r.cmd.Stderr = said
		if err := r.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() {
			r.cmd.Wait()
			close(r.done)
		}()
		busy(t, r, 500*time.Millisecond)
		stop()
		for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
			text, err := os.ReadFile(said.Name())
			if err != nil || time.Since(begin) > patience {
				t.Fatalf("nothing was said of it: %s, %v", text, err)
			}
			if bytes.Contains(text, []byte(`token "release" does not answer`)) {
				break
			}
		}
		if !back {
			r.send(syscall.SIGINT)
			if code := r.code(); code != exitInterrupted || s.whole(nil) || len(s.leftovers()) > 0 {
				t.Errorf("exit code %d, left: %v", code, s.leftovers())
			}
			continue
		}
		stop = serve()
		code := r.code()
		stop()
		if text, err := os.ReadFile(said.Name()); err != nil || code != exitOK || !bytes.Contains(text, []byte("answers again")) {
			t.Errorf("exit code %d: %s, %v", code, text, err)
		}
		s.must(exec.Command(s.command, "verify", "--cert", s.path("rsa/signing.crt"), "--require", "all", s.pkg))
	}
}
