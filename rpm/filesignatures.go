package rpm

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/imaseal/imaseal/sign"
)

// File signatures as rpm's sign/rpmsignfiles.cc writes them and its lib/rpmfi.cc
// reads them; see the package comment.

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
		format, _, _ := main.number(tagRPMFormat)
		switch {
		case c.inSig:
			c.odd = append(c.odd, sign.Finding{Path: "main header", Reason: sign.ReasonMalformed, Detail: detail + ", and others in the signature header: rpm refuses such a package"})
		case format == 6:
			c.odd = append(c.odd, sign.Finding{Path: "main header", Reason: sign.ReasonMalformed, Detail: detail + ": rpm refuses a package of format 6 that has them"})
			h, tag, lengthTag, where = main, tagFileSignatures, tagFileSignatureLength, "main header"
		default:
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
	case !ok && longest > 0:
		warn("tag %d (FILESIGNATURELENGTH) is missing, which rpm before 4.18 needs", lengthTag)
	case ok && length < uint64(longest):
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

// formatFileSignatures returns the entries that hold m.
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
	entries := []entry{{tag: sigFileSignatures, kind: typeStringArray, count: uint32(l.n), data: data}}
	if longest > 0 { // as rpmsign does it
		entries = append(entries, entry{tag: sigFileSignatureLength, kind: typeInt32, count: 1, data: binary.BigEndian.AppendUint32(nil, uint32(longest))})
	}
	return entries, nil
}
