package kernel

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/imaseal/imaseal/sign"
)

// A Machine is a kernel with what it holds.
type Machine struct {
	Target
	// Keyrings are those of the kernel; nil when they were not looked at.
	Keyrings *Keyrings
}

// Visible reports whether it can be told what is in the kernel's keyrings.
func (m Machine) Visible() bool { return m.Keyrings != nil && m.Keyrings.Visible }

// A Verdict says whether a kernel verifies the file signatures of a key.
type Verdict string

// The verdicts.
const (
	// Verifies: the key is in the keyring, and nothing is against it.
	Verifies Verdict = "verifies"
	// Fits: the kernel will take the certificate and verify by its key. Whether it has
	// it cannot be told from here.
	Fits Verdict = "fits"
	// NotLoaded: the same, and the key is not in the keyring.
	NotLoaded Verdict = "not loaded"
	// Not: the kernel refuses the certificate, or verifies nothing by its key.
	Not Verdict = "does not verify"
)

// A Check is what a kernel does with the file signatures of one key.
type Check struct {
	Verdict Verdict
	// In are the keyrings that hold the key; IssuerIn those that hold the key which
	// issued its certificate. Listed says that /proc/keys has the key, and not where.
	In, IssuerIn []string
	Listed       bool
	Blacklisted  Blacklisted
	Problems     []Problem // worst first
}

// Check tells what the kernel does with the file signatures of a certificate's key.
// chain, if not nil, is why none of the CAs that the caller knows issued it.
func (m Machine) Check(cert *x509.Certificate, chain error) Check {
	c := Check{In: []string{}, IssuerIn: []string{}}
	found := problems(Judge(cert, m.Target))
	if chain != nil && m.Trusted() && !slices.ContainsFunc(found, func(p Problem) bool { return p.Severity == Refused }) {
		found.add(Refused, "issuer", "%s", chain)
	}
	loaded, certain := false, false
	if m.Keyrings != nil {
		loaded, certain = m.Keyrings.Has(m.Keyring(), cert.SubjectKeyId)
		m.locate(&c, cert)
		if !c.Listed && m.Visible() {
			certain = true // root sees every key of these keyrings in /proc/keys
		}
		m.judgeVoucher(&found, &c, cert, loaded)
		m.judgeBlacklist(&found, &c, cert, loaded)
		m.judgeCollision(&found, cert)
	}
	if loaded {
		// What a keyring has against a certificate does not matter once it is in it.
		for i, p := range found {
			if p.Severity == Refused && p.Reason != "blacklisted" {
				found[i].Severity = Notice
			}
		}
	}
	slices.SortStableFunc(found, func(a, b Problem) int { return a.Severity.rank() - b.Severity.rank() })
	c.Problems = found
	switch {
	case len(found) > 0 && found[0].Severity != Notice:
		c.Verdict = Not
	case loaded:
		c.Verdict = Verifies
	case certain:
		c.Verdict = NotLoaded
	default:
		c.Verdict = Fits
	}
	return c
}

// locate finds the key and that of its issuer.
func (m Machine) locate(c *Check, cert *x509.Certificate) {
	c.Listed = m.Keyrings.Seen(cert.SubjectKeyId)
	for _, name := range keyringNames {
		if has, _ := m.Keyrings.Has(name, cert.SubjectKeyId); has {
			c.In = append(c.In, name)
		}
		if has, _ := m.Keyrings.Has(name, cert.AuthorityKeyId); has && slices.Contains([]string{ringBuiltin, ringSecondary, ringMachine, ringPlatform}, name) {
			c.IssuerIn = append(c.IssuerIn, name)
		}
	}
}

// judgeVoucher looks for the issuer among the keys that can vouch for the certificate.
func (m Machine) judgeVoucher(found *problems, c *Check, cert *x509.Certificate, loaded bool) {
	vouchers := m.Vouchers()
	if loaded || len(vouchers) == 0 || len(cert.AuthorityKeyId) == 0 || selfSigned(cert) {
		return
	}
	for _, name := range vouchers {
		has, certain := m.Keyrings.Has(name, cert.AuthorityKeyId)
		if has || !certain && (!m.Visible() || m.Keyrings.Seen(cert.AuthorityKeyId)) {
			return
		}
	}
	detail := fmt.Sprintf("the key that issued it (%x) is in none of %s", cert.AuthorityKeyId, list(vouchers))
	if len(c.IssuerIn) > 0 {
		detail += fmt.Sprintf("; it is in %s, whose word does not count here", list(c.IssuerIn))
	}
	found.add(Refused, "no voucher", "%s", detail)
}

func (m Machine) judgeBlacklist(found *problems, c *Check, cert *x509.Certificate, loaded bool) {
	c.Blacklisted = m.Keyrings.Blacklisted(cert)
	if c.Blacklisted.IMA {
		who := "the key"
		if has, _ := m.Keyrings.Has(ringIMABlacklist, cert.SubjectKeyId); !has {
			who = "another key with the same key id"
		}
		found.add(Useless, "blacklisted", "%s is in .ima_blacklist: every file signature by it is refused", who)
	}
	if c.Blacklisted.Hash {
		severity := Refused
		if loaded {
			severity = Notice
		}
		found.add(severity, "blacklisted", "the hash of the certificate is in .blacklist: it is not let into a keyring any more")
	}
	if c.Blacklisted.Key {
		found.add(Notice, "blacklisted", "the key is in .blacklist: modules and kernels that it signed are refused, signatures of files are not")
	}
}

// judgeCollision looks for another key that the kernel finds in place of this one.
func (m Machine) judgeCollision(found *problems, cert *x509.Certificate) {
	id, err := sign.KeyIDFromCertificate(cert)
	if err != nil || len(cert.SubjectKeyId) < 4 {
		return // of no use anyway
	}
	for _, key := range m.Keyrings.find(m.Keyring(), id) {
		if !key.Is(cert.SubjectKeyId) {
			found.add(Useless, "collision", "another key with the same key id is in %s, %q: a keyring with both finds only one of them", m.Keyring(), key.Description)
		}
	}
}

func list(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " and " + words[last]
}
