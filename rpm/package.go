package rpm

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/imaseal/imaseal/internal/compression"
	"github.com/imaseal/imaseal/sign"
)

// Options say how a package is read and written. The zero value will do.
type Options struct {
	// Jobs is how many threads may decompress at once.
	Jobs int
	// TrustHeaderDigests leaves the payload undecompressed: the files are known by
	// the digests in the main header, as rpmsign does it.
	TrustHeaderDigests bool
	// HeaderOnly is TrustHeaderDigests, and leaves the payload unread as long as nothing
	// is written: whether its digest holds is then for [Package.Write] to find.
	HeaderOnly bool
	// TargetVersion is the oldest version of rpm, such as "4.14.3", that has to be
	// able to read what is written; empty for any that can.
	TargetVersion string
}

// A Package is an opened RPM. It implements [sign.Package], [sign.Checked] and
// [sign.Headed].
type Package struct {
	r         io.ReaderAt
	size      int64
	jobs      int
	trust     bool
	header    bool // the payload is not read at all
	target    rpmVersion
	source    bool
	lead      []byte
	sig, main *header
	sigEnd    int64 // where the padding behind the signature header begins
	mainAt    int64
	payloadAt int64
	// irregular says how the signature header is not laid out as rpm does it; empty
	// when it is.
	irregular   string
	info        sign.Info
	compression compression.Format
	files       *fileList
	carried     carried
	digests     *digestSet
}

// Open reads the lead and the two headers of the size bytes of r, an RPM. Errors
// name the offset or the tag that they concern. r must stay open while the package
// is in use, and may be read by several goroutines.
func Open(r io.ReaderAt, size int64, o Options) (*Package, error) {
	p := &Package{r: r, size: size, jobs: max(o.Jobs, 1), trust: o.TrustHeaderDigests || o.HeaderOnly, header: o.HeaderOnly, lead: make([]byte, min(leadSize, max(size, 0)))}
	var err error
	if p.target, err = parseVersion(o.TargetVersion); err != nil {
		return nil, err
	}
	if err := readAt(r, p.lead, 0, size); err != nil {
		return nil, fmt.Errorf("offset 0: %w", err)
	}
	if p.source, err = checkLead(p.lead); err != nil {
		return nil, err
	}
	if p.sig, err = readHeader(r, leadSize, size, signatureHeader); err != nil {
		return nil, err
	}
	p.sigEnd = leadSize + int64(len(p.sig.raw))
	p.mainAt = leadSize + padded(int64(len(p.sig.raw)))
	if p.main, err = readHeader(r, p.mainAt, size, mainHeader); err != nil {
		return nil, err
	}
	if p.main.outside > 0 {
		return nil, fmt.Errorf("offset %d: main header: %d tags are outside the region, where no digest and no signature covers them", p.mainAt, p.main.outside)
	}
	p.payloadAt = p.mainAt + int64(len(p.main.raw))
	if err := p.checkLayout(); err != nil {
		return nil, err
	}
	if p.info, err = readInfo(p.main); err != nil {
		return nil, fmt.Errorf("main header: %w", err)
	}
	p.source = p.source || isSource(p.main)
	if err := p.findCompression(); err != nil {
		return nil, fmt.Errorf("payload at offset %d: %w", p.payloadAt, err)
	}
	if p.files, err = readFileList(p.main); err != nil {
		return nil, err
	}
	if p.files.n > 0 {
		p.info.FileHash = p.files.hash
	}
	if p.digests, err = readDigests(p.sig, p.main); err != nil {
		return nil, fmt.Errorf("recorded digests: %w", err)
	}
	p.carried = readFileSignatures(p.sig, p.main, p.files)
	return p, nil
}

// checkLayout compares the signature header with what rpm makes of the same entries.
func (p *Package) checkLayout() error {
	padding := make([]byte, p.mainAt-p.sigEnd)
	if err := readAt(p.r, padding, p.sigEnd, p.size); err != nil {
		return fmt.Errorf("offset %d: %w", p.sigEnd, err)
	}
	switch {
	case p.sig.outside > 0:
		p.irregular = fmt.Sprintf("%d tags are outside the region", p.sig.outside)
	case !bytes.Equal(padding, make([]byte, len(padding))):
		p.irregular = "its padding is not zero"
	case !bytes.Equal(buildHeader(p.sig.entries, sigRegion), p.sig.raw):
		p.irregular = "its tags are not sorted, or not packed as rpm does it"
	}
	return nil
}

// readInfo returns what a main header says of the package.
func readInfo(main *header) (sign.Info, error) {
	var err error
	text := func(tag uint32) string {
		s, failed := main.text(tag)
		if err == nil {
			err = failed
		}
		return s
	}
	number := func(tag uint32) (uint64, bool) {
		n, ok, failed := main.number(tag)
		if err == nil {
			err = failed
		}
		return n, ok
	}
	info := sign.Info{Format: "rpm", FormatVersion: "4", Name: text(tagName), Arch: text(tagArch)}
	info.Version = text(tagVersion) + "-" + text(tagRelease)
	if epoch, ok := number(tagEpoch); ok {
		info.Version = fmt.Sprintf("%d:%s", epoch, info.Version)
	}
	size, ok := number(tagLongSize)
	if !ok {
		size, _ = number(tagSize)
	}
	info.InstalledSize = int64(min(size, 1<<62))
	if format, ok := number(tagRPMFormat); ok {
		switch format {
		case 4, 6:
			info.FormatVersion = fmt.Sprint(format)
		default:
			return info, fmt.Errorf("tag %d: packages of format %d are not supported, only 4 and 6", tagRPMFormat, format)
		}
	}
	if format := text(tagPayloadFormat); err == nil && format != "" && format != "cpio" {
		return info, fmt.Errorf("tag %d: payloads in the form %.80q are not supported, only cpio", tagPayloadFormat, format)
	}
	if err == nil && info.Name == "" {
		return info, fmt.Errorf("tag %d: the package has no name", tagName)
	}
	return info, err
}

// isSource tells a source package by its main header, as rpm's headerIsSource.
func isSource(main *header) bool {
	return main.find(tagSourcePackage) != nil || main.find(tagSourceRPM) == nil
}

// findCompression finds the compression by the magic and holds it against what the
// header says.
func (p *Package) findCompression() error {
	head := make([]byte, min(compression.HeadSize, p.size-p.payloadAt))
	if err := readAt(p.r, head, p.payloadAt, p.size); err != nil {
		return err
	}
	p.compression = compression.Detect(head)
	if p.compression == compression.None && !bytes.HasPrefix(head, []byte("07070")) {
		return fmt.Errorf("neither compressed in a known way nor a cpio archive: it begins with %x", head)
	}
	named, err := p.main.text(tagPayloadCompressor)
	if err != nil {
		return err
	}
	// Without the tag rpm reads gzip or, as zlib does, plain data.
	if named == "" && (p.compression == compression.Gzip || p.compression == compression.None) {
		return nil
	}
	if named != string(p.compression) {
		return fmt.Errorf("tag %d says %.80q, but it is %s", tagPayloadCompressor, named, p.compression)
	}
	return nil
}

// Info returns what the main header says.
func (p *Package) Info() sign.Info { return p.info }

// HeaderSHA256 returns the SHA-256 of the main header, the one that the tag SHA256 of
// the signature header records.
func (p *Package) HeaderSHA256() [sha256.Size]byte { return sha256.Sum256(p.main.raw) }

// IsSource reports whether it is a source package, of which nothing is installed.
func (p *Package) IsSource() bool { return p.source }

// Manifest returns the file signatures of the package, nil when it has none. One
// without files but with an OpenPGP signature of ours to take off has an empty one.
func (p *Package) Manifest() (*sign.Manifest, error) {
	if p.files.n == 0 && marked(p.sig.entries) {
		return new(sign.Manifest), nil
	}
	return p.carried.manifest, p.carried.malformed
}

// signed reports whether there is anything in the way of file signatures.
func (p *Package) signed() bool { return p.carried.inSig || p.carried.inMain }

// Anomalies returns what is odd about the signature header and the file signatures.
func (p *Package) Anomalies() []sign.Finding {
	odd := append([]sign.Finding(nil), p.carried.odd...)
	if p.irregular != "" {
		odd = append(odd, sign.Finding{Path: "signature header", Reason: sign.ReasonWarning, Detail: "it is not laid out as rpm does it: " + p.irregular})
	}
	return odd
}

// Details returns the compression, the sizes, and what the signatures add to them.
func (p *Package) Details() []sign.Detail {
	details := []sign.Detail{
		{Name: "payload", Value: "cpio, " + string(p.compression)},
		{Name: "size", Value: fmt.Sprintf("%d bytes", p.size)},
		{Name: "signature header", Value: fmt.Sprintf("%d bytes", len(p.sig.raw))},
	}
	if p.files.n > 0 {
		details = append(details, sign.Detail{Name: "file digests", Value: p.files.hash.String()})
	}
	for _, e := range p.sig.entries {
		if isReserve(e) {
			details = append(details, sign.Detail{Name: "reserved space", Value: fmt.Sprintf("%d bytes", len(e.data))})
		}
	}
	if p.carried.inSig {
		entries := buildHeader(unsignedEntries(p.sig.entries), sigRegion)
		details = append(details, sign.Detail{Name: "added by file signatures", Value: fmt.Sprintf("%d bytes", p.mainAt-leadSize-padded(int64(len(entries))))})
	}
	return details
}
