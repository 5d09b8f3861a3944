//go:build !(pkcs11 && cgo)

package pkcs11

import (
	"context"
	"crypto/x509"
)

// Built says whether this build has PKCS #11.
const Built = false

// Open returns [ErrNotBuilt], or what is wrong with the URI.
func Open(_ context.Context, uri string, _ Options) (*Key, error) {
	if _, err := ParseURI(uri); err != nil {
		return nil, err
	}
	return nil, ErrNotBuilt
}

// Certificates returns [ErrNotBuilt], or what is wrong with the URI.
func Certificates(_ context.Context, uri string, _ Options) ([]*x509.Certificate, error) {
	if _, err := ParseURI(uri); err != nil {
		return nil, err
	}
	return nil, ErrNotBuilt
}
