//go:build !(pkcs11 && cgo)

package pkcs11

import (
	"context"
	"crypto/x509"
	"errors"
)

var errNotBuilt = errors.New("this build of imaseal has no PKCS #11: imaseal's own .deb and .rpm packages have it, or build it with a C compiler: CGO_ENABLED=1 go build -tags pkcs11 ./cmd/imaseal")

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
