package kernel

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"strings"
	"text/tabwriter"
)

// A KeyType is a kind of key that kernels verify file signatures with.
type KeyType struct {
	Name  string // that of imaseal keys, such as "p256"
	Label string // for people, such as "ECDSA P-256"
	// Since is the first kernel that verifies IMA signatures by it, where Option is
	// set.
	Since Version
	// Option is the configuration option that it needs, without CONFIG_. Kernels with
	// INTEGRITY_ASYMMETRIC_KEYS always have CRYPTO_RSA.
	Option string
	// Bytes is how long the attribute security.ima of a file gets at most.
	Bytes int
}

// keyTypes is the one table of key types, in the order in which help shows them:
// crypto/ecdsa.c came with Linux 5.13, its P-521 with 6.10; crypto/rsa.c takes moduli
// of whole sizes only (rsa_check_key_length). The first is the default.
var keyTypes = []KeyType{
	{"p256", "ECDSA P-256", Version{5, 13}, optionECDSA, 81},
	{"p384", "ECDSA P-384", Version{5, 13}, optionECDSA, 113},
	{"p521", "ECDSA P-521", Version{6, 10}, optionECDSA, 148},
	{"rsa2048", "RSA-2048", Version{3, 8}, optionRSA, 265},
	{"rsa3072", "RSA-3072", Version{3, 8}, optionRSA, 393},
	{"rsa4096", "RSA-4096", Version{3, 8}, optionRSA, 521},
}

const (
	optionRSA    = "CRYPTO_RSA"
	optionECDSA  = "CRYPTO_ECDSA"
	optionSHA512 = "CRYPTO_SHA512" // which is SHA-384 too
)

// sinceDigitalSignature is when .ima and .evm began to ask for the key usage:
// restrict_link_by_digsig.
var sinceDigitalSignature = Version{6, 6}

// signatures is the one table of what else than the key decides whether a signature
// is understood: its version, and the hash of what is signed. Version 3 signs a struct
// ima_file_id in place of a digest; imaseal makes version 2.
var signatures = []struct {
	what  string
	since Version // the zero value is every kernel with IMA
	needs string
}{
	{"version 2, sha256", Version{}, ""},
	{"version 2, sha384 and sha512", Version{}, optionSHA512 + ", loaded before where it is a module"},
	{"version 2, SHA-3", Version{6, 7}, "CRYPTO_SHA3"},
	{"version 3, by fs-verity", Version{5, 19}, "FS_VERITY"},
	{"version 3, of a file's content", Version{7, 1}, ""},
	{"version 3, by ML-DSA keys", Version{7, 2}, "CRYPTO_MLDSA"},
}

// A stockKernel is that of a distribution's release.
type stockKernel struct {
	name    string
	version Version
	// options are those of its configuration that matter to a key type.
	options []string
}

// stockKernels is the one table of stock kernels. Debian's configurations were read and
// their kernels booted (docs/verification.md); the others sign their own files with
// ECDSA keys.
var stockKernels = []stockKernel{
	{"Debian 12", Version{6, 1}, []string{optionRSA}},
	{"Debian 13", Version{6, 12}, []string{optionRSA, optionECDSA}},
	{"Debian forky", Version{7, 2}, []string{optionRSA, optionECDSA}},
	{"RHEL 9", Version{5, 14}, []string{optionRSA, optionECDSA}},
	{"RHEL 10", Version{6, 12}, []string{optionRSA, optionECDSA}},
}

// KeyTypes returns the key types that kernels verify file signatures with, the
// default first.
func KeyTypes() []KeyType { return append([]KeyType(nil), keyTypes...) }

// KeyTypeOf returns the type of a public key. The error says why no kernel verifies
// file signatures by it.
func KeyTypeOf(pub crypto.PublicKey) (KeyType, error) {
	name := ""
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		// The kernel counts whole 64-bit words.
		bits := (pub.N.BitLen() + 63) / 64 * 64
		if bits < 2048 {
			return KeyType{}, fmt.Errorf("an RSA key of %d bits is too short: use 2048, 3072 or 4096", pub.N.BitLen())
		}
		name = fmt.Sprintf("rsa%d", bits)
		if _, err := KeyTypeByName(name); err != nil {
			return KeyType{}, fmt.Errorf("kernels load an RSA key of %d bits and never verify with it: use 2048, 3072 or 4096", pub.N.BitLen())
		}
	case *ecdsa.PublicKey:
		switch pub.Curve {
		case elliptic.P256():
			name = "p256"
		case elliptic.P384():
			name = "p384"
		case elliptic.P521():
			name = "p521"
		default:
			return KeyType{}, fmt.Errorf("kernels do not verify signatures on curve %s: use P-256 or P-384", pub.Curve.Params().Name)
		}
	default:
		return KeyType{}, fmt.Errorf("kernels do not verify signatures of %s: use an RSA or ECDSA key", AlgorithmName(pub))
	}
	return KeyTypeByName(name)
}

// KeyTypeByName returns the key type of a name such as "p256" or "rsa2048".
func KeyTypeByName(name string) (KeyType, error) {
	var names []string
	for _, t := range keyTypes {
		if t.Name == name {
			return t, nil
		}
		names = append(names, t.Name)
	}
	last := len(names) - 1
	return KeyType{}, fmt.Errorf("unknown type of key %q: use %s or %s", name, strings.Join(names[:last], ", "), names[last])
}

// AlgorithmName names a public key for people, whatever it is: "RSA-2048",
// "ECDSA P-256", "Ed25519".
func AlgorithmName(pub crypto.PublicKey) string {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA-%d", pub.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + pub.Curve.Params().Name
	case nil:
		return "an unknown algorithm"
	}
	name := strings.TrimPrefix(fmt.Sprintf("%T", pub), "*")
	name, _, _ = strings.Cut(name, ".")
	switch name {
	case "ed25519":
		return "Ed25519"
	case "ecdh":
		return "ECDH"
	}
	return strings.ToUpper(name)
}

// TakenBy returns the names of the stock kernels that verify signatures by keys of
// this type.
func (t KeyType) TakenBy() []string {
	var names []string
	for _, r := range stockKernels {
		if r.takes(t) {
			names = append(names, r.name)
		}
	}
	return names
}

// takes reports whether the stock kernel verifies signatures by keys of the type.
func (r stockKernel) takes(t KeyType) bool {
	if r.version.Before(t.Since) {
		return false
	}
	for _, o := range r.options {
		if o == t.Option {
			return true
		}
	}
	return false
}

// Requires says in a phrase which kernels verify signatures by keys of this type.
func (t KeyType) Requires() string {
	if t.Option == optionRSA {
		return "every kernel with IMA"
	}
	return fmt.Sprintf("Linux %s with %s", t.Since, t.Option)
}

// KeyTypeHelp is the table of key types, for the help of commands.
func KeyTypeHelp() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "TYPE\tLABEL\tVERIFIED BY\tSTOCK KERNELS\n")
	for _, t := range keyTypes {
		fmt.Fprintf(w, "%s\t%d B\t%s\t%s\n", t.Name, t.Bytes, t.Requires(), strings.Join(t.TakenBy(), ", "))
	}
	w.Flush() // to memory: it can't fail
	return b.String()
}

// SignatureHelp is the table of signatures, for the help of commands.
func SignatureHelp() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "SIGNATURE\tVERIFIED BY\n")
	for _, s := range signatures {
		words := "every kernel with IMA"
		if s.since.Known() {
			words = "Linux " + s.since.String()
		}
		if s.needs != "" {
			words += " with " + s.needs
		}
		fmt.Fprintf(w, "%s\t%s\n", s.what, words)
	}
	w.Flush() // to memory: it can't fail
	return b.String()
}
