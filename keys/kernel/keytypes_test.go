package kernel

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"math/big"
	"slices"
	"strings"
	"testing"
)

func rsaOf(bits uint) *rsa.PublicKey {
	return &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), int(bits-1), 1), E: 65537}
}

func TestKeyTypeOf(t *testing.T) {
	ec := func(curve elliptic.Curve) *ecdsa.PublicKey { return &ecdsa.PublicKey{Curve: curve} }
	for _, test := range []struct {
		name, want, problem string
		key                 crypto.PublicKey
	}{
		{"P-256", "p256", "", ec(elliptic.P256())},
		{"P-384", "p384", "", ec(elliptic.P384())},
		{"P-521", "p521", "", ec(elliptic.P521())},
		{"P-224 is no curve of the kernel's", "", "curve P-224", ec(elliptic.P224())},
		{"RSA-2048", "rsa2048", "", rsaOf(2048)},
		{"a modulus whose first bit is not set", "rsa2048", "", rsaOf(2047)},
		{"RSA-3072", "rsa3072", "", rsaOf(3072)},
		{"RSA-4096", "rsa4096", "", rsaOf(4096)},
		{"RSA-1024 is short", "", "too short", rsaOf(1024)},
		{"RSA-2560 loads and never verifies", "", "never verify", rsaOf(2560)},
		{"RSA-8192 likewise", "", "never verify", rsaOf(8192)},
		{"Ed25519", "", "Ed25519", ed25519.PublicKey(make([]byte, 32))},
		{"nothing", "", "unknown algorithm", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := KeyTypeOf(test.key)
			if got.Name != test.want {
				t.Errorf("type %q, not %q", got.Name, test.want)
			}
			if (err != nil) != (test.problem != "") || err != nil && !strings.Contains(err.Error(), test.problem) {
				t.Errorf("error %v does not say %q", err, test.problem)
			}
		})
	}
}

func TestStockKernelsTakeKeyTypes(t *testing.T) {
	for _, test := range []struct {
		key  string
		want []string
	}{
		{"rsa2048", []string{"Debian 12", "Debian 13", "Debian forky", "RHEL 9", "RHEL 10"}},
		{"p256", []string{"Debian 13", "Debian forky", "RHEL 9", "RHEL 10"}}, // 6.1 is new enough, but not configured
		{"p521", []string{"Debian 13", "Debian forky", "RHEL 10"}},           // 5.14 is too old
	} {
		typ, err := KeyTypeByName(test.key)
		if err != nil {
			t.Fatal(err)
		}
		if got := typ.TakenBy(); !slices.Equal(got, test.want) {
			t.Errorf("%s is taken by %q, not %q", test.key, got, test.want)
		}
	}
	if _, err := KeyTypeByName("ed25519"); err == nil || !strings.Contains(err.Error(), "rsa3072 or rsa4096") {
		t.Errorf("an unknown type gives %v", err)
	}
	for _, line := range strings.Split(KeyTypeHelp()+SignatureHelp(), "\n") {
		if len(line) > 110 {
			t.Errorf("a line of the help is %d wide: %s", len(line), line)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for _, test := range []struct {
		text string
		want Version
	}{
		{"6.12.48+deb13-cloud-amd64", Version{6, 12}},
		{"5.14.0-503.el9.x86_64", Version{5, 14}},
		{"7.2", Version{7, 2}},
		{"7.3~rc1", Version{7, 3}},
		{"", Version{}}, {"six", Version{}}, {"6", Version{}}, {"6.x", Version{}}, {"99999.1", Version{}},
	} {
		got, err := ParseVersion(test.text)
		if got != test.want || (err == nil) != got.Known() {
			t.Errorf("%q is %v, %v", test.text, got, err)
		}
	}
	if !(Version{5, 13}).Before(Version{6, 1}) || (Version{6, 10}).Before(Version{6, 9}) || (Version{6, 1}).Before(Version{6, 1}) {
		t.Error("versions are ordered wrongly")
	}
}
