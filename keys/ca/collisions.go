package ca

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/sign"
)

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
		certs, err := keys.CertificatesIn(dir)
		if err != nil && !(dir == own && errors.Is(err, fs.ErrNotExist)) {
			return nil, err
		}
		for _, other := range certs {
			otherID, err := sign.KeyIDFromCertificate(other.Certificate)
			if err != nil || otherID != id || keys.Match(other.Certificate, cert.PublicKey) == nil {
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
