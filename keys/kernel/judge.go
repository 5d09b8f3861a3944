package kernel

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
)

// A Severity says what comes of a [Problem].
type Severity string

// The severities, worst first.
const (
	// Refused: the kernel does not let the certificate into the keyring.
	Refused Severity = "refused"
	// Useless: it is in the keyring, and no file signature by its key verifies.
	Useless Severity = "useless"
	// Notice: it works, and there is something to know.
	Notice Severity = "notice"
)

// A Problem is what a kernel has against a certificate, or a reader should know.
type Problem struct {
	Severity Severity
	// Reason is a short name that stays the same; Detail a sentence for people.
	Reason, Detail string
}

// A Target is the kernel that a certificate is judged for. The zero value is the
// strictest: a new one whose keyring is .ima.
type Target struct {
	Version Version // not Known: the newest
	Config  *Config // nil: everything that verifies is switched on
	// Root says that the keyring is _ima, which root makes, where no Config tells.
	Root bool
}

// TargetOf returns the kernel of a configuration.
func TargetOf(c *Config) Target { return Target{Version: c.Version, Config: c} }

func (t Target) before(v Version) bool { return t.Version.Known() && t.Version.Before(v) }

// Trusted reports whether the kernel's keyring for file signatures takes only what a
// trusted certificate vouches for.
func (t Target) Trusted() bool {
	if t.Config == nil {
		return !t.Root
	}
	return t.Config.Trusted()
}

// Keyring returns the name of the keyring that IMA looks into.
func (t Target) Keyring() string {
	if t.Trusted() {
		return ".ima"
	}
	return "_ima"
}

// Vouchers returns the keyrings whose certificates can vouch for one in .ima, nil when
// it is _ima. The secondary keyring has links to the builtin one and, since Linux
// 5.18, to that of machine owner keys.
func (t Target) Vouchers() []string {
	switch c := t.Config; {
	case !t.Trusted():
		return nil
	case c != nil && !c.Has("IMA_KEYRINGS_PERMIT_SIGNED_BY_BUILTIN_OR_SECONDARY"):
		return []string{ringBuiltin}
	case c != nil && !c.Has("INTEGRITY_MACHINE_KEYRING"):
		return []string{ringBuiltin, ringSecondary}
	}
	return []string{ringBuiltin, ringSecondary, ringMachine}
}

// Judge tells what the kernel will have against a certificate of a key that signs
// files, apart from who issued it: that is for the caller to check, as keys.ChainsTo
// does. Kernels do not look at dates.
func Judge(cert *x509.Certificate, t Target) []Problem {
	var found problems
	judgeKernel(&found, t)
	judgeKey(&found, cert, t)
	judgeSignature(&found, cert, t)
	judgeIdentifier(&found, cert)
	if t.Trusted() {
		judgeUsage(&found, cert, t)
		judgeIssuer(&found, cert, t)
	}
	slices.SortStableFunc(found, func(a, b Problem) int { return a.Severity.rank() - b.Severity.rank() })
	return found
}

func (s Severity) rank() int { return slices.Index([]Severity{Refused, Useless, Notice}, s) }

type problems []Problem

func (p *problems) add(s Severity, reason, format string, args ...any) {
	*p = append(*p, Problem{s, reason, fmt.Sprintf(format, args...)})
}

// judgeKernel looks for what IMA-appraisal by signatures needs at all.
func judgeKernel(found *problems, t Target) {
	if t.Config == nil {
		return
	}
	for _, option := range []string{"IMA", "IMA_APPRAISE", "INTEGRITY_SIGNATURE", "INTEGRITY_ASYMMETRIC_KEYS"} {
		if !t.Config.Has(option) {
			found.add(Useless, "kernel", "the kernel has no %s: it verifies no file signature at all", option)
			return
		}
	}
	switch t.Config.Value(optionSHA512) {
	case "y":
	case "m":
		found.add(Notice, "hash", "%s is a module: digests by sha384 and sha512 verify once it is loaded", optionSHA512)
	default:
		found.add(Notice, "hash", "this kernel has no %s: sign with --hash sha256", optionSHA512)
	}
}

func judgeKey(found *problems, cert *x509.Certificate, t Target) {
	typ, err := KeyTypeOf(cert.PublicKey)
	if err != nil {
		severity := Refused
		// An RSA key of any size can be loaded: only verifying fails.
		if _, ok := cert.PublicKey.(*rsa.PublicKey); ok {
			severity = Useless
		}
		found.add(severity, "key type", "%s", err)
		return
	}
	// Distributions carry changes back, so what the configuration has counts for more
	// than the version. It does not tell P-521 from the other curves.
	known := t.Config != nil && t.Config.Has(typ.Option) && typ.Name != "p521"
	switch {
	case t.Config != nil && !t.Config.Has(typ.Option):
		hint := ""
		if typ.Option == optionECDSA {
			hint = ": for it make a key of type rsa2048"
		}
		found.add(Useless, "key type", "this kernel has no %s, so it does not verify %s%s", typ.Option, typ.Label, hint)
	case t.before(typ.Since) && !known:
		severity := Useless
		if typ.Name == "p521" { // an unknown curve is an error of parsing
			severity = Refused
		}
		found.add(severity, "key type", "kernels verify %s since Linux %s, this one is %s", typ.Label, typ.Since, t.Version)
	}
}

// judgeSignature looks at the issuer's signature: a kernel cannot parse a certificate
// with an algorithm that x509_note_sig_algo does not know.
func judgeSignature(found *problems, cert *x509.Certificate, t Target) {
	switch cert.SignatureAlgorithm {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA:
	case x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
		if t.Trusted() && t.Config != nil && !t.Config.Has(optionECDSA) {
			found.add(Refused, "signature", "this kernel has no %s, so it cannot verify the CA's signature, %s", optionECDSA, cert.SignatureAlgorithm)
		}
	case x509.SHA1WithRSA, x509.ECDSAWithSHA1:
		found.add(Refused, "signature", "it is signed by SHA-1, which proves nothing: some kernels refuse it (Linux 6.7 and 6.8, those in FIPS mode), and so does imaseal")
	case x509.UnknownSignatureAlgorithm:
		found.add(Notice, "signature", "the algorithm of its signature is not known here; kernels know RSA PKCS #1 and ECDSA with SHA-2 and SHA-3")
	default:
		found.add(Refused, "signature", "no kernel knows the algorithm of its signature, %s: use RSA PKCS #1 or ECDSA with SHA-256 or better", cert.SignatureAlgorithm)
	}
}

// judgeIdentifier looks at what a kernel finds the key by: "id:" and the key id,
// which has to be the end of the subject key identifier.
func judgeIdentifier(found *problems, cert *x509.Certificate) {
	switch n := len(cert.SubjectKeyId); {
	case n == 0:
		found.add(Useless, "no identifier", "it has no subject key identifier: a kernel takes it and never finds its key")
	case n < 4:
		found.add(Useless, "no identifier", "its subject key identifier has %d bytes, and a key id has four: a kernel never finds its key", n)
	}
}

// judgeUsage is restrict_link_by_digsig of crypto/asymmetric_keys/restrict.c.
func judgeUsage(found *problems, cert *x509.Certificate, t Target) {
	severity, since := Refused, fmt.Sprintf("since Linux %s", sinceDigitalSignature)
	if t.before(sinceDigitalSignature) {
		severity, since = Notice, since+", and earlier where a distribution carried it back"
	}
	if cert.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		found.add(severity, "usage", "its key usage has no digitalSignature, which .ima wants %s", since)
	}
	if cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign != 0 {
		found.add(severity, "CA", "it is that of a CA (CA:TRUE or keyCertSign), which .ima refuses %s", since)
	}
}

// judgeIssuer looks at what the issuer is found by: restrict_link_by_signature.
func judgeIssuer(found *problems, cert *x509.Certificate, t Target) {
	if selfSigned(cert) {
		found.add(Refused, "self-signed", "it is signed by itself: .ima takes what a trusted CA issued")
		return
	}
	if len(cert.AuthorityKeyId) == 0 && !hasExtension(cert, oidAuthorityKeyID) {
		severity := Notice
		if t.before(Version{5, 18}) {
			severity = Refused
		}
		found.add(severity, "no issuer identifier", "it has no authority key identifier: kernels before Linux 5.18 do not find its issuer")
	}
}

// selfSigned reports whether a kernel takes the certificate for one that is signed by
// itself: x509_check_for_self_signed.
func selfSigned(cert *x509.Certificate) bool {
	if !bytes.Equal(cert.RawIssuer, cert.RawSubject) {
		return false
	}
	return len(cert.AuthorityKeyId) == 0 || bytes.Equal(cert.AuthorityKeyId, cert.SubjectKeyId)
}

var oidAuthorityKeyID = asn1.ObjectIdentifier{2, 5, 29, 35}

func hasExtension(cert *x509.Certificate, id asn1.ObjectIdentifier) bool {
	for _, e := range cert.Extensions {
		if e.Id.Equal(id) {
			return true
		}
	}
	return false
}

// JudgeCA tells what the kernel will have against a certificate that is to vouch for
// others from the keyring of machine owner keys: restrict_link_by_ca. One that is
// built into a kernel may be of any kind.
func JudgeCA(cert *x509.Certificate, t Target) []Problem {
	var found problems
	judgeKey(&found, cert, t)
	judgeSignature(&found, cert, t)
	if !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		severity := Refused
		if t.Config != nil && !t.Config.Has("INTEGRITY_CA_MACHINE_KEYRING") {
			severity = Notice // integrity_init_keyring: then it takes what it is given
		}
		found.add(severity, "no CA", "it is not that of a CA (CA:TRUE and keyCertSign), which .machine wants with INTEGRITY_CA_MACHINE_KEYRING")
	} else if cert.KeyUsage&x509.KeyUsageDigitalSignature != 0 {
		severity := Notice
		if t.Config != nil && t.Config.Has("INTEGRITY_CA_MACHINE_KEYRING_MAX") {
			severity = Refused
		}
		found.add(severity, "usage", "its key usage has digitalSignature, which .machine refuses with INTEGRITY_CA_MACHINE_KEYRING_MAX")
	}
	switch c := t.Config; {
	case c == nil:
	case !c.Trusted():
		found.add(Notice, "kernel", "this kernel's keyring for file signatures is _ima, which asks for no CA")
	case !c.Has("INTEGRITY_MACHINE_KEYRING"):
		found.add(Useless, "kernel", "the kernel has no INTEGRITY_MACHINE_KEYRING: a machine owner key goes to .platform and vouches for nothing; build the CA in (SYSTEM_TRUSTED_KEYS)")
	case !slices.Contains(t.Vouchers(), ringMachine):
		found.add(Useless, "kernel", "the kernel has no IMA_KEYRINGS_PERMIT_SIGNED_BY_BUILTIN_OR_SECONDARY: for .ima only the certificates count that are built in")
	}
	return found
}
