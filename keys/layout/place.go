package layout

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/internal/atomicfile"
	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/sign"
)

// maxFile bounds in bytes what is read of a file that is there already: a certificate, or
// a text of imaseal's.
const maxFile = 1 << 20

// PlaceOptions say how files are put below a root.
type PlaceOptions struct {
	// Update replaces a certificate by another of the same key, and a text that imaseal
	// made. Where the kernel loads a certificate by itself it leaves that of another
	// key. Force replaces anything that is a file.
	Update, Force bool
	// DryRun changes nothing.
	DryRun bool
}

// What Place does with a file.
const (
	Placed    = "written"
	Replaced  = "replaced"
	Unchanged = "unchanged"
	Kept      = "kept" // as it is: the certificate of another key
	Removed   = "removed"
)

// A PlacedFile is one file that Place looked at.
type PlacedFile struct {
	File
	Action string
}

// Place puts the files of a layout below a root: a folder for export, or a mounted
// system. Nothing is written when one of them cannot be. Files that are there already
// with the same content stay as they are. Links are followed only below the root, and
// none in the last component of a name. What is new belongs to the owner of the root,
// as far as the process may give it.
func (l *Layout) Place(ctx context.Context, root *os.Root, o PlaceOptions) ([]PlacedFile, error) {
	placed := make([]PlacedFile, 0, len(l.Files))
	for _, f := range l.Files {
		action, err := f.plan(root, o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path.Join(root.Name(), f.Path), err)
		}
		placed = append(placed, PlacedFile{f, action})
	}
	if o.DryRun {
		return placed, nil
	}
	for i, f := range placed {
		if f.Action == Unchanged || f.Action == Kept {
			continue
		}
		if err := f.write(ctx, root); err != nil {
			// What was written is whole and of use by itself; another run writes the rest.
			return placed[:i], fmt.Errorf("%s: %w", path.Join(root.Name(), f.Path), err)
		}
	}
	return placed, nil
}

// plan finds out what is to be done with the file.
func (f File) plan(root *os.Root, o PlaceOptions) (string, error) {
	there, info, err := readBelow(root, f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Placed, nil
	case err != nil:
		return "", err
	case bytes.Equal(there, f.Content) && info.Mode().Perm() == f.Mode:
		return Unchanged, nil
	case o.Force, o.Update && (bytes.Equal(there, f.Content) || f.succeeds(there)):
		return Replaced, nil
	case o.Update && f.second && isCertificate(there):
		return Kept, nil
	case bytes.Equal(there, f.Content):
		return "", fmt.Errorf("it is there already, with mode %04o in place of %04o: chmod it, or remove it", info.Mode().Perm(), f.Mode)
	}
	return "", errors.New("another file is there already and is not overwritten: move it away, or choose another folder")
}

// succeeds reports whether f is the successor of a file with the content there.
func (f File) succeeds(there []byte) bool {
	if f.key == nil {
		return bytes.Contains(there, []byte(ownFile))
	}
	certs, err := keys.ParseCertificates(there)
	return err == nil && len(certs) == 1 && keys.Same(certs[0].PublicKey, f.key.PublicKey)
}

func isCertificate(content []byte) bool {
	certs, err := keys.ParseCertificates(content)
	return err == nil && len(certs) == 1
}

// readBelow reads a regular file that is no link.
func readBelow(root *os.Root, name string) ([]byte, fs.FileInfo, error) {
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: links below the root must be relative, and stay below it", err)
	}
	if !info.Mode().IsRegular() {
		return nil, nil, errors.New("it is no regular file: move it away")
	}
	return readOpened(root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0))
}

// readOpened reads a file that was opened with O_NONBLOCK, and closes it. What is no
// regular file is empty.
func readOpened(f *os.File, err error) ([]byte, fs.FileInfo, error) {
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, info, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(content) > maxFile {
		err = fmt.Errorf("more than %d bytes, this is no certificate", maxFile)
	}
	return content, info, err
}

func (f File) write(ctx context.Context, root *os.Root) error {
	top, err := root.Stat(".")
	if err != nil {
		return err
	}
	owner := ownerOf(top)
	dir, base := path.Split(f.Path)
	if err := makeFoldersBelow(root, path.Clean(dir), owner); err != nil {
		return err
	}
	folder, err := root.Open(path.Clean(dir))
	if err != nil {
		return err
	}
	defer folder.Close()
	// The folder is held, so that its name can be given another meaning meanwhile, and
	// the file is not a link that leads away.
	name := fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), base)
	return atomicfile.Write(ctx, name, func(w *os.File) error {
		if _, err := w.Write(f.Content); err != nil {
			return err
		}
		return owner.give(w)
	}, atomicfile.Options{Mode: f.Mode, NoFollow: true})
}

// makeFoldersBelow makes the folders of dir that are not there, mode 0755.
func makeFoldersBelow(root *os.Root, dir string, owner owner) error {
	parts := strings.Split(dir, "/")
	for i := range parts {
		at := path.Join(parts[:i+1]...)
		err := root.Mkdir(at, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		made, err := root.Open(at)
		if err != nil {
			return err
		}
		err = errors.Join(made.Chmod(0o755), owner.give(made), made.Close()) // whatever the umask
		if err != nil {
			return err
		}
	}
	return nil
}

// An owner is a user and a group.
type owner struct{ uid, gid int }

func ownerOf(info fs.FileInfo) owner {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return owner{int(s.Uid), int(s.Gid)}
	}
	return owner{-1, -1} // which changes nothing
}

// give changes the owner of what is new, where it is another and the process may.
func (o owner) give(f *os.File) error {
	err := f.Chown(o.uid, o.gid)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

// Remove removes the certificates with a key id from the places of all layouts below
// a root, and from the files that kernels load by themselves, and returns their names.
// A file with other certificates beside it is an error: it is for a person to edit.
func Remove(root *os.Root, id sign.KeyID, own []string, dryRun bool) ([]string, error) {
	candidates := slices.Clone(own)
	for _, dir := range []string{hookFolder, imaFolder, mokFolder} {
		folder, err := root.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("below %s, where links must be relative and stay below it: %w", root.Name(), err)
		}
		found, err := folder.Readdirnames(-1)
		if err := errors.Join(err, folder.Close()); err != nil {
			return nil, err
		}
		slices.Sort(found)
		for _, base := range found {
			candidates = append(candidates, path.Join(dir, base))
		}
	}
	var names []string
	for _, name := range candidates {
		has, alone, err := holdsKey(root, name, id)
		if err != nil {
			return nil, fmt.Errorf("%s: whether it holds the certificate of key %s cannot be seen: look at it, and remove it by hand: %w", path.Join(root.Name(), name), id, err)
		}
		if has && !alone {
			return nil, fmt.Errorf("%s: it holds other certificates besides that of key %s: take it out by hand", path.Join(root.Name(), name), id)
		}
		if has {
			names = append(names, name)
		}
	}
	if dryRun {
		return names, nil
	}
	for i, name := range names {
		if err := root.Remove(name); err != nil {
			return names[:i], err
		}
	}
	return names, nil
}

// holdsKey reports whether a file holds a certificate with a key id, and no other one.
// Links are followed, as those are who load what is in the folders: it is the link that
// goes then.
func holdsKey(root *os.Root, name string, id sign.KeyID) (has, alone bool, err error) {
	content, _, err := readOpened(root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0))
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	certs, err := keys.ParseCertificates(content)
	has = err == nil && slices.ContainsFunc(certs, func(c *x509.Certificate) bool {
		other, err := sign.KeyIDFromCertificate(c)
		return err == nil && other == id
	})
	return has, len(certs) == 1, nil
}
