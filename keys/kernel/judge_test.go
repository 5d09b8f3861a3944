package kernel

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

type issuer struct {
	key  crypto.Signer
	cert *x509.Certificate
}

// issue makes a certificate as imaseal makes them, after change; without an issuer
// one that is signed by itself.
func issue(t *testing.T, by *issuer, key crypto.Signer, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(4e9, 0), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if identifiers, err := Identifiers(key.Public()); err == nil {
		template.SubjectKeyId = identifiers.SHA1
	}
	if change != nil {
		change(template)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func ecKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func asCA(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	c.Subject.CommonName = "test CA"
}

func subCA(c *x509.Certificate) {
	asCA(c)
	c.Subject.CommonName = "test CA below it"
}

func summary(found []Problem) string {
	var words []string
	for _, p := range found {
		words = append(words, fmt.Sprintf("%s: %s", p.Severity, p.Reason))
	}
	return strings.Join(words, ", ")
}

func TestJudge(t *testing.T) {
	p256, rsa2048 := ecKey(t, elliptic.P256()), rsaKey(t, 2048)
	ca := func(key crypto.Signer, change func(*x509.Certificate)) *issuer {
		return &issuer{key, issue(t, nil, key, func(c *x509.Certificate) {
			asCA(c)
			if change != nil {
				change(c)
			}
		})}
	}
	rsaCA, ecCA := ca(rsa2048, nil), ca(ecKey(t, elliptic.P384()), nil)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	newest := Target{}
	bookworm, trusted := TargetOf(parsed(t, debian12)), TargetOf(parsed(t, trustedConfig))
	trusted.Version = Version{6, 12}
	noECDSA := TargetOf(parsed(t, strings.Replace(trustedConfig, "CONFIG_CRYPTO_ECDSA=m\n", "", 1)))
	old := func(major, minor int) Target { return Target{Version: Version{major, minor}} }

	for _, test := range []struct {
		name   string
		cert   *x509.Certificate
		target Target
		want   string
	}{
		{"as imaseal makes it", issue(t, rsaCA, p256, nil), newest, ""},
		{"on a trusted keyring", issue(t, rsaCA, p256, nil), trusted, ""},
		{"ECDSA on Debian 12", issue(t, rsaCA, p256, nil), bookworm, "useless: key type, notice: hash"},
		{"RSA on Debian 12", issue(t, rsaCA, rsa2048, nil), bookworm, "notice: hash"},
		{"no usage, signed by itself, on Debian 12, which asks for nothing", issue(t, nil, rsa2048, func(c *x509.Certificate) { c.KeyUsage = 0 }), bookworm, "notice: hash"},
		{"ECDSA before Linux 5.13", issue(t, rsaCA, p256, nil), old(5, 10), "useless: key type"},
		{"ECDSA that a distribution carried back", issue(t, rsaCA, p256, nil), Target{Version: Version{4, 18}, Config: trusted.Config}, ""},
		{"P-521 before Linux 6.10, where there is ECDSA", issue(t, rsaCA, ecKey(t, elliptic.P521()), nil), Target{Version: Version{5, 14}, Config: trusted.Config}, "refused: key type"},
		{"P-521 before Linux 6.10", issue(t, rsaCA, ecKey(t, elliptic.P521()), nil), old(6, 9), "refused: key type"},
		{"P-521", issue(t, rsaCA, ecKey(t, elliptic.P521()), nil), trusted, ""},
		{"P-224", issue(t, rsaCA, ecKey(t, elliptic.P224()), nil), newest, "refused: key type"},
		{"RSA-2560", issue(t, rsaCA, rsaKey(t, 2560), nil), newest, "useless: key type"},
		{"Ed25519", issue(t, rsaCA, edKey, nil), newest, "refused: key type"},
		{"an Ed25519 CA", issue(t, ca(edKey, nil), p256, nil), newest, "refused: signature"},
		{"RSA-PSS", issue(t, rsaCA, p256, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA256WithRSAPSS }), newest, "refused: signature"},
		{"an ECDSA CA without CRYPTO_ECDSA", issue(t, ecCA, rsa2048, nil), noECDSA, "refused: signature"},
		{"an ECDSA CA on Debian 12, which asks for none", issue(t, ecCA, rsa2048, nil), bookworm, "notice: hash"},
		{"no usage", issue(t, rsaCA, p256, func(c *x509.Certificate) { c.KeyUsage = 0 }), newest, "refused: usage"},
		{"no usage before Linux 6.6", issue(t, rsaCA, p256, func(c *x509.Certificate) { c.KeyUsage = 0 }), old(6, 5), "notice: usage"},
		{"another usage", issue(t, rsaCA, p256, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }), newest, "refused: usage"},
		{"a CA", issue(t, rsaCA, p256, subCA), newest, "refused: usage, refused: CA"},
		{"a CA that may sign", issue(t, rsaCA, p256, func(c *x509.Certificate) { subCA(c); c.KeyUsage |= x509.KeyUsageDigitalSignature }), newest, "refused: CA"},
		{"signed by itself", issue(t, nil, p256, nil), newest, "refused: self-signed"},
		{"no identifier", issue(t, rsaCA, p256, func(c *x509.Certificate) { c.SubjectKeyId = nil }), newest, "useless: no identifier"},
		{"a short identifier", issue(t, rsaCA, p256, func(c *x509.Certificate) { c.SubjectKeyId = []byte{1, 2} }), newest, "useless: no identifier"},
		{"no IMA", issue(t, rsaCA, p256, nil), TargetOf(parsed(t, "CONFIG_CRYPTO_ECDSA=y\n")), "useless: kernel"},
	} {
		t.Run(test.name, func(t *testing.T) {
			found := Judge(test.cert, test.target)
			if got := summary(found); got != test.want {
				t.Errorf("%s, not %s: %v", got, test.want, found)
			}
		})
	}

	// crypto/x509 puts the identifier of the issuer in, where the issuer has one.
	nameless := ca(rsa2048, nil)
	nameless.cert.SubjectKeyId = nil
	bare := issue(t, nameless, p256, nil)
	if got := summary(Judge(bare, newest)); got != "notice: no issuer identifier" {
		t.Errorf("without issuer identifier: %s", got)
	}
	if got := summary(Judge(bare, old(5, 17))); got != "refused: no issuer identifier" {
		t.Errorf("without issuer identifier before Linux 5.18: %s", got)
	}
	// crypto/x509 makes no signature by SHA-1 any more.
	weak := *issue(t, rsaCA, p256, nil)
	weak.SignatureAlgorithm = x509.SHA1WithRSA
	if got := summary(Judge(&weak, newest)); got != "refused: signature" {
		t.Errorf("SHA-1: %s", got)
	}
}

func TestJudgeCA(t *testing.T) {
	key := rsaKey(t, 2048)
	max := "CONFIG_INTEGRITY_CA_MACHINE_KEYRING=y\nCONFIG_INTEGRITY_CA_MACHINE_KEYRING_MAX=y\n"
	both := func(c *x509.Certificate) { asCA(c); c.KeyUsage |= x509.KeyUsageDigitalSignature }
	for _, test := range []struct {
		name   string
		change func(*x509.Certificate)
		config string
		want   string
	}{
		{"as imaseal makes it", asCA, trustedConfig + max, ""},
		{"no CA", nil, trustedConfig + "CONFIG_INTEGRITY_CA_MACHINE_KEYRING=y\n", "refused: no CA"},
		{"no CA where none is asked for", nil, trustedConfig, "notice: no CA"},
		{"a keyring that asks for none", asCA, debian12, "notice: kernel"},
		{"may sign", both, trustedConfig, "notice: usage"},
		{"may sign where that is forbidden", both, trustedConfig + max, "refused: usage"},
		{"no machine keyring", asCA, strings.Replace(trustedConfig, "CONFIG_INTEGRITY_MACHINE_KEYRING=y\n", "", 1), "useless: kernel"},
		{"IMA asks the builtin keyring only", asCA, strings.Replace(trustedConfig, "CONFIG_IMA_KEYRINGS_PERMIT_SIGNED_BY_BUILTIN_OR_SECONDARY=y\n", "", 1), "useless: kernel"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := summary(JudgeCA(issue(t, nil, key, test.change), TargetOf(parsed(t, test.config)))); got != test.want {
				t.Errorf("%q, not %q", got, test.want)
			}
		})
	}
}

func TestIdentifiers(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	got, err := Identifiers(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	bits, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	want := sha256.Sum256(bits)
	if !slices.Equal(got.SHA256, want[:20]) {
		t.Errorf("%x, not %x", got.SHA256, want[:20])
	}
	// Go's own way is that of a CA whose template names none.
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if way := got.Way(cert.SubjectKeyId); way != WaySHA256 {
		t.Errorf("Go's identifier is %s", way)
	}
	if got.Way(got.SHA1) != WaySHA1 || got.Way([]byte{1}) != WayOther {
		t.Error("the ways are told apart wrongly")
	}
	if _, err := Identifiers("no key"); err == nil {
		t.Error("a text has identifiers")
	}
}

func TestBlacklisted(t *testing.T) {
	cert := issue(t, nil, rsaKey(t, 2048), nil)
	sum := sha256.Sum256(cert.RawTBSCertificate)
	name := "tbs:" + hex.EncodeToString(sum[:])
	if got := BlacklistName(cert); got != name {
		t.Errorf("%s, not %s", got, name)
	}
	id := hex.EncodeToString(cert.SubjectKeyId)
	line := "0000000%d I------     1 perm 09090000     0     0 %-9.9s %s\n"
	asymmetric := fmt.Sprintf("test: %s: X509.rsa %s []", id, id[32:])
	keys := fmt.Sprintf(line+line+line+line,
		1, "keyring", ".blacklist: 2", 2, "keyring", ".ima_blacklist: 1", 3, "blacklist", name, 4, "asymmetric", asymmetric)
	parsedKeys, err := parseKeys(strings.NewReader(keys))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		members map[int32][]int32
		want    Blacklisted
	}{
		{"its hash", map[int32][]int32{1: {3}}, Blacklisted{Hash: true}},
		{"its key", map[int32][]int32{1: {4}}, Blacklisted{Key: true}},
		{"its key, for IMA", map[int32][]int32{2: {4}}, Blacklisted{IMA: true}},
		{"nothing", nil, Blacklisted{}},
	} {
		rings := gather(parsedKeys, &asker{
			members: func(serial int32) ([]int32, error) { return test.members[serial], nil },
			describe: func(serial int32) (string, error) {
				k := parsedKeys[slices.IndexFunc(parsedKeys, func(k Key) bool { return k.Serial == serial })]
				return k.Type + ";0;0;0;" + k.Description, nil
			},
		})
		if got := rings.Blacklisted(cert); got != test.want {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
	if got := gather(parsedKeys, nil).Blacklisted(cert); !got.Hash {
		t.Error("a copy of /proc/keys tells which hashes are refused")
	}
}
