package sign

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// XattrName is the extended attribute in which the kernel looks for a file
// signature.
const XattrName = "security.ima"

// Layout of a file signature, struct signature_v2_hdr of the kernel's
// security/integrity/integrity.h behind the attribute's type byte:
//
//	0  type       03 (EVM_IMA_XATTR_DIGSIG)
//	1  version    02, or 03
//	2  hash_algo  enum hash_algo
//	3  key id     4 bytes, big endian
//	7  sig_size   2 bytes, big endian; exactly the length of what follows
//	9  signature  RSA: PKCS#1 v1.5 with DigestInfo; ECDSA: ASN.1 DER
const (
	signatureType   = 0x03
	signatureHeader = 9

	// maxSignature bounds sig_size: ML-DSA-87, the largest algorithm that the
	// kernel knows, makes 4627 bytes.
	maxSignature = 4627
)

// A Signature is a file signature, the value of security.ima.
type Signature struct {
	// Version is 2, or 3 which Linux takes from 7.1 on.
	Version uint8
	// Hash is the algorithm of the digest that is signed.
	Hash Hash
	// KeyID names the key that signed.
	KeyID KeyID
	// Sig is the raw signature: PKCS#1 v1.5 or ASN.1 DER.
	Sig []byte
}

// ErrWrongByteOrder says that a signature's size field is little endian, as one
// signing service wrote it for years. The kernel refuses such a value.
var ErrWrongByteOrder = errors.New("signature size is in the wrong byte order (little endian)")

// ErrZeroSignature says that a value is filled with zeros, which old versions of
// rpmsign wrote in place of a signature.
var ErrZeroSignature = errors.New("value is all zeros")

// ParseSignature reads the value of security.ima. It accepts what the kernel
// accepts: the size field must state exactly what follows. Sig aliases value.
// Its errors are [ErrWrongByteOrder], [ErrZeroSignature], or text that says what
// is malformed and at which offset.
func ParseSignature(value []byte) (Signature, error) {
	if len(value) < signatureHeader {
		return Signature{}, fmt.Errorf("%d bytes are too short for a signature, whose header has %d", len(value), signatureHeader)
	}
	if allZero(value) {
		return Signature{}, ErrZeroSignature
	}
	if value[0] != signatureType {
		return Signature{}, fmt.Errorf("type at offset 0 is %#02x, not %#02x (signature)", value[0], signatureType)
	}
	s := Signature{
		Version: value[1],
		Hash:    Hash(value[2]),
		KeyID:   KeyID(binary.BigEndian.Uint32(value[3:])),
		Sig:     value[signatureHeader:],
	}
	switch s.Version {
	case 2, 3:
	case 1:
		return Signature{}, errors.New("version at offset 1 is 1, which kernels no longer take")
	default:
		return Signature{}, fmt.Errorf("version at offset 1 is %d, not 2 or 3", s.Version)
	}
	if !s.Hash.Known() {
		return Signature{}, fmt.Errorf("hash algorithm at offset 2 is %d, which is not known", value[2])
	}
	size := int(binary.BigEndian.Uint16(value[7:]))
	if size != len(s.Sig) {
		if int(binary.LittleEndian.Uint16(value[7:])) == len(s.Sig) {
			return Signature{}, ErrWrongByteOrder
		}
		return Signature{}, fmt.Errorf("size at offset 7 is %d, but %d bytes follow", size, len(s.Sig))
	}
	if size == 0 || size > maxSignature {
		return Signature{}, fmt.Errorf("size at offset 7 is %d, not 1 to %d", size, maxSignature)
	}
	return s, nil
}

// AppendBinary appends the value of security.ima to b. It fails when Sig is
// empty or too long for the size field.
func (s Signature) AppendBinary(b []byte) ([]byte, error) {
	if len(s.Sig) == 0 || len(s.Sig) > maxSignature {
		return b, fmt.Errorf("a signature of %d bytes cannot be encoded", len(s.Sig))
	}
	b = append(b, signatureType, s.Version, byte(s.Hash))
	b = binary.BigEndian.AppendUint32(b, uint32(s.KeyID))
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.Sig)))
	return append(b, s.Sig...), nil
}

// MarshalBinary returns the value of security.ima.
func (s Signature) MarshalBinary() ([]byte, error) {
	return s.AppendBinary(make([]byte, 0, signatureHeader+len(s.Sig)))
}

// Algorithm names the kind of key that made s, such as "RSA-2048" or
// "ECDSA P-256", as far as the length of the signature tells it.
func (s Signature) Algorithm() string {
	if n := len(s.Sig); n >= 256 && n%64 == 0 {
		return fmt.Sprintf("RSA-%d", 8*n)
	}
	if len(s.Sig) == 0 || s.Sig[0] != 0x30 {
		return "unknown"
	}
	for _, c := range []struct {
		name string
		size int // of a coordinate in bytes
	}{{"P-256", 32}, {"P-384", 48}, {"P-521", 66}} {
		// Two integers, each with tag, length and perhaps a zero in front, inside a
		// sequence whose length needs a second byte from 128 on.
		if len(s.Sig) <= 2*c.size+9 {
			return "ECDSA " + c.name
		}
	}
	return "unknown"
}

// signedDigest returns what the private key signs for a file whose digest is
// digest: version 2 signs it as it is, version 3 a hash of struct ima_file_id,
// which names the attribute's type and the algorithm too.
func (s Signature) signedDigest(digest []byte) []byte {
	if s.Version != 3 {
		return digest
	}
	h := s.Hash.Crypto().New()
	h.Write([]byte{signatureType, byte(s.Hash)})
	h.Write(digest)
	return h.Sum(nil)
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
