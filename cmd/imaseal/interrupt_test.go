package main

// This file tests signals to a command that waits for a passphrase which nobody sends.

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// deaf starts keys init, by the command line before if there is one. It waits for a line
// from w, a named pipe, and hears of no signal meanwhile.
func deaf(t *testing.T, before ...string) (r *running, w *os.File) {
	t.Helper()
	command, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{t: t, dir: t.TempDir(), command: command}
	if err := syscall.Mkfifo(s.path("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	args := append(before, command, "keys", "init", "--dir", s.path("new"), "--passphrase-file", s.path("pipe"))
	r = s.start(exec.CommandContext(ctx, args[0], args[1:]...))
	for {
		// This works as soon as the command has begun to read.
		if w, err = os.OpenFile(s.path("pipe"), os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
			t.Cleanup(func() { w.Close() })
			return r, w
		}
		select {
		case <-r.done:
			t.Fatalf("it did not wait: %s", &r.output)
		case <-time.After(time.Millisecond):
		}
	}
}

// TestSecondSignal ends a command that does not hear of the first.
func TestSecondSignal(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			r, _ := deaf(t)
			sent := 0
			for ended := false; !ended; {
				r.send(sig)
				sent++
				select {
				case <-r.done:
					ended = true
				case <-time.After(20 * time.Millisecond):
				}
			}
			status := r.cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !status.Signaled() || status.Signal() != sig || sent < 2 {
				t.Errorf("%v after %d signals: %s", r.cmd.ProcessState, sent, &r.output)
			}
		})
	}
}

// TestNohup checks that who hangs up does not interrupt what nohup has started.
func TestNohup(t *testing.T) {
	r, w := deaf(t, "sh", "-c", `trap "" HUP; exec "$@"`, "sh")
	r.send(syscall.SIGHUP)
	fmt.Fprintln(w, "a passphrase")
	if code := r.code(); code != exitOK {
		t.Errorf("exit code %d: %s", code, &r.output)
	}
}
