package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/keys/kernel"
	"github.com/imaseal/imaseal/sign"
)

// A keyCard is what there is to know about a key and its certificate as kernels see
// them. It is the object that keys show --json prints, one on a line; docs/json.md
// describes it.
type keyCard struct {
	Where       string       `json:"where"`
	Certificate *certCard    `json:"certificate,omitempty"`
	KeyID       string       `json:"key_id"`
	SKIDSHA1    string       `json:"skid_sha1"`
	SKIDSHA256  string       `json:"skid_sha256"`
	Algorithm   string       `json:"algorithm"`
	KeyType     string       `json:"key_type,omitempty"`
	LabelBytes  int          `json:"label_bytes,omitempty"`
	Requires    string       `json:"requires,omitempty"`
	Kernels     []string     `json:"kernels"`
	Problems    []keyProblem `json:"problems"`

	key keys.PublicKey
	id  sign.KeyID
}

// A certCard is the part of a keyCard that a certificate has.
type certCard struct {
	Subject   string   `json:"subject"`
	Issuer    string   `json:"issuer"`
	Serial    string   `json:"serial"`
	SKID      string   `json:"skid"`
	SKIDWay   string   `json:"skid_way,omitempty"`
	AKID      string   `json:"akid"`
	Signature string   `json:"signature_algorithm"`
	NotBefore string   `json:"not_before"`
	NotAfter  string   `json:"not_after"`
	Usage     []string `json:"usage"`
	CA        bool     `json:"ca"`
	// Fingerprint is the SHA-256 of the certificate in DER.
	Fingerprint string `json:"fingerprint"`
	// BlacklistName is what keeps the certificate out of keyrings when it is in
	// .blacklist: kernel.BlacklistName.
	BlacklistName string `json:"blacklist_name,omitempty"`
	// Role is roleCA or roleSigning.
	Role string `json:"role"`
}

// The roles of a certificate, as far as files go.
const (
	roleCA      = "vouches for others" // not for .ima
	roleSigning = "signs files"
)

type keyProblem struct {
	Severity string `json:"severity"`
	Reason   string `json:"reason"`
	Detail   string `json:"detail"`
}

// newKeyCard describes a key, and judges its certificate for a kernel. cas, if not
// empty, are the CAs that can vouch for it.
func newKeyCard(key keys.PublicKey, target kernel.Target, cas []*x509.Certificate, now time.Time) (*keyCard, error) {
	c := &keyCard{Where: key.Where, Algorithm: kernel.AlgorithmName(key.Key), Kernels: []string{}, Problems: []keyProblem{}, key: key}
	ways, err := kernel.Identifiers(key.Key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key.Where, err)
	}
	c.SKIDSHA1, c.SKIDSHA256 = hex.EncodeToString(ways.SHA1), hex.EncodeToString(ways.SHA256)
	if key.Certificate != nil {
		c.id, err = sign.KeyIDFromCertificate(key.Certificate)
	} else {
		c.id, err = sign.KeyIDFromPublicKey(key.Key)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key.Where, err)
	}
	c.KeyID = c.id.String()
	typ, err := kernel.KeyTypeOf(key.Key)
	if err == nil {
		c.KeyType, c.LabelBytes, c.Requires = typ.Name, typ.Bytes, typ.Requires()
		c.Kernels = append(c.Kernels, typ.TakenBy()...)
	}
	if key.Certificate == nil {
		if err != nil {
			c.find(kernel.Useless, "key type", err.Error())
		}
		c.find(kernel.Notice, "no certificate", "kernels load certificates, and the key id is the one that its certificate will say")
		return c, nil
	}
	c.Certificate = newCertCard(key.Certificate, ways)
	c.judge(target, cas, now)
	return c, nil
}

func newCertCard(cert *x509.Certificate, ways kernel.KeyIdentifiers) *certCard {
	c := &certCard{
		Subject: distinguishedName(cert.RawSubject), Issuer: distinguishedName(cert.RawIssuer),
		Serial: hex.EncodeToString(cert.SerialNumber.Bytes()), SKID: hex.EncodeToString(cert.SubjectKeyId),
		AKID: hex.EncodeToString(cert.AuthorityKeyId), Signature: cert.SignatureAlgorithm.String(),
		NotBefore: cert.NotBefore.UTC().Format(time.RFC3339), NotAfter: cert.NotAfter.UTC().Format(time.RFC3339),
		Usage: usageNames(cert), CA: cert.IsCA, Role: roleSigning,
		Fingerprint: fmt.Sprintf("%x", sha256.Sum256(cert.Raw)), BlacklistName: kernel.BlacklistName(cert),
	}
	if isCA(cert) {
		c.Role = roleCA
	}
	if len(cert.SubjectKeyId) > 0 {
		c.SKIDWay = ways.Way(cert.SubjectKeyId)
	}
	return c
}

// distinguishedName writes a name as RFC 2253 does, its parts in the order in which
// they stand in the certificate, which pkix.Name does not keep.
func distinguishedName(raw []byte) string {
	var name pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &name); err != nil || len(rest) > 0 {
		return hex.EncodeToString(raw)
	}
	return name.String()
}

// isCA reports whether a certificate is to vouch for others. CA:TRUE alone does not
// say so: openssl req -x509 puts it into every certificate.
func isCA(cert *x509.Certificate) bool { return cert.IsCA && cert.KeyUsage&x509.KeyUsageCertSign != 0 }

// judge tells what a kernel has against the certificate, in its role.
func (c *keyCard) judge(target kernel.Target, cas []*x509.Certificate, now time.Time) {
	cert := c.key.Certificate
	found := kernel.Judge(cert, target)
	if isCA(cert) {
		found = kernel.JudgeCA(cert, target)
	}
	asked := false // the rules that keys.ChainsTo has as well
	for _, p := range found {
		c.find(p.Severity, p.Reason, p.Detail)
		asked = asked || p.Severity == kernel.Refused
	}
	if len(cas) > 0 && !isCA(cert) && !asked && target.Trusted() {
		if err := keys.ChainsTo(cert, cas); err != nil {
			c.find(kernel.Refused, "issuer", err.Error())
		}
	}
	if err := keys.CheckValidity(cert, now); err != nil {
		c.find(kernel.Notice, "validity", err.Error()+"; kernels do not look at dates, imaseal sign does")
	}
}

func (c *keyCard) find(severity kernel.Severity, reason, detail string) {
	c.Problems = append(c.Problems, keyProblem{string(severity), reason, detail})
}

// collides finds out whether a kernel with both keys in a keyring may take that of
// other for that of c. It looks for an identifier that ends in the key id: the subject
// key identifier, or serial number and issuer, which end in the issuer's name.
func (c *keyCard) collides(other *keyCard) {
	if other == c || keys.Same(c.key.Key, other.key.Key) {
		return
	}
	if other.id == c.id {
		c.find(kernel.Useless, "collision", fmt.Sprintf("%s is another key with the same key id: a keyring with both finds only one of them; make a new key", other.Where))
		return
	}
	if other.key.Certificate != nil && bytes.HasSuffix(other.key.Certificate.RawIssuer, binary.BigEndian.AppendUint32(nil, uint32(c.id))) {
		c.find(kernel.Useless, "collision", fmt.Sprintf("the name of the issuer of %s ends in the bytes of this key id: a keyring with both may find the wrong one; make a new key", other.Where))
	}
}

var usages = []struct {
	bit  x509.KeyUsage
	name string
}{
	{x509.KeyUsageDigitalSignature, "digitalSignature"},
	{x509.KeyUsageContentCommitment, "nonRepudiation"},
	{x509.KeyUsageKeyEncipherment, "keyEncipherment"},
	{x509.KeyUsageDataEncipherment, "dataEncipherment"},
	{x509.KeyUsageKeyAgreement, "keyAgreement"},
	{x509.KeyUsageCertSign, "keyCertSign"},
	{x509.KeyUsageCRLSign, "cRLSign"},
	{x509.KeyUsageEncipherOnly, "encipherOnly"},
	{x509.KeyUsageDecipherOnly, "decipherOnly"},
}

// usageNames returns the key usages of a certificate by the names of RFC 5280.
func usageNames(cert *x509.Certificate) []string {
	names := []string{}
	for _, u := range usages {
		if cert.KeyUsage&u.bit != 0 {
			names = append(names, u.name)
		}
	}
	return names
}

// print writes the card for people.
func (c *keyCard) print(w io.Writer) error {
	fmt.Fprintln(w, printable(c.Where))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, value string) { fmt.Fprintf(t, "  %s\t%s\n", name, orDash(value)) }
	if d := c.Certificate; d != nil {
		line("subject", printable(d.Subject))
		line("issuer", printable(d.Issuer))
		line("serial number", d.Serial)
		line("fingerprint", d.Fingerprint)
		line("blacklist name", d.BlacklistName)
		line("valid", d.NotBefore+" to "+d.NotAfter)
		line("usage", strings.Join(d.Usage, ", "))
		line("CA", map[bool]string{true: "yes", false: "no"}[d.CA])
		line("role", d.Role)
		line("signed by", d.Signature)
		line("authority key id", d.AKID)
		line("subject key id", d.SKID+prefixed(", ", d.SKIDWay))
	}
	line("  by SHA-1", c.SKIDSHA1)
	line("  by SHA-256", c.SKIDSHA256)
	line("key id", c.KeyID)
	line("key", c.Algorithm)
	if c.LabelBytes > 0 {
		line("label", fmt.Sprintf("at most %d bytes a file", c.LabelBytes))
		line("kernels", c.Requires+": "+strings.Join(c.Kernels, ", "))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, p := range c.Problems {
		if _, err := fmt.Fprintf(w, "  %s: %s\n", p.Severity, printable(p.Detail)); err != nil {
			return err
		}
	}
	return nil
}
