package sign

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// A Statement binds the file signatures of a package to their names and to the
// package, for a format whose own signature does not. It is the control member
// ima-package of a .deb:
//
//	Format: imaseal-package-1
//	Package: hello
//	Version: 2.10-3
//	Architecture: amd64
//	Select: all
//	Exclude: /usr/share/doc/**
//	Hash: sha256
//	SHA256-control: 64 hexadecimal digits
//	SHA256-md5sums: …
//	SHA256-ima-signatures: …
//	SHA256-ima-control-signatures: …
//	SHA256-data.tar: …
//	Signature: 0s…
//
// Select and Exclude stand once for each rule, Exclude not at all where nothing
// is excluded. The signature is a file signature over all bytes before its line,
// by the algorithm that Hash names.
type Statement struct {
	Package   string
	Version   string
	Arch      string
	Selection Selection
	Hash      Hash
	Members   []MemberDigest
	// Signature is the value of the last line, a [Signature].
	Signature []byte
}

// A MemberDigest is the SHA-256 of a part of the package.
type MemberDigest struct {
	Name   string
	SHA256 [sha256.Size]byte
}

// What a statement calls the signatures of the payload and those of the control files.
const (
	PayloadSignatures = "ima-signatures"
	ControlSignatures = "ima-control-signatures"
)

// statementFormat is the first line. A version 2 signature is over a bare digest,
// so a signed file with the text of a statement would pass for one: [Sign]
// refuses every file that begins like one, of this format or a later.
const (
	statementFamily = "Format: imaseal-package-"
	statementFormat = statementFamily + "1"
	statementEnd    = "Signature: 0s"
	memberPrefix    = "SHA256-"

	// maxStatement bounds the text in bytes; two full lists of the longest globs
	// fit in. maxMembers bounds the digests: a .deb has one for each control member
	// that is not executed, of which a dozen are many.
	maxStatement = 1 << 20
	maxMembers   = 2048
)

// BeginsLikeStatement reports whether a content that begins with head, of 64 bytes
// at least where it has so many, must not be signed as a file: a version 2 signature
// over it could be one over a package statement.
func BeginsLikeStatement(head []byte) bool { return bytes.HasPrefix(head, []byte(statementFamily)) }

// Body returns the bytes that the signature is over. It fails when a field could
// not be read back.
func (s *Statement) Body() ([]byte, error) {
	var b bytes.Buffer
	var err error
	field := func(name, value string) {
		if value == "" || !canBeStated(value) {
			err = fmt.Errorf("%s %q cannot be stated", name, value)
		}
		fmt.Fprintf(&b, "%s: %s\n", name, value)
	}
	b.WriteString(statementFormat + "\n")
	field("Package", s.Package)
	field("Version", s.Version)
	field("Architecture", s.Arch)
	for _, rule := range s.Selection.rules() {
		field("Select", rule)
	}
	for _, glob := range s.Selection.Exclude {
		field("Exclude", glob)
	}
	if !s.Hash.Strong() {
		return nil, fmt.Errorf("a statement is not signed by %s", s.Hash)
	}
	field("Hash", s.Hash.String())
	if len(s.Members) > maxMembers {
		return nil, fmt.Errorf("%d member digests are more than %d", len(s.Members), maxMembers)
	}
	stated := make(map[string]bool, len(s.Members))
	for _, m := range s.Members {
		if m.Name == "" || strings.ContainsAny(m.Name, ": ") || !canBeStated(m.Name) || stated[m.Name] {
			return nil, fmt.Errorf("member %q cannot be stated, or not again", m.Name)
		}
		stated[m.Name] = true
		field(memberPrefix+m.Name, hex.EncodeToString(m.SHA256[:]))
	}
	return b.Bytes(), err
}

func (m MemberDigest) sameName(n MemberDigest) bool { return m.Name == n.Name }

// canBeStated reports whether value can be read back from a line.
func canBeStated(value string) bool {
	return value == strings.TrimSpace(value) &&
		!strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// AddSignatures adds the digests of the file signatures of m, where they belong: the
// two lists stand before the payload, which is the last member.
func (s *Statement) AddSignatures(m *Manifest) {
	s.AddSignatureDigests(sha256.Sum256(FormatAttributes(m.Files)), sha256.Sum256(FormatAttributes(m.Control)))
}

// AddSignatureDigests is [Statement.AddSignatures] for who has not all signatures at
// once: files and control are the SHA-256 of what [FormatAttributes] makes of each
// list.
func (s *Statement) AddSignatureDigests(files, control [sha256.Size]byte) {
	s.Members = slices.Insert(slices.Clone(s.Members), max(0, len(s.Members)-1),
		MemberDigest{Name: PayloadSignatures, SHA256: files},
		MemberDigest{Name: ControlSignatures, SHA256: control})
}

// Sign makes the signature.
func (s *Statement) Sign(key *Signer) error {
	digest, err := s.digest()
	if err != nil {
		return err
	}
	s.Signature, err = key.SignDigest(s.Hash, digest)
	return err
}

// Verify checks the signature against keys. Its errors are those of
// [ParseSignature] and [TrustedKeys.VerifyDigest].
func (s *Statement) Verify(keys *TrustedKeys) error {
	sig, err := ParseSignature(s.Signature)
	if err != nil {
		return err
	}
	if sig.Hash != s.Hash {
		return fmt.Errorf("%w: it is over %s, the statement says %s", ErrBadSignature, sig.Hash, s.Hash)
	}
	digest, err := s.digest()
	if err != nil {
		return err
	}
	return keys.VerifyDigest(sig, digest)
}

func (s *Statement) digest() ([]byte, error) {
	body, err := s.Body()
	if err != nil {
		return nil, err
	}
	h := s.Hash.Crypto().New()
	h.Write(body)
	return h.Sum(nil), nil
}

// MarshalText returns the whole statement, the signature included.
func (s *Statement) MarshalText() ([]byte, error) {
	body, err := s.Body()
	if err != nil {
		return nil, err
	}
	body = append(body, statementEnd...)
	body = base64.StdEncoding.AppendEncode(body, s.Signature)
	return append(body, '\n'), nil
}

// ParseStatement reads what [Statement.MarshalText] writes, and nothing else: the
// fields in their order, each written in the one way. It does not verify the
// signature.
func ParseStatement(text []byte) (*Statement, error) {
	return parseStatement(text, (*Statement).MarshalText)
}

// ParseStatementBody reads what [Statement.Body] writes, and nothing else.
func ParseStatementBody(text []byte) (*Statement, error) {
	return parseStatement(text, (*Statement).Body)
}

// parseStatement reads what write writes.
func parseStatement(text []byte, write func(*Statement) ([]byte, error)) (*Statement, error) {
	if len(text) > maxStatement {
		return nil, fmt.Errorf("%d bytes are more than %d", len(text), maxStatement)
	}
	lines := strings.Split(string(text), "\n")
	if lines[0] != statementFormat {
		return nil, fmt.Errorf("first line is not %q", statementFormat)
	}
	if lines[len(lines)-1] != "" {
		return nil, fmt.Errorf("last line does not end in a newline")
	}
	s := new(Statement)
	var selects, excludes []string
	for i, line := range lines[1 : len(lines)-1] {
		name, value, ok := strings.Cut(line, ": ")
		if !ok {
			return nil, fmt.Errorf("line %d is no field", i+2)
		}
		switch name {
		case "Select":
			selects = append(selects, value)
		case "Exclude":
			excludes = append(excludes, value)
		default:
			if err := s.set(name, value); err != nil {
				return nil, fmt.Errorf("line %d: %w", i+2, err)
			}
		}
	}
	var err error
	if s.Selection, err = NewSelection(selects, excludes); err != nil {
		return nil, err
	}
	if !s.Hash.Strong() {
		return nil, fmt.Errorf("no usable field Hash")
	}
	again, err := write(s)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, text) {
		return nil, fmt.Errorf("fields are missing, repeated or out of order")
	}
	return s, nil
}

// set stores one field. The order is checked by writing the statement again.
func (s *Statement) set(name, value string) error {
	var err error
	switch name {
	case "Package":
		s.Package = value
	case "Version":
		s.Version = value
	case "Architecture":
		s.Arch = value
	case "Hash":
		s.Hash, err = ParseHash(value)
	case "Signature":
		encoded, ok := strings.CutPrefix(value, "0s")
		if !ok {
			return fmt.Errorf("the signature does not begin with 0s")
		}
		s.Signature, err = base64.StdEncoding.Strict().DecodeString(encoded)
	default:
		member, ok := strings.CutPrefix(name, memberPrefix)
		if !ok {
			return fmt.Errorf("unknown field %q", name)
		}
		m := MemberDigest{Name: member}
		var sum []byte
		if sum, err = hex.DecodeString(value); err == nil && len(sum) != len(m.SHA256) {
			err = fmt.Errorf("%s has %d bytes", name, len(sum))
		}
		copy(m.SHA256[:], sum)
		s.Members = append(s.Members, m)
	}
	return err
}

// Diff compares what s states with what the package holds, and returns a line for
// each difference. The signatures are not compared.
func (s *Statement) Diff(holds *Statement) []string {
	var diff []string
	differ := func(what, stated, found string) {
		if stated != found {
			diff = append(diff, fmt.Sprintf("%s is %s, but the statement says %s", what, orNone(found), orNone(stated)))
		}
	}
	differ("package name", s.Package, holds.Package)
	differ("version", s.Version, holds.Version)
	differ("architecture", s.Arch, holds.Arch)
	for _, m := range s.Members {
		differ("digest of "+m.Name, hex.EncodeToString(m.SHA256[:]), holds.member(m.Name))
	}
	for _, m := range holds.Members {
		if !slices.ContainsFunc(s.Members, m.sameName) {
			differ("digest of "+m.Name, "", hex.EncodeToString(m.SHA256[:]))
		}
	}
	return diff
}

func (s *Statement) member(name string) string {
	for _, m := range s.Members {
		if m.Name == name {
			return hex.EncodeToString(m.SHA256[:])
		}
	}
	return ""
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
