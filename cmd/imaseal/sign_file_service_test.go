package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imaseal/imaseal/keys/hashivault/vaulttest"
)

// TestVaultSignsFilesAtOnce has sign-file ask for more signatures at once than there are
// jobs for reading.
func TestVaultSignsFilesAtOnce(t *testing.T) {
	s := newService(t, p256Key(t), "deb", readShared(t, helloDeb))
	for i := range 10 {
		s.write(s.path(fmt.Sprintf("files/%d", i)), []byte(fmt.Sprint(i)))
	}
	var requests, waiting atomic.Int64
	var alone atomic.Bool
	many := make(chan struct{})
	s.vault.Disturb = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || requests.Add(1) == 1 { // the first one goes alone
			return false
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return false
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		digests := int64(bytes.Count(body, []byte(`"input"`)))
		if now := waiting.Add(digests); now >= 3 && now-digests < 3 {
			close(many)
		}
		select {
		case <-many:
		case <-time.After(10 * time.Second):
			alone.Store(true)
		}
		return false
	}
	s.must(exec.Command(s.command, "sign-file", "--dry-run", "--jobs", "1", "--recursive", "--key", vaultKey, "--cert", s.cert, s.path("files")))
	if alone.Load() {
		t.Error("a digest was left alone")
	}
}

// TestVaultFailsFilesOnce has what is the same for all files that are left said once.
func TestVaultFailsFilesOnce(t *testing.T) {
	s := newService(t, p256Key(t), "deb", readShared(t, helloDeb))
	for i := range 10 {
		s.write(s.path(fmt.Sprintf("files/%d", i)), []byte(fmt.Sprint(i)))
	}
	s.vault.Disturb = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			vaulttest.Fail(w, http.StatusForbidden, "permission denied")
		}
		return r.Method == http.MethodPost
	}
	args := []string{"sign-file", "--dry-run", "--recursive", "--key", vaultKey, "--cert", s.cert, s.path("files")}
	out, err := exec.Command(s.command, args...).CombinedOutput()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != exitError {
		t.Errorf("%v: %s", err, out)
	}
	if strings.Count(string(out), "403 Forbidden") != 1 || !strings.Contains(string(out), ": 10 files left unsigned\n") || !strings.Contains(string(out), "10 failed") {
		t.Errorf("said: %s", out)
	}
	out, _ = exec.Command(s.command, append(args, "--json")...).Output()
	if strings.Count(string(out), "403 Forbidden") != 10 {
		t.Errorf("said: %s", out)
	}
}
