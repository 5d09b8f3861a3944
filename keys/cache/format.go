package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash/fnv"
	"time"

	"github.com/imaseal/imaseal/sign"
)

// The file is a bbolt database, version 2, in the byte order of the machine, with
// pages of 4096 bytes whatever the machine's are. Page 0 and page 1 are its meta
// pages; the one with the higher transaction number counts:
//
//	0   id, flags, count, overflow   8+2+2+4 bytes, as on every page
//	16  magic, version, page size, flags   4 bytes each
//	32  page of the root bucket
//	40  sequence number of the root bucket: our brand
//	48  page of the free list
//	56  high-water mark: as many pages are in use or free
//	64  transaction number
//	72  FNV-1a of 16 to 71
//
// bbolt copies the sequence number of the root bucket, which it has no use for,
// from meta page to meta page. So the brand stands at the same place for ever, and
// tells our file from one that is not ours even when all else is damaged. Where both
// meta pages are destroyed, a page of entries does.
//
// In the root bucket are the generations: buckets named by their number, eight
// bytes, big endian. New signatures go to the highest. Their sequence number is
// about how many bytes they hold. In a generation:
//
//	key    identity of the key (32) | hash (1, the kernel's number) | digest
//	value  time of writing, seconds since 1970 (8, big endian) | raw signature
const (
	pageSize   = 4096
	headerSize = 16 // of a page
	metaSize   = 80 // with the header
	magic      = 0xED0CDAED
	dbVersion  = 2

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10
	elementSize  = 16 // in a branch and in a leaf alike
	flagBucket   = 0x01
	bucketSize   = 16 // root page and sequence number of a bucket, in its value

	// brand ends in the version of the format of this package.
	brand       = "imaseal\x01"
	brandOffset = 40

	// maxPages bounds the high-water mark: 1 TiB.
	maxPages = largestFile / pageSize
	// maxNumber bounds transactions and generations, which are only counted up.
	maxNumber = 1 << 62
	// maxSignature is the longest that a file signature can hold.
	maxSignature = 4627
	// maxOverflow bounds the pages that a branch or a leaf has beyond its first:
	// bbolt splits it unless it has fewer than five entries.
	maxOverflow = 7

	identityEnd = sha256.Size
	timeSize    = 8
)

// A metaPage is what a meta page says.
type metaPage struct {
	root, freelist, pages, transaction uint64
}

// parseMeta reads a meta page of our brand. ok says that all of it holds; sound
// that bbolt would take it, which looks at less.
func parseMeta(page []byte) (m metaPage, ok, sound bool) {
	order := binary.NativeEndian
	sum := fnv.New64a()
	sum.Write(page[headerSize : metaSize-8])
	sound = order.Uint32(page[16:]) == magic && order.Uint32(page[20:]) == dbVersion && order.Uint64(page[72:]) == sum.Sum64()
	m = metaPage{root: order.Uint64(page[32:]), freelist: order.Uint64(page[48:]), pages: order.Uint64(page[56:]), transaction: order.Uint64(page[64:])}
	ok = sound && order.Uint32(page[24:]) == pageSize && branded(page) &&
		m.pages <= maxPages && m.transaction < maxNumber &&
		m.root >= 2 && m.root < m.pages && m.freelist >= 2 && m.freelist < m.pages
	return m, ok, sound
}

// branded reports whether page, of metaSize bytes at least, has our brand.
func branded(page []byte) bool {
	return binary.NativeEndian.Uint32(page[16:]) == magic && string(page[brandOffset:brandOffset+len(brand)]) == brand
}

// emptyFile is a cache without entries, as bbolt would begin it: two meta pages, an
// empty free list and an empty root.
func emptyFile() []byte {
	order := binary.NativeEndian
	file := make([]byte, 4*pageSize)
	for i, flags := range []uint16{flagMeta, flagMeta, flagFreelist, flagLeaf} {
		page := file[i*pageSize:]
		order.PutUint64(page, uint64(i))
		order.PutUint16(page[8:], flags)
		if flags != flagMeta {
			continue
		}
		order.PutUint32(page[16:], magic)
		order.PutUint32(page[20:], dbVersion)
		order.PutUint32(page[24:], pageSize)
		order.PutUint64(page[32:], 3)
		copy(page[brandOffset:], brand)
		order.PutUint64(page[48:], 2)
		order.PutUint64(page[56:], 4)
		order.PutUint64(page[64:], uint64(i))
		sum := fnv.New64a()
		sum.Write(page[headerSize : metaSize-8])
		order.PutUint64(page[72:], sum.Sum64())
	}
	return file
}

// entryKey is the key of an entry.
func entryKey(identity [sha256.Size]byte, h sign.Hash, digest []byte) []byte {
	key := make([]byte, 0, len(identity)+1+len(digest))
	key = append(key, identity[:]...)
	key = append(key, byte(h))
	return append(key, digest...)
}

// An entry is one signature of the file. It is a copy.
type entry struct {
	key, value []byte
}

func (e entry) identity() [sha256.Size]byte { return [sha256.Size]byte(e.key) }
func (e entry) hash() sign.Hash             { return sign.Hash(e.key[identityEnd]) }
func (e entry) digest() []byte              { return e.key[identityEnd+1:] }
func (e entry) signature() []byte           { return e.value[timeSize:] }

// written is when the entry was written.
func (e entry) written() time.Time {
	return time.Unix(int64(binary.BigEndian.Uint64(e.value)&(1<<40-1)), 0)
}

// size is about what the entry takes in the file.
func (e entry) size() int64 { return int64(elementSize + len(e.key) + len(e.value)) }

func (e entry) clone() entry { return entry{bytes.Clone(e.key), bytes.Clone(e.value)} }

// parseEntry returns what a leaf has as an entry. It aliases key and value.
func parseEntry(key, value []byte, flags uint32) (entry, error) {
	e := entry{key, value}
	if flags != 0 || !e.wellFormed() {
		return entry{}, damaged("an entry is malformed")
	}
	return e, nil
}

// wellFormed reports whether e is as an entry must be, so that its methods can be
// called.
func (e entry) wellFormed() bool {
	if len(e.key) <= identityEnd || len(e.value) <= timeSize || len(e.value) > timeSize+maxSignature {
		return false
	}
	h := e.hash()
	return h.Strong() && len(e.digest()) == h.Size()
}

func newValue(now time.Time, signature []byte) []byte {
	value := binary.BigEndian.AppendUint64(make([]byte, 0, timeSize+len(signature)), uint64(now.Unix()))
	return append(value, signature...)
}

func generationName(number uint64) []byte { return binary.BigEndian.AppendUint64(nil, number) }
