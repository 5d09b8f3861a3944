package rpm

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/imaseal/imaseal/sign"
)

// File signatures as rpm's sign/rpmsignfiles.cc writes them and its lib/rpmfi.cc
// reads them; see the package comment.

const signaturesWhere = "signature header: tag 274 (FILESIGNATURES)"

// carried is what the package has in the way of file signatures.
type carried struct {
	manifest  *sign.Manifest // nil: none
	malformed error
	odd       []sign.Finding
	inMain    bool // they are in the main header, where nothing can be changed
	inSig     bool
}

// readFileSignatures reads the signatures of the files in l.
func readFileSignatures(sig, main *header, l *fileList) carried {
	var c carried
	h, tag, lengthTag, where := sig, uint32(sigFileSignatures), uint32(sigFileSignatureLength), "signature header"
	c.inSig = sig.find(sigFileSignatures) != nil || sig.find(sigFileSignatureLength) != nil
	if main.find(tagFileSignatures) != nil || main.find(tagFileSignatureLength) != nil {
		c.inMain = true
		detail := "file signatures are in the main header (tag 5090), where rpm 4.13 and 4.14 put them; they cannot be changed there"
		if c.inSig {
			c.odd = append(c.odd, sign.Finding{Path: "main header", Reason: sign.ReasonMalformed, Detail: detail + ", and others in the signature header: rpm refuses such a package"})
		} else {
			c.odd = append(c.odd, sign.Finding{Path: "main header", Reason: sign.ReasonWarning, Detail: detail})
			h, tag, lengthTag, where = main, tagFileSignatures, tagFileSignatureLength, "main header"
		}
	}
	if !c.inMain && !c.inSig {
		return c
	}
	warn := func(format string, a ...any) {
		c.odd = append(c.odd, sign.Finding{Path: where, Reason: sign.ReasonWarning, Detail: fmt.Sprintf(format, a...)})
	}
	e := h.find(tag)
	if e == nil {
		warn("tag %d (FILESIGNATURELENGTH) without file signatures", lengthTag)
		return c
	}
	if h.isOutside(tag) {
		warn("tag %d (FILESIGNATURES) is outside the region; rpmsign --delsign of some versions breaks such a package", tag)
	}
	longest := 0
	c.manifest, longest, c.malformed = parseFileSignatures(e, l)
	if c.malformed != nil {
		c.malformed = fmt.Errorf("%s: tag %d (FILESIGNATURES): %w", where, tag, c.malformed)
	}
	switch length, ok, err := h.number(lengthTag); {
	case err != nil:
		warn("%v", err)
	case !ok:
		warn("tag %d (FILESIGNATURELENGTH) is missing, which rpm before 4.18 needs", lengthTag)
	case length < uint64(longest):
		warn("tag %d (FILESIGNATURELENGTH) is %d, the longest signature has %d bytes; rpm before 4.18 cuts it off", lengthTag, length, longest)
	}
	return c
}

// parseFileSignatures returns a manifest of what can be read, the length of the
// longest value, and the first thing that is malformed.
func parseFileSignatures(e *entry, l *fileList) (*sign.Manifest, int, error) {
	if e.kind != typeStringArray {
		return nil, 0, fmt.Errorf("it has type %d, not an array of strings", e.kind)
	}
	if int64(e.count) != int64(l.n) {
		return nil, 0, fmt.Errorf("it has %d strings for %d files, so that rpm takes none of them", e.count, l.n)
	}
	s, err := e.strings()
	if err != nil {
		return nil, 0, err
	}
	m := new(sign.Manifest)
	values := make([]byte, 0, len(e.data)/2)
	longest := 0
	for k := range l.n {
		i := l.sortedAt(k)
		text := s.at(i)
		if len(text) == 0 {
			continue
		}
		start := len(values)
		grown := slices.Grow(values, hex.DecodedLen(len(text)))
		n, bad := hex.Decode(grown[start:start+hex.DecodedLen(len(text))], text)
		if bad != nil {
			if err == nil {
				err = fmt.Errorf("%q: its %d characters are no bytes in hexadecimal, so that rpm takes no signature of the package: %w", l.path(i), len(text), bad)
			}
			continue
		}
		values = grown[:start+n]
		longest = max(longest, n)
		m.Files = append(m.Files, sign.Entry{Path: l.path(i), Value: values[start : start+n : start+n]})
	}
	return m, longest, err
}

func (h *header) isOutside(tag uint32) bool {
	return slices.ContainsFunc(h.entries[len(h.entries)-h.outside:], func(e entry) bool { return e.tag == tag })
}

// formatFileSignatures returns the two entries that hold m.
func formatFileSignatures(m *sign.Manifest, l *fileList) ([]entry, error) {
	if len(m.Control) > 0 {
		return nil, errors.New("an RPM has no control files to sign")
	}
	values := make([][]byte, l.n)
	size, longest, k := l.n, 0, 0
	for _, e := range m.Files {
		// Both are sorted by path, so that one pass finds all.
		for k < l.n && l.path(l.sortedAt(k)) < e.Path {
			k++
		}
		if k == l.n || !l.samePath(l.sortedAt(k), []byte(e.Path)) {
			return nil, fmt.Errorf("%q: the package has no such file, or the manifest is not sorted", e.Path)
		}
		i := l.sortedAt(k)
		k++
		if !l.carriesFile(i) {
			return nil, fmt.Errorf("%q is no regular file of the payload", e.Path)
		}
		if len(e.Value) == 0 {
			return nil, fmt.Errorf("%q: an empty signature", e.Path)
		}
		values[i] = e.Value
		size += hex.EncodedLen(len(e.Value))
		longest = max(longest, len(e.Value))
	}
	data := make([]byte, 0, size)
	for _, v := range values {
		data = hex.AppendEncode(data, v)
		data = append(data, 0)
	}
	return []entry{
		{tag: sigFileSignatures, kind: typeStringArray, count: uint32(l.n), data: data},
		{tag: sigFileSignatureLength, kind: typeInt32, count: 1, data: binary.BigEndian.AppendUint32(nil, uint32(longest))},
	}, nil
}

// without returns the entries of h but those of some tags.
func (h *header) without(tags ...uint32) []entry {
	return slices.DeleteFunc(slices.Clone(h.entries), func(e entry) bool { return slices.Contains(tags, e.tag) })
}

// withFileSignatures returns the signature header that carries m. The reserved space
// stays as it was found.
func (p *Package) withFileSignatures(m *sign.Manifest) ([]entry, error) {
	entries := p.sig.without(sigFileSignatures, sigFileSignatureLength)
	if p.files.n == 0 {
		return entries, nil // rpm has no way to write an array of nothing
	}
	if p.carried.inSig && !p.keepsReserve() {
		// Signed by rpmsign, which took the room from the reserved space: give it back
		// first, so that unsign does not mistake what is written now.
		entries = p.withoutFileSignatures()
	}
	added, err := formatFileSignatures(m, p.files)
	if err != nil {
		return nil, err
	}
	return append(entries, added...), nil
}

// rpmbuild reserves this many bytes: __gpg_reserved_space, which is 4096, and the
// index entry and trailer of a region.
const usualReserve = 4096 + indexSize + trailerSize

func isReserve(e entry) bool {
	return (e.tag == sigReserved || e.tag == sigReservedSpace) && e.kind == typeBin
}

// openPGPTags are the tags that hold OpenPGP signatures.
var openPGPTags = []uint32{sigRSA, sigDSA, sigOpenPGP, sigPGP, sigGPG}

// keepsReserve reports whether taking the file signatures away, and nothing else,
// gives the header as it was before they were added. It does unless rpmsign made
// room for them in the reserved space: then the header with them is just as long as
// rpmbuild had made it.
func (p *Package) keepsReserve() bool {
	return len(buildHeader(p.sig.entries, sigRegion)) != p.builtSize()
}

// builtSize returns the length of the signature header as rpmbuild makes it: without
// any signature, with all of the reserve. 0 when there is no reserve.
func (p *Package) builtSize() int {
	entries := p.sig.without(append([]uint32{sigFileSignatures, sigFileSignatureLength}, openPGPTags...)...)
	i := slices.IndexFunc(entries, isReserve)
	if i < 0 {
		return 0
	}
	entries[i].data = make([]byte, usualReserve)
	return len(buildHeader(entries, sigRegion))
}

// withoutFileSignatures returns the entries of the signature header as they were
// before files were signed.
func (p *Package) withoutFileSignatures() []entry {
	entries := p.sig.without(sigFileSignatures, sigFileSignatureLength)
	i := slices.IndexFunc(entries, isReserve)
	if i < 0 || p.keepsReserve() {
		return entries
	}
	// Whatever alignment takes, the header has to come out as long as it is.
	grow := len(buildHeader(p.sig.entries, sigRegion)) - len(buildHeader(entries, sigRegion))
	e := &entries[i]
	e.data = append(bytes.Clone(e.data), make([]byte, grow)...)
	e.count = uint32(len(e.data))
	return entries
}
