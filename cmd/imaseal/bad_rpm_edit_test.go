package main

import (
	"bytes"
	"cmp"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// The edits of an RPM: of its bytes, of the tags of its two headers, of its cpio
// archive. They share no code with the room rpm.

// Types of tags and the tags that are edited, by rpm's names.
const (
	rpmInt16       = 3
	rpmInt32       = 4
	rpmInt64       = 5
	rpmString      = 6
	rpmBin         = 7
	rpmStringArray = 8

	sigRegionTag    = 62
	mainRegionTag   = 63
	sigSHA1Tag      = 269
	sigSHA256Tag    = 273
	fileSigTag      = 274
	fileSigLenTag   = 275
	sigSHA3Tag      = 279
	sigSizeTag      = 1000
	sigMD5Tag       = 1004
	sigPayloadTag   = 1007
	nameTag         = 1000
	epochTag        = 1003
	oldFilenamesTag = 1027
	sizesTag        = 1028
	modesTag        = 1030
	fileDigestsTag  = 1035
	fileFlagsTag    = 1037
	devicesTag      = 1095
	inodesTag       = 1096
	dirIndexesTag   = 1116
	baseNamesTag    = 1117
	dirNamesTag     = 1118
	formatTag       = 1124
	compressorTag   = 1125
	colorsTag       = 1140
	classTag        = 1141
	longSizesTag    = 5008
	digestAlgoTag   = 5011
	mainFileSigTag  = 5090
	payload256Tag   = 5092
	payloadAlgoTag  = 5093
	payload256ATag  = 5097
	payloadSizeTag  = 5112
	payloadSizeATag = 5113
	rpmFormatTag    = 5114
	payload512Tag   = 5121
	payload512ATag  = 5122
	payload3Tag     = 5123
	payload3ATag    = 5124
)

const leadLength = 96

// An rpmTag is an entry of a header.
type rpmTag struct {
	tag, kind, count uint32
	data             []byte
}

func stringTag(tag uint32, text string) rpmTag {
	return rpmTag{tag, rpmString, 1, append([]byte(text), 0)}
}

func stringsTag(tag uint32, texts ...string) rpmTag {
	e := rpmTag{tag: tag, kind: rpmStringArray, count: uint32(len(texts))}
	for _, t := range texts {
		e.data = append(append(e.data, t...), 0)
	}
	return e
}

var rpmWidth = map[uint32]int{rpmInt16: 2, rpmInt32: 4, rpmInt64: 8}

func intsTag(tag, kind uint32, values ...uint64) rpmTag {
	e := rpmTag{tag: tag, kind: kind, count: uint32(len(values))}
	for _, v := range values {
		e.data = append(e.data, binary.BigEndian.AppendUint64(nil, v)[8-rpmWidth[kind]:]...)
	}
	return e
}

func (e rpmTag) strings() []string {
	var all []string
	for _, s := range bytes.Split(e.data[:len(e.data)-1], []byte{0}) {
		all = append(all, string(s))
	}
	return all
}

// An rpmFile is an RPM taken apart.
type rpmFile struct {
	lead      []byte
	sig, main []rpmTag
	payload   []byte // compressed
}

// headerAt returns where a header's store begins and where it ends.
func headerAt(b []byte, at int) (store, end int) {
	store = at + 16 + 16*int(binary.BigEndian.Uint32(b[at+8:]))
	return store, store + int(binary.BigEndian.Uint32(b[at+12:]))
}

// mainAt returns where the main header begins.
func mainAt(b []byte) int {
	_, end := headerAt(b, leadLength)
	return (end + 7) / 8 * 8
}

func payloadAt(b []byte) int {
	_, end := headerAt(b, mainAt(b))
	return end
}

// indexOf returns where the entry of a tag is in the index of the header at offset
// at.
func indexOf(t testing.TB, b []byte, at int, tag uint32) int {
	t.Helper()
	store, _ := headerAt(b, at)
	for i := at + 16; i < store; i += 16 {
		if binary.BigEndian.Uint32(b[i:]) == tag {
			return i
		}
	}
	t.Fatalf("no tag %d", tag)
	return 0
}

func parseTags(b []byte, at int) []rpmTag {
	store, end := headerAt(b, at)
	be := binary.BigEndian
	var all []rpmTag
	for i := at + 32; i < store; i += 16 { // the region is made anew
		e := rpmTag{tag: be.Uint32(b[i:]), kind: be.Uint32(b[i+4:]), count: be.Uint32(b[i+12:])}
		value := b[store+int(be.Uint32(b[i+8:])) : end]
		n := int(e.count)
		if width, ok := rpmWidth[e.kind]; ok {
			n *= width
		} else if e.kind != rpmBin {
			n = 0
			for range e.count {
				n += bytes.IndexByte(value[n:], 0) + 1
			}
		}
		e.data = value[:n:n]
		all = append(all, e)
	}
	return all
}

func formatTags(all []rpmTag, region uint32) []byte {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b rpmTag) int { return cmp.Compare(a.tag, b.tag) })
	be := binary.BigEndian
	entry := func(b []byte, tag, kind uint32, at int, count uint32) []byte {
		return be.AppendUint32(be.AppendUint32(be.AppendUint32(be.AppendUint32(b, tag), kind), uint32(at)), count)
	}
	var index, store []byte
	for _, e := range all {
		for width := rpmWidth[e.kind]; width > 0 && len(store)%width != 0; {
			store = append(store, 0)
		}
		index = entry(index, e.tag, e.kind, len(store), e.count)
		store = append(store, e.data...)
	}
	first := entry(nil, region, rpmBin, len(store), 16)
	store = entry(store, region, rpmBin, -16*(len(all)+1), 16)
	intro := be.AppendUint32([]byte("\x8e\xad\xe8\x01\x00\x00\x00\x00"), uint32(len(all)+1))
	return slices.Concat(be.AppendUint32(intro, uint32(len(store))), first, index, store)
}

func parseRPM(b []byte) *rpmFile {
	return &rpmFile{b[:leadLength], parseTags(b, leadLength), parseTags(b, mainAt(b)), b[payloadAt(b):]}
}

func (r *rpmFile) format() []byte {
	b := append(slices.Clone(r.lead), formatTags(r.sig, sigRegionTag)...)
	b = append(b, make([]byte, -len(b)&7)...)
	return slices.Concat(b, formatTags(r.main, mainRegionTag), r.payload)
}

// set replaces the entry of a tag if there is one.
func set(tags []rpmTag, e rpmTag) {
	if i := slices.IndexFunc(tags, func(o rpmTag) bool { return o.tag == e.tag }); i >= 0 {
		tags[i] = e
	}
}

func find(t testing.TB, tags []rpmTag, tag uint32) *rpmTag {
	t.Helper()
	i := slices.IndexFunc(tags, func(e rpmTag) bool { return e.tag == tag })
	if i < 0 {
		t.Fatalf("no tag %d", tag)
	}
	return &tags[i]
}

// sums makes every digest and size that r records right for archive, the
// decompressed payload. Those of the payload are left alone where archive is nil.
func (r *rpmFile) sums(archive []byte) {
	x := func(sum ...byte) string { return hex.EncodeToString(sum) }
	of := func(tag256, tag512, tag3, size uint32, b []byte) {
		sum256, sum512, sum3 := sha256.Sum256(b), sha512.Sum512(b), sha3.Sum256(b)
		set(r.main, stringsTag(tag256, x(sum256[:]...)))
		set(r.main, stringsTag(tag512, x(sum512[:]...)))
		set(r.main, stringTag(tag3, x(sum3[:]...)))
		set(r.main, intsTag(size, rpmInt64, uint64(len(b))))
	}
	if archive != nil {
		of(payload256Tag, payload512Tag, payload3Tag, payloadSizeTag, r.payload)
		of(payload256ATag, payload512ATag, payload3ATag, payloadSizeATag, archive)
		set(r.sig, intsTag(sigPayloadTag, rpmInt32, uint64(len(archive))))
	}
	r.headerSums()
}

// headerSums makes right what the signature header records.
func (r *rpmFile) headerSums() {
	main := formatTags(r.main, mainRegionTag)
	both := append(slices.Clone(main), r.payload...)
	sum1, sum256, sum3, sum5 := sha1.Sum(main), sha256.Sum256(main), sha3.Sum256(main), md5.Sum(both)
	set(r.sig, stringTag(sigSHA1Tag, hex.EncodeToString(sum1[:])))
	set(r.sig, stringTag(sigSHA256Tag, hex.EncodeToString(sum256[:])))
	set(r.sig, stringTag(sigSHA3Tag, hex.EncodeToString(sum3[:])))
	set(r.sig, rpmTag{sigMD5Tag, rpmBin, 16, sum5[:]})
	set(r.sig, intsTag(sigSizeTag, rpmInt32, uint64(len(both))))
}

// editRPM changes a package; its digests then fit, unless it was the payload that
// was changed.
func editRPM(change func(t testing.TB, r *rpmFile)) edit {
	return func(t testing.TB, good []byte) []byte {
		r := parseRPM(good)
		if !bytes.Equal(r.format(), good) {
			t.Fatal("the package is not what it is made of")
		}
		change(t, r)
		return r.format()
	}
}

// editMain changes the main header, by a change that returns its new tags.
func editMain(change func(t testing.TB, tags []rpmTag) []rpmTag) edit {
	return editRPM(func(t testing.TB, r *rpmFile) {
		r.main = change(t, r.main)
		r.headerSums()
	})
}

func editSig(change func(t testing.TB, tags []rpmTag) []rpmTag) edit {
	return editRPM(func(t testing.TB, r *rpmFile) { r.sig = change(t, r.sig) })
}

// withTag returns tags with e in place of, or besides, what they had.
func withTag(tags []rpmTag, e rpmTag) []rpmTag { return append(withoutTag(tags, e.tag), e) }

func withoutTag(tags []rpmTag, tag uint32) []rpmTag {
	return slices.DeleteFunc(slices.Clone(tags), func(e rpmTag) bool { return e.tag == tag })
}

// archive returns the decompressed payload.
func (r *rpmFile) archive(t testing.TB) []byte {
	t.Helper()
	if bytes.HasPrefix(r.payload, []byte("\x1f\x8b")) {
		return gunzipped(t, r.payload)
	}
	d, err := zstd.NewReader(bytes.NewReader(r.payload))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	b, err := io.ReadAll(d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (r *rpmFile) suffix() string {
	if bytes.HasPrefix(r.payload, []byte("\x1f\x8b")) {
		return ".gz"
	}
	return ".zst"
}

// editCpio changes the cpio archive.
func editCpio(change func(b []byte) []byte) edit {
	return editRPM(func(t testing.TB, r *rpmFile) {
		before := r.archive(t)
		archive := change(bytes.Clone(before))
		if bytes.Equal(before, archive) {
			t.Fatal("the edit changed nothing")
		}
		r.payload = compressed(t, r.suffix(), bytes.NewReader(archive))
		r.sums(archive)
	})
}

// put32 writes a number at the offset that at returns.
func put32(at func(t testing.TB, b []byte) int, v uint32) edit {
	return func(t testing.TB, good []byte) []byte {
		b := bytes.Clone(good)
		binary.BigEndian.PutUint32(b[at(t, b):], v)
		return b
	}
}

func inSig(offset int) func(testing.TB, []byte) int {
	return func(testing.TB, []byte) int { return leadLength + offset }
}

func inMain(offset int) func(testing.TB, []byte) int {
	return func(_ testing.TB, b []byte) int { return mainAt(b) + offset }
}

// pad4 fills up to a multiple of four.
func pad4(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }

// cpioOf returns an entry of a cpio archive as format 4 has it.
func cpioOf(name string, mode, size int, content string) []byte {
	b := fmt.Appendf(nil, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", 0, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0)
	return append(pad4(append(append(b, name...), 0)), pad4([]byte(content))...)
}
