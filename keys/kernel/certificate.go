package kernel

import (
	"bytes"
	"crypto"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"

	"github.com/imaseal/imaseal/sign"
)

// KeyIdentifiers are the two usual ways to make a subject key identifier of a public
// key. A kernel computes neither: it believes the certificate.
type KeyIdentifiers struct {
	// SHA1 is that of the key's bits, RFC 5280 4.2.1.2 method 1, what openssl, evmctl
	// and imaseal make.
	SHA1 []byte
	// SHA256 is that of the same bits, cut to 160 bits, RFC 7093 method 1, what Go
	// makes by itself.
	SHA256 []byte
}

// The names of the ways.
const (
	WaySHA1   = "SHA-1 of the key bits"
	WaySHA256 = "SHA-256 of the key bits, cut to 160 bits"
	WayOther  = "made in another way"
)

// Identifiers computes both identifiers of a public key.
func Identifiers(pub crypto.PublicKey) (KeyIdentifiers, error) {
	bits, err := sign.PublicKeyBits(pub)
	if err != nil {
		return KeyIdentifiers{}, err
	}
	one, two := sha1.Sum(bits), sha256.Sum256(bits)
	return KeyIdentifiers{SHA1: one[:], SHA256: two[:len(one)]}, nil
}

// Way names how an identifier was made of the key.
func (k KeyIdentifiers) Way(skid []byte) string {
	switch {
	case bytes.Equal(skid, k.SHA1):
		return WaySHA1
	case bytes.Equal(skid, k.SHA256):
		return WaySHA256
	}
	return WayOther
}

// BlacklistName is the name under which the keyring .blacklist holds a certificate
// that must not be loaded: "tbs:" and the hash of what its issuer signed, by the hash
// of that signature. uefi_blacklist_x509_tbs puts those of the firmware's dbx there,
// which are SHA-256. It is "" where the hash is not known.
func BlacklistName(cert *x509.Certificate) string {
	var h crypto.Hash
	switch cert.SignatureAlgorithm {
	case x509.SHA1WithRSA, x509.ECDSAWithSHA1:
		h = crypto.SHA1
	case x509.SHA256WithRSA, x509.ECDSAWithSHA256:
		h = crypto.SHA256
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384:
		h = crypto.SHA384
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512:
		h = crypto.SHA512
	}
	if !h.Available() {
		return ""
	}
	sum := h.New()
	sum.Write(cert.RawTBSCertificate)
	return "tbs:" + hex.EncodeToString(sum.Sum(nil))
}

// Blacklisted tells in which keyrings of refused keys a certificate, or its key, is:
// .blacklist with its hash keeps it from being loaded once more; .blacklist with the
// key refuses modules and kernels that it signed; .ima_blacklist, with a key that has
// its key id, refuses its file signatures at once.
type Blacklisted struct {
	Hash, Key, IMA bool
}

// Blacklisted looks for a certificate in the keyrings of refused ones.
func (k *Keyrings) Blacklisted(cert *x509.Certificate) Blacklisted {
	var b Blacklisted
	among := k.All
	for _, r := range k.Named(ringBlacklist) {
		if r.Listed {
			among = r.Keys
		}
	}
	name := BlacklistName(cert)
	b.Hash = name != "" && slices.ContainsFunc(among, func(key Key) bool { return key.Type == "blacklist" && key.Description == name })
	b.Key, _ = k.Has(ringBlacklist, cert.SubjectKeyId)
	if id, err := sign.KeyIDFromCertificate(cert); err == nil {
		b.IMA = len(k.find(ringIMABlacklist, id)) > 0
	}
	return b
}
