//go:build pkcs11 && cgo

package pkcs11

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"sync"
	"sync/atomic"
	"time"

	p11 "github.com/miekg/pkcs11"
)

// How long what is temporary is waited for. Variables, as tests have no patience.
var (
	// patience is the time from the first failure on, as long as nothing succeeds.
	patience = 30 * time.Second
	// firstPause is doubled each time, up to longestPause.
	firstPause, longestPause = 50 * time.Millisecond, 5 * time.Second
	// lastCall is how long Close waits for calls that were given up.
	lastCall = 2 * time.Second
)

// maxAttempts bounds how often one signature is asked for.
const maxAttempts = 12

// A signer signs with a key on a token.
type signer struct {
	ctx        context.Context
	m          *module
	token      *token // as it was first found
	private    *object
	public     crypto.PublicKey
	sessions   int
	everyTime  bool // CKA_ALWAYS_AUTHENTICATE: each signature needs a login of its own
	note       func(string)
	calls      atomic.Int64 // into the module that have not returned, and those that wait for a session
	mu         sync.Mutex
	link       *link
	broken     time.Time // when the first failure was, zero since the last success
	closed     bool
	brokenText string // what was noted of it
}

// A link is a connection to the token: sessions, and the handle of the key in them.
type link struct {
	*pool
	token *token
	key   p11.ObjectHandle
}

// Public implements crypto.Signer.
func (k *signer) Public() crypto.PublicKey { return k.public }

// Sign implements crypto.Signer. What is temporary is tried again; it ends with the
// context that the key was opened with.
func (k *signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	mechanism, input, err := k.input(digest, opts)
	if err != nil {
		return nil, err
	}
	pause := firstPause
	for attempt := 1; ; attempt++ {
		k.mu.Lock()
		l := k.link
		k.mu.Unlock()
		sig, err := k.signOnce(l, mechanism, input)
		switch {
		case err == nil:
			k.works()
			return k.output(sig)
		case k.ctx.Err() != nil:
			return nil, k.ctx.Err()
		case !temporary(err):
			return nil, fmt.Errorf("%s: %w", k.token.name(), err)
		case attempt == maxAttempts:
			return nil, fmt.Errorf("%s: %w, %d times in a row", k.token.name(), err, attempt)
		}
		if pause, err = k.relink(l, pause); err != nil {
			return nil, err
		}
	}
}

// digestInfos are the DER of a DigestInfo up to the digest, RFC 8017 9.2 note 1.
var digestInfos = map[crypto.Hash]string{
	crypto.SHA256: "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
	crypto.SHA384: "\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30",
	crypto.SHA512: "\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40",
}

// input returns what the token is given, and for which mechanism.
func (k *signer) input(digest []byte, opts crypto.SignerOpts) (mechanism uint, input []byte, err error) {
	if _, ok := opts.(*rsa.PSSOptions); ok {
		return 0, nil, errors.New("PSS signatures are not made by this key")
	}
	prefix, ok := digestInfos[opts.HashFunc()]
	if !ok {
		return 0, nil, fmt.Errorf("digests by %v are not signed: use SHA-256, SHA-384 or SHA-512", opts.HashFunc())
	}
	if len(digest) != opts.HashFunc().Size() {
		return 0, nil, fmt.Errorf("a digest of %d bytes is not one of %v", len(digest), opts.HashFunc())
	}
	if pub, ok := k.public.(*ecdsa.PublicKey); ok {
		// Of a longer digest the first bytes count, FIPS 186-5 6.4.1; not every token
		// cuts it itself.
		return p11.CKM_ECDSA, digest[:min(len(digest), orderSize(pub))], nil
	}
	return p11.CKM_RSA_PKCS, append([]byte(prefix), digest...), nil
}

func orderSize(pub *ecdsa.PublicKey) int { return (pub.Curve.Params().N.BitLen() + 7) / 8 }

// output turns what the token answered into what Go, OpenSSL and kernels call a
// signature: for ECDSA the DER of the two numbers that PKCS #11 has side by side.
func (k *signer) output(sig []byte) ([]byte, error) {
	pub, ok := k.public.(*ecdsa.PublicKey)
	if !ok {
		if size := k.public.(*rsa.PublicKey).Size(); len(sig) != size {
			return nil, fmt.Errorf("%s answered a signature of %d bytes, which must have %d", k.token.name(), len(sig), size)
		}
		return sig, nil
	}
	size := orderSize(pub)
	if len(sig) != 2*size {
		return nil, fmt.Errorf("%s answered a signature of %d bytes, which must have %d", k.token.name(), len(sig), 2*size)
	}
	r, s := new(big.Int).SetBytes(sig[:size]), new(big.Int).SetBytes(sig[size:])
	order := pub.Curve.Params().N
	if r.Sign() == 0 || s.Sign() == 0 || r.Cmp(order) >= 0 || s.Cmp(order) >= 0 {
		return nil, fmt.Errorf("%s answered a signature whose numbers are not below the order of the curve", k.token.name())
	}
	return asn1.Marshal(struct{ R, S *big.Int }{r, s})
}

// signOnce makes one attempt. The call into the module is left behind when the context
// ends: a token that waits for a touch does not hold the program. It is, too, when it
// goes on for as long as there is patience after the connection was given up.
func (k *signer) signOnce(l *link, mechanism uint, input []byte) ([]byte, error) {
	k.calls.Add(1)
	s, err := l.take(k.ctx)
	if err != nil {
		k.calls.Add(-1)
		return nil, err
	}
	type answer struct {
		sig []byte
		err error
	}
	answered := make(chan answer, 1)
	go func() {
		defer k.calls.Add(-1)
		sig, err := k.call(l, s, mechanism, input)
		l.put(s, err)
		answered <- answer{sig, err}
	}()
	select {
	case a := <-answered:
		return a.sig, a.err
	case <-k.ctx.Done():
		return nil, k.ctx.Err()
	case <-l.lost:
	}
	// Not every call returns when the connection is lost under it.
	select {
	case a := <-answered:
		return a.sig, a.err
	case <-k.ctx.Done():
		return nil, k.ctx.Err()
	case <-time.After(patience):
		return nil, errPoolClosed
	}
}

func (k *signer) call(l *link, s p11.SessionHandle, mechanism uint, input []byte) ([]byte, error) {
	if err := k.m.SignInit(s, []*p11.Mechanism{p11.NewMechanism(mechanism, nil)}, l.key); err != nil {
		return nil, fmt.Errorf("beginning a signature: %w", err)
	}
	if k.everyTime {
		if err := k.m.logInAgain(l.token, s, p11.CKU_CONTEXT_SPECIFIC); err != nil {
			return nil, err
		}
	}
	sig, err := k.m.Sign(s, input)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return sig, nil
}

// works notes that a signature was made.
func (k *signer) works() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.broken.IsZero() && k.brokenText != "" {
		k.note(k.token.name() + " answers again")
	}
	k.broken, k.brokenText = time.Time{}, ""
}

// relink makes a new connection in place of one that failed, unless another goroutine
// has done so. It waits for a token that is not there, as long as there is
// patience, and returns the pause before the next time.
func (k *signer) relink(failed *link, pause time.Duration) (time.Duration, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return 0, fmt.Errorf("%s: the key was closed", k.token.name())
	}
	if k.link != failed {
		return pause, nil
	}
	if k.broken.IsZero() {
		k.broken = time.Now()
	}
	for looks := 1; ; looks++ {
		// Once patience has ended there is one look a signature, without a pause: a token
		// may be back for the next package, and must not hold up each of a thousand.
		left := time.Until(k.broken.Add(patience))
		select {
		case <-time.After(min(pause, left)):
		case <-k.ctx.Done():
			return 0, k.ctx.Err()
		}
		pause = min(2*pause, longestPause)
		failed.close()
		if looks > 1 && k.calls.Load() == 0 {
			// Some modules see a token, or the service behind them, only when they start.
			k.m.restart()
		}
		l, err := k.connect()
		if err == nil {
			k.link = l
			return pause, nil
		}
		if !temporary(err) {
			return 0, err
		}
		if left <= 0 {
			return 0, fmt.Errorf("%s: %w; there is no answer any more, for %v and longer: see to the token and start again, what is signed already is kept", k.token.name(), err, patience)
		}
		if k.brokenText == "" {
			k.brokenText = fmt.Sprintf("%s does not answer (%v): waiting up to %v for it", k.token.name(), err, patience)
			k.note(k.brokenText)
		}
	}
}

// connect finds the token and the key as they were, and logs in if that is needed.
func (k *signer) connect() (*link, error) {
	t, err := k.m.findToken(k.token.uri())
	if err != nil {
		return nil, err
	}
	l := &link{pool: newPool(k.m, t.slot, k.sessions, 0), token: t}
	if err := k.findAgain(l); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (k *signer) findAgain(l *link) (err error) {
	s, err := l.take(k.ctx)
	if err != nil {
		return err
	}
	defer func() { l.put(s, err) }()
	if l.token.needsLogin() {
		if err := k.m.logInAgain(l.token, s, p11.CKU_USER); err != nil {
			return err
		}
	}
	found, err := k.m.only(s, l.token, p11.CKO_PRIVATE_KEY, &URI{Object: k.private.label, ID: k.private.id})
	if errors.Is(err, errNoObject) {
		return fmt.Errorf("the key was removed from the token while it was in use: %w", err)
	}
	if err != nil {
		return err
	}
	certs, err := k.m.certificatesOf(s, found)
	if err != nil {
		return err
	}
	pub, err := k.m.public(s, found, certs)
	if err != nil {
		return err
	}
	if own, ok := pub.(interface{ Equal(crypto.PublicKey) bool }); !ok || !own.Equal(k.public) {
		return fmt.Errorf("%s now has another key in the place of %s: signatures by two keys are not mixed", l.token.name(), k.private)
	}
	l.key = found.handle
	return nil
}

// close ends the sessions. Calls that were given up get a moment to return.
func (k *signer) close() error {
	for wait := time.Now().Add(lastCall); k.calls.Load() > 0 && time.Now().Before(wait); {
		time.Sleep(time.Millisecond)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil
	}
	k.closed = true
	abandoned := k.calls.Load() > 0
	k.link.close()
	if k.token.needsLogin() {
		k.m.forget(k.token)
	}
	return k.m.release(abandoned)
}
