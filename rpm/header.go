package rpm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// A header is rpm's way to store tagged values; the signature header and the main
// header have the same layout (rpm's lib/header.cc), all numbers big endian:
//
//	intro    magic 8eade801, 4 zero bytes, entries (u32), bytes in the store (u32)
//	index    16 bytes an entry: tag, type, offset in the store, count
//	store    the values, integers aligned to their size
//
// The first entry is the region tag. Its value, the trailer, closes the part of the
// store that belongs to the region, and says how many entries do.
const (
	headerMagic  = "\x8e\xad\xe8\x01\x00\x00\x00\x00"
	introSize    = 16
	indexSize    = 16
	trailerSize  = 16
	maxTag       = 1 << 24
	maxMainStore = 128 << 20 // rpm takes 256 MiB; the largest known packages have 30
	maxMainIndex = 0xffff
	maxSigStore  = 64 << 20 // as rpm since 4.16
	maxSigIndex  = 32
)

// An entry is one tagged value.
type entry struct {
	tag, kind, count uint32
	data             []byte // in the store, its strings with the NUL behind each
}

// A header is a parsed header. Its entries were checked against the store.
type header struct {
	raw     []byte  // intro, index and store as they stand in the file
	entries []entry // without that of the region, in the order of the index
	outside int     // how many of the entries, the last ones, are not in the region
}

// headerKind says what header is read and what it may hold.
type headerKind struct {
	name               string
	region             uint32
	maxIndex, maxStore int64
}

var (
	signatureHeader = headerKind{"signature header", sigRegion, maxSigIndex, maxSigStore}
	mainHeader      = headerKind{"main header", tagRegion, maxMainIndex, maxMainStore}
)

// errNoRegion says that a header was written by an rpm before 4.0.
var errNoRegion = errors.New("it has no immutable region: packages of format 3, made by rpm before 4.0, cannot carry file signatures; build it again")

// readHeader reads the header at offset off of the size bytes of r. What it
// allocates is in the file.
func readHeader(r io.ReaderAt, off, size int64, k headerKind) (*header, error) {
	fail := func(at int64, format string, a ...any) (*header, error) {
		return nil, fmt.Errorf("offset %d: %s: %w", off+at, k.name, fmt.Errorf(format, a...))
	}
	var intro [introSize]byte
	if err := readAt(r, intro[:], off, size); err != nil {
		return fail(0, "%w", err)
	}
	if !bytes.HasPrefix(intro[:], []byte(headerMagic)) {
		return fail(0, "it begins with %x, not %x", intro[:8], headerMagic)
	}
	il := int64(binary.BigEndian.Uint32(intro[8:]))
	dl := int64(binary.BigEndian.Uint32(intro[12:]))
	if il < 1 || il > k.maxIndex {
		return fail(8, "%d entries are declared, not 1 to %d", il, k.maxIndex)
	}
	if dl < trailerSize || dl > k.maxStore {
		return fail(12, "a store of %d bytes is declared, not %d to %d", dl, trailerSize, k.maxStore)
	}
	total := introSize + indexSize*il + dl
	if total > size-off {
		return fail(12, "%d entries and %d bytes are declared, %d bytes are left", il, dl, size-off-introSize)
	}
	raw := make([]byte, total)
	if err := readAt(r, raw, off, size); err != nil {
		return fail(0, "%w", err)
	}
	h := &header{raw: raw, entries: make([]entry, 0, il-1)}
	index, store := raw[introSize:introSize+indexSize*il], raw[introSize+indexSize*il:]
	inRegion, err := checkRegion(index, store, k.region)
	if err != nil {
		return fail(introSize, "%w", err)
	}
	h.outside = int(il) - inRegion
	next := int64(0) // nothing may begin before what was read last ends, as rpm demands
	for i := int64(1); i < il; i++ {
		b := index[indexSize*i:]
		e := entry{tag: binary.BigEndian.Uint32(b), kind: binary.BigEndian.Uint32(b[4:]), count: binary.BigEndian.Uint32(b[12:])}
		at := int64(binary.BigEndian.Uint32(b[8:]))
		if e.tag < 100 || e.tag > maxTag {
			return fail(introSize+indexSize*i, "entry %d has tag %d", i, e.tag)
		}
		if at < next || at > dl {
			return fail(introSize+indexSize*i+8, "tag %d has its value at %d, not %d to %d", e.tag, int32(at), next, dl)
		}
		n, err := e.length(store[at:], at)
		if err != nil {
			return fail(introSize+indexSize*i, "tag %d: %w", e.tag, err)
		}
		e.data = store[at : at+n : at+n]
		next = at + n
		h.entries = append(h.entries, e)
	}
	if tag, ok := h.duplicate(); ok {
		return fail(introSize, "tag %d is there twice", tag)
	}
	return h, nil
}

// checkRegion returns how many entries the region has, its own included.
func checkRegion(index, store []byte, region uint32) (int, error) {
	be := binary.BigEndian
	if tag := be.Uint32(index); tag != region {
		return 0, errNoRegion
	}
	if kind, count := be.Uint32(index[4:]), be.Uint32(index[12:]); kind != typeBin || count != trailerSize {
		return 0, fmt.Errorf("the region has type %d and %d bytes, not %d and %d", kind, count, typeBin, trailerSize)
	}
	at := int64(be.Uint32(index[8:]))
	if at > int64(len(store))-trailerSize {
		return 0, fmt.Errorf("the region's trailer is at %d of %d bytes", int32(at), len(store))
	}
	trailer := store[at : at+trailerSize]
	// The trailer looks back over the index: its offset is minus the length of that.
	size := -int64(int32(be.Uint32(trailer[8:])))
	if be.Uint32(trailer) != region || be.Uint32(trailer[4:]) != typeBin || be.Uint32(trailer[12:]) != trailerSize {
		return 0, fmt.Errorf("the region's trailer at %d is malformed", at)
	}
	if size < indexSize || size%indexSize != 0 || size > int64(len(index)) {
		return 0, fmt.Errorf("the region's trailer at %d speaks of %d bytes of index, %d are there", at, size, len(index))
	}
	return int(size / indexSize), nil
}

// length returns how many bytes the value of e has, which begins with store, at
// offset at of the whole.
func (e entry) length(store []byte, at int64) (int64, error) {
	count := int64(e.count)
	if count == 0 {
		return 0, errors.New("it has no value")
	}
	if count > int64(len(store)) {
		return 0, fmt.Errorf("%d values are declared, %d bytes are left", count, len(store))
	}
	if width := intWidth(e.kind); width > 0 {
		if at%width != 0 {
			return 0, fmt.Errorf("its value is at %d, not a multiple of %d", at, width)
		}
		if count*width > int64(len(store)) {
			return 0, fmt.Errorf("%d values of %d bytes are declared, %d bytes are left", count, width, len(store))
		}
		return count * width, nil
	}
	switch e.kind {
	case typeString:
		if count != 1 {
			return 0, fmt.Errorf("%d strings where one may be", count)
		}
	case typeStringArray, typeI18NString:
	default:
		return 0, fmt.Errorf("type %d is not known", e.kind)
	}
	n := 0
	for range count {
		end := bytes.IndexByte(store[n:], 0)
		if end < 0 {
			return 0, errors.New("a string has no end")
		}
		n += end + 1
	}
	return int64(n), nil
}

// intWidth returns the size of a value of a kind that is no string, 0 for others.
func intWidth(kind uint32) int64 {
	switch kind {
	case typeChar, typeInt8, typeBin:
		return 1
	case typeInt16:
		return 2
	case typeInt32:
		return 4
	case typeInt64:
		return 8
	}
	return 0
}

func (h *header) duplicate() (uint32, bool) {
	tags := make([]uint32, len(h.entries))
	for i, e := range h.entries {
		tags[i] = e.tag
	}
	slices.Sort(tags)
	for i := 1; i < len(tags); i++ {
		if tags[i] == tags[i-1] {
			return tags[i], true
		}
	}
	return 0, false
}

// find returns the entry of a tag, nil when there is none.
func (h *header) find(tag uint32) *entry {
	for i := range h.entries {
		if h.entries[i].tag == tag {
			return &h.entries[i]
		}
	}
	return nil
}

// text returns the one string of a tag, "" when there is none.
func (h *header) text(tag uint32) (string, error) {
	e := h.find(tag)
	if e == nil {
		return "", nil
	}
	switch e.kind {
	case typeString, typeI18NString, typeStringArray:
		return string(e.data[:bytes.IndexByte(e.data, 0)]), nil
	}
	return "", fmt.Errorf("tag %d has type %d, not a string", tag, e.kind)
}

// number returns the one integer of a tag; ok says whether there is one. rpm takes
// the first of several; some builders repeat it for each file, so equal ones pass.
func (h *header) number(tag uint32) (n uint64, ok bool, err error) {
	e := h.find(tag)
	if e == nil {
		return 0, false, nil
	}
	v, err := e.ints(max(1, int(e.count)))
	if err != nil {
		return 0, false, err
	}
	for i := range int(e.count) {
		if v.at(i) != v.at(0) {
			return 0, false, fmt.Errorf("tag %d has %d values that differ, where one is expected", e.tag, e.count)
		}
	}
	return v.at(0), true, nil
}

// ints is an array of integers in the store.
type ints struct {
	data  []byte
	width int
}

// ints returns the integers of e, which has to hold n.
func (e *entry) ints(n int) (ints, error) {
	switch e.kind {
	case typeInt16, typeInt32, typeInt64:
	default:
		return ints{}, fmt.Errorf("tag %d has type %d, not integers", e.tag, e.kind)
	}
	if int64(e.count) != int64(n) {
		return ints{}, fmt.Errorf("tag %d has %d values, not %d", e.tag, e.count, n)
	}
	return ints{e.data, int(intWidth(e.kind))}, nil
}

func (v ints) at(i int) uint64 {
	b := v.data[i*v.width:]
	switch v.width {
	case 2:
		return uint64(binary.BigEndian.Uint16(b))
	case 4:
		return uint64(binary.BigEndian.Uint32(b))
	}
	return binary.BigEndian.Uint64(b)
}

// stringArray is an array of strings in the store. ends holds where each ends, its
// NUL not included.
type stringArray struct {
	data []byte
	ends []uint32
}

// strings returns the strings of e.
func (e *entry) strings() (stringArray, error) {
	switch e.kind {
	case typeString, typeStringArray, typeI18NString:
	default:
		return stringArray{}, fmt.Errorf("tag %d has type %d, not strings", e.tag, e.kind)
	}
	s := stringArray{e.data, make([]uint32, 0, e.count)} // each has a byte in data
	for at := 0; at < len(e.data); {
		at += bytes.IndexByte(e.data[at:], 0)
		s.ends = append(s.ends, uint32(at))
		at++
	}
	return s, nil
}

func (s stringArray) len() int { return len(s.ends) }

func (s stringArray) at(i int) []byte {
	if i == 0 {
		return s.data[:s.ends[0]]
	}
	return s.data[s.ends[i-1]+1 : s.ends[i]]
}

// buildHeader lays entries out, sorted by tag, as one region, the way rpm does.
func buildHeader(entries []entry, region uint32) []byte {
	entries = slices.Clone(entries)
	slices.SortStableFunc(entries, func(a, b entry) int { return int(a.tag) - int(b.tag) })
	il := len(entries) + 1
	size := introSize + indexSize*il + trailerSize
	for _, e := range entries {
		size += len(e.data) + 7
	}
	b := make([]byte, introSize+indexSize*il, size)
	start := len(b)
	copy(b, headerMagic)
	put := func(i int, tag, kind uint32, at int, count uint32) {
		x := b[introSize+indexSize*i:]
		binary.BigEndian.PutUint32(x, tag)
		binary.BigEndian.PutUint32(x[4:], kind)
		binary.BigEndian.PutUint32(x[8:], uint32(at))
		binary.BigEndian.PutUint32(x[12:], count)
	}
	for i, e := range entries {
		if w := int(intWidth(e.kind)); w > 1 {
			b = append(b, make([]byte, -(len(b)-start)&(w-1))...)
		}
		put(i+1, e.tag, e.kind, len(b)-start, e.count)
		b = append(b, e.data...)
	}
	put(0, region, typeBin, len(b)-start, trailerSize)
	b = binary.BigEndian.AppendUint32(b, region)
	b = binary.BigEndian.AppendUint32(b, typeBin)
	b = binary.BigEndian.AppendUint32(b, uint32(-indexSize*il))
	b = binary.BigEndian.AppendUint32(b, trailerSize)
	binary.BigEndian.PutUint32(b[8:], uint32(il))
	binary.BigEndian.PutUint32(b[12:], uint32(len(b)-start))
	return b
}

// storeSize returns the length of the store of a header that buildHeader made.
func storeSize(raw []byte) int64 { return int64(binary.BigEndian.Uint32(raw[12:])) }

// padded returns n rounded up to eight, as the main header begins.
func padded(n int64) int64 { return (n + 7) &^ 7 }

// readAt fills b from offset off of the size bytes of r.
func readAt(r io.ReaderAt, b []byte, off, size int64) error {
	if int64(len(b)) > size-off {
		return fmt.Errorf("%d bytes are needed, %d are left: %w", len(b), max(size-off, 0), io.ErrUnexpectedEOF)
	}
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
