package keys

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/imaseal/imaseal/sign"
)

// maxOthers bounds how many files of a folder are looked at for certificates.
const maxOthers = 10000

// keyIDCollisions returns a warning for each certificate of another key that has the
// key id of cert: kernels and imaseal find keys by these four bytes only. It looks at
// the files in own, and those in others, which must be there.
func keyIDCollisions(cert *x509.Certificate, own string, others []string) ([]string, error) {
	id, err := sign.KeyIDFromCertificate(cert)
	if err != nil {
		return nil, err
	}
	var warnings []string
	for _, dir := range append([]string{own}, others...) {
		certs, err := CertificatesIn(dir)
		if err != nil && !(dir == own && errors.Is(err, fs.ErrNotExist)) {
			return nil, err
		}
		for _, other := range certs {
			otherID, err := sign.KeyIDFromCertificate(other.Certificate)
			if err != nil || otherID != id || Match(other.Certificate, cert.PublicKey) == nil {
				continue
			}
			warning := fmt.Sprintf("%s: another key has the same key id %s: a keyring with both finds only one of them; make a new key", other.Where, id)
			if !slices.Contains(warnings, warning) {
				warnings = append(warnings, warning)
			}
		}
	}
	return warnings, nil
}

// certificateFiles returns the names of the files in dir that may be certificates.
func certificateFiles(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(maxOthers + 1)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(entries) > maxOthers {
		return nil, fmt.Errorf("%s: more than %d files, too many to look for certificates in", dir, maxOthers)
	}
	var names []string
	for _, entry := range entries {
		switch filepath.Ext(entry.Name()) {
		case ".crt", ".der", ".pem", ".cer", ".x509":
			if entry.Type().IsRegular() {
				names = append(names, entry.Name())
			}
		}
	}
	slices.Sort(names)
	return names, nil
}
