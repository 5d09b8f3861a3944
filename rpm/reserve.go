package rpm

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/imaseal/imaseal/sign"
)

// rpmbuild leaves room in the signature header for signatures to come: a tag full of
// zeros (RESERVEDSPACE 1008 in format 4, RESERVED 999 in format 6). rpmsign takes
// from it what it adds, so that the package stays as long as it was; when that is not
// enough it leaves the reserve as it is and the package grows.
//
// We always let the package grow. Taking our tags away then gives the header as it
// was found, whatever the reserve.

// usualReserve is what rpmbuild reserves: the macro __gpg_reserved_space, which is
// 4096, and the index entry and trailer of a region.
const usualReserve = 4096 + indexSize + trailerSize

// openPGPTags are the tags that hold OpenPGP signatures.
var openPGPTags = []uint32{sigRSA, sigDSA, sigOpenPGP, sigPGP, sigGPG}

func isReserve(e entry) bool {
	return (e.tag == sigReserved || e.tag == sigReservedSpace) && e.kind == typeBin
}

// without returns a copy of entries but those of some tags.
func without(entries []entry, tags ...uint32) []entry {
	return slices.DeleteFunc(slices.Clone(entries), func(e entry) bool { return slices.Contains(tags, e.tag) })
}

// signedEntries returns the entries of a signature header that carries m.
func (p *Package) signedEntries(m *sign.Manifest) ([]entry, error) {
	entries := unsignedEntries(p.sig.entries)
	if p.files.n == 0 {
		return entries, nil // rpm has no way to write an array of nothing
	}
	added, err := formatFileSignatures(m, p.files)
	if err != nil {
		return nil, err
	}
	signed := append(slices.Clone(entries), added...)
	if !bytes.Equal(buildHeader(unsignedEntries(signed), sigRegion), buildHeader(entries, sigRegion)) {
		return nil, fmt.Errorf("the signature header would come out just as long as if rpmsign had made it, and unsign could not give back the reserved space: choose other files with --select")
	}
	return signed, nil
}

// unsignedEntries returns the entries of a signature header as they were before
// files were signed. It is the identity where no file is signed.
//
// The room that rpmsign took is given back. That it took some is seen by the length
// of the header, which then is what rpmbuild made it.
func unsignedEntries(entries []entry) []entry {
	unsigned := without(entries, sigFileSignatures, sigFileSignatureLength)
	i := slices.IndexFunc(unsigned, isReserve)
	if i < 0 || len(unsigned) == len(entries) {
		return unsigned
	}
	length := len(buildHeader(entries, sigRegion))
	if length == builtLength(unsigned) {
		grow := length - len(buildHeader(unsigned, sigRegion))
		e := &unsigned[i]
		e.data = append(bytes.Clone(e.data), make([]byte, grow)...)
		e.count = uint32(len(e.data))
	}
	return unsigned
}

// builtLength returns the length of a signature header as rpmbuild made it: without
// OpenPGP signatures, with the whole reserve.
func builtLength(unsigned []entry) int {
	entries := without(unsigned, openPGPTags...)
	i := slices.IndexFunc(entries, isReserve)
	entries[i].data = make([]byte, usualReserve)
	return len(buildHeader(entries, sigRegion))
}

// An OpenPGP signature that was added to a package together with file signatures
// goes with them. Which one that is stands in the reserve, whose content rpm does not
// look at: openPGPMark and the first bytes of the SHA-256 of the signature packet.
// Where there is no reserve full of zeros, it stays.
const (
	openPGPMark = "imaseal\x00"
	markSize    = 2 * len(openPGPMark)
)

func markOf(packet []byte) []byte {
	sum := sha256.Sum256(packet)
	return append([]byte(openPGPMark), sum[:markSize-len(openPGPMark)]...)
}

// marks returns how many bytes of the reserve hold marks, 0 as well when the rest of
// it is not zero.
func marks(reserve []byte) int {
	n := 0
	for len(reserve)-n >= markSize && bytes.HasPrefix(reserve[n:], []byte(openPGPMark)) {
		n += markSize
	}
	if len(bytes.Trim(reserve[n:], "\x00")) > 0 {
		return 0
	}
	return n
}

// marked reports whether the reserve holds marks.
func marked(entries []entry) bool {
	i := slices.IndexFunc(entries, isReserve)
	return i >= 0 && marks(entries[i].data) > 0
}

// addMark notes in the reserve that packet was added. It reports false where there
// is no room.
func addMark(entries []entry, packet []byte) bool {
	i := slices.IndexFunc(entries, isReserve)
	if i < 0 {
		return false
	}
	reserve := entries[i].data
	n := marks(reserve)
	if len(reserve)-n < markSize || len(bytes.Trim(reserve[n:], "\x00")) > 0 {
		return false
	}
	entries[i].data = bytes.Clone(reserve)
	copy(entries[i].data[n:], markOf(packet))
	return true
}

// dropMarked takes away the OpenPGP signatures that the reserve marks, and the marks.
func dropMarked(entries []entry) []entry {
	i := slices.IndexFunc(entries, isReserve)
	if i < 0 {
		return entries
	}
	reserve := entries[i].data
	n := marks(reserve)
	if n == 0 {
		return entries
	}
	entries = slices.Clone(entries)
	entries[i].data = make([]byte, len(reserve))
	for at := 0; at < n; at += markSize {
		entries = dropOpenPGP(entries, reserve[at:at+markSize])
	}
	return entries
}
