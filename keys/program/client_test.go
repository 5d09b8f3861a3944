package program

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imaseal/imaseal/keys/remote"
)

// A notebook keeps notes.
type notebook struct {
	mu    sync.Mutex
	lines []string
}

func (n *notebook) note(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, text)
}

func (n *notebook) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.lines, "\n")
}

func digestOf(i int) []byte {
	sum := sha256.Sum256([]byte(fmt.Sprint(i)))
	return sum[:]
}

// signAll signs n digests at once and returns the errors by digest; a signature that
// does not verify is one.
func signAll(s *Signer, n int) []error {
	errs := make([]error, n)
	var done sync.WaitGroup
	for i := range n {
		done.Go(func() {
			sig, err := s.Sign(nil, digestOf(i), crypto.SHA256)
			if err == nil && !ecdsa.VerifyASN1(s.Public().(*ecdsa.PublicKey), digestOf(i), sig) {
				err = errors.New("the signature does not verify")
			}
			errs[i] = err
		})
	}
	done.Wait()
	return errs
}

func open(t *testing.T, behaviour string, n *notebook, o Options) *Signer {
	t.Helper()
	argv, key := programs(t, behaviour)
	o.Key, o.Note = "the key", n.note
	s, err := Open(t.Context(), argv, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if !key.PublicKey.Equal(s.Public()) {
		t.Error("it is another key")
	}
	return s
}

func mustSignAll(t *testing.T, s *Signer, n int) {
	t.Helper()
	for i, err := range signAll(s, n) {
		if err != nil {
			t.Fatalf("digest %d: %v", i, err)
		}
	}
}

func TestProgram(t *testing.T) {
	for _, behaviour := range []string{"good", "batches", "plain"} {
		t.Run(behaviour, func(t *testing.T) {
			var n notebook
			s := open(t, behaviour, &n, Options{})
			if want := map[string]int{"good": 50, "batches": 100, "plain": 64}[behaviour]; s.Jobs() != want {
				t.Errorf("%d jobs, not %d", s.Jobs(), want)
			}
			mustSignAll(t, s, 1000)
			if behaviour == "batches" && !strings.Contains(n.String(), "batch 20") {
				t.Errorf("no batch of 20: %s", &n)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestJobsAreBounded(t *testing.T) {
	for jobs, want := range map[int]int{1: 1, 7: 7, 30: 20, 40: 40, 1000: 100} {
		var n notebook
		s := open(t, "batches", &n, Options{Jobs: jobs})
		if s.Jobs() != want {
			t.Errorf("%d jobs become %d, not %d", jobs, s.Jobs(), want)
		}
		mustSignAll(t, s, 3)
	}
}

// TestProgramRecovers has a program fail in ways that pass.
func TestProgramRecovers(t *testing.T) {
	for behaviour, want := range map[string]string{
		"dies once":                "trying again for 2m0s",
		"hangs once":               "no answer within 4s: trying again",
		"is throttled":             "",
		"starts on the second try": "no network yet: trying again",
	} {
		t.Run(behaviour, func(t *testing.T) {
			var n notebook
			o := Options{}
			if behaviour == "hangs once" {
				o.Timeout = 4 * time.Second
			}
			s := open(t, behaviour, &n, o)
			mustSignAll(t, s, 300)
			if !strings.Contains(n.String(), want) {
				t.Errorf("notes: %s", &n)
			}
			if behaviour == "dies once" && !strings.Contains(n.String(), `it ended (exit status 3): out of \u001b[31mmemory\u0007`) {
				t.Errorf("notes: %s", &n)
			}
		})
	}
}

// TestProgramIsGivenUp has it fail for good.
func TestProgramIsGivenUp(t *testing.T) {
	for behaviour, want := range map[string]string{
		"always dies":            "it ended (exit status 4) (started 5 times, and each time it ended before it had signed anything)",
		"comes with another key": "it was started again and came with another key",
		"always hangs":           "no answer within 3s (asked ",
		"unknown id":             "it does not keep to the protocol (nobody waits for an answer to 100001)",
		"answers twice":          "nobody waits for an answer to ",
		"garbage":                `it does not keep to the protocol (invalid character 'd' looking for beginning of value): debug: \u001b[2Jsigning`,
		"endless":                "a line of more than 65536 bytes",
		"neither":                "must have either a signature or an error",
		"both":                   "must have either a signature or an error",
		"negative pause":         "retry_after_ms is negative",
		"lies":                   "the signature does not verify",
	} {
		t.Run(behaviour, func(t *testing.T) {
			var n notebook
			o := Options{}
			if behaviour == "always hangs" {
				o.Timeout, o.Patience = 3*time.Second, time.Second
			}
			s := open(t, behaviour, &n, o)
			var last error
			for _, err := range signAll(s, 100) {
				if err != nil {
					last = err
				}
			}
			if last == nil || !strings.Contains(last.Error(), want) {
				t.Errorf("%v, not %q", last, want)
			}
		})
	}
}

func TestOneDigestIsRefused(t *testing.T) {
	var n notebook
	s := open(t, "refuses one", &n, Options{})
	mustSignAll(t, s, 3) // one that refuses the first of all is given up
	for i, err := range signAll(s, 100) {
		if i == 7 {
			if err == nil || !strings.Contains(err.Error(), ": not this one") {
				t.Error(err)
			}
		} else if err != nil {
			t.Errorf("digest %d: %v", i, err)
		}
	}
}

func TestOpenFails(t *testing.T) {
	for behaviour, want := range map[string]string{
		"garbage first":  "its first line is not that of a signing program (invalid character 'h' looking for beginning of value): hello",
		"endless first":  "its first line is not that of a signing program: a line of more than 65536 bytes",
		"no public key":  "its public key: ",
		"old version":    `it speaks "sign-0", this imaseal "sign-1"`,
		"too many first": "out of bounds",
		"odd field":      `unknown field "secret"`,
		"ends at once":   "it sent no key, as a signing program does first: it ended (exit status 1): usage: program KEY",
		"reads nothing":  "it did not answer the first line: nothing came within 1s",
	} {
		t.Run(behaviour, func(t *testing.T) {
			argv, _ := programs(t, behaviour)
			start := time.Now()
			o := Options{Key: "the key"}
			if behaviour == "reads nothing" {
				o.Timeout = time.Second
			}
			s, err := Open(t.Context(), argv, o)
			if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "signing program "+filepath.Base(os.Args[0])+": ") {
				t.Errorf("%v, not %q", err, want)
			}
			if err == nil {
				s.Close()
			}
			if time.Since(start) > 30*time.Second {
				t.Errorf("it took %s", time.Since(start))
			}
		})
	}
	argv, _ := programs(t, "good")
	if _, err := Open(t.Context(), argv, Options{Key: "another"}); err == nil || !strings.Contains(err.Error(), `no key is called "another"`) {
		t.Error(err)
	}
	if _, err := Open(t.Context(), []string{"/no/such/program"}, Options{}); err == nil || !strings.Contains(err.Error(), "it cannot be started") {
		t.Error(err)
	}
}

func TestFloodOnStderr(t *testing.T) {
	var n notebook
	s := open(t, "floods", &n, Options{})
	mustSignAll(t, s, 10)
	s.Close()
	if len(n.lines) != maxStderrLines+1 || !strings.Contains(n.lines[maxStderrLines], "the rest is not shown") {
		t.Errorf("%d notes, the last: %s", len(n.lines), n.lines[len(n.lines)-1])
	}
	for _, line := range n.lines {
		if len(line) > maxStderrLine+100 {
			t.Errorf("a note of %d bytes", len(line))
		}
	}
}

// TestProgramIsKilled ends the context while the program hangs.
func TestProgramIsKilled(t *testing.T) {
	argv, _ := programs(t, "always hangs")
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Open(ctx, argv, Options{Key: "the key"})
	if err != nil {
		t.Fatal(err)
	}
	process := s.client.process
	time.AfterFunc(200*time.Millisecond, cancel)
	var canceled bool
	for _, err := range signAll(s, 100) {
		canceled = canceled || errors.Is(err, context.Canceled)
	}
	if !canceled {
		t.Error("nobody was told")
	}
	<-process.ended
	if err := process.cmd.Process.Signal(os.Kill); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("it still runs: %v", err)
	}
	s.Close()
}

// TestCloseOfOneThatHangs ends a program that does not look at its input any more.
func TestCloseOfOneThatHangs(t *testing.T) {
	var n notebook
	s := open(t, "always hangs", &n, Options{})
	var done sync.WaitGroup
	done.Go(func() { signAll(s, 100) })
	time.Sleep(100 * time.Millisecond)
	s.Close()
	done.Wait()
	select {
	case <-s.client.process.ended:
	default:
		t.Error("it still runs")
	}
}

func TestStderrLines(t *testing.T) {
	var got []string
	s := &stderrLines{note: func(text string) { got = append(got, text) }}
	for _, part := range []string{"one\ntw", "o\r\n\n \nbad \xff\x00\t.\n", strings.Repeat("z", 400), strings.Repeat("z", 400), "\nlast"} {
		if n, err := s.Write([]byte(part)); n != len(part) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	s.flush()
	want := []string{"one", "two", `bad \xff\u0000 .`, strings.Repeat("z", maxStderrLine) + "…", "last"}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("%q", got)
	}
	if s.lastLine() != "last" {
		t.Errorf("the last line is %q", s.lastLine())
	}
}

func TestPermanent(t *testing.T) {
	if _, ok := remote.IsTemporary(permanent(remote.Temporary(errors.New("x"), 0))); ok {
		t.Error("it is still temporary")
	}
}
