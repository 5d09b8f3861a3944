//go:build !(pkcs11 && cgo)

package pkcs11

import (
	"context"
	"crypto/x509"
)

// Open says which build has PKCS #11, or what is wrong with the URI.
func Open(_ context.Context, uri string, _ Options) (*Key, error) {
	if _, err := ParseURI(uri); err != nil {
		return nil, err
	}
	return nil, errNotBuilt
}

// Certificates says what Open says.
func Certificates(_ context.Context, uri string, _ Options) ([]*x509.Certificate, error) {
	if _, err := ParseURI(uri); err != nil {
		return nil, err
	}
	return nil, errNotBuilt
}
