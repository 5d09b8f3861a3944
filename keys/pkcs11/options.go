package pkcs11

import (
	"crypto"
	"crypto/x509"
)

// Options say how a token is opened and used.
type Options struct {
	// PIN is asked for the PIN of the token, at most once, where the URI names no
	// pin-source. It may be nil where no login is needed.
	PIN func(prompt string) ([]byte, error)
	// PINFile reads the PIN from the file of a pin-source.
	PINFile func(path string) ([]byte, error)
	// Sessions is how many signatures the token is asked for at once; 0 leaves that
	// to the token and the machine.
	Sessions int
	// Note, if not nil, is told what a user should know while the key is in use. It
	// may be called concurrently.
	Note func(text string)
}

// A Key is a signing key on a token. Its Sign may be called concurrently. It takes
// digests by SHA-256, SHA-384 and SHA-512: an RSA key makes PKCS #1 v1.5 signatures,
// the same bytes as from a file; an ECDSA key draws a random number for each, so no
// two are equal. What it returns is not verified.
type Key struct {
	crypto.Signer
	// Certificate is the X.509 certificate of the key on the token, the one that
	// expires last if there are several, nil if there is none.
	Certificate *x509.Certificate
	// Sessions is how many calls of Sign the token is asked for at once.
	Sessions int

	close func() error
}

// Close ends the sessions and forgets the PIN.
func (k *Key) Close() error { return k.close() }
