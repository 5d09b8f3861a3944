package rpm

import (
	"bytes"
	"crypto/sha256"
	"errors"
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
	return append(slices.Clone(entries), added...), nil
}

// unsignedEntries returns the entries of a signature header as they were before
// files were signed. It is the identity where no file is signed.
//
// The room that rpmsign took is given back. That it took some is seen by the length
// of the header, which then is what rpmbuild made it, and by the missing keptMark.
func unsignedEntries(entries []entry) []entry {
	unsigned := without(entries, sigFileSignatures, sigFileSignatureLength)
	i := slices.IndexFunc(unsigned, isReserve)
	if i < 0 || len(unsigned) == len(entries) {
		return unsigned
	}
	reserve := unsigned[i].data
	if cut, ok := cutMark(reserve, keptMark); ok {
		unsigned[i].data = cut
		return unsigned
	}
	length := len(buildHeader(entries, sigRegion))
	if length == builtLength(unsigned) {
		grow := length - len(buildHeader(unsigned, sigRegion))
		unsigned[i].data = append(bytes.Clone(reserve), make([]byte, grow)...)
		unsigned[i].count = uint32(len(unsigned[i].data))
	}
	return unsigned
}

// keepReserve returns entries, which have file signatures, so that unsignedEntries
// gives back their reserve as it is.
func keepReserve(entries []entry) ([]entry, error) {
	length := func(entries []entry) int {
		if i := slices.IndexFunc(entries, isReserve); i >= 0 {
			return len(entries[i].data)
		}
		return 0
	}
	if length(unsignedEntries(entries)) == length(entries) {
		return entries, nil
	}
	entries = slices.Clone(entries)
	if !addMark(entries, keptMark) {
		return nil, errors.New("the signature header would come out just as long as if rpmsign had made it, and its reserved space has no room to note that it did not, so that unsign could not give back the same bytes: sign more or fewer files, for example with --select exec")
	}
	return entries, nil
}

// builtLength returns the length of a signature header as rpmbuild made it: without
// OpenPGP signatures, with the whole reserve. Where sizes take 64 bits rpmbuild makes
// the reserve shorter by what they add.
func builtLength(unsigned []entry) int {
	entries := without(unsigned, append([]uint32{sigLongSize, sigLongArchiveSize}, openPGPTags...)...)
	for _, long := range []struct{ tag, short uint32 }{{sigLongSize, sigSize}, {sigLongArchiveSize, sigPayloadSize}} {
		if slices.ContainsFunc(unsigned, func(e entry) bool { return e.tag == long.tag }) {
			entries = append(entries, entry{tag: long.short, kind: typeInt32, count: 1, data: make([]byte, 4)})
		}
	}
	i := slices.IndexFunc(entries, isReserve)
	entries[i].data = make([]byte, usualReserve)
	return len(buildHeader(entries, sigRegion))
}

// What unsign has to know besides stands in the reserve, whose content rpm does not
// look at, as marks of 16 bytes at its head: reserveMagic and the first bytes of a
// SHA-256. That of an OpenPGP signature's packet says that we added the signature, so
// that it goes with the file signatures; keptMark, that nothing was taken from the
// reserve though the header is as long as if it were. A reserve without room for a
// mark, or that is not zero behind them, has none.
const (
	reserveMagic = "imaseal\x00"
	markSize     = 2 * len(reserveMagic)
)

var keptMark = markOf([]byte("reserve kept"))

func markOf(packet []byte) []byte {
	sum := sha256.Sum256(packet)
	return append([]byte(reserveMagic), sum[:markSize-len(reserveMagic)]...)
}

// marks returns how many bytes of the reserve hold marks, 0 as well when the rest of
// it is not zero.
func marks(reserve []byte) int {
	n := 0
	for len(reserve)-n >= markSize && bytes.HasPrefix(reserve[n:], []byte(reserveMagic)) {
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

// addMark puts a mark into the reserve. It reports false where there is no room.
func addMark(entries []entry, mark []byte) bool {
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
	copy(entries[i].data[n:], mark)
	return true
}

// cutMark returns the reserve without a mark; ok says whether it was there.
func cutMark(reserve, mark []byte) (cut []byte, ok bool) {
	for at := 0; at < marks(reserve); at += markSize {
		if bytes.Equal(reserve[at:at+markSize], mark) {
			cut = append(bytes.Clone(reserve[:at]), reserve[at+markSize:]...)
			return append(cut, make([]byte, markSize)...), true
		}
	}
	return reserve, false
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
