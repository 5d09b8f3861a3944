package atomicfile

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// accessACL is the attribute with the access control list of a file.
const accessACL = "system.posix_acl_access"

func (o Options) apply(f *os.File) error {
	if o.Like == nil {
		return f.Chmod(cmp.Or(o.Mode, 0o644))
	}
	info, err := o.Like.Stat()
	if err != nil {
		return err
	}
	stat := info.Sys().(*syscall.Stat_t)
	mode := info.Mode()
	// Owner first: changing it may clear set-id bits.
	owned, err := chown(f, int(stat.Uid), int(stat.Gid))
	if err != nil {
		return err
	}
	if !owned {
		// They would lend the rights of whoever writes.
		mode &^= fs.ModeSetuid | fs.ModeSetgid
	}
	if !keepACL(f, o.Like) {
		// With a list the bits of the group say what anyone in the list may at most.
		mode &^= 0o070
	}
	return f.Chmod(mode)
}

// chown reports whether f now has the owner and the group. Only root may give files
// away; for everybody else the new file is their own, as with an editor, and keeps
// the group if they are in it.
func chown(f *os.File, uid, gid int) (bool, error) {
	// EINVAL: the number is nobody's in this user namespace.
	refused := func(err error) bool { return errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EINVAL) }
	err := f.Chown(uid, gid)
	if err == nil {
		return true, nil
	}
	if refused(err) {
		err = f.Chown(-1, gid)
	}
	if err != nil && !refused(err) {
		return false, err
	}
	return false, nil
}

// keepACL gives f the access control list of like: none if that has none, though the
// folder may have a default for new files. It reports whether that was possible.
func keepACL(f, like *os.File) bool {
	acl := make([]byte, 64<<10) // the most that Linux stores
	n, err := unix.Fgetxattr(int(like.Fd()), accessACL, acl)
	switch {
	case err == unix.ENODATA || err == unix.ENOTSUP:
		err = unix.Fremovexattr(int(f.Fd()), accessACL)
		return err == nil || err == unix.ENODATA || err == unix.ENOTSUP
	case err != nil:
		return false
	}
	return unix.Fsetxattr(int(f.Fd()), accessACL, acl[:n], 0) == nil
}
