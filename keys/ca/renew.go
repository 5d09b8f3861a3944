package ca

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/sign"
)

// RenewOptions say what certificate [Authority.Renew] makes.
type RenewOptions struct {
	// Old is the file of the certificate that is renewed, DER or PEM.
	Old string
	// NewKey makes a new key pair, of the type Type, or that of the old key if empty.
	// Passphrase encrypts it; empty leaves it in plain text.
	NewKey     bool
	Type       string
	Passphrase []byte
	// Name is in the subject; that of the old certificate is kept if empty.
	Name string
	// Days is how long the certificate is valid, three years if 0, or 20 for a CA.
	Days int
	// Out is what the new files are called without their ending. If empty they stand
	// beside the old certificate, with a number: signing-2.crt renews signing.crt.
	Out    string
	Others []string // as of IssueOptions
	Now    time.Time
}

// A Renewed is a certificate that takes the place of another one.
type Renewed struct {
	Issued
	Old      *x509.Certificate
	OldKeyID sign.KeyID
}

// Renew makes a certificate that takes the place of another one. For the same key it
// has the same subject key identifier, hence the same key id, and what was signed
// stays valid. The certificate of the CA itself is renewed by itself; its key stays.
// The old files are not touched, and none is overwritten.
func (ca *Authority) Renew(ctx context.Context, o RenewOptions) (*Renewed, error) {
	certs, err := keys.LoadCertificates(o.Old)
	if err != nil {
		return nil, err
	}
	old := certs[0]
	r := &Renewed{Old: old}
	if r.OldKeyID, err = sign.KeyIDFromCertificate(old); err != nil {
		return nil, fmt.Errorf("%s: %w", o.Old, err)
	}
	template, err := o.template(old)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Old, err)
	}
	base := o.Out
	if base == "" {
		base = o.Old
	}
	if err := finishBefore(base); err != nil {
		return nil, err
	}
	if o.Out == "" {
		if base, err = nextBase(o.Old); err != nil {
			return nil, err
		}
	}
	r.KeyFiles = keyFilesAt(keys.TrimEnding(base))
	if old.IsCA {
		return r, ca.renewItself(ctx, r, o, template)
	}
	if !ca.hasIssued(old) {
		r.Warnings = append(r.Warnings, fmt.Sprintf("the old certificate was issued by %q (key %x), not by this CA: kernels with a trusted keyring must know %q (key %x) first", old.Issuer, old.AuthorityKeyId, ca.Certificate.Subject, ca.Certificate.SubjectKeyId))
	}
	if !o.NewKey {
		r.Key = ""
		r.keepIdentifier(template)
		return r, ca.write(ctx, &r.Issued, old.PublicKey, template, o.Others, nil)
	}
	var files newFiles
	key, err := files.addNewKey(r.Key, cmp.Or(o.Type, typeOf(old.PublicKey)), o.Passphrase)
	if err != nil {
		return nil, err
	}
	if err := ca.write(ctx, &r.Issued, key.Public(), template, o.Others, files); err != nil {
		return nil, err
	}
	return r, nil
}

// hasIssued reports whether a certificate was issued by the CA's key, as far as its
// issuer says. Many CAs have the same name.
func (ca *Authority) hasIssued(cert *x509.Certificate) bool {
	return bytes.Equal(cert.RawIssuer, ca.Certificate.RawSubject) &&
		(len(cert.AuthorityKeyId) == 0 || bytes.Equal(cert.AuthorityKeyId, ca.Certificate.SubjectKeyId))
}

// template begins the new certificate.
func (o *RenewOptions) template(old *x509.Certificate) (*x509.Certificate, error) {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	if o.Days == 0 && old.IsCA {
		o.Days = DefaultCADays
	} else if o.Days == 0 {
		o.Days = DefaultDays
	}
	if err := checkDays(o.Days); err != nil {
		return nil, err
	}
	if !o.NewKey && o.Type != "" {
		return nil, errors.New("--type is that of a new key: it goes with --new-key")
	}
	template := newTemplate(signingName(o.Name), o.Days, o.Now)
	if o.Name != "" {
		return template, checkName(o.Name)
	}
	if len(old.RawSubject) <= len(emptySubject) {
		return nil, errors.New("the old certificate names nobody: use --name")
	}
	if err := checkSubject(old.RawSubject, old.Subject); err != nil {
		return nil, fmt.Errorf("%w: use --name", err)
	}
	return template, useSubject(template, old.RawSubject)
}

// keepIdentifier has the new certificate found by the key id that is in signatures.
func (r *Renewed) keepIdentifier(template *x509.Certificate) {
	if len(r.Old.SubjectKeyId) < 4 {
		r.Warnings = append(r.Warnings, "the old certificate has no subject key identifier, so that no kernel found its key: the new one has it")
		return
	}
	template.SubjectKeyId = r.Old.SubjectKeyId
	if usual, err := sign.SubjectKeyID(r.Old.PublicKey); err == nil && !bytes.Equal(usual, r.Old.SubjectKeyId) {
		r.Warnings = append(r.Warnings, "the subject key identifier is not the usual SHA-1 of the public key; it is kept, as signatures carry its end")
	}
}

// renewItself makes another certificate of the CA for its own key. Those that it has
// issued chain to it as to the old one.
func (ca *Authority) renewItself(ctx context.Context, r *Renewed, o RenewOptions, template *x509.Certificate) error {
	switch {
	case keys.Match(r.Old, ca.key.Public()) != nil:
		return fmt.Errorf("%s is the certificate of another CA: only a CA's own key renews it", o.Old)
	case o.NewKey || o.Name != "":
		return errors.New("the certificate of a CA keeps its key and its name, or nothing that it issued would chain to it: for a new CA use imaseal keys init")
	}
	if err := refuseExisting(r.Cert, r.DER); err != nil {
		return err
	}
	template.SubjectKeyId = r.Old.SubjectKeyId
	cert, err := newCACertificate(ca.key, template)
	if err != nil {
		return err
	}
	r.Key = ""
	var files newFiles
	if err := r.certified(cert, &files); err != nil {
		return err
	}
	return files.write(ctx)
}

var numbered = regexp.MustCompile(`^(.+)-([0-9]{1,3})$`)

// nextBase returns what the files that follow path are called without their ending:
// NAME-2, or the first free number above that of NAME-2 where NAME is there too. A
// number in the name of the first, such as a year, is left alone.
func nextBase(path string) (string, error) {
	base, n := keys.TrimEnding(path), 2
	if m := numbered.FindStringSubmatch(filepath.Base(base)); m != nil {
		first := filepath.Join(filepath.Dir(base), m[1])
		if taken, err := anyOf(first); err != nil {
			return "", err
		} else if number, err := strconv.Atoi(m[2]); taken && err == nil {
			base, n = first, number+1
		}
	}
	for ; ; n++ {
		next := fmt.Sprintf("%s-%d", base, n)
		if taken, err := anyOf(next); err != nil || !taken {
			return next, err
		}
	}
}

// anyOf reports whether a file of a key is there that begins with base.
func anyOf(base string) (bool, error) {
	files := keyFilesAt(base)
	for _, path := range files.paths() {
		if there, err := exists(path); there || err != nil {
			return there, err
		}
	}
	return false, nil
}
