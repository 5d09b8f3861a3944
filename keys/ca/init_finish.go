package ca

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/sign"
)

// missing fills in r.Signing and returns which of them are to be made: all but those
// that an interrupted run made. It refuses to overwrite any other.
func (o *InitOptions) missing(ctx context.Context, r *InitResult) (missing []int, err error) {
	for i, name := range o.SigningKeys {
		files := keyFilesAt(filepath.Join(o.Dir, name))
		finished := slices.ContainsFunc(files.paths(), func(path string) bool { return slices.Contains(r.Finished, path) })
		for _, path := range files.paths() {
			if there, err := exists(path); err != nil {
				return nil, err
			} else if there && !finished {
				return nil, fmt.Errorf("%s is there already and is not overwritten: choose another folder, or move it away", path)
			}
		}
		if !finished {
			missing = append(missing, i)
		} else if err := o.isAsked(ctx, r, &files, name); err != nil {
			return nil, fmt.Errorf("%s: an interrupted run made this key, and now it is finished, but it is not what is asked for: %w: use it as it is, or choose another folder", files.Key, err)
		}
		r.Signing = append(r.Signing, files)
	}
	return missing, nil
}

// isAsked returns an error when the files of an interrupted run are not those that
// this one would make.
func (o *InitOptions) isAsked(ctx context.Context, r *InitResult, files *KeyFiles, name string) error {
	certs, err := keys.LoadCertificates(files.Cert)
	if err != nil {
		return err
	}
	cert := certs[0]
	asked := newTemplate(signingName(o.subject(name)), o.Days, o.Now)
	encrypted := false
	key, err := keys.Open(ctx, "file:"+files.Key, keys.OpenOptions{Passphrase: func(string) ([]byte, error) {
		encrypted = true
		return slices.Clone(o.Passphrase), nil
	}})
	if encrypted != (len(o.Passphrase) > 0) {
		return errors.New("one has a passphrase and the other has none")
	}
	if err != nil {
		return err
	}
	if err := keys.Match(cert, key.Public()); err != nil {
		return err
	}
	// Of a CA elsewhere the certificate may have come with its key.
	cas, err := keys.LoadCertificates(r.CACert)
	if err == nil {
		err = keys.ChainsTo(cert, cas)
	}
	if err != nil && (o.CAKey == "" || !errors.Is(err, fs.ErrNotExist)) {
		return err
	}
	switch {
	case typeOf(cert.PublicKey) != o.Type:
		return fmt.Errorf("its type is %s", typeOf(cert.PublicKey))
	case cert.Subject.CommonName != asked.Subject.CommonName:
		return fmt.Errorf("its name is %q", cert.Subject.CommonName)
	case cert.NotAfter.Sub(cert.NotBefore) != asked.NotAfter.Sub(asked.NotBefore):
		return errors.New("it is valid for another time")
	}
	files.Certificate = cert
	files.KeyID, err = sign.KeyIDFromCertificate(cert)
	r.CAFound = true
	return err
}
