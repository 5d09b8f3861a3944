package openpgp

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	pgp "github.com/ProtonMail/go-crypto/openpgp"
	pgpecdsa "github.com/ProtonMail/go-crypto/openpgp/ecdsa"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/sign"
)

// An Key makes OpenPGP signatures over whole packages, version 4 with
// SHA-256 or, where the key's curve asks for it, better. Its methods may be called
// concurrently.
type Key struct {
	maker maker
	// own verifies what the key signed; nil where its public half cannot be read.
	own *Keyring
	// Note is what a user should know about how the key was opened, "" for nothing.
	Note string
}

// An maker is where the private half of an OpenPGP key is.
type maker interface {
	detach(ctx context.Context, r io.Reader) ([]byte, error)
	clearSign(ctx context.Context, text []byte) ([]byte, error)
}

// Open opens the OpenPGP key that ref names: gpg:FINGERPRINT in GnuPG,
// which asks for a passphrase or a PIN itself, or a file with a secret key, armored
// or binary, for which p is asked at most once, if it is encrypted. Signatures
// state now as their time. Keys that are expired or revoked are refused.
func Open(ctx context.Context, ref string, p keys.Passphrase, now time.Time) (*Key, error) {
	if fingerprint, ok := strings.CutPrefix(ref, "gpg:"); ok {
		return openGPG(ctx, fingerprint, now)
	}
	path, ok := keys.FileOf(ref)
	if !ok {
		return nil, keys.UnknownScheme(ref, "file", "gpg")
	}
	data, note, err := keys.ReadPrivateKeyFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	key, err := parseKey(data, path, p, now)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	key.Note = note
	return key, nil
}

// Detach signs what r reads, as a binary packet.
func (k *Key) Detach(ctx context.Context, r io.Reader) (sign.NewOpenPGPSignature, error) {
	data, err := k.maker.detach(ctx, r)
	if err != nil {
		return sign.NewOpenPGPSignature{}, err
	}
	infos, err := Describe(data)
	if err != nil {
		return sign.NewOpenPGPSignature{}, err
	}
	if len(infos) != 1 || infos[0].Version != 4 {
		return sign.NewOpenPGPSignature{}, fmt.Errorf("the OpenPGP key makes signatures of version %d, %d at once: rpm and debsig-verify take one of version 4", infos[0].Version, len(infos))
	}
	return sign.NewOpenPGPSignature{Packet: data, RSA: infos[0].rsa()}, nil
}

// ClearSign returns text with a signature around it, as .changes files have it.
// White space at the ends of lines is lost; text should end in a newline.
func (k *Key) ClearSign(ctx context.Context, text []byte) ([]byte, error) {
	return k.maker.clearSign(ctx, text)
}

// Signed reports whether one of sigs is by this key and holds.
func (k *Key) Signed(sigs []sign.OpenPGPSignature) bool {
	for _, sig := range sigs {
		if k.own == nil {
			return false
		}
		if _, err := k.own.Verify(sig); err == nil {
			return true
		}
	}
	return false
}

// A fileKey signs with a key from a file.
type fileKey struct {
	private *packet.PrivateKey
	own     *Keyring
	hash    crypto.Hash
	config  *packet.Config
}

func parseKey(data []byte, name string, p keys.Passphrase, now time.Time) (_ *Key, err error) {
	defer recoverTo(&err)
	entities, err := parseEntities(data)
	if err != nil {
		return nil, err
	}
	var entity *pgp.Entity
	for _, e := range entities {
		if !hasSecret(e) {
			continue
		}
		if entity != nil {
			return nil, errors.New("there are several secret OpenPGP keys in it: export the one that is to sign")
		}
		entity = e
	}
	if entity == nil {
		return nil, errors.New("there is no secret OpenPGP key in it: gpg --export-secret-keys writes one, or use gpg:FINGERPRINT")
	}
	private, err := signingSubkey(entity)
	if err != nil {
		return nil, err
	}
	if private.Version != 4 {
		return nil, fmt.Errorf("the OpenPGP key is of version %d, which rpm 4 and gpg cannot read: use one of version 4", private.Version)
	}
	if private.Encrypted {
		if err := decrypt(private, name, p); err != nil {
			return nil, err
		}
	}
	k := &fileKey{private: private, own: &Keyring{pgp.EntityList{publicOnly(entity)}}}
	if k.hash, err = makeDeterministic(private); err != nil {
		return nil, err
	}
	// A key younger than the time that was asked for would make a signature that
	// nobody accepts.
	if now.Before(private.CreationTime) {
		now = private.CreationTime
	}
	plain := false
	k.config = &packet.Config{
		DefaultHash:                           k.hash,
		Time:                                  func() time.Time { return now },
		NonDeterministicSignaturesViaNotation: &plain,
	}
	return &Key{maker: k, own: k.own}, nil
}

func usable(p *packet.PrivateKey) bool { return p != nil && !p.Dummy() }

func hasSecret(e *pgp.Entity) bool {
	if usable(e.PrivateKey) {
		return true
	}
	for _, s := range e.Subkeys {
		if usable(s.PrivateKey) {
			return true
		}
	}
	return false
}

// signingSubkey chooses the newest valid signing subkey whose secret half is
// there, else the primary key, as gpg does. Validity is judged by the clock: a
// time that signatures are made to state does not bring an expired key back.
func signingSubkey(e *pgp.Entity) (*packet.PrivateKey, error) {
	now := time.Now()
	var best *packet.PrivateKey
	for _, s := range e.Subkeys {
		if !usable(s.PrivateKey) {
			continue
		}
		if key, ok := e.SigningKeyById(now, s.PublicKey.KeyId); ok && key.PrivateKey == s.PrivateKey &&
			(best == nil || best.CreationTime.Before(s.PublicKey.CreationTime)) {
			best = s.PrivateKey
		}
	}
	if best != nil {
		return best, nil
	}
	if usable(e.PrivateKey) {
		// The library looks at the flags of the primary key but falls back on it
		// only where no subkey will do; asked by id it does not.
		if key, ok := e.SigningKeyById(now, e.PrimaryKey.KeyId); ok && key.PrivateKey == e.PrivateKey {
			return e.PrivateKey, nil
		}
	}
	self, _ := e.PrimarySelfSignature()
	switch {
	case e.Revoked(now):
		return nil, fmt.Errorf("OpenPGP key %s is revoked", e.PrimaryKey.KeyIdString())
	case self != nil && e.PrimaryKey.KeyExpired(self, now):
		return nil, fmt.Errorf("OpenPGP key %s has expired, or is not valid yet", e.PrimaryKey.KeyIdString())
	}
	return nil, fmt.Errorf("OpenPGP key %s has no valid signing key whose secret half is in the file: subkeys may be expired, revoked or only stubs", e.PrimaryKey.KeyIdString())
}

// publicOnly returns a copy of e that keeps no secret halves.
func publicOnly(e *pgp.Entity) *pgp.Entity {
	c := *e
	c.PrivateKey = nil
	c.Subkeys = append([]pgp.Subkey(nil), e.Subkeys...)
	for i := range c.Subkeys {
		c.Subkeys[i].PrivateKey = nil
	}
	return &c
}

func decrypt(private *packet.PrivateKey, name string, p keys.Passphrase) error {
	if err := checkS2K(private); err != nil {
		return err
	}
	if p == nil {
		return errors.New("the OpenPGP key is encrypted: it needs a passphrase")
	}
	passphrase, err := p(fmt.Sprintf("Passphrase for OpenPGP key %s in %s: ", private.KeyIdString(), name))
	if err != nil {
		return err
	}
	defer clear(passphrase)
	if private.Decrypt(passphrase) != nil {
		return keys.ErrWrongPassphrase
	}
	return nil
}

// maxArgon2Memory is a power of two of KiB: 256 MiB.
const maxArgon2Memory = 18

// checkS2K refuses a key whose passphrase would be stretched in more memory than
// a machine may have: the library allocates what the file says, up to 2 TiB.
func checkS2K(private *packet.PrivateKey) error {
	contents := func(write func(io.Writer) error) ([]byte, error) {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			return nil, err
		}
		p, err := packet.NewOpaqueReader(&b).Next()
		if err != nil {
			return nil, err
		}
		return p.Contents, nil
	}
	whole, err := contents(private.Serialize)
	if err != nil {
		return err
	}
	public, err := contents(private.PublicKey.Serialize)
	if err != nil {
		return err
	}
	const usageAEAD, argon2 = 253, 4
	// Usage, cipher, AEAD mode, type of S2K, salt (16), passes, lanes, memory.
	s2k := whole[min(len(public), len(whole)):]
	if len(s2k) >= 23 && s2k[0] == usageAEAD && s2k[3] == argon2 && s2k[22] > maxArgon2Memory {
		return fmt.Errorf("its passphrase is stretched by Argon2 in 2^%d KiB of memory, more than 2^%d", s2k[22], maxArgon2Memory)
	}
	return nil
}

// makeDeterministic has ECDSA keys sign as RFC 6979 says, which the library does
// not do by itself, and returns the hash that suits the key.
func makeDeterministic(private *packet.PrivateKey) (crypto.Hash, error) {
	switch key := private.PrivateKey.(type) {
	case *rsa.PrivateKey:
		if n := key.N.BitLen(); n < 2048 || n > keys.MaxRSABits {
			return 0, fmt.Errorf("an RSA key of %d bits is not used: it must have 2048 to %d", n, keys.MaxRSABits)
		}
	case *pgpecdsa.PrivateKey:
		bits := len(key.MarshalIntegerSecret()) * 8
		for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
			if strings.EqualFold(key.GetCurve().GetCurveName(), strings.ReplaceAll(curve.Params().Name, "-", "")) || key.GetCurve().GetCurveName() == curve.Params().Name {
				raw := make([]byte, (curve.Params().BitSize+7)/8)
				defer clear(raw)
				key.D.FillBytes(raw)
				std, err := ecdsa.ParseRawPrivateKey(curve, raw)
				if err != nil {
					return 0, fmt.Errorf("parsing the OpenPGP key: %w", err)
				}
				private.PrivateKey = deterministic{std}
			}
		}
		switch {
		case bits > 384:
			return crypto.SHA512, nil
		case bits > 256:
			return crypto.SHA384, nil
		}
	default:
		if private.PubKeyAlgo == packet.PubKeyAlgoDSA || private.PubKeyAlgo == packet.PubKeyAlgoElGamal {
			return 0, errors.New("a DSA key is not used: make an RSA, ECDSA or Ed25519 one")
		}
		if private.PubKeyAlgo == packet.PubKeyAlgoEd448 {
			return crypto.SHA512, nil
		}
	}
	return crypto.SHA256, nil
}

// deterministic signs without randomness, whatever the caller brings.
type deterministic struct{ key *ecdsa.PrivateKey }

func (d deterministic) Public() crypto.PublicKey { return d.key.Public() }

func (d deterministic) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return d.key.Sign(nil, digest, opts)
}

func (k *fileKey) detach(ctx context.Context, r io.Reader) (_ []byte, err error) {
	defer recoverTo(&err)
	h := k.hash.New()
	if _, err := io.Copy(h, contextReader{ctx, r}); err != nil {
		return nil, err
	}
	// Kept to verify the result: the library loses the error of an RSA signer.
	again, err := h.(hash.Cloner).Clone()
	if err != nil {
		return nil, err
	}
	sig := &packet.Signature{
		Version: k.private.Version, SigType: packet.SigTypeBinary, PubKeyAlgo: k.private.PubKeyAlgo,
		Hash: k.hash, CreationTime: k.config.Now(), IssuerKeyId: &k.private.KeyId,
	}
	if err := sig.Sign(h, k.private, k.config); err != nil {
		return nil, k.failed(err)
	}
	if err := k.private.VerifySignature(again, sig); err != nil {
		return nil, k.failed(err)
	}
	var b bytes.Buffer
	if err := sig.Serialize(&b); err != nil {
		return nil, k.failed(err)
	}
	return b.Bytes(), nil
}

func (k *fileKey) failed(err error) error {
	return fmt.Errorf("signing with OpenPGP key %s: %w", hex.EncodeToString(k.private.Fingerprint), err)
}

// A contextReader stops reading when the context is done.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
