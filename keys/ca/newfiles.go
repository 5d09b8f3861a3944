package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/imaseal/imaseal/keys"
)

// newFiles are a set of files that belong together. They are written all or not at
// all, also by a process that is killed (pending.go), and never over another file.
type newFiles []newFile

type newFile struct {
	path string
	mode fs.FileMode
	data []byte
}

func (n *newFiles) add(path string, mode fs.FileMode, data []byte) {
	*n = append(*n, newFile{path, mode, data})
}

func (n *newFiles) addPEM(path, kind string, der []byte) {
	n.add(path, 0o644, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func (n *newFiles) addCertificate(path string, cert *x509.Certificate) {
	n.addPEM(path, "CERTIFICATE", cert.Raw)
}

func (n *newFiles) addKey(path string, key crypto.Signer, passphrase []byte) error {
	text, err := keys.EncodePrivateKey(key, passphrase)
	if err != nil {
		return err
	}
	n.add(path, 0o600, text)
	return nil
}

// addNewKey makes a key pair of a type and adds the file of the private key, whose name
// has to be free.
func (n *newFiles) addNewKey(path, keyType string, passphrase []byte) (crypto.Signer, error) {
	generate, err := keyGenerator(keyType)
	if err != nil {
		return nil, err
	}
	if err := refuseExisting(path); err != nil {
		return nil, err
	}
	key, err := generate()
	if err != nil {
		return nil, err
	}
	return key, n.addKey(path, key, passphrase)
}

// write makes the folders and the files. On an error, and when ctx is cancelled, it
// removes what it made. Killed, it leaves in each folder either nothing that counts
// or a set that finishPending completes; that of the first file's folder is complete
// before that of the next.
func (n newFiles) write(ctx context.Context) (err error) {
	var made []string // folders, parents first
	var folders []*pendingFolder
	defer func() {
		for _, f := range n {
			clear(f.data)
		}
		for i := len(folders) - 1; i >= 0; i-- {
			if err != nil {
				folders[i].undo()
			}
			folders[i].close()
		}
		if err != nil {
			for i := len(made) - 1; i >= 0; i-- {
				os.Remove(made[i])
			}
		}
	}()
	for _, f := range n {
		dir := filepath.Dir(f.path)
		fresh, err := makeFolders(dir)
		made = append(made, fresh...)
		if err != nil {
			return err
		}
		folder, err := folderOf(dir, &folders)
		if err != nil {
			return err
		}
		if err := folder.add(f); err != nil {
			return err
		}
	}
	for _, step := range []func(*pendingFolder) error{
		func(p *pendingFolder) error { return errors.Join(ctx.Err(), p.stage()) },
		(*pendingFolder).complete,
		(*pendingFolder).place,
	} {
		for _, folder := range folders {
			if err := step(folder); err != nil {
				return err
			}
		}
	}
	return nil
}

// makeFolders makes dir and its parents, for the owner only, and returns those
// that were not there, parents first.
func makeFolders(dir string) ([]string, error) {
	var missing []string
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append([]string{d}, missing...)
	}
	var made []string
	for _, d := range missing {
		err := os.Mkdir(d, 0o700)
		if errors.Is(err, fs.ErrExist) {
			continue // another run was faster
		}
		if err != nil {
			return made, err
		}
		made = append(made, d)
	}
	return made, nil
}
