package installed

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/sign"
)

func (s *scene) revoked(ids ...sign.KeyID) *RevokedResult {
	s.t.Helper()
	keys := map[sign.KeyID]bool{}
	for _, id := range ids {
		keys[id] = true
	}
	r, err := s.system().Revoked(context.Background(), keys)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func TestRevoked(t *testing.T) {
	s, old := rolledOver(t, map[string]string{"usr/bin/a": "A", "usr/bin/b": "B", "etc/a.conf!": "CONF"})
	s.setLabel("usr/bin/b", s.db[0].Files[2].Value)
	s.setLabel("etc/a.conf", signed(t, s.key, "CONF"))
	plain := s.install("plain", map[string]string{"=usr/bin/plain": "P"})
	plain.Signed = false
	for path, content := range map[string]string{"srv/deep/er/x": "X", "home/me/script": "S", "usr/bin/hashed": "H", "usr/bin/other": "O", "usr/bin/bare": ""} {
		s.write(path, content, 0o644)
	}
	s.setLabel("srv/deep/er/x", signed(t, old, "X"))
	s.setLabel("usr/bin/plain", signed(t, old, "NOT EVEN THIS CONTENT"))
	s.setLabel("usr/bin/hashed", append([]byte{4, 4}, make([]byte, 32)...))
	s.setLabel("usr/bin/other", signed(t, newKey(t, 0x33333333), "O"))
	if err := os.Symlink("deep", filepath.Join(s.dir, "srv/link")); err != nil {
		t.Fatal(err)
	}

	r := s.revoked(old.KeyID())
	wantFindings(t, &r.Result, "revoked key /usr/bin/a", "revoked key /usr/bin/plain", "revoked key /srv/deep/er/x")
	if r.Packages != 2 || r.Signed != 1 || r.Files != 9 || r.Labelled != 6 {
		t.Errorf("%d packages, %d signed, %d files, %d labelled", r.Packages, r.Signed, r.Files, r.Labelled)
	}
	owners := map[string]string{}
	for _, report := range r.Reports {
		for _, f := range report.Findings {
			owners[f.Path] = f.Package
		}
	}
	if owners["/usr/bin/a"] != "a:amd64" || owners["/usr/bin/plain"] != "plain:amd64" || owners["/srv/deep/er/x"] != "" {
		t.Errorf("owners %v", owners)
	}

	// What the database would set is by it, too.
	r = s.revoked(s.key.KeyID())
	wantFindings(t, &r.Result, "revoked key ", "revoked key /usr/bin/b", "revoked key /etc/a.conf")
	r = s.revoked(old.KeyID(), 0x33333333)
	wantFindings(t, &r.Result, "revoked key /usr/bin/a", "revoked key /usr/bin/plain", "revoked key /srv/deep/er/x", "revoked key /usr/bin/other")
	r = s.revoked(0x44444444)
	wantFindings(t, &r.Result)

	// A list that can't be used may name the key: nobody knows.
	s.db[0].Malformed = errors.New("cut")
	r = s.revoked(0x44444444)
	wantFindings(t, &r.Result, "malformed ")
}

// A bind mount shows a folder twice, and one of a parent in itself for ever; the
// kernel's own file systems are passed over.
func TestRevokedAcrossMounts(t *testing.T) {
	if !inOwnMounts(t) {
		return
	}
	s, old := rolledOver(t, map[string]string{"usr/bin/a": "A"})
	for _, dir := range []string{"proc", "sys", "mnt", "tmp"} {
		if err := os.Mkdir(filepath.Join(s.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount(t, "proc", filepath.Join(s.dir, "proc"), "proc", 0)
	mount(t, s.dir, filepath.Join(s.dir, "mnt"), "", unix.MS_BIND)
	mount(t, "tmpfs", filepath.Join(s.dir, "tmp"), "tmpfs", 0)
	s.write("tmp/x", "X", 0o755)
	s.setLabel("tmp/x", signed(t, old, "X"))
	r := s.revoked(old.KeyID())
	wantFindings(t, &r.Result, "revoked key /usr/bin/a", "revoked key /tmp/x")
	if r.Files != 2 {
		t.Errorf("%d files", r.Files)
	}
}

func TestAFolderRemovedWhileOpenIsEmpty(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b", "a"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	open := func(path string) *os.File {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	removed := open(filepath.Join(dir, "a"))
	entries, err := list(open(dir))
	if err != nil || len(entries) != 2 || entries[0].Name() != "a" || entries[1].Name() != "b" {
		t.Errorf("%v, %v", entries, err)
	}
	if err := os.Remove(removed.Name()); err != nil {
		t.Fatal(err)
	}
	if entries, err := list(removed); len(entries) != 0 || err != nil {
		t.Errorf("once removed: %v, %v", entries, err)
	}
}

// A folder that changes while it is walked is no error.
func TestRevokedWhileFilesComeAndGo(t *testing.T) {
	s, old := rolledOver(t, map[string]string{"usr/bin/a": "A"})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		dir := filepath.Join(s.dir, "var/cache/x")
		for {
			select {
			case <-stop:
				return
			default:
			}
			if os.MkdirAll(dir, 0o755) == nil {
				_ = os.WriteFile(filepath.Join(dir, "y"), nil, 0o644)
				_ = os.Symlink("y", filepath.Join(dir, "z"))
			}
			os.RemoveAll(dir)
		}
	}()
	for range 200 {
		r := s.revoked(old.KeyID())
		if !slices.ContainsFunc(r.Reports, func(r *Report) bool { return len(r.Findings) == 1 }) || len(r.Reports) != 1 {
			wantFindings(t, &r.Result, "revoked key /usr/bin/a")
			break
		}
	}
	close(stop)
	<-done
}
