package split

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/imaseal/imaseal/sign"
)

// An Identity says which package file a stanza is about.
type Identity struct {
	// Header says that SHA256 is of the header that states the digests of all files,
	// and not of the whole package file.
	Header bool
	SHA256 [sha256.Size]byte
}

// FileIdentity returns the identity of the package file that r reads.
func FileIdentity(r io.Reader) (Identity, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return Identity{}, err
	}
	return Identity{SHA256: [sha256.Size]byte(h.Sum(nil))}, nil
}

// HeaderIdentity returns the identity of p by its header.
func HeaderIdentity(p sign.Headed) Identity {
	return Identity{Header: true, SHA256: p.HeaderSHA256()}
}

// field returns the name of the field that states the identity.
func (id Identity) field() string {
	if id.Header {
		return "Header-SHA256"
	}
	return "File-SHA256"
}

// A stanzaHead is the head of a stanza: all of it but the files.
type stanzaHead struct {
	// Type is "deb" or "rpm".
	Type     string
	Identity Identity
	// Statement is that of [sign.Digests]. Of an RPM, which carries none, it holds name,
	// version, architecture, selection and hash, and has no members.
	Statement *sign.Statement
	// Files and Scripts are how many follow.
	Files, Scripts int
}

func newHead(info sign.Info, id Identity, d *sign.Digests) (*stanzaHead, error) {
	p := &stanzaHead{Type: info.Format, Identity: id, Statement: d.Statement, Files: len(d.Files), Scripts: len(d.Control)}
	if p.Statement == nil {
		p.Statement = &sign.Statement{Package: info.Name, Version: info.Version, Arch: info.Arch, Selection: d.Selection, Hash: d.Hash}
	}
	return p, p.check()
}

// stated reports whether the packages of this type carry a statement.
func (p *stanzaHead) stated() bool { return p.Type == "deb" }

// check reports what of p no package has.
func (p *stanzaHead) check() error {
	if err := p.checkType(); err != nil {
		return err
	}
	switch {
	case p.Identity.Header && p.Type != "rpm":
		return fmt.Errorf("a %s has no header that states the digests of its files", p.Type)
	case p.stated() && len(p.Statement.Members) == 0:
		return fmt.Errorf("the statement of a %s states digests of its parts", p.Type)
	case !p.stated() && len(p.Statement.Members) > 0:
		return fmt.Errorf("an %s has no statement, so it states no digests of its parts", p.Type)
	case !p.stated() && p.Scripts > 0:
		return fmt.Errorf("an %s has no scripts that are signed", p.Type)
	case p.Files+p.Scripts > maxDigests:
		return fmt.Errorf("%d files and scripts are more than %d", p.Files+p.Scripts, maxDigests)
	}
	for _, m := range p.Statement.Members {
		if m.Name == sign.PayloadSignatures || m.Name == sign.ControlSignatures {
			return fmt.Errorf("the digest of %s is for the signing host to state", m.Name)
		}
	}
	// What will be signed must be one that can be read back.
	body, err := p.signedStatement([sha256.Size]byte{}, [sha256.Size]byte{}).Body()
	if err == nil {
		_, err = sign.ParseStatementBody(body)
	}
	return err
}

func (p *stanzaHead) checkType() error {
	if p.Type != "deb" && p.Type != "rpm" {
		return fmt.Errorf("type %.40q: there are deb and rpm", p.Type)
	}
	return nil
}

// signedStatement returns the statement with the digests of the lists of signatures.
func (p *stanzaHead) signedStatement(files, control [sha256.Size]byte) *sign.Statement {
	s := *p.Statement
	if p.stated() {
		s.AddSignatureDigests(files, control)
	}
	return &s
}

// compare orders the stanzas of a file.
func (p *stanzaHead) compare(q *stanzaHead) int {
	return cmp.Or(
		strings.Compare(p.Statement.Package, q.Statement.Package),
		strings.Compare(p.Statement.Version, q.Statement.Version),
		strings.Compare(p.Statement.Arch, q.Statement.Arch),
		strings.Compare(p.Type, q.Type),
		strings.Compare(p.Identity.field(), q.Identity.field()),
		bytes.Compare(p.Identity.SHA256[:], q.Identity.SHA256[:]))
}

// String names the package for a person.
func (p *stanzaHead) String() string {
	return fmt.Sprintf("%.200s %.200s (%.40s, %s)", p.Statement.Package, p.Statement.Version, p.Statement.Arch, p.Type)
}

// The first line of a statement's text is its format, which a stanza calls statement.
const (
	statementPrefix = "Format: "
	statementField  = "Statement: "
)

// append appends the head as it stands in a file.
func (p *stanzaHead) append(b []byte) ([]byte, error) {
	body, err := p.Statement.Body()
	if err != nil {
		return nil, err
	}
	b = fmt.Appendf(b, "Type: %s\n%s: %x\n", p.Type, p.Identity.field(), p.Identity.SHA256)
	format, fields, _ := bytes.Cut(body, []byte("\n"))
	if p.stated() {
		b = append(b, statementField...)
		b = append(b, bytes.TrimPrefix(format, []byte(statementPrefix))...)
		b = append(b, '\n')
	}
	b = append(b, fields...)
	return fmt.Appendf(b, "Files: %d\nScripts: %d\n", p.Files, p.Scripts), nil
}

// rpmStatement is the format by which the fields of an RPM are read, which state none.
const rpmStatement = "imaseal-package-1"

// maxHead bounds in bytes what one head may have: more than a statement.
const maxHead = 2 << 20

// parseHead reads a head whose first line, first, was read.
func parseHead(l *lines, first string) (*stanzaHead, error) {
	text := make([]byte, 0, 1024)
	take := func(line string) { text = append(append(text, line...), '\n') }
	take(first)
	p := new(stanzaHead)
	kind, ok := strings.CutPrefix(first, "Type: ")
	if !ok {
		return nil, l.errorf("it is %s, not a field Type or End", shown(first))
	}
	p.Type = kind
	if err := p.checkType(); err != nil {
		return nil, l.wrap(err)
	}
	line, err := l.next()
	if err != nil {
		return nil, err
	}
	take(line)
	name, value, _ := strings.Cut(line, ": ")
	p.Identity.Header = name == (Identity{Header: true}).field()
	if name != p.Identity.field() {
		return nil, l.errorf("it is %s, not the SHA-256 of a file or a header", shown(line))
	}
	sum, err := hex.DecodeString(value)
	if err != nil || len(sum) != sha256.Size {
		return nil, l.errorf("%.80q is no SHA-256", value)
	}
	p.Identity.SHA256 = [sha256.Size]byte(sum)
	body := []byte(statementPrefix + rpmStatement + "\n")
	for first := true; ; first = false {
		if line, err = l.next(); err != nil {
			return nil, err
		}
		take(line)
		if len(text) > maxHead {
			return nil, l.errorf("what a package states has more than %d bytes", maxHead)
		}
		if format, ok := strings.CutPrefix(line, statementField); ok && first && p.stated() {
			body = []byte(statementPrefix + format + "\n")
			continue
		}
		if rest, ok := strings.CutPrefix(line, "Files: "); ok {
			if p.Files, err = number(rest, maxDigests); err != nil {
				return nil, l.wrap(err)
			}
			break
		}
		body = append(append(body, line...), '\n')
	}
	if value, err = l.field("Scripts"); err != nil {
		return nil, err
	}
	if p.Scripts, err = number(value, maxDigests); err != nil {
		return nil, l.wrap(err)
	}
	take("Scripts: " + value)
	if p.Statement, err = sign.ParseStatementBody(body); err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner // without a line that is counted from another beginning
		}
		return nil, l.errorf("what the package states, above it: %w", err)
	}
	if err := p.check(); err != nil {
		return nil, l.errorf("what the package states, above it: %w", err)
	}
	if again, err := p.append(nil); err != nil || !bytes.Equal(again, text) {
		return nil, l.errorf("what the package states, above it, is not written in the one way")
	}
	return p, nil
}

// checkScript reports why name cannot be that of a script of p.
func (p *stanzaHead) checkScript(name string) error {
	switch {
	case strings.Contains(name, "/"):
		return fmt.Errorf("script %q is in a folder", name)
	case name == sign.PayloadSignatures || name == sign.ControlSignatures,
		slices.ContainsFunc(p.Statement.Members, func(m sign.MemberDigest) bool { return m.Name == name }):
		return fmt.Errorf("%q is no script: the statement has its digest", name)
	}
	return nil
}
