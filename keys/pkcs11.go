package keys

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/imaseal/imaseal/keys/pkcs11"
)

// openPKCS11 opens a key on a token. See package pkcs11 for the URI.
func openPKCS11(ctx context.Context, uri string, o OpenOptions) (*Key, error) {
	k, err := pkcs11.Open(ctx, uri, tokenOptions(o))
	if err != nil {
		return nil, err
	}
	return &Key{Signer: k.Signer, Certificate: k.Certificate, Jobs: k.Sessions, close: k.Close}, nil
}

func tokenOptions(o OpenOptions) pkcs11.Options {
	return pkcs11.Options{
		PIN: o.Passphrase,
		PINFile: func(path string) ([]byte, error) {
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o066 != 0 && o.Note != nil {
				o.Note(fmt.Sprintf("%s: other users can read or write this PIN (mode %04o): chmod 600 it", path, info.Mode().Perm()))
			}
			return PassphraseFromFile(path)("")
		},
		Sessions: o.Jobs,
		Note:     o.Note,
	}
}

// OpenCertificates returns the certificates that ref names: a path, file:PATH, or a
// pkcs11: URI, which names the one certificate on a token. It does not judge them.
// There is at least one when the error is nil.
func OpenCertificates(ctx context.Context, ref string, o OpenOptions) ([]*x509.Certificate, error) {
	switch name, rest := splitRef(ref); name {
	case "file":
		return LoadCertificates(rest)
	case "pkcs11":
		return pkcs11.Certificates(ctx, rest, tokenOptions(o))
	default:
		return nil, fmt.Errorf("certificate %s:…: certificates are in files and on tokens (pkcs11:); for a file of that name write ./%s:…", name, name)
	}
}
