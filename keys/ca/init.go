package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/sign"
)

// InitOptions say what [Init] makes.
type InitOptions struct {
	Dir string // folder of the signing keys
	// CADir is the folder of the CA, Dir if empty. A CA that is there already,
	// ca.key and ca.crt, is used.
	CADir string
	// CAKey, if not empty, is the reference of a key that is there already and is that
	// of the CA: a file elsewhere, a token, a service. CACert names its certificate,
	// ca.crt in CADir if empty; a file that is not there is made, unless the key came
	// with a certificate.
	CAKey, CACert string
	// SigningKeys are the names of the signing keys' files; one called "signing" if
	// empty.
	SigningKeys []string
	// Type is that of the new keys, a name of the table in keys/kernel; p256 if empty.
	Type string
	// Name is in the certificates' subjects, "imaseal" if empty. Those of signing keys
	// that were given names have these too.
	Name string
	// Days is how long the signing certificates are valid, three years if 0; CADays
	// the same of the CA, 20 years if 0.
	Days, CADays int
	// Passphrase encrypts the new signing keys; empty leaves them in plain text.
	Passphrase []byte
	// CAPassphrase is asked for the passphrase, or the PIN, of a CA that is there
	// already; NewCAPassphrase for the one that a new CA's key is to have. If nil it
	// is Passphrase, or none.
	CAPassphrase, NewCAPassphrase keys.Passphrase
	Now                           time.Time
}

// An InitResult names the files that [Init] made.
type InitResult struct {
	// CAKey is the reference of the CA's key, CACert the file of its certificate, ""
	// when it came with the key.
	CAKey, CACert string
	// CAFound says that the CA was there already, CACertMade that only its
	// certificate was made.
	CAFound, CACertMade bool
	Signing             []KeyFiles // in the order of the names
	// Finished are the files of an interrupted run that were put in place.
	Finished []string
	Note     string   // what a user should know about the CA, "" for nothing
	Warnings []string // what a user should know about the certificates
}

// KeyFiles are the files of a signing key.
type KeyFiles struct {
	Key         string // the private key, "" where it is kept elsewhere
	Cert, DER   string // the certificate in PEM and in DER
	Certificate *x509.Certificate
	KeyID       sign.KeyID // under which kernels find it
}

// keyFilesAt are the files that begin with base.
func keyFilesAt(base string) KeyFiles {
	return KeyFiles{Key: base + ".key", Cert: base + ".crt", DER: base + ".der"}
}

func (k *KeyFiles) paths() []string { return []string{k.Key, k.Cert, k.DER} }

// certified adds the certificate to files.
func (k *KeyFiles) certified(cert *x509.Certificate, files *newFiles) (err error) {
	files.addCertificate(k.Cert, cert)
	files.add(k.DER, 0o644, slices.Clone(cert.Raw)) // what is written is cleared
	k.Certificate = cert
	k.KeyID, err = sign.KeyIDFromCertificate(cert)
	return err
}

// Init makes a CA (keyCertSign only), and signing keys with certificates that it
// issues (digitalSignature only): the files ca.key and ca.crt in CADir; of each
// signing key NAME.key, NAME.crt and NAME.der in Dir. Keys are PKCS #8 PEM, mode
// 0600. It refuses to overwrite a file, and leaves none behind when it fails or ctx
// is cancelled. What a killed run left is finished, where that run was to make the
// same.
func Init(ctx context.Context, o InitOptions) (*InitResult, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	r := &InitResult{CAKey: pathRef(filepath.Join(o.CADir, "ca.key")), CACert: o.CACert}
	if o.CAKey != "" {
		r.CAKey = o.CAKey
	}
	folders := []string{o.Dir, o.CADir}
	if path, ok := keys.FileOf(o.CACert); ok {
		folders = append(folders, filepath.Dir(path))
	}
	for _, dir := range folders {
		finished, err := finishPending(dir)
		if err != nil {
			return nil, err
		}
		r.Finished = append(r.Finished, finished...)
	}
	missing, err := o.missing(ctx, r)
	if err != nil {
		return nil, err
	}
	if len(missing) == 0 {
		return r, nil
	}
	var files newFiles
	ca, err := o.ca(ctx, r, &files)
	if err != nil {
		return nil, err
	}
	defer ca.Close()
	r.Note = ca.Note
	for _, i := range missing {
		if err := o.issue(ctx, ca, &r.Signing[i], o.SigningKeys[i], &files); err != nil {
			return nil, err
		}
		r.Warnings = append(r.Warnings, ca.outlived(r.Signing[i])...)
	}
	return r, files.write(ctx)
}

// complete fills in what was left out and checks what was not.
func (o *InitOptions) complete() error {
	if o.Dir == "" {
		return errors.New("no folder is named for the keys")
	}
	if o.CADir == "" {
		o.CADir = o.Dir
	}
	if o.CACert != "" && o.CAKey == "" {
		return errors.New("--ca-cert is for a CA whose key --ca-key names")
	}
	if o.CACert == "" {
		o.CACert = pathRef(filepath.Join(o.CADir, "ca.crt"))
	}
	if o.Type == "" {
		o.Type = defaultType
	}
	if o.Name == "" {
		o.Name = "imaseal"
	}
	if o.Days == 0 {
		o.Days = DefaultDays
	}
	if o.CADays == 0 {
		o.CADays = DefaultCADays
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	if err := checkDays(o.Days, o.CADays); err != nil {
		return err
	}
	if err := checkName(o.Name); err != nil {
		return err
	}
	if _, err := keyGenerator(o.Type); err != nil {
		return err
	}
	if len(o.SigningKeys) == 0 {
		o.SigningKeys = []string{"signing"}
		return nil
	}
	for i, name := range o.SigningKeys {
		if err := checkFileName(name); err != nil {
			return err
		}
		if slices.Contains(o.SigningKeys[:i], name) {
			return fmt.Errorf("signing key %q is named twice", name)
		}
		if err := checkName(o.subject(name)); err != nil {
			return err
		}
	}
	return nil
}

// checkFileName checks the name of a signing key.
func checkFileName(name string) error {
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-+", r)
	}
	if name == "" || len(name) > 100 || name[0] == '.' || name[0] == '-' || strings.ContainsFunc(name, odd) {
		return fmt.Errorf("%q cannot be the name of a signing key's files: use letters, digits and . _ - +", name)
	}
	if name == "ca" {
		return errors.New(`a signing key cannot be called "ca": those are the files of the CA`)
	}
	return nil
}

// subject is the name in the certificate of a signing key.
func (o *InitOptions) subject(name string) string {
	if name == "signing" {
		return o.Name
	}
	return o.Name + " " + name
}

// pathRef returns a path as a reference to it, whatever the folder is called.
func pathRef(path string) string {
	if _, ok := keys.FileOf(path); !ok {
		return "./" + path
	}
	return path
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// ca opens the CA that is there, or makes one.
func (o *InitOptions) ca(ctx context.Context, r *InitResult, files *newFiles) (*Authority, error) {
	key, cert := o.CAKey != "", false
	var err error
	if !key {
		if key, err = exists(r.CAKey); err != nil {
			return nil, err
		}
	}
	path, isFile := keys.FileOf(r.CACert)
	if cert, err = exists(path); err != nil {
		return nil, err
	}
	cert = cert || !isFile // one on a token is not made here
	switch {
	case key && cert:
		r.CAFound = true
		ca, err := Open(ctx, r.CAKey, r.CACert, keys.OpenOptions{Passphrase: o.oldCAPassphrase()}, o.Now)
		if err != nil {
			return nil, fmt.Errorf("using the CA that is there: %w", err)
		}
		return ca, nil
	case o.CAKey != "":
		return o.certifyCA(ctx, r, files)
	case key || cert:
		there, missing := r.CAKey, r.CACert
		if cert {
			there, missing = missing, there
		}
		return nil, fmt.Errorf("%s is there but %s is not: a CA that is to be used needs both; for a new CA choose another folder, for a key elsewhere use --ca-key", there, missing)
	}
	return o.newCA(r, files)
}

// oldCAPassphrase is what is asked for the passphrase of a CA that is there.
func (o *InitOptions) oldCAPassphrase() keys.Passphrase {
	if o.CAPassphrase == nil && len(o.Passphrase) > 0 {
		return func(string) ([]byte, error) { return slices.Clone(o.Passphrase), nil }
	}
	return o.CAPassphrase
}

// certifyCA opens a CA whose key is there, and makes its certificate if it came
// without.
func (o *InitOptions) certifyCA(ctx context.Context, r *InitResult, files *newFiles) (*Authority, error) {
	key, err := openCAKey(ctx, o.CAKey, keys.OpenOptions{Passphrase: o.oldCAPassphrase()})
	if err != nil {
		return nil, err
	}
	r.CAFound = true
	if key.Certificate != nil {
		ca, err := asAuthority(ctx, key, o.CAKey, "", keys.OpenOptions{}, o.Now)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("the certificate that came with the CA's key: %w; name another one by --ca-cert", err), key.Close())
		}
		r.CACert = ""
		return ca, nil
	}
	cert, err := newCACertificate(key, newTemplate(caName(o.Name), o.CADays, o.Now))
	if err != nil {
		return nil, errors.Join(err, key.Close())
	}
	files.addCertificate(r.CACert, cert)
	r.CACertMade = true
	return &Authority{Certificate: cert, Note: key.Note, key: key}, nil
}

func (o *InitOptions) newCA(r *InitResult, files *newFiles) (*Authority, error) {
	passphrase := o.Passphrase
	if o.NewCAPassphrase != nil {
		var err error
		if passphrase, err = o.NewCAPassphrase(fmt.Sprintf("Passphrase for the new CA key %s (empty for none): ", r.CAKey)); err != nil {
			return nil, err
		}
		defer clear(passphrase)
	}
	key, err := o.generate()
	if err != nil {
		return nil, err
	}
	cert, err := newCACertificate(key, newTemplate(caName(o.Name), o.CADays, o.Now))
	if err != nil {
		return nil, err
	}
	if err := files.addKey(r.CAKey, key, passphrase); err != nil {
		return nil, err
	}
	files.addCertificate(r.CACert, cert)
	return &Authority{Certificate: cert, key: &keys.Key{Signer: key}}, nil
}

// issue makes a signing key and its certificate.
func (o *InitOptions) issue(ctx context.Context, ca *Authority, k *KeyFiles, name string, files *newFiles) error {
	if err := ctx.Err(); err != nil { // a large key takes seconds to make
		return err
	}
	key, err := o.generate()
	if err != nil {
		return err
	}
	cert, err := ca.issue(key.Public(), newTemplate(signingName(o.subject(name)), o.Days, o.Now))
	if err != nil {
		return err
	}
	if err := files.addKey(k.Key, key, o.Passphrase); err != nil {
		return err
	}
	return k.certified(cert, files)
}

func (o *InitOptions) generate() (crypto.Signer, error) {
	generate, err := keyGenerator(o.Type)
	if err != nil {
		return nil, err
	}
	return generate()
}
