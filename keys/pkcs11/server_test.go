//go:build pkcs11 && cgo

package pkcs11

import (
	"context"
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

// A server is p11-kit's: it offers a token at a socket, so it can be pulled out.
type server struct {
	h    *hsm
	cmd  *exec.Cmd
	path string
}

func (s *server) start() {
	s.h.t.Helper()
	os.Remove(s.path)
	s.cmd = exec.Command("p11-kit", "server", "--foreground", "--name", s.path, "--provider", s.h.module, "pkcs11:token=release")
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // each connection has a process
	if err := s.cmd.Start(); err != nil {
		s.h.t.Fatal(err)
	}
	for range 2000 {
		// The socket has its name before anybody listens at it.
		if c, err := net.Dial("unix", s.path); err == nil {
			c.Close()
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	s.h.t.Fatal("p11-kit server does not listen")
}

func (s *server) stop() {
	syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	s.cmd.Wait()
}

// TestPulledOutForReal ends the process that has the token while signatures are made,
// and starts it again: the connection is lost on the way, as with a network HSM.
func TestPulledOutForReal(t *testing.T) {
	clients, _ := filepath.Glob("/usr/lib/*-linux-gnu/pkcs11/p11-kit-client.so")
	if _, err := exec.LookPath("p11-kit"); err != nil || len(clients) == 0 {
		t.Skip("p11-kit's client module is not installed: scripts/test installs it")
	}
	impatient(t, time.Minute)
	h := newHSM(t, "release")
	h.generate("release", "EC:prime256v1", "key", "01")
	s := &server{h: h, path: h.path("socket")}
	s.start()
	defer func() { s.stop() }()
	t.Setenv("P11_KIT_SERVER_ADDRESS", "unix:path="+s.path)
	n := new(notes)
	o := h.options()
	o.Note, o.Sessions = n.add, 4
	k, err := Open(context.Background(), "pkcs11:token=release;object=key?module-path="+clients[0], o)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if k.Sessions != 1 {
		t.Errorf("%d sessions: calls that wait for p11-kit's client at once may hang for ever", k.Sessions)
	}
	var again sync.WaitGroup
	err = signMany(k, 1000, func(i int) {
		if i == 300 {
			s.stop()
			again.Go(func() {
				for !strings.Contains(n.all(), "does not answer") {
					time.Sleep(5 * time.Millisecond)
				}
				s.start()
			})
		}
	})
	if err != nil {
		t.Errorf("%v; notes: %s", err, n.all())
	}
	again.Wait()
	if !strings.Contains(n.all(), "answers again") {
		t.Errorf("the notes are %q", n.all())
	}
}
