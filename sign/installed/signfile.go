package installed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/xattr"
)

// A FileSigner labels files that no package signs, with a key of their own.
type FileSigner struct {
	Key  *sign.Signer
	Hash sign.Hash
	// Selection says which of the files found in folders are signed.
	Selection sign.Selection
	// DryRun says that everything is done but setting labels.
	DryRun bool
	// Progress, if not nil, is told how many more bytes were read.
	Progress func(files int, bytes int64)
}

// The outcomes of [FileSigner.Sign].
const (
	Signed        = "signed"
	AlreadySigned = "already signed"
	NotSelected   = "" // by the selection
)

// Sign hashes the file path below root, signs the digest and labels the inode that
// was read. A file that carries a good signature by this key already is left as it
// is. named says that the selection does not matter.
func (s *FileSigner) Sign(ctx context.Context, root *xattr.Root, path string, named bool) (outcome string, err error) {
	f, err := root.Open(path)
	if errors.Is(err, xattr.ErrNotRegular) {
		return "", fmt.Errorf("%s: it is %s; only regular files are signed", root.Name(path), kindOf(root, path))
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	head, err := headOf(f)
	if err != nil {
		return "", err
	}
	if !named && !s.Selection.Match(&sign.File{Path: root.Name(path)[1:], Mode: fs.FileMode(f.Stat().Mode & 0o777)}, head) {
		return NotSelected, nil
	}
	if sign.BeginsLikeStatement(head) {
		return "", fmt.Errorf("%s: it begins like the statement of a signed package; a signature over it would be one over that statement", f.Name())
	}
	old, err := f.Get(sign.XattrName)
	if err != nil {
		return "", err
	}
	found, err := newWorker(ctx, s.Progress).digest(f, s.Hash)
	if err != nil {
		return "", fmt.Errorf("%s: %w", f.Name(), err)
	}
	if s.holds(old, found[s.Hash]) {
		return AlreadySigned, nil
	}
	value, err := s.Key.SignDigest(s.Hash, found[s.Hash])
	if err != nil {
		return "", fmt.Errorf("%s: %w", f.Name(), err)
	}
	if s.DryRun {
		return Signed, nil
	}
	if err := setLabel(f, old, value); err != nil {
		if errors.Is(err, errChanging) {
			err = fmt.Errorf("%s: %w", f.Name(), err)
		}
		return "", err
	}
	return Signed, nil
}

// holds reports whether label is a signature by the key over the digest.
func (s *FileSigner) holds(label, digest []byte) bool {
	sig, err := sign.ParseSignature(label)
	if err != nil || sig.Hash != s.Hash {
		return false
	}
	own := new(sign.TrustedKeys)
	return own.Add(s.Key.KeyID(), s.Key.Public()) == nil && own.VerifyDigest(sig, digest) == nil
}

// headOf returns the first bytes of f, as many as decide what it is.
func headOf(f *xattr.File) ([]byte, error) {
	r, err := f.Reader()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	head := bytes.NewBuffer(make([]byte, 0, 64))
	_, err = head.ReadFrom(io.LimitReader(r, 64))
	return head.Bytes(), err
}
