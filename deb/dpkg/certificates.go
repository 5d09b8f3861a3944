package dpkg

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/imaseal/imaseal/sign"
)

// Bounds of the certificates of a system.
const (
	maxCertificate  = 64 << 10 // bytes of a file
	maxCertificates = 1000     // files of a folder
)

// loadCertificates reads the certificates of the system whose root is dir. keys is nil
// when there are none, and nobody can be verified; a file that is no certificate is a
// problem, and counts: a folder of broken certificates trusts nobody.
func loadCertificates(dir string) (keys *sign.TrustedKeys, problems []string) {
	for _, folder := range CertificateFolders {
		found, err := os.ReadDir(filepath.Join(dir, folder))
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				keys = orNone(keys)
				problems = append(problems, err.Error())
			}
			continue
		}
		if len(found) > maxCertificates {
			problems = append(problems, fmt.Sprintf("%s has more than %d files, the rest is not read", folder, maxCertificates))
			found = found[:maxCertificates]
		}
		for _, f := range found {
			if strings.HasPrefix(f.Name(), ".") || f.IsDir() {
				continue
			}
			keys = orNone(keys)
			name := filepath.Join(dir, folder, f.Name())
			if err := addCertificates(keys, name); err != nil {
				problems = append(problems, fmt.Sprintf("%s: %v", name, err))
			}
		}
	}
	return keys, problems
}

func orNone(keys *sign.TrustedKeys) *sign.TrustedKeys {
	if keys == nil {
		return new(sign.TrustedKeys)
	}
	return keys
}

// addCertificates adds those of one file, one in DER or any number in PEM.
func addCertificates(keys *sign.TrustedKeys, name string) error {
	f, err := openPlain(name)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxCertificate+1))
	if err != nil {
		return err
	}
	if len(text) > maxCertificate {
		return fmt.Errorf("more than %d bytes are no certificate", maxCertificate)
	}
	var ders [][]byte
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			ders = append(ders, block.Bytes)
		}
	}
	if len(ders) == 0 {
		ders = [][]byte{text}
	}
	for _, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("no certificate in DER or PEM: %w", err)
		}
		if err := keys.AddCertificate(cert); err != nil {
			return err
		}
	}
	return nil
}
