package openpgp

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	pgp "github.com/ProtonMail/go-crypto/openpgp"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/sign"
)

// A Keyring holds the OpenPGP public keys by which whole packages are judged. Its
// methods may be called concurrently.
type Keyring struct {
	keys pgp.EntityList
}

// ErrUnknownKey says that no key of the keyring made a signature.
var ErrUnknownKey = errors.New("unknown OpenPGP key")

// LoadKeyring reads public keys, armored (several blocks too) or binary, as gpg
// --export writes them. Keys in it that cannot be read are left out; there must be
// one that can.
func LoadKeyring(path string) (*Keyring, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyring+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxKeyring {
		return nil, fmt.Errorf("%s: larger than %d bytes: this is no keyring", path, maxKeyring)
	}
	k, err := parseKeyring(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

func parseKeyring(data []byte) (*Keyring, error) {
	entities, err := parseEntities(data)
	if err != nil {
		return nil, err
	}
	if len(entities) == 0 {
		return nil, errors.New("there is no OpenPGP key in it")
	}
	return &Keyring{entities}, nil
}

// parseEntities reads OpenPGP keys, public or secret.
func parseEntities(data []byte) (entities pgp.EntityList, err error) {
	defer recoverTo(&err)
	trimmed := bytes.TrimLeft(data, " \t\r\n")
	if !bytes.Contains(trimmed, armorStart) {
		if bytes.HasPrefix(data[min(8, len(data)):], []byte("KBXf")) {
			return nil, errors.New("this is GnuPG's own keybox: gpg --export writes the keys in it as OpenPGP has them")
		}
		entities, err = pgp.ReadKeyRing(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("this is no OpenPGP key: %w", noEOF(err))
		}
		return entities, nil
	}
	// gpg's keyboxes and apt's folders hold several blocks one after the other.
	for rest := trimmed; ; {
		i := bytes.Index(rest, armorStart)
		if i < 0 {
			return entities, nil
		}
		rest = rest[i:]
		block := rest
		if next := bytes.Index(rest[1:], armorStart); next >= 0 {
			block = rest[:next+1]
		}
		rest = rest[len(block):]
		body, err := dearmor(block, pgp.PublicKeyType, pgp.PrivateKeyType)
		if err != nil {
			return nil, err
		}
		more, err := pgp.ReadKeyRing(bytes.NewReader(body))
		if err != nil {
			return nil, fmt.Errorf("malformed OpenPGP key: %w", noEOF(err))
		}
		entities = append(entities, more...)
	}
}

// Verify checks a detached signature over a package. It accepts the first
// signature packet that a key of the keyring made; SHA-1 and MD5, DSA, and RSA of
// less than 2048 bits prove nothing. A key that has expired since is accepted with
// a warning, one that is revoked is not. ErrUnknownKey says that none of
// the keys made it.
func (k *Keyring) Verify(sig sign.OpenPGPSignature) (Info, error) {
	if sig.Cleartext {
		return Info{}, errors.New("a clear-signed list as dpkg-sig makes it names the package's parts by MD5 and SHA-1, which proves nothing: sign with debsigs or --openpgp-key")
	}
	// Not over text: such a signature says nothing of line ends.
	return k.verify(sig.Packet, sig.Signed, packet.SigTypeBinary)
}

// VerifyClearSigned verifies a clear-signed text and returns the text inside.
func (k *Keyring) VerifyClearSigned(text []byte) (inner []byte, info Info, err error) {
	defer recoverTo(&err)
	block, err := clearSignedBlock(text)
	if err != nil {
		return nil, Info{}, err
	}
	sig, err := io.ReadAll(block.ArmoredSignature.Body)
	if err != nil {
		return nil, Info{}, fmt.Errorf("malformed OpenPGP armor: %w", noEOF(err))
	}
	info, err = k.verify(sig, func() io.Reader { return bytes.NewReader(block.Bytes) }, packet.SigTypeText, packet.SigTypeBinary)
	if err != nil {
		return nil, info, err
	}
	return clearText(block), info, nil
}

func (k *Keyring) verify(data []byte, signed func() io.Reader, types ...packet.SignatureType) (Info, error) {
	packets, err := signaturePackets(data)
	if err != nil {
		return Info{}, err
	}
	var last Info
	var reason error
	for _, p := range packets {
		info, err := describe(p.Contents)
		if err == nil {
			info, err = k.verifyOne(p, info, signed, types)
		}
		if err == nil {
			return info, nil
		}
		// A reason that concerns one of our keys says more than a strange key.
		if reason == nil || errors.Is(reason, ErrUnknownKey) {
			last, reason = info, err
		}
	}
	return last, reason
}

func (k *Keyring) verifyOne(p *packet.OpaquePacket, info Info, signed func() io.Reader, types []packet.SignatureType) (_ Info, err error) {
	defer recoverTo(&err)
	parsed, err := p.Parse()
	sig, ok := parsed.(*packet.Signature)
	if err == nil && (!ok || sig.IssuerKeyId == nil) {
		err = errors.New("it does not say which key made it")
	}
	if err != nil {
		return info, fmt.Errorf("OpenPGP signature by key %s cannot be checked (version %d, %s, %s): %w", info.KeyID, info.Version, info.Algorithm, info.Hash, err)
	}
	if len(k.keys.KeysById(*sig.IssuerKeyId)) == 0 {
		return info, fmt.Errorf("%w %s", ErrUnknownKey, info.KeyID)
	}
	if !slices.Contains(types, sig.SigType) {
		return info, fmt.Errorf("OpenPGP signature by key %s is of type %#02x, which is not for such data", info.KeyID, byte(sig.SigType))
	}
	if !strongHash(sig.Hash) {
		return info, fmt.Errorf("OpenPGP signature by key %s is over %s, which proves nothing", info.KeyID, info.Hash)
	}
	if err := k.strongKeys(*sig.IssuerKeyId, info); err != nil {
		return info, err
	}
	var raw bytes.Buffer
	if err := p.Serialize(&raw); err != nil {
		return info, err
	}
	check := func(now time.Time) error {
		_, _, err := pgp.VerifyDetachedSignature(k.keys, signed(), bytes.NewReader(raw.Bytes()), &packet.Config{Time: func() time.Time { return now }})
		return err
	}
	err = check(time.Now())
	if errors.Is(err, pgperrors.ErrKeyExpired) && check(sig.CreationTime) == nil {
		info.Warning = fmt.Sprintf("OpenPGP key %s has expired since it signed", info.KeyID)
		return info, nil
	}
	if err != nil {
		return info, fmt.Errorf("OpenPGP signature by key %s: %w", info.KeyID, err)
	}
	return info, nil
}

func strongHash(h crypto.Hash) bool {
	switch h {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA3_256, crypto.SHA3_512:
		return true
	}
	return false
}

func (k *Keyring) strongKeys(id uint64, info Info) error {
	for _, key := range k.keys.KeysById(id) {
		switch pub := key.PublicKey.PublicKey.(type) {
		case *rsa.PublicKey:
			if n := pub.N.BitLen(); n < 2048 || n > keys.MaxRSABits {
				return fmt.Errorf("OpenPGP key %s is RSA of %d bits: it must have 2048 to %d", info.KeyID, n, keys.MaxRSABits)
			}
		}
		if key.PublicKey.PubKeyAlgo == packet.PubKeyAlgoDSA {
			return fmt.Errorf("OpenPGP key %s is a DSA key, which proves nothing", info.KeyID)
		}
	}
	return nil
}
