package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/imaseal/imaseal/keys"
)

// IssueOptions say what certificate [Authority.Issue] makes.
type IssueOptions struct {
	Request *Request
	// Name is in the subject; if empty the request must bring a subject.
	Name string
	// Days is how long the certificate is valid, three years if 0.
	Days int
	// Out is the file of the certificate, or what it is called without its ending:
	// .crt in PEM, .der in DER.
	Out string
	// Others are folders with certificates whose key ids the new one must not have.
	// The folder of Out is always looked at.
	Others []string
	Now    time.Time
}

// An Issued is a certificate that a CA made.
type Issued struct {
	KeyFiles
	// Warnings are what a user should know about the certificate.
	Warnings []string
}

// Issue makes a certificate for the key of a request, as [Init] does: nothing but the
// public key and the subject are taken from the request. It refuses to overwrite a
// file.
func (ca *Authority) Issue(ctx context.Context, o IssueOptions) (*Issued, error) {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	if o.Days == 0 {
		o.Days = DefaultDays
	}
	if err := checkDays(o.Days); err != nil {
		return nil, err
	}
	template := newTemplate(signingName(o.Name), o.Days, o.Now)
	switch {
	case o.Name != "":
		if err := checkName(o.Name); err != nil {
			return nil, err
		}
	case len(o.Request.RawSubject) <= len(emptySubject):
		return nil, errors.New("nothing says what name the certificate is to have: use --name")
	default:
		if err := useSubject(template, o.Request.RawSubject); err != nil {
			return nil, err
		}
	}
	if err := finishBefore(o.Out); err != nil {
		return nil, err
	}
	made := &Issued{KeyFiles: keyFilesAt(keys.TrimEnding(o.Out))}
	made.Key = ""
	if len(o.Request.Ignored) > 0 {
		made.Warnings = append(made.Warnings, "not taken over from the request: "+strings.Join(o.Request.Ignored, ", "))
	}
	return made, ca.write(ctx, made, o.Request.PublicKey, template, o.Others, nil)
}

// emptySubject is a name without a part.
var emptySubject = []byte{0x30, 0}

// useSubject gives the certificate a subject as it stands in a request or in another
// certificate.
func useSubject(template *x509.Certificate, raw []byte) error {
	var names pkix.RDNSequence
	rest, err := asn1.Unmarshal(raw, &names)
	if err == nil && len(rest) > 0 {
		err = errors.New("trailing data")
	}
	if err != nil {
		return fmt.Errorf("parsing the subject: %w", err)
	}
	template.RawSubject = asn1.RawContent(raw)
	template.Subject = pkix.Name{}
	template.Subject.FillFromRDNSequence(&names)
	return nil
}

// write issues the certificate and writes the files, after what is in files already.
func (ca *Authority) write(ctx context.Context, made *Issued, pub crypto.PublicKey, template *x509.Certificate, others []string, files newFiles) error {
	if err := refuseExisting(made.Cert, made.DER); err != nil {
		return err
	}
	cert, err := ca.issue(pub, template)
	if err != nil {
		return err
	}
	if err := made.certified(cert, &files); err != nil {
		return err
	}
	made.Warnings = append(made.Warnings, ca.outlived(made.KeyFiles)...)
	collisions, err := keyIDCollisions(cert, filepath.Dir(made.Cert), others)
	if err != nil {
		return err
	}
	made.Warnings = append(made.Warnings, collisions...)
	return files.write(ctx)
}

// outlived returns a warning when a certificate is valid longer than that of its CA.
func (ca *Authority) outlived(k KeyFiles) []string {
	if !k.Certificate.NotAfter.After(ca.Certificate.NotAfter) {
		return nil
	}
	return []string{fmt.Sprintf("%s is valid longer than the certificate of its CA, which ends on %s", k.Cert, ca.Certificate.NotAfter.UTC().Format(time.DateOnly))}
}
