package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// smallDisk mounts a tmpfs of size bytes on the folder small of s, read-only if asked
// for, after the package was put there.
func (s *scene) smallDisk(size int, readOnly bool) string {
	s.t.Helper()
	if os.Geteuid() != 0 {
		s.t.Skip("mounting a small tmpfs needs root")
	}
	small := s.path("small")
	if err := os.Mkdir(small, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		s.t.Skipf("mounting a small tmpfs: %v", err)
	}
	s.t.Cleanup(func() { syscall.Unmount(small, syscall.MNT_DETACH) })
	s.pkg = filepath.Join(small, filepath.Base(s.pkg))
	s.write(s.pkg, s.content)
	if readOnly {
		if err := syscall.Mount("", small, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			s.t.Skipf("mounting a tmpfs read-only: %v", err)
		}
	}
	return small
}

// TestDiskFull signs on a file system that has no room for the copy.
func TestDiskFull(t *testing.T) {
	const full = "no space left on device"
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			s := newScene(t, format, 20)
			s.smallDisk(len(s.content)*3/2, false)
			s.fails(s.sign(s.pkg), s.pkg, full)
		})
		t.Run(format+" elsewhere", func(t *testing.T) {
			s := newScene(t, format, 20)
			pkg := s.pkg
			small := s.smallDisk(len(s.content)*3/2, false)
			s.pkg = pkg
			s.fails(s.sign("--output", small+"/signed", pkg), pkg, full)
			if left := listing(t, small+"/signed"); left != "" {
				t.Errorf("left: %s", left)
			}
		})
	}
	t.Run("changes", func(t *testing.T) {
		s := newScene(t, "deb", 1)
		s.content = readShared(t, helloDeb)
		s.pkg = filepath.Join(s.dir, filepath.Base(helloDeb))
		small := s.smallDisk(8<<10, false) // two pages: for the package and the .changes
		changes := filepath.Join(small, filepath.Base(helloChanges))
		s.write(changes, readShared(t, helloChanges))
		out, err := s.sign(changes).CombinedOutput()
		if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != exitError {
			t.Errorf("%v, not exit code %d: %s", err, exitError, out)
		}
		if s.whole(nil) || !strings.Contains(string(out), full) {
			t.Errorf("not told: %s", out)
		}
		if after, err := os.ReadFile(changes); err != nil || string(after) != string(readShared(t, helloChanges)) {
			t.Errorf("the .changes file was changed (%v)", err)
		}
		if left := s.leftovers(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
	t.Run("keys init", func(t *testing.T) {
		s := newScene(t, "deb", 1)
		s.content = readShared(t, helloDeb)
		small := s.smallDisk(8<<10, false) // two pages, one of them the package's
		out, err := exec.Command(s.command, "keys", "init", "--dir", small+"/keys", "--no-passphrase").CombinedOutput()
		if err == nil || !strings.Contains(string(out), full) {
			t.Errorf("%v: %s", err, out)
		}
		if _, err := os.Stat(small + "/keys"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left: %s", listing(t, small))
		}
	})
}

// TestReadOnly signs on a file system that can't be written.
func TestReadOnly(t *testing.T) {
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			s := newScene(t, format, 3)
			s.smallDisk(len(s.content)*8, true)
			s.fails(s.sign(s.pkg), s.pkg, "read-only file system")
		})
	}
	t.Run("keys init", func(t *testing.T) {
		s := newScene(t, "deb", 1)
		small := s.smallDisk(1<<20, true)
		out, err := exec.Command(s.command, "keys", "init", "--dir", small+"/keys", "--no-passphrase").CombinedOutput()
		if err == nil || !strings.Contains(string(out), small+"/keys: read-only file system") {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// TestNoPermission signs as a user who may not write the folder, or not read what is
// needed.
func TestNoPermission(t *testing.T) {
	for _, format := range formats {
		s := newScene(t, format, 3)
		s.write(s.path("passphrase"), []byte("secret\n"))
		s.giveToNobody()
		for name, forbid := range map[string]struct {
			path string
			mode os.FileMode
		}{
			"folder not writable":     {s.dir, 0o555},
			"folder not searchable":   {s.dir, 0o600},
			"package not readable":    {s.pkg, 0o000},
			"key not readable":        {s.path("keys/test.key"), 0o000},
			"certificate not read":    {s.path("keys/test.crt"), 0o000},
			"folder of keys is shut":  {s.path("keys"), 0o000},
			"passphrase not readable": {s.path("passphrase"), 0o000},
		} {
			t.Run(format+" "+name, func(t *testing.T) {
				before, err := os.Stat(forbid.path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(forbid.path, forbid.mode); err != nil {
					t.Fatal(err)
				}
				defer os.Chmod(forbid.path, before.Mode())
				cmd := s.asNobody(s.sign(s.pkg))
				if name == "passphrase not readable" {
					cmd = s.asNobody(exec.Command(s.command, "keys", "init", "--dir", s.path("new"), "--passphrase-file", forbid.path))
				}
				out, err := cmd.CombinedOutput()
				if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != exitError {
					t.Errorf("%v, not exit code %d: %s", err, exitError, out)
				}
				if text := string(out); !strings.Contains(text, "permission denied") || !strings.Contains(text, forbid.path) {
					t.Errorf("the message does not say that %s is forbidden: %s", forbid.path, text)
				}
				os.Chmod(forbid.path, before.Mode())
				if s.whole(nil) {
					t.Error("the package was changed")
				}
				if left := s.leftovers(); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			})
		}
	}
}

// giveToNobody lets another user reach and own the scene, where this one may do
// anything, and so cannot be denied a thing.
func (s *scene) giveToNobody() {
	s.t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	err := filepath.WalkDir(s.dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, nobody, nobody)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for dir := s.dir; dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode()&0o001 == 0 {
			if err := os.Chmod(dir, 0o755); err != nil {
				s.t.Skipf("another user can't reach %s", dir)
			}
		}
	}
}

const nobody = 65534

// asNobody lets another user run cmd, if this one may do anything.
func (s *scene) asNobody(cmd *exec.Cmd) *exec.Cmd {
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	return cmd
}

// TestVanished has files go away before they are read, and while others are worked
// on.
func TestVanished(t *testing.T) {
	for _, format := range formats {
		t.Run(format+" that is not there", func(t *testing.T) {
			s := newScene(t, format, 1)
			gone := s.path("gone." + format)
			s.fails(s.sign(gone), gone, "no such file or directory")
		})
		t.Run(format+" that goes before its turn", func(t *testing.T) {
			s := newScene(t, format, 200)
			signed := s.signed()
			next := s.path("next." + format)
			r := s.frozen(func() *exec.Cmd {
				s.write(next, s.content)
				return s.sign("--jobs", "1", s.pkg, next)
			})
			if err := os.Remove(next); err != nil {
				t.Fatal(err)
			}
			r.send(syscall.SIGCONT)
			if code := r.code(); code != exitError {
				t.Errorf("exit code %d, not %d: %s", code, exitError, &r.output)
			}
			if out := r.output.String(); !strings.Contains(out, next) || !strings.Contains(out, "no such file or directory") {
				t.Errorf("the message does not say that %s is gone: %s", next, out)
			}
			if !s.whole(signed) {
				t.Error("the other package was not signed")
			}
			if left := s.leftovers(); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
		t.Run(format+" whose folder goes", func(t *testing.T) {
			s := newScene(t, format, 200)
			elsewhere := s.path("elsewhere")
			s.pkg = filepath.Join(elsewhere, filepath.Base(s.pkg))
			r := s.frozen(func() *exec.Cmd { return s.sign(s.pkg) })
			if err := os.RemoveAll(elsewhere); err != nil {
				t.Fatal(err)
			}
			r.send(syscall.SIGCONT)
			if code := r.code(); code != exitError {
				t.Errorf("exit code %d, not %d: %s", code, exitError, &r.output)
			}
			if out := r.output.String(); !strings.Contains(out, "no such file or directory") {
				t.Errorf("the message does not say so: %s", out)
			}
		})
	}
}
