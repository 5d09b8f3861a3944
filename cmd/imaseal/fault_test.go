package main

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestKill kills the command at random moments. After each, the package is the
// original or the finished one; the next run removes what the killed ones left.
func TestKill(t *testing.T) {
	for _, format := range formats {
		t.Run(format, func(t *testing.T) { testKill(t, newScene(t, format, 100)) })
	}
}

func testKill(t *testing.T, s *scene) {
	signed := s.signed()
	span := s.span() * 5 / 4 // so that some end by themselves, whatever the machine does
	rounds := 200
	if testing.Short() {
		rounds = 20
	}
	var finished, killed int
	for range rounds {
		if err := os.WriteFile(s.pkg, s.content, 0o644); err != nil {
			t.Fatal(err)
		}
		r := s.start(s.sign(s.pkg))
		timer := time.AfterFunc(rand.N(span), func() { r.send(syscall.SIGKILL) })
		if r.code() == exitOK {
			finished++
		} else {
			killed++
		}
		timer.Stop()
		if s.whole(signed) {
			if left := s.leftovers(); len(left) > 1 { // one may have been killed behind the rename
				t.Errorf("a run that finished left %v", left)
			}
		}
	}
	t.Logf("of %d runs %d were killed, %d finished", rounds, killed, finished)
	if killed < rounds/4 {
		t.Error("too few runs were killed in time: the test shows nothing")
	}
	// One more, which certainly leaves a temporary.
	r := s.frozen(func() *exec.Cmd { return s.sign(s.pkg) })
	r.send(syscall.SIGKILL)
	r.code()
	if len(s.leftovers()) == 0 || s.whole(signed) {
		t.Fatal("a killed run left nothing to be removed")
	}
	s.must(s.sign(s.pkg))
	if !s.whole(signed) {
		t.Error("the next run did not finish the package")
	}
	if left := s.leftovers(); len(left) > 0 {
		t.Errorf("the next run left %v", left)
	}
}

// TestKillChanges kills the command while it signs through a .changes file. Whatever
// it had come to, the same command completes it.
func TestKillChanges(t *testing.T) {
	s := newScene(t, "deb", 1)
	build := s.path("build")
	files := map[string][]byte{}
	for _, name := range []string{helloDeb, helloChanges} {
		files[filepath.Base(name)] = readShared(t, name)
	}
	restore := func(dir string) string {
		for name, content := range files {
			s.write(filepath.Join(dir, name), content)
		}
		return filepath.Join(dir, filepath.Base(helloChanges))
	}
	start := time.Now()
	s.must(s.sign(restore(s.path("reference"))))
	span := time.Since(start)
	for range 50 {
		changes := restore(build)
		r := s.start(s.sign(changes))
		timer := time.AfterFunc(rand.N(span), func() { r.send(syscall.SIGKILL) })
		r.code()
		timer.Stop()
		s.must(s.sign(changes))
		for name := range files {
			done, err := os.ReadFile(s.path("reference/" + name))
			if err != nil {
				t.Fatal(err)
			}
			if have, err := os.ReadFile(filepath.Join(build, name)); err != nil || !bytes.Equal(have, done) {
				t.Fatalf("%s is not finished (%v)", name, err)
			}
		}
		if left, err := os.ReadDir(build); err != nil || len(left) != len(files) {
			t.Fatalf("left: %v (%v)", left, err)
		}
	}
}

// TestInterrupt ends the command by signals, as a person and an init system do,
// while it writes.
func TestInterrupt(t *testing.T) {
	// What nohup began ignores SIGHUP, and so would the command. Not so with what this
	// process listens to.
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGHUP)
	defer signal.Stop(heard)
	for _, format := range formats {
		s := newScene(t, format, 200)
		signed := s.signed()
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
			t.Run(format+" "+sig.String(), func(t *testing.T) {
				for range 50 {
					r := s.frozen(func() *exec.Cmd { return s.sign(s.pkg) })
					r.send(sig)
					r.send(syscall.SIGCONT)
					code := r.code()
					if left := s.leftovers(); len(left) > 0 {
						t.Errorf("left: %v", left)
					}
					finished := s.whole(signed)
					if finished && code == exitOK {
						continue // it was done before it heard of the signal
					}
					if code != exitInterrupted {
						t.Errorf("exit code %d, not %d: %s", code, exitInterrupted, &r.output)
					}
					if !strings.Contains(r.output.String(), "interrupted") {
						t.Errorf("it does not say so: %s", &r.output)
					}
					if !finished {
						return
					}
				}
				t.Error("each run finished before it had noticed the signal: the test shows nothing")
			})
		}
	}
}

// TestInterruptAnywhere does so at random moments.
func TestInterruptAnywhere(t *testing.T) {
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			s := newScene(t, format, 200)
			signed := s.signed()
			span := s.span()
			inTime := 0
			for range 200 {
				if err := os.WriteFile(s.pkg, s.content, 0o644); err != nil {
					t.Fatal(err)
				}
				r := s.start(s.sign(s.pkg))
				timer := time.AfterFunc(rand.N(span), func() { r.send(syscall.SIGINT) })
				switch code := r.code(); code {
				case exitInterrupted:
					inTime++
				case exitOK, -1: // too late, or before it listened
				default:
					t.Errorf("exit code %d: %s", code, &r.output)
				}
				timer.Stop()
				s.whole(signed)
				if left := s.leftovers(); len(left) > 0 {
					t.Fatalf("left: %v", left)
				}
				if inTime == 10 {
					return
				}
			}
			t.Errorf("only %d signals of 200 came in time", inTime)
		})
	}
}

// TestParallelRuns has a run stand still while it writes. Others that sign the same
// package finish, and leave its temporary alone.
func TestParallelRuns(t *testing.T) {
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			s := newScene(t, format, 200)
			signed := s.signed()
			slow := s.frozen(func() *exec.Cmd { return s.sign(s.pkg) })
			its := s.leftovers()
			var others sync.WaitGroup
			for range 6 {
				others.Go(func() {
					if out, err := s.sign(s.pkg).CombinedOutput(); err != nil {
						t.Errorf("%v: %s", err, out)
					}
				})
			}
			others.Wait()
			if !s.whole(signed) {
				t.Error("nobody finished the package")
			}
			if left := s.leftovers(); len(its) != 1 || len(left) != 1 || left[0] != its[0] {
				t.Errorf("the temporary of a run that goes on was %v, now there is %v", its, left)
			}
			slow.send(syscall.SIGCONT)
			if code := slow.code(); code != exitOK {
				t.Errorf("exit code %d: %s", code, &slow.output)
			}
			if !s.whole(signed) {
				t.Error("the package is not finished")
			}
			if left := s.leftovers(); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// TestInterruptedKeys ends keys init while it makes large keys: it leaves none.
func TestInterruptedKeys(t *testing.T) {
	command, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{t: t, dir: t.TempDir(), command: command}
	for try := range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		r := s.start(exec.CommandContext(ctx, command, "keys", "init", "--dir", s.path("new"), "--no-passphrase", "--type", "rsa4096"))
		// A busy machine may take long to start it.
		time.AfterFunc(time.Duration(try+1)*50*time.Millisecond, func() { r.send(syscall.SIGINT) })
		switch code := r.code(); code {
		case exitInterrupted:
			if left := listing(t, s.dir); left != "" {
				t.Errorf("left: %s", left)
			}
			return
		case exitOK, -1:
			if err := os.RemoveAll(s.path("new")); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("exit code %d: %s", code, &r.output)
		}
	}
	t.Error("no signal came in time")
}
