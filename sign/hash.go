package sign

import (
	"crypto"
	_ "crypto/md5" // named in the table; its digests are refused, not computed
	_ "crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"fmt"
	"strings"
)

// Hash is a hash algorithm by the number that the kernel gives it, enum
// hash_algo of include/uapi/linux/hash_info.h. It is the third byte of a
// [Signature]. The zero value means that no hash is named.
type Hash uint8

// The hashes that packages name. Files are signed with [SHA256], [SHA384] or
// [SHA512] only.
const (
	MD5    Hash = 1
	SHA1   Hash = 2
	SHA256 Hash = 4
	SHA384 Hash = 5
	SHA512 Hash = 6
	SHA224 Hash = 7
)

// hashes is the one table of hash numbers. openpgp is the number of RFC 9580
// 9.5, which RPM's FILEDIGESTALGO uses too; verity is that of fs-verity, 0 where
// it has none.
var hashes = []struct {
	hash    Hash
	name    string
	crypto  crypto.Hash
	openpgp int
	verity  int
	strong  bool
}{
	{MD5, "md5", crypto.MD5, 1, 0, false},
	{SHA1, "sha1", crypto.SHA1, 2, 0, false},
	{SHA256, "sha256", crypto.SHA256, 8, 1, true},
	{SHA384, "sha384", crypto.SHA384, 9, 0, true},
	{SHA512, "sha512", crypto.SHA512, 10, 2, true},
	{SHA224, "sha224", crypto.SHA224, 11, 0, false},
}

// ParseHash returns the hash of a lower- or upper-case name such as "sha256".
func ParseHash(name string) (Hash, error) {
	for _, h := range hashes {
		if strings.EqualFold(h.name, name) {
			return h.hash, nil
		}
	}
	return 0, fmt.Errorf("unknown hash algorithm %q: use sha256, sha384 or sha512", name)
}

// HashFromOpenPGP returns the hash that OpenPGP and RPM number id.
func HashFromOpenPGP(id int) (Hash, error) {
	for _, h := range hashes {
		if h.openpgp == id {
			return h.hash, nil
		}
	}
	return 0, fmt.Errorf("unknown OpenPGP hash algorithm %d", id)
}

// Known reports whether h is in imaseal's table.
func (h Hash) Known() bool { return h.Crypto() != 0 }

// Strong reports whether files are signed with h: SHA-256, SHA-384 or SHA-512.
func (h Hash) Strong() bool {
	for _, e := range hashes {
		if e.hash == h {
			return e.strong
		}
	}
	return false
}

// String returns the kernel's name of h in lower case.
func (h Hash) String() string {
	for _, e := range hashes {
		if e.hash == h {
			return e.name
		}
	}
	return fmt.Sprintf("hash algorithm %d", uint8(h))
}

// Crypto returns the standard library's number of h, 0 for an unknown one.
func (h Hash) Crypto() crypto.Hash {
	for _, e := range hashes {
		if e.hash == h {
			return e.crypto
		}
	}
	return 0
}

// OpenPGP returns the number that OpenPGP and RPM give h, 0 for an unknown one.
func (h Hash) OpenPGP() int {
	for _, e := range hashes {
		if e.hash == h {
			return e.openpgp
		}
	}
	return 0
}

// Verity returns the number that fs-verity gives h, 0 where it has none.
func (h Hash) Verity() int {
	for _, e := range hashes {
		if e.hash == h {
			return e.verity
		}
	}
	return 0
}

// Size returns the length of a digest in bytes, 0 for an unknown hash.
func (h Hash) Size() int {
	if c := h.Crypto(); c != 0 {
		return c.Size()
	}
	return 0
}
