package installed

import (
	"bytes"
	"context"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/xattr"
)

// A worker reads files with one buffer and one state for each hash.
type worker struct {
	ctx    context.Context
	told   func(files int, bytes int64)
	buffer []byte
	states map[sign.Hash]hash.Hash
}

func newWorker(ctx context.Context, progress func(int, int64)) *worker {
	return &worker{ctx: ctx, told: progress, buffer: make([]byte, 256<<10), states: map[sign.Hash]hash.Hash{}}
}

func (w *worker) progress(files int, bytes int64) {
	if w.told != nil {
		w.told(files, bytes)
	}
}

// sums are the digests of one content.
type sums map[sign.Hash][]byte

// digest reads the content of f once and returns its digests by the hashes, of which
// unknown ones are left out. The error is errChanging when the file was written to
// meanwhile.
func (w *worker) digest(f *xattr.File, hashes ...sign.Hash) (sums, error) {
	r, err := f.Reader()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	states := map[sign.Hash]hash.Hash{}
	for _, h := range hashes {
		if !h.Known() {
			continue
		}
		if w.states[h] == nil {
			w.states[h] = h.Crypto().New()
		}
		w.states[h].Reset()
		states[h] = w.states[h]
	}
	for {
		n, err := r.Read(w.buffer)
		for _, state := range states {
			state.Write(w.buffer[:n])
		}
		w.progress(0, int64(n))
		if err == io.EOF {
			break
		}
		if err == nil {
			err = w.ctx.Err()
		}
		if err != nil {
			return nil, err
		}
	}
	if changed, err := f.Changed(); err != nil || changed {
		return nil, errors.Join(err, errChanging)
	}
	found := sums{}
	for h, state := range states {
		found[h] = state.Sum(nil)
	}
	return found, nil
}

// isSignature reports whether the value of a label is a signature, right or wrong.
// The kernel itself keeps plain digests there, where its policy asks for no more.
func isSignature(label []byte) bool {
	const digest, digestNG = 0x01, 0x04 // enum evm_ima_xattr_type of Linux
	return len(label) > 0 && label[0] != digest && label[0] != digestNG
}

// setLabel sets the label of f, of which digests were taken, and takes it back when
// the file was written to meanwhile. old is the label that it has.
func setLabel(f *xattr.File, old, value []byte) error {
	if err := f.Set(sign.XattrName, value); err != nil {
		return err
	}
	changed, err := f.Changed()
	if err == nil && !changed {
		return nil
	}
	undo := func() error { return f.Remove(sign.XattrName) }
	if old != nil {
		undo = func() error { return f.Set(sign.XattrName, old) }
	}
	return errors.Join(err, errChanging, undo())
}

// executable reports whether somebody may execute the file.
func executable(f *xattr.File) bool { return f.Stat().Mode&0o111 != 0 }

// reason returns what err says but for the name of f, which the finding has.
func reason(err error, root *xattr.Root, path string) string {
	var in *fs.PathError
	if errors.As(err, &in) && in.Path == root.Name(path) {
		return in.Op + ": " + in.Err.Error()
	}
	return strings.TrimPrefix(err.Error(), root.Name(path)+": ")
}

// unreadable reports whether the kernel refused to let root read a file: it appraises
// what root opens, under some policies.
func unreadable(err error) bool { return errors.Is(err, unix.EACCES) && unix.Geteuid() == 0 }

// absent reports whether err says that there is no file of that name. A parent that
// is no folder is the same to whoever looks for the file.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

// list returns what is in an open folder, by name, and what could be read before an
// error. A folder that was removed after it was opened, of which the kernel says that
// it does not exist, is empty.
func list(folder *os.File) ([]fs.DirEntry, error) {
	entries, err := folder.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	if absent(err) {
		err = nil
	}
	return entries, err
}

// kindOf describes what stands where a regular file should be.
func kindOf(root *xattr.Root, path string) string {
	if target, err := root.Readlink(path); err == nil {
		return "a symbolic link to " + target
	}
	return "neither a regular file nor a link"
}

// keyOf names the key of a label, for a person.
func keyOf(label []byte) string {
	sig, err := sign.ParseSignature(label)
	if err != nil {
		return "none (" + err.Error() + ")"
	}
	return sig.KeyID.String()
}

// sameKey reports whether two labels name the same key.
func sameKey(a, b []byte) bool {
	x, errX := sign.ParseSignature(a)
	y, errY := sign.ParseSignature(b)
	return errX == nil && errY == nil && x.KeyID == y.KeyID
}

func among(value []byte, values [][]byte) bool {
	for _, v := range values {
		if bytes.Equal(value, v) {
			return true
		}
	}
	return false
}
