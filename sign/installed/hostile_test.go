package installed

import (
	"bytes"
	"crypto/elliptic"
	"encoding/asn1"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/sign"
)

// TestSameKeySignedTwice: ECDSA signatures of one content differ when they were made
// at random, as those of two packages that share a file. Neither is wrong; a stale
// one by the same key is replaced.
func TestSameKeySignedTwice(t *testing.T) {
	s := newScene(t)
	p := s.install("a", map[string]string{"usr/bin/shared": "A"})
	q := s.install("b", map[string]string{"usr/bin/shared": "A"})
	q.Files[0].Value = again(t, s.key, "A")
	twin := again(t, s.key, "A")
	s.setLabel("usr/bin/shared", q.Files[0].Value)
	for range 2 {
		wantFindings(t, s.apply(ApplyOptions{Keys: s.keys}))
		if !bytes.Equal(s.label("usr/bin/shared"), q.Files[0].Value) {
			t.Error("the label of another owner was replaced")
		}
	}
	s.setLabel("usr/bin/shared", twin)
	wantFindings(t, s.check(CheckOptions{}))
	s.setLabel("usr/bin/shared", signed(t, s.key, "OLD"))
	wantFindings(t, s.check(CheckOptions{}), "bad signature /usr/bin/shared", "bad signature /usr/bin/shared")
	wantFindings(t, s.apply(ApplyOptions{Keys: s.keys}))
	if got := s.label("usr/bin/shared"); !bytes.Equal(got, p.Files[0].Value) && !bytes.Equal(got, q.Files[0].Value) {
		t.Errorf("a stale label stays: %x", got)
	}
	// What was written over keeps its label, which does not hold, and is told.
	s.write("usr/bin/shared", "EVIL", 0o755)
	stale := signed(t, s.key, "OLD")
	s.setLabel("usr/bin/shared", stale)
	wantFindings(t, s.apply(ApplyOptions{Keys: s.keys}), "digest mismatch /usr/bin/shared", "digest mismatch /usr/bin/shared")
	if !bytes.Equal(s.label("usr/bin/shared"), stale) {
		t.Error("other content got another label")
	}
}

// again returns another signature over content by the same key.
func again(t *testing.T, key *sign.Signer, content string) []byte {
	t.Helper()
	value := signed(t, key, content)
	sig, err := sign.ParseSignature(value)
	if err != nil {
		t.Fatal(err)
	}
	// (r, s) and (r, -s) are both signatures.
	sig.Sig = negated(t, sig.Sig)
	if value, err = sig.MarshalBinary(); err != nil {
		t.Fatal(err)
	}
	return value
}

// inOwnMounts runs the calling test once more, in a mount namespace of its own, and
// reports whether this is that run.
func inOwnMounts(t *testing.T) bool {
	t.Helper()
	const mark = "IMASEAL_TEST_OWN_MOUNTS"
	if os.Getenv(mark) == t.Name() {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("only root may mount")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), mark+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	switch {
	case strings.Contains(string(out), "--- SKIP"), strings.Contains(string(out), "operation not permitted"):
		t.Skipf("%s", out)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

func mount(t *testing.T, source, target, kind string, flags uintptr) {
	t.Helper()
	if err := unix.Mount(source, target, kind, flags, ""); err != nil {
		t.Skipf("cannot mount %s: %v", kind, err)
	}
	t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) })
}

// TestFileSystemWithoutLabels: such as /boot/efi, where packages have files. They are
// told, and fail neither.
func TestFileSystemWithoutLabels(t *testing.T) {
	if !inOwnMounts(t) {
		return
	}
	s := newScene(t)
	s.install("a", map[string]string{"usr/bin/a": "A"})
	if err := os.MkdirAll(filepath.Join(s.dir, "boot/efi"), 0o755); err != nil {
		t.Fatal(err)
	}
	mount(t, "ramfs", filepath.Join(s.dir, "boot/efi"), "ramfs", 0)
	p := s.install("grub", map[string]string{"boot/efi/grub": "GRUB", "boot/efi/other": "OTHER"})
	if err := unix.Setxattr(filepath.Join(s.dir, "boot/efi/grub"), sign.XattrName, p.Files[0].Value, 0); err == nil {
		t.Skip("ramfs takes labels here")
	}
	wantFindings(t, s.apply(ApplyOptions{Keys: s.keys}), "no label possible /boot/efi/grub", "no label possible /boot/efi/other")
	if s.label("usr/bin/a") == nil {
		t.Error("the others were not labelled")
	}
	s.write("boot/efi/other", "EVIL", 0o755)
	r := s.check(CheckOptions{})
	wantFindings(t, r, "no label possible /boot/efi/grub", "digest mismatch /boot/efi/other")
	for _, f := range r.Reports[1].Findings {
		if f.Kind == KindUnsupported && f.Kind.Severity() != Notice {
			t.Errorf("%s fails the check", f.Kind)
		}
	}
}

// TestFilesThatCannotBeLabelled: a file that is immutable or on a file system that is
// mounted read-only is an error, not a notice.
func TestFilesThatCannotBeLabelled(t *testing.T) {
	if !inOwnMounts(t) {
		return
	}
	s := newScene(t)
	s.install("a", map[string]string{"usr/bin/a": "A", "srv/ro/b": "B", "usr/bin/c": "C"})
	ro := filepath.Join(s.dir, "srv/ro")
	mount(t, ro, ro, "", unix.MS_BIND)
	mount(t, "", ro, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY)
	want := []string{"error /srv/ro/b"}
	if s.immutable("usr/bin/c") {
		want = append(want, "error /usr/bin/c")
	}
	wantFindings(t, s.apply(ApplyOptions{Keys: s.keys}), want...)
	if s.label("usr/bin/a") == nil {
		t.Error("the others were not labelled")
	}
}

// immutable makes a file immutable until the test ends, where the file system can.
func (s *scene) immutable(path string) bool {
	s.t.Helper()
	const immutable = 0x10 // FS_IMMUTABLE_FL
	f, err := os.Open(filepath.Join(s.dir, path))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0)
		f.Close()
	})
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, immutable) == nil
}

// TestOtherFilesUnderTheName: whatever takes the place of a package's file, or of a
// folder above it, nothing else is labelled.
func TestOtherFilesUnderTheName(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	for name, plant := range map[string]struct {
		do   func(s *scene, path string) error
		want string
	}{
		"link to the same content outside": {func(_ *scene, path string) error { return os.Symlink(outside, path) }, "not a regular file"},
		"hard link to the same outside":    {func(_ *scene, path string) error { return os.Link(outside, path) }, ""},
		"named pipe":                       {func(_ *scene, path string) error { return unix.Mkfifo(path, 0o644) }, "not a regular file"},
		"device":                           {func(_ *scene, path string) error { return unix.Mknod(path, unix.S_IFCHR|0o600, 1<<8|3) }, "not a regular file"},
		"folder":                           {func(_ *scene, path string) error { return os.Mkdir(path, 0o755) }, "not a regular file"},
		"link to a folder above":           {func(_ *scene, path string) error { return os.Symlink("..", path) }, "not a regular file"},
		"sparse":                           {func(_ *scene, path string) error { return sparse(path, 1<<20) }, "digest mismatch"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			if err := os.WriteFile(outside, []byte("A"), 0o644); err != nil {
				t.Fatal(err)
			}
			s.install("a", map[string]string{"srv/pub/a": "A"})
			path := filepath.Join(s.dir, "srv/pub/a")
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := plant.do(s, path); err != nil {
				t.Skip(err)
			}
			var want []string
			if plant.want != "" {
				want = []string{plant.want + " /srv/pub/a"}
			}
			wantFindings(t, s.apply(ApplyOptions{Keys: s.keys}), want...)
			n, err := unix.Getxattr(outside, sign.XattrName, nil)
			if labelled := err == nil && n > 0; labelled != (plant.want == "") {
				t.Errorf("the file outside is labelled: %v", labelled)
			}
			os.Remove(outside)
		})
	}

	// A folder above leads out of the root: below it, it leads elsewhere.
	s := newScene(t)
	s.install("a", map[string]string{"srv/pub/a": "A"})
	away := t.TempDir()
	if err := os.WriteFile(filepath.Join(away, "a"), []byte("A"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(s.dir, "srv/pub")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(away, filepath.Join(s.dir, "srv/pub")); err != nil {
		t.Fatal(err)
	}
	wantFindings(t, s.apply(ApplyOptions{Keys: s.keys}), "missing /srv/pub/a")
	if _, err := unix.Getxattr(filepath.Join(away, "a"), sign.XattrName, nil); err != unix.ENODATA {
		t.Errorf("a file outside is labelled: %v", err)
	}
}

func sparse(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(size)
}

// negated returns the other signature that holds where an ECDSA P-256 one does.
func negated(t *testing.T, der []byte) []byte {
	t.Helper()
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		t.Fatal(err)
	}
	sig.S.Sub(elliptic.P256().Params().N, sig.S)
	out, err := asn1.Marshal(sig)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestSharedByPackagesOfOtherNames: any two RPMs may have a file that is the same in
// both.
func TestSharedByPackagesOfOtherNames(t *testing.T) {
	s := newScene(t)
	p := s.install("a", map[string]string{"usr/share/licence": "L", "usr/bin/a": "A"})
	q := s.install("b", map[string]string{"usr/share/licence": "L"})
	p.Format, q.Format = "rpm", "rpm"
	q.Files[0].Value = signed(t, newKey(t, 0x22222222), "L")
	s.setLabel("usr/share/licence", q.Files[0].Value)
	wantFindings(t, s.apply(ApplyOptions{}, "a"))
	q.Files[0].Value = p.Files[1].Value
	s.setLabel("usr/share/licence", q.Files[0].Value)
	r, err := s.system().Clear(t.Context(), []string{"a"}, ClearOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wantFindings(t, r)
	if s.label("usr/share/licence") == nil || s.label("usr/bin/a") != nil {
		t.Error("the label that another package has for the file, too, was removed, or none was")
	}
}

// TestNamesThatChangeMeanwhile: somebody renames files and folders under apply as fast
// as he can. What gets a label is the one inode that was read, or nothing.
func TestNamesThatChangeMeanwhile(t *testing.T) {
	s := newScene(t)
	s.install("a", map[string]string{"srv/pub/a": "GOOD", "srv/pub/b": "GOOD"})
	away := t.TempDir()
	at := func(path string) string { return filepath.Join(s.dir, path) }
	for path, content := range map[string]string{at("good"): "GOOD", at("evil"): "EVIL", away + "/a": "GOOD", away + "/b": "GOOD"} {
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(away, at("srv/link")); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			os.Link(at([]string{"good", "evil"}[i%2]), at("srv/pub/new"))
			os.Rename(at("srv/pub/new"), at("srv/pub/a"))
			unix.Renameat2(unix.AT_FDCWD, at("srv/link"), unix.AT_FDCWD, at("srv/pub"), unix.RENAME_EXCHANGE)
			unix.Renameat2(unix.AT_FDCWD, at("srv/link"), unix.AT_FDCWD, at("srv/pub"), unix.RENAME_EXCHANGE)
		}
	}()
	system, labelled := s.system(), 0
	for begin := time.Now(); time.Since(begin) < 300*time.Millisecond || labelled == 0 && time.Since(begin) < time.Minute; {
		r, err := system.Apply(t.Context(), nil, ApplyOptions{Keys: s.keys, Replace: true})
		if err != nil {
			t.Fatal(err)
		}
		labelled += r.Reports[0].Changed
	}
	close(stop)
	<-stopped
	if labelled == 0 {
		t.Error("nothing was ever labelled: the test shows nothing")
	}
	for _, path := range []string{at("evil"), away + "/a", away + "/b"} {
		if n, err := unix.Getxattr(path, sign.XattrName, nil); err != unix.ENODATA {
			t.Errorf("%s has a label of %d bytes: %v", path, n, err)
		}
	}
}
