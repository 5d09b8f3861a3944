package atomicfile

import (
	"bytes"
	"encoding/binary"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	user   = 65534 // nobody, who owns what is in the folder that asUser gives them
	nobody = 65533 // somebody else
	group  = 65532 // a group of the user, besides the first, which has their number
)

// asUser gives the folder and all that is in it to a user and runs f as them, in a
// thread that ends with it. Without root it is run as who runs the test.
func asUser(t *testing.T, dir string, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	for _, name := range []string{dir, filepath.Dir(dir)} { // t.TempDir is for its owner only
		if err := os.Chmod(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range append(names(t, dir), ".") {
		if err := os.Lchown(filepath.Join(dir, name), user, user); err != nil {
			t.Fatal(err)
		}
	}
	run(t, f)
}

// run runs f as the user.
func run(t *testing.T, f func()) {
	t.Helper()
	groups := []uint32{group}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the thread, whose rights are gone, ends with the goroutine.
		runtime.LockOSThread()
		for _, call := range [][3]uintptr{
			{unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0]))},
			{unix.SYS_SETRESGID, user, user},
			{unix.SYS_SETRESUID, user, user},
		} {
			if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[2]); errno != 0 {
				t.Error(errno)
				return
			}
		}
		f()
	}()
	<-done
}

// replaceLike replaces a file by another that is like it and returns both.
func replaceLike(t *testing.T, path string) (before, after *syscall.Stat_t) {
	t.Helper()
	old, err := os.Open(path)
	if err != nil {
		t.Error(err)
		return nil, nil
	}
	defer old.Close()
	before = stat(t, path)
	if err := Write(t.Context(), path, content("new"), Options{Like: old}); err != nil {
		t.Error(err)
	}
	after = stat(t, path)
	if before.Ino == after.Ino {
		t.Error("it is the same file")
	}
	return before, after
}

func stat(t *testing.T, path string) *syscall.Stat_t {
	t.Helper()
	s := new(syscall.Stat_t)
	if err := syscall.Lstat(path, s); err != nil {
		t.Error(err)
	}
	return s
}

// What makes an index knows files by their times.
func TestLikeKeepsTheModeAndNotTheTimes(t *testing.T) {
	for _, mode := range []fs.FileMode{0o644, 0o600, 0o400, 0o444, 0o755, 0o777, 0o664, 0o666, 0o640 | fs.ModeSetgid, 0o755 | fs.ModeSetuid, 0o644 | fs.ModeSticky} {
		t.Run(mode.String(), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			write(t, path, "old")
			if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			before, after := replaceLike(t, path)
			if before.Mode != after.Mode {
				t.Errorf("mode %o, was %o", after.Mode, before.Mode)
			}
			if after.Mtim.Sec <= before.Mtim.Sec {
				t.Errorf("other content has the time %v, as the old one had %v", after.Mtim, before.Mtim)
			}
		})
	}
}

func TestLikeKeepsTheOwnerAsRoot(t *testing.T) {
	needRoot(t)
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "old")
	if err := os.Chown(path, user, nobody); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o755|fs.ModeSetuid|fs.ModeSetgid); err != nil { // which chown clears
		t.Fatal(err)
	}
	before, after := replaceLike(t, path)
	if after.Uid != user || after.Gid != nobody || after.Mode != before.Mode {
		t.Errorf("owner %d:%d mode %o, was %d:%d %o", after.Uid, after.Gid, after.Mode, before.Uid, before.Gid, before.Mode)
	}
}

func TestLikeWithoutRoot(t *testing.T) {
	needRoot(t)
	for _, test := range []struct {
		name              string
		uid, gid          int
		mode              uint32
		wantGid, wantMode uint32
	}{
		{"of oneself", user, user, 0o6755, user, 0o6755},
		{"of another in one's group", nobody, group, 0o664, group, 0o664},
		{"of another", nobody, nobody, 0o644, user, 0o644},
		{"of another lends no rights", nobody, group, 0o6755, group, 0o755},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "f")
			asUser(t, dir, func() {}) // the folder is theirs
			write(t, path, "old")
			if err := os.Chown(path, test.uid, test.gid); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Chmod(path, test.mode); err != nil {
				t.Fatal(err)
			}
			var after *syscall.Stat_t
			run(t, func() { _, after = replaceLike(t, path) })
			if after.Uid != user || after.Gid != test.wantGid || after.Mode&0o7777 != test.wantMode {
				t.Errorf("owner %d:%d mode %o, want %d:%d %o", after.Uid, after.Gid, after.Mode&0o7777, user, test.wantGid, test.wantMode)
			}
		})
	}
}

// acl is what setfacl -m u:65533:rw,m::rw makes of a file with mode 0640: the group
// may read, and the mode's bits for it say rw.
func acl() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{
		{0x01, 6, 1<<32 - 1}, {0x02, 6, nobody}, {0x04, 4, 1<<32 - 1}, {0x10, 6, 1<<32 - 1}, {0x20, 0, 1<<32 - 1},
	} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

func getACL(path string) []byte {
	b := make([]byte, 1024)
	n, err := unix.Getxattr(path, accessACL, b)
	if err != nil {
		return nil
	}
	return b[:n]
}

// setACL skips the test where the file system has no lists.
func setACL(t *testing.T, path, name string) {
	t.Helper()
	if err := unix.Setxattr(path, name, acl(), 0); err == unix.ENOTSUP {
		t.Skip("the file system has no access control lists")
	} else if err != nil {
		t.Fatal(err)
	}
}

func TestLikeKeepsTheAccessControlList(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "old")
	setACL(t, path, accessACL)
	before, after := replaceLike(t, path)
	if before.Mode != after.Mode || !bytes.Equal(getACL(path), acl()) {
		t.Errorf("mode %o list %x, want %o %x", after.Mode, getACL(path), before.Mode, acl())
	}
}

func TestLikeInAFolderWithADefaultListGrantsNothingMore(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	write(t, path, "old")
	setACL(t, dir, "system.posix_acl_default")
	before, after := replaceLike(t, path)
	if got := getACL(path); got != nil || before.Mode != after.Mode {
		t.Errorf("mode %o list %x, want %o and none", after.Mode, got, before.Mode)
	}
}

// ramfs has no lists: what the group could do by the list is not known there.
func TestLikeOfAListThatCanNotBeKeptGrantsTheGroupNothing(t *testing.T) {
	needRoot(t)
	old := filepath.Join(t.TempDir(), "f")
	write(t, old, "old")
	setACL(t, old, accessACL)
	dir := t.TempDir()
	if err := syscall.Mount("ramfs", dir, "ramfs", 0, ""); err != nil {
		t.Skipf("no ramfs can be mounted here: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
	like, err := os.Open(old)
	if err != nil {
		t.Fatal(err)
	}
	defer like.Close()
	if err := Write(t.Context(), dir+"/f", content("new"), Options{Like: like}); err != nil {
		t.Fatal(err)
	}
	if got := stat(t, dir+"/f").Mode & 0o777; got != 0o600 {
		t.Errorf("mode %o, want 600", got)
	}
}

// The package comment says so.
func TestLikeKeepsNoOtherAttributesAndNoOtherNames(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "f"), filepath.Join(dir, "other")
	write(t, path, "old")
	if err := os.Link(path, other); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(path, "user.checksum", []byte("of the old content"), 0); err != nil && err != unix.ENOTSUP {
		t.Fatal(err)
	}
	replaceLike(t, path)
	if n, err := unix.Getxattr(path, "user.checksum", nil); err == nil {
		t.Errorf("an attribute of %d bytes was kept", n)
	}
	mustHave(t, path, "new")
	mustHave(t, other, "old")
}
