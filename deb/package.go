// Package deb reads and writes .deb files with file signatures.
//
// A signed .deb has, behind the entries of its original control archive, the
// members ima-signatures, ima-control-signatures and ima-package, and the original
// control archive itself; docs/format.md has the details. data.tar is not touched.
// Start with [Open].
package deb

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/imaseal/imaseal/sign"
)

// Magic is what every .deb begins with.
const Magic = arMagic

// Options say how a package is read.
type Options struct {
	// Jobs is how many goroutines may decompress at once.
	Jobs int
}

// A Package is an opened .deb. It implements [sign.Package] and [sign.Stated].
type Package struct {
	archive *archive
	jobs    int
	info    sign.Info

	// The package as it was before it was signed, whether it is signed or not.
	originalName   string // of the control member
	originalMember []byte // its content, compressed; nil of an unsigned package
	originalTail   []byte // what followed data.tar; of an unsigned package see the archive
	original       *control

	signed    bool
	manifest  *sign.Manifest
	malformed error // why the signatures can't be taken for what they are

	dataRead   bool
	dataDigest [sha256.Size]byte
}

// Open reads the structure and the control archive of the size bytes of r, a .deb.
// Errors name the member and the offset that they concern. r must stay open while
// the package is in use.
func Open(r io.ReaderAt, size int64, o Options) (*Package, error) {
	a, err := scanArchive(r, size)
	if err != nil {
		return nil, err
	}
	if _, err := formatOf(a.data.name); err != nil {
		return nil, fmt.Errorf("offset %d: %w", a.data.offset, err)
	}
	visible, err := readControl(a.control.name, a.control.content(r))
	if err != nil {
		return nil, fmt.Errorf("offset %d: %w", a.control.offset, err)
	}
	p := &Package{archive: a, jobs: o.Jobs, original: visible, originalName: a.control.name}
	for i := range visible.members {
		if ours(visible.members[i].name) {
			p.signed = true
		}
	}
	if p.signed {
		p.malformed = p.readSigned(visible)
	}
	fields, err := p.original.fields()
	if err != nil {
		return nil, err
	}
	p.info = sign.Info{Format: "deb", FormatVersion: "2.0", Name: fields["package"], Version: fields["version"], Arch: fields["architecture"]}
	if kib, err := strconv.ParseInt(fields["installed-size"], 10, 40); err == nil && kib > 0 {
		p.info.InstalledSize = kib << 10
	}
	return p, nil
}

// readSigned takes the visible control archive of a signed package apart and
// checks that it is, to the byte, what signing the embedded original makes.
func (p *Package) readSigned(visible *control) error {
	var unsigned, tail *controlMember
	for i := range visible.members {
		m := &visible.members[i]
		switch {
		case m.name == unsignedTail:
			tail = m
		case strings.HasPrefix(m.name, unsignedPrefix) && unsigned == nil:
			unsigned = m
		case strings.HasPrefix(m.name, unsignedPrefix):
			return fmt.Errorf("control members %s and %s: there is one original", unsigned.name, m.name)
		}
	}
	for _, name := range []string{controlSignatures, statementName, payloadSignatures} {
		if visible.member(name) == nil {
			return fmt.Errorf("control member %s is missing, though others of a signed package are there", name)
		}
	}
	if unsigned == nil {
		return fmt.Errorf("control member %s* is missing, though others of a signed package are there", unsignedPrefix)
	}
	name := strings.TrimPrefix(unsigned.name, unsignedPrefix)
	if name != "control.tar" && !strings.HasPrefix(name, "control.tar.") {
		return fmt.Errorf("control member %s is no control archive", unsigned.name)
	}
	original, err := readControl(name, bytes.NewReader(unsigned.content))
	if err != nil {
		return fmt.Errorf("control member %s: %w", unsigned.name, err)
	}
	for i := range original.members {
		if m := &original.members[i]; ours(m.name) {
			return fmt.Errorf("control member %s: it holds %s, as an original never does", unsigned.name, m.name)
		}
	}
	if original.entries > len(visible.raw) || !bytes.Equal(original.raw[:original.entries], visible.raw[:original.entries]) {
		return fmt.Errorf("control member %s: it is not what the package shows", unsigned.name)
	}
	p.original, p.originalName, p.originalMember = original, name, unsigned.content
	if tail != nil {
		p.originalTail = tail.content
		if len(tail.content) == 0 {
			return fmt.Errorf("control member %s is empty", unsignedTail)
		}
	}
	m := new(sign.Manifest)
	if m.Files, err = parseSignatures(visible, payloadSignatures); err != nil {
		return err
	}
	if m.Control, err = parseSignatures(visible, controlSignatures); err != nil {
		return err
	}
	if m.Statement, err = sign.ParseStatement(visible.member(statementName).content); err != nil {
		return fmt.Errorf("control member %s: %w", statementName, err)
	}
	again, err := original.sealed(m, name, p.originalMember, p.originalTail)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, visible.raw) {
		return errors.New("the control archive is not laid out as that of a signed package: other members, other headers or another order")
	}
	p.manifest = m
	return nil
}

func parseSignatures(c *control, name string) ([]sign.Entry, error) {
	entries, err := sign.ParseAttributes(c.member(name).content)
	if err != nil {
		return nil, fmt.Errorf("control member %s: %w", name, err)
	}
	return entries, nil
}

// Info returns what the control file says.
func (p *Package) Info() sign.Info { return p.info }

// Manifest returns the file signatures of the package, nil when it is unsigned.
func (p *Package) Manifest() (*sign.Manifest, error) { return p.manifest, p.malformed }

// Anomalies returns nothing: what is odd about a .deb is refused.
func (p *Package) Anomalies() []sign.Finding { return nil }

// Statement states what the package would hold with the manifest m.
func (p *Package) Statement(ctx context.Context, m *sign.Manifest) (*sign.Statement, error) {
	if !p.dataRead {
		if _, err := p.walkData(ctx, func(*sign.File) bool { return true }); err != nil {
			return nil, fmt.Errorf("%s: %w", p.archive.data.name, err)
		}
	}
	s := &sign.Statement{Package: p.info.Name, Version: p.info.Version, Arch: p.info.Arch}
	add := func(name string, content []byte) {
		s.Members = append(s.Members, sign.MemberDigest{Name: name, SHA256: sha256.Sum256(content)})
	}
	add("control", p.original.member("control").content)
	if c := p.original.member("conffiles"); c != nil {
		add("conffiles", c.content)
	}
	add(payloadSignatures, sign.FormatAttributes(m.Files))
	add(controlSignatures, sign.FormatAttributes(m.Control))
	s.Members = append(s.Members, sign.MemberDigest{Name: "data.tar", SHA256: p.dataDigest})
	return s, nil
}

// Details returns the compression, and what the signatures add to the size.
func (p *Package) Details() []sign.Detail {
	details := []sign.Detail{
		{Name: "control archive", Value: p.originalName},
		{Name: "data archive", Value: p.archive.data.name},
		{Name: "size", Value: fmt.Sprintf("%d bytes", p.archive.size)},
	}
	if p.manifest == nil {
		return details
	}
	return append(details, sign.Detail{Name: "added by signing", Value: fmt.Sprintf("%d bytes", p.archive.size-p.originalSize())})
}

// originalSize returns the length of the package before it was signed.
func (p *Package) originalSize() int64 {
	member := int64(len(p.originalMember))
	data := p.archive.data.stop() - p.archive.data.offset
	return p.archive.control.start() + member + member&1 + data + int64(len(p.originalTail))
}
