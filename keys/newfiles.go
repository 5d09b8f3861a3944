package keys

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// newFiles are written all or not at all.
type newFiles []newFile

type newFile struct {
	path string
	mode fs.FileMode
	data []byte
}

func (n *newFiles) add(path string, mode fs.FileMode, data []byte) {
	*n = append(*n, newFile{path, mode, data})
}

func (n *newFiles) addCertificate(path string, cert *x509.Certificate) {
	n.add(path, 0o644, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
}

func (n *newFiles) addKey(path string, key crypto.Signer, passphrase []byte) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	defer clear(der)
	block := &pem.Block{Type: "PRIVATE KEY", Bytes: der}
	if len(passphrase) > 0 {
		block.Type = "ENCRYPTED PRIVATE KEY"
		if block.Bytes, err = encryptKey(der, passphrase); err != nil {
			return err
		}
	}
	n.add(path, 0o600, pem.EncodeToMemory(block))
	return nil
}

// write makes the folders and the files, and removes what it made on an error and
// when ctx is cancelled.
func (n newFiles) write(ctx context.Context, dirs ...string) (err error) {
	var made []string
	defer func() {
		for _, f := range n {
			clear(f.data)
		}
		if err != nil {
			for i := len(made) - 1; i >= 0; i-- {
				os.Remove(made[i])
			}
		}
	}()
	for _, dir := range dirs {
		fresh, err := makeFolders(dir)
		made = append(made, fresh...)
		if err != nil {
			return err
		}
	}
	for _, f := range n {
		if err := ctx.Err(); err != nil {
			return err
		}
		w, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.mode)
		if err != nil {
			return err
		}
		made = append(made, f.path)
		_, err = w.Write(f.data)
		if err == nil {
			err = w.Sync()
		}
		if closeErr := w.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return err
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
	for i, d := range missing {
		if err := os.Mkdir(d, 0o700); err != nil {
			return missing[:i], err
		}
	}
	return missing, nil
}
