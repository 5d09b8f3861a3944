//go:build pkcs11 && cgo

package pkcs11

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"
)

// Open opens the private key that uri names. It must name one token and one key; an
// error otherwise lists what is there. The PIN is tried once. The key cannot be used
// after ctx is done; Close it.
func Open(ctx context.Context, uri string, o Options) (*Key, error) {
	u, err := ParseURI(uri)
	if err != nil {
		return nil, err
	}
	if u.Type != "" && u.Type != "private" {
		return nil, fmt.Errorf("%s: a private key is needed: leave type out, or write type=private", u)
	}
	m, err := openModule(u)
	if err != nil {
		return nil, err
	}
	k, err := openKey(ctx, m, u, o)
	if err != nil {
		return nil, errors.Join(err, m.release(false))
	}
	return k, nil
}

func openKey(ctx context.Context, m *module, u *URI, o Options) (*Key, error) {
	t, s, err := m.openSession(u)
	if err != nil {
		return nil, err
	}
	k := &signer{ctx: ctx, m: m, token: t, note: o.note(), sessions: fitting(t, o.Sessions)}
	if m.losesCalls() {
		k.sessions = 1
	}
	key, err := k.open(s, u, o.ask(u))
	if err != nil {
		m.CloseSession(s)
		return nil, err
	}
	// The login lasts as long as there is a session, so this one is the first.
	k.link = &link{pool: newPool(m, t.slot, k.sessions, s), token: t, key: k.private.handle}
	key.Signer, key.Sessions, key.close = k, k.sessions, k.close
	return key, nil
}

// openSession finds the token that u names, and opens a session on it.
func (m *module) openSession(u *URI) (*token, p11.SessionHandle, error) {
	t, err := m.findToken(u)
	if err != nil {
		return nil, 0, err
	}
	s, err := m.OpenSession(t.slot, p11.CKF_SERIAL_SESSION)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: opening a session: %w", t.name(), err)
	}
	return t, s, nil
}

// open logs in and finds the key.
func (k *signer) open(s p11.SessionHandle, u *URI, ask func(string) ([]byte, error)) (*Key, error) {
	if !k.token.needsLogin() {
		return k.find(s, u)
	}
	if err := k.m.logIn(k.token, s, ask, k.note); err != nil {
		return nil, err
	}
	key, err := k.find(s, u)
	if err != nil {
		k.m.forget(k.token)
	}
	return key, err
}

// find looks for the key, its public key and its certificate.
func (k *signer) find(s p11.SessionHandle, u *URI) (*Key, error) {
	var err error
	if k.private, err = k.m.only(s, k.token, p11.CKO_PRIVATE_KEY, u); err != nil {
		return nil, err
	}
	certs, err := k.m.certificatesOf(s, k.private)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.token.name(), err)
	}
	if k.public, err = k.m.public(s, k.private, certs); err != nil {
		return nil, fmt.Errorf("%s: %w", k.token.name(), err)
	}
	always, err := k.m.value(s, k.private.handle, p11.CKA_ALWAYS_AUTHENTICATE)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.token.name(), err)
	}
	if k.everyTime = len(always) > 0 && always[0] != 0; k.everyTime {
		k.sessions = 1 // several wrong PINs at once would lock the token
	}
	key := new(Key)
	for _, cert := range certs {
		if own, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); ok && own.Equal(k.public) {
			key.Certificate = cert
			break
		}
	}
	return key, nil
}

// note returns Note, or what tells nobody.
func (o *Options) note() func(string) {
	if o.Note == nil {
		return func(string) {}
	}
	return o.Note
}

// ask returns where the PIN comes from: the pin-source of u, else the caller.
func (o *Options) ask(u *URI) func(string) ([]byte, error) {
	if u.PINSource == "" || o.PINFile == nil {
		return o.PIN
	}
	return func(string) ([]byte, error) { return o.PINFile(u.PINSource) }
}

// Certificates returns the certificate that uri names. It must name one token and one
// certificate. It logs in only where uri has a pin-source, as certificates are seldom
// private objects.
func Certificates(_ context.Context, uri string, o Options) (certs []*x509.Certificate, err error) {
	u, err := ParseURI(uri)
	if err != nil {
		return nil, err
	}
	if u.Type != "" && u.Type != "cert" {
		return nil, fmt.Errorf("%s: a certificate is needed: leave type out, or write type=cert", u)
	}
	m, err := openModule(u)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.release(false)) }()
	t, s, err := m.openSession(u)
	if err != nil {
		return nil, err
	}
	defer m.CloseSession(s)
	if t.needsLogin() && u.PINSource != "" {
		if err := m.logIn(t, s, o.ask(u), o.note()); err != nil {
			return nil, err
		}
		defer m.forget(t)
	}
	found, err := m.only(s, t, p11.CKO_CERTIFICATE, u)
	if err != nil {
		return nil, err
	}
	der, err := m.value(s, found.handle, p11.CKA_VALUE)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.name(), err)
	}
	cert, err := parseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s: certificate %s cannot be read: %w", t.name(), found, err)
	}
	return []*x509.Certificate{cert}, nil
}
