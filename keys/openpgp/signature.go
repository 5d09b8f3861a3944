package openpgp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	pgp "github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Bounds of OpenPGP data.
const (
	// maxSignatures is in bytes; the largest post-quantum signature takes 50 KB.
	maxSignatures = 1 << 20
	maxPackets    = 256
	// maxKeyring is in bytes: a distribution's keyring has some 5 MB.
	maxKeyring = 32 << 20
)

// Info is what an OpenPGP signature says of itself, RFC 9580 5.2.
type Info struct {
	Version int
	// KeyID is that of the key or subkey, 16 hexadecimal digits in lower case;
	// Fingerprint the whole of it where the signature carries it.
	KeyID       string
	Fingerprint string
	Algorithm   string // of the key, such as "RSA"
	Hash        string // such as "SHA256"
	Created     time.Time
	// Warning is not empty when [Keyring.Verify] accepted the signature though
	// there is something to know about the key.
	Warning string

	algorithm packet.PublicKeyAlgorithm
}

const (
	signaturePacket  = 2
	clearSignedStart = "-----BEGIN PGP SIGNED MESSAGE-----"
)

var armorStart = []byte("-----BEGIN PGP")

// Describe reads the signatures in data without verifying them: binary
// packets, an armored block, or a clear-signed text. There is at least one when
// the error is nil. What it returns can be forged by anybody.
func Describe(data []byte) ([]Info, error) {
	packets, err := signaturePackets(data)
	if err != nil {
		return nil, err
	}
	var infos []Info
	for _, p := range packets {
		info, err := describe(p.Contents)
		if err != nil {
			return nil, fmt.Errorf("OpenPGP signature %d: %w", len(infos)+1, err)
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// signaturePackets splits data into its packets, which must all be signatures.
func signaturePackets(data []byte) (packets []*packet.OpaquePacket, err error) {
	defer recoverTo(&err)
	if len(data) > maxSignatures {
		return nil, fmt.Errorf("an OpenPGP signature of %d bytes is too large", len(data))
	}
	trimmed := bytes.TrimLeft(data, " \t\r\n")
	if bytes.HasPrefix(trimmed, []byte(clearSignedStart)) {
		block, err := clearSignedBlock(trimmed)
		if err != nil {
			return nil, err
		}
		if data, err = io.ReadAll(block.ArmoredSignature.Body); err != nil {
			return nil, fmt.Errorf("malformed OpenPGP armor: %w", err)
		}
	} else if bytes.HasPrefix(trimmed, armorStart) {
		if data, err = dearmor(trimmed, pgp.SignatureType); err != nil {
			return nil, err
		}
	}
	r := bytes.NewReader(data)
	for opaque := packet.NewOpaqueReader(r); r.Len() > 0; {
		p, err := opaque.Next()
		if err != nil {
			return nil, fmt.Errorf("malformed OpenPGP packet %d: %w", len(packets)+1, noEOF(err))
		}
		if p.Tag != signaturePacket {
			return nil, fmt.Errorf("OpenPGP packet %d is no signature but of type %d", len(packets)+1, p.Tag)
		}
		if packets = append(packets, p); len(packets) > maxPackets {
			return nil, fmt.Errorf("there are more than %d OpenPGP packets", maxPackets)
		}
	}
	if len(packets) == 0 {
		return nil, errors.New("there is no OpenPGP signature in it")
	}
	return packets, nil
}

// noEOF keeps the end of a slice from being taken for the end of a file.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// dearmor decodes the first armored block, which must be of one of types.
func dearmor(data []byte, types ...string) ([]byte, error) {
	block, err := armor.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("malformed OpenPGP armor: %w", noEOF(err))
	}
	for _, t := range types {
		if block.Type == t {
			body, err := io.ReadAll(block.Body)
			if err != nil {
				return nil, fmt.Errorf("malformed OpenPGP armor: %w", noEOF(err))
			}
			return body, nil
		}
	}
	return nil, fmt.Errorf("this is a %q, not a %q", block.Type, types[0])
}

// recoverTo turns a panic of the OpenPGP library, which parses what anybody may
// have written, into an error.
func recoverTo(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("malformed OpenPGP data: %v", r)
	}
}

var errShortSignature = errors.New("it is cut short")

// describe reads the body of a signature packet. The library would refuse old
// versions and unknown algorithms, which are worth showing.
func describe(b []byte) (Info, error) {
	if len(b) < 1 {
		return Info{}, errShortSignature
	}
	info := Info{Version: int(b[0])}
	switch b[0] {
	case 2, 3: // length of hashed material, type, time, key id, algorithms
		if len(b) < 17 {
			return info, errShortSignature
		}
		if b[1] != 5 {
			return info, fmt.Errorf("a version %d signature cannot hash %d bytes", b[0], b[1])
		}
		info.Created = time.Unix(int64(binary.BigEndian.Uint32(b[3:])), 0)
		info.KeyID = hex.EncodeToString(b[7:15])
		info.setAlgorithms(b[15], b[16])
		return info, nil
	case 4, 5, 6:
		if len(b) < 4 {
			return info, errShortSignature
		}
		info.setAlgorithms(b[2], b[3])
		lengthSize := 2
		if b[0] == 6 {
			lengthSize = 4
		}
		rest := b[4:]
		for range 2 { // hashed subpackets, then those that are not
			var area []byte
			var ok bool
			if area, rest, ok = cutArea(rest, lengthSize); !ok {
				return info, errShortSignature
			}
			if err := info.subpackets(area); err != nil {
				return info, err
			}
		}
		return info, nil
	}
	return info, fmt.Errorf("unknown version %d", b[0])
}

func cutArea(b []byte, lengthSize int) (area, rest []byte, ok bool) {
	if len(b) < lengthSize {
		return nil, nil, false
	}
	length := uint64(0)
	for _, c := range b[:lengthSize] {
		length = length<<8 | uint64(c)
	}
	b = b[lengthSize:]
	if length > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:length], b[length:], true
}

// subpackets takes time and issuer from an area. The first of a kind counts, so
// that what is hashed goes before what is not.
func (i *Info) subpackets(area []byte) error {
	for len(area) > 0 {
		length, size := uint64(area[0]), 1
		switch {
		case area[0] == 255:
			if len(area) < 5 {
				return errShortSignature
			}
			length, size = uint64(binary.BigEndian.Uint32(area[1:])), 5
		case area[0] >= 192:
			if len(area) < 2 {
				return errShortSignature
			}
			length, size = (uint64(area[0])-192)<<8+uint64(area[1])+192, 2
		}
		area = area[size:]
		if length == 0 || length > uint64(len(area)) {
			return errShortSignature
		}
		body := area[1:length]
		switch kind := area[0] & 0x7f; {
		case kind == 2 && len(body) == 4 && i.Created.IsZero():
			i.Created = time.Unix(int64(binary.BigEndian.Uint32(body)), 0)
		case kind == 16 && len(body) == 8 && i.KeyID == "":
			i.KeyID = hex.EncodeToString(body)
		case kind == 33 && len(body) > 20 && i.Fingerprint == "":
			i.Fingerprint = hex.EncodeToString(body[1:])
			if i.KeyID == "" && body[0] == 4 {
				i.KeyID = hex.EncodeToString(body[len(body)-8:])
			} else if i.KeyID == "" {
				i.KeyID = hex.EncodeToString(body[1:9])
			}
		}
		area = area[length:]
	}
	return nil
}

func (i *Info) setAlgorithms(key, hash byte) {
	i.algorithm = packet.PublicKeyAlgorithm(key)
	var ok bool
	if i.Algorithm, ok = algorithms[key]; !ok {
		i.Algorithm = fmt.Sprintf("algorithm %d", key)
	}
	if i.Hash, ok = hashes[hash]; !ok {
		i.Hash = fmt.Sprintf("hash %d", hash)
	}
}

// The tables of RFC 9580 9.1 and 9.5, with the draft of the post-quantum ones.
var algorithms = map[byte]string{
	1: "RSA", 3: "RSA", 17: "DSA", 19: "ECDSA", 22: "EdDSA", 27: "Ed25519", 28: "Ed448",
	30: "ML-DSA-65+Ed25519", 31: "ML-DSA-87+Ed448",
	32: "SLH-DSA-SHAKE-128s", 33: "SLH-DSA-SHAKE-128f", 34: "SLH-DSA-SHAKE-256s",
}

var hashes = map[byte]string{
	1: "MD5", 2: "SHA1", 3: "RIPEMD160", 8: "SHA256", 9: "SHA384", 10: "SHA512", 11: "SHA224",
	12: "SHA3-256", 14: "SHA3-512",
}

func (i Info) rsa() bool {
	return i.algorithm == packet.PubKeyAlgoRSA || i.algorithm == packet.PubKeyAlgoRSASignOnly
}
