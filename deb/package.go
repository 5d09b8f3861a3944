package deb

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/imaseal/imaseal/deb/dpkgtar"
	"github.com/imaseal/imaseal/sign"
)

// Options say how a package is read.
type Options struct {
	// Jobs is how many threads may decompress at once.
	Jobs int
}

// A Package is an opened .deb. It implements [sign.Package] and [sign.Stated].
type Package struct {
	archive *archive
	jobs    int
	info    sign.Info
	kept    *control // the visible control archive where it is small, otherwise nil

	stated  []sign.MemberDigest // of the members that are neither executed nor ours
	scripts []controlMember     // the members that are executed

	signed    bool // members of ours are there, malformed or not
	manifest  *sign.Manifest
	malformed error // why the signatures can't be taken for what they are
	before    []sign.Detail

	dataRead   bool
	dataDigest [sha256.Size]byte
}

// Open reads the structure and the control archive of the size bytes of r, a .deb.
// Errors name the member and the offset that they concern. r must stay open while
// the package is in use.
//
// Signatures that are malformed do not fail it: [Package.Manifest] says what is
// wrong with them.
func Open(r io.ReaderAt, size int64, o Options) (*Package, error) {
	a, err := scanArchive(r, size)
	if err != nil {
		return nil, err
	}
	visible, err := a.readControl()
	if err != nil {
		return nil, fmt.Errorf("offset %d: %w", a.control.offset, err)
	}
	p := &Package{archive: a, jobs: o.Jobs}
	p.stated = visible.state()
	fields, err := dpkgtar.Fields(visible.member("control").content)
	if err != nil {
		return nil, fmt.Errorf("offset %d: %s: %w", a.control.offset, a.control.name, err)
	}
	p.info = sign.Info{Format: "deb", FormatVersion: a.format, Name: fields["package"], Version: fields["version"], Arch: fields["architecture"]}
	if kib, err := strconv.ParseInt(fields["installed-size"], 10, 40); err == nil && kib > 0 {
		p.info.InstalledSize = kib << 10
	}
	for _, m := range visible.members {
		p.signed = p.signed || dpkgtar.Ours(m.name)
	}
	if p.signed {
		if p.manifest, err = p.readSigned(visible); err != nil {
			p.manifest, p.malformed = nil, err
		} else {
			p.before = p.describeOriginal(visible)
		}
	}
	if p.scripts, err = visible.executed(); err != nil {
		return nil, fmt.Errorf("offset %d: %s: %w", a.control.offset, a.control.name, err)
	}
	if len(visible.raw) <= smallControl {
		p.kept = visible
		return p, nil
	}
	for i := range p.scripts {
		p.scripts[i].content = bytes.Clone(p.scripts[i].content)
	}
	return p, nil
}

// visible returns the control archive as it stands in the package.
func (p *Package) visible() (*control, error) {
	if p.kept != nil {
		return p.kept, nil
	}
	return p.archive.readControl()
}

// Info returns what the control file says.
func (p *Package) Info() sign.Info { return p.info }

// Manifest returns the file signatures of the package, nil when it is unsigned. The
// error says what keeps its members of ours from being those of a signed package.
func (p *Package) Manifest() (*sign.Manifest, error) { return p.manifest, p.malformed }

// Anomalies returns nothing: what is odd about a .deb is refused.
func (p *Package) Anomalies() []sign.Finding { return nil }

// Statement states what the package holds but for file signatures.
func (p *Package) Statement(ctx context.Context) (*sign.Statement, error) {
	if !p.dataRead {
		if _, err := p.walkData(ctx, func(*sign.File) bool { return true }); err != nil {
			return nil, fmt.Errorf("%s: %w", p.archive.data.name, err)
		}
	}
	return &sign.Statement{
		Package: p.info.Name, Version: p.info.Version, Arch: p.info.Arch,
		Members: append(slices.Clone(p.stated), sign.MemberDigest{Name: dpkgtar.PayloadDigest, SHA256: p.dataDigest}),
	}, nil
}

// Details returns the compression, and what the signatures add to the size.
func (p *Package) Details() []sign.Detail {
	details := []sign.Detail{
		{Name: "control archive", Value: p.archive.control.name},
		{Name: "data archive", Value: p.archive.data.name},
		{Name: "size", Value: fmt.Sprintf("%d bytes", p.archive.size)},
	}
	if len(p.archive.extra) > 0 {
		var names []string
		for _, m := range p.archive.extra {
			names = append(names, m.name)
		}
		details = append(details, sign.Detail{Name: "after data.tar", Value: strings.Join(names, " ")})
	}
	return append(details, p.before...)
}

// describeOriginal returns what the package was before it was signed.
func (p *Package) describeOriginal(visible *control) []sign.Detail {
	o, err := p.readOriginal(visible)
	if err != nil {
		return nil
	}
	member := int64(len(o.member))
	before := p.archive.control.start() + member + member&1 + p.archive.data.stop() - p.archive.data.offset + int64(len(o.tail))
	return []sign.Detail{
		{Name: "control archive before", Value: o.name},
		{Name: "added by signing", Value: fmt.Sprintf("%d bytes", p.archive.size-before)},
	}
}
