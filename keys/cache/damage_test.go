package cache

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imaseal/imaseal/sign"
)

// seal makes the checksums of the meta pages right again.
func seal(file []byte) []byte {
	for i := range 2 {
		if len(file) < i*pageSize+metaSize {
			break
		}
		page := file[i*pageSize:]
		sum := fnv.New64a()
		sum.Write(page[headerSize : metaSize-8])
		binary.LittleEndian.PutUint64(page[72:], sum.Sum64())
	}
	return file
}

// sample is a cache with several generations, branches and an inline generation.
func sample(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sample")
	for run := range 4 {
		fill(t, path, Options{MaxBytes: 1 << 20, noSync: true}, run*100, run*100+100, 512)
	}
	fill(t, path, Options{MaxBytes: 1 << 20, noSync: true}, 400, 402, 512)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// survive uses a cache whose file is as given, in every way that there is. Whatever
// is in it, nothing may be found that cannot be told from a signature, and what is
// remembered must be there afterwards, unless the file is not ours, which must stay.
func survive(t *testing.T, file []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cache")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(time.Minute, func() { panic("hangs") }).Stop()
	o := Options{MaxBytes: 1 << 20, noSync: true, Note: func(string) {}}
	c, err := Open(path, o)
	if err != nil {
		if now, _ := os.ReadFile(path); string(now) != string(file) {
			t.Fatalf("a file that is not ours was changed: %v", err)
		}
		return
	}
	use := func(c *Cache, from, to int) (n int) {
		for i := from; i < to; i++ {
			if c.Lookup(someone, sign.SHA256, digest(sign.SHA256, i)) != nil {
				n++
			}
		}
		return n
	}
	use(c, 0, 403)
	for i := 1000; i < 1020; i++ {
		c.Remember(someone, sign.SHA256, digest(sign.SHA256, i), signature(i, 512))
	}
	Stats(path)
	c.Close()
	if c, err = Open(path, o); err != nil {
		t.Fatalf("after it was written to: %v", err)
	}
	if n := found(t, c, 1000, 1020, 512); n != 20 {
		t.Errorf("%d of 20 are left that were just remembered", n)
	}
	// The older generations may still be damaged. Many puts make them go.
	for i := 2000; i < 2300; i++ {
		c.Remember(someone, sign.SHA256, digest(sign.SHA256, i), signature(i, 512))
	}
	c.Close()
	if _, _, err := Trim(path, TrimOptions{}); err != nil {
		t.Errorf("trim: %v", err)
	}
	if _, err := Stats(path); err != nil {
		t.Errorf("stats after trim: %v", err)
	}
	if c, err = Open(path, o); err != nil {
		t.Fatal(err)
	}
	if n := found(t, c, 2000, 2300, 512); n != 300 {
		t.Errorf("%d of 300 are left", n)
	}
	c.Close()
}

func TestSampleIsWhole(t *testing.T) {
	file := sample(t)
	path := filepath.Join(t.TempDir(), "cache")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := checkForWriting(f, int64(len(file)), func(s *snapshot) []generation { return s.generations })
	if err != nil {
		t.Fatal(err)
	}
	branches := 0
	for _, g := range s.generations {
		if g.root == 0 {
			continue
		}
		if n, err := s.node(g.root, make([]byte, pageSize)); err == nil && !n.leaf {
			branches++
		}
	}
	if len(s.generations) < 3 || branches < 2 {
		t.Errorf("%d generations, %d with branches: too few for the tests of damage", len(s.generations), branches)
	}
}

// a hurt changes a file. find returns the offset of a page of a kind.
type hurt struct {
	name string
	do   func(file []byte, page func(kind string) int) []byte
}

var le = binary.LittleEndian

var hurts = []hurt{
	{"a branch that is its own child", func(f []byte, page func(string) int) []byte {
		p := f[page("branch"):]
		for i := range int(le.Uint16(p[10:])) {
			le.PutUint64(p[headerSize+16*i+8:], le.Uint64(p))
		}
		return f
	}},
	{"a branch whose child is the root bucket", func(f []byte, page func(string) int) []byte {
		le.PutUint64(f[page("branch")+headerSize+8:], uint64(page("root")/pageSize))
		return f
	}},
	{"a branch whose children are one leaf", func(f []byte, page func(string) int) []byte {
		p := f[page("branch"):]
		le.PutUint64(p[headerSize+24:], le.Uint64(p[headerSize+8:]))
		return f
	}},
	{"a child beyond the end", func(f []byte, page func(string) int) []byte {
		le.PutUint64(f[page("branch")+headerSize+8:], 1<<40)
		return f
	}},
	{"a child with the largest number", func(f []byte, page func(string) int) []byte {
		le.PutUint64(f[page("branch")+headerSize+8:], 1<<64-1)
		return f
	}},
	{"a leaf with a huge overflow", func(f []byte, page func(string) int) []byte {
		le.PutUint32(f[page("leaf")+12:], 1<<32-1)
		return f
	}},
	{"a branch with a huge overflow", func(f []byte, page func(string) int) []byte {
		le.PutUint32(f[page("branch")+12:], 1<<32-1)
		return f
	}},
	{"a leaf with more entries than it has room for", func(f []byte, page func(string) int) []byte {
		le.PutUint16(f[page("leaf")+10:], 1<<16-1)
		return f
	}},
	{"a branch without entries", func(f []byte, page func(string) int) []byte {
		le.PutUint16(f[page("branch")+10:], 0)
		return f
	}},
	{"an entry beyond its page", func(f []byte, page func(string) int) []byte {
		le.PutUint32(f[page("leaf")+headerSize+4:], 1<<31)
		return f
	}},
	{"a value of 4 GiB", func(f []byte, page func(string) int) []byte {
		le.PutUint32(f[page("leaf")+headerSize+12:], 1<<32-1)
		return f
	}},
	{"a key that is empty", func(f []byte, page func(string) int) []byte {
		le.PutUint32(f[page("leaf")+headerSize+8:], 0)
		return f
	}},
	{"a bucket in a generation", func(f []byte, page func(string) int) []byte {
		le.PutUint32(f[page("leaf")+headerSize:], flagBucket)
		return f
	}},
	{"a page of an unknown kind", func(f []byte, page func(string) int) []byte {
		le.PutUint16(f[page("leaf")+8:], 0x40)
		return f
	}},
	{"a generation that is the root", func(f []byte, page func(string) int) []byte {
		p := f[page("root"):]
		at := headerSize + int(le.Uint32(p[headerSize+4:])) + int(le.Uint32(p[headerSize+8:]))
		le.PutUint64(p[at:], uint64(page("root")/pageSize))
		return f
	}},
	{"an inline generation that is cut off", func(f []byte, page func(string) int) []byte {
		p := f[page("root"):]
		at := headerSize + int(le.Uint32(p[headerSize+4:])) + int(le.Uint32(p[headerSize+8:]))
		le.PutUint64(p[at:], 0)
		return f
	}},
	{"a free list with the most entries", func(f []byte, page func(string) int) []byte {
		p := f[page("free"):]
		le.PutUint16(p[10:], 0xffff)
		le.PutUint64(p[headerSize:], 1<<62)
		return f
	}},
	{"a free list with a huge overflow", func(f []byte, page func(string) int) []byte {
		le.PutUint32(f[page("free")+12:], 1<<32-1)
		return f
	}},
	{"a free list with the meta pages", func(f []byte, page func(string) int) []byte {
		p := f[page("free"):]
		le.PutUint16(p[10:], 2)
		le.PutUint64(p[headerSize:], 0)
		le.PutUint64(p[headerSize+8:], 1)
		return f
	}},
	{"a free list with pages that are used", func(f []byte, page func(string) int) []byte {
		p := f[page("free"):]
		le.PutUint16(p[10:], 1)
		le.PutUint64(p[headerSize:], uint64(page("leaf")/pageSize))
		return f
	}},
	{"a free list with a page twice", func(f []byte, page func(string) int) []byte {
		p := f[page("free"):]
		le.PutUint16(p[10:], 2)
		le.PutUint64(p[headerSize:], 9)
		le.PutUint64(p[headerSize+8:], 9)
		return f
	}},
	{"a free list that has all pages", func(f []byte, page func(string) int) []byte {
		p := f[page("free"):]
		n := min((pageSize-headerSize)/8, len(f)/pageSize-2)
		le.PutUint16(p[10:], uint16(n))
		for i := range n {
			le.PutUint64(p[headerSize+8*i:], uint64(i+2))
		}
		return f
	}},
	{"a free list that is a leaf", func(f []byte, page func(string) int) []byte {
		return bothMetas(f, 48, uint64(page("leaf")/pageSize))
	}},
	{"no free list", func(f []byte, page func(string) int) []byte { return bothMetas(f, 48, 1<<64-1) }},
	{"a root that is a leaf", func(f []byte, page func(string) int) []byte {
		return bothMetas(f, 32, uint64(page("leaf")/pageSize))
	}},
	{"a root that is a meta page", func(f []byte, page func(string) int) []byte { return bothMetas(f, 32, 1) }},
	{"a high-water mark beyond the end", func(f []byte, page func(string) int) []byte { return bothMetas(f, 56, 1<<20) }},
	{"the largest high-water mark", func(f []byte, page func(string) int) []byte { return bothMetas(f, 56, 1<<64-1) }},
	{"a low high-water mark", func(f []byte, page func(string) int) []byte { return bothMetas(f, 56, 5) }},
	{"the last transaction", func(f []byte, page func(string) int) []byte { return bothMetas(f, 64, 1<<64-1) }},
	{"pages of 512 bytes", func(f []byte, page func(string) int) []byte {
		le.PutUint32(f[24:], 512)
		le.PutUint32(f[pageSize+24:], 512)
		return seal(f)
	}},
	{"pages of no bytes", func(f []byte, page func(string) int) []byte {
		le.PutUint32(f[24:], 0)
		return seal(f)
	}},
	{"another version of bbolt", func(f []byte, page func(string) int) []byte {
		le.PutUint32(f[20:], 3)
		return seal(f)
	}},
	{"bad checksums", func(f []byte, page func(string) int) []byte {
		f[72]++
		f[pageSize+72]++
		return f
	}},
	{"one bad checksum", func(f []byte, page func(string) int) []byte {
		f[72]++
		return f
	}},
	{"a second meta page without our brand", func(f []byte, page func(string) int) []byte {
		f[pageSize+brandOffset]++
		return seal(f)
	}},
	{"zeros behind the first pages", func(f []byte, page func(string) int) []byte {
		clear(f[2*pageSize:])
		return f
	}},
	{"bytes behind the end", func(f []byte, page func(string) int) []byte { return append(f, 1, 2, 3) }},
}

func bothMetas(file []byte, at int, value uint64) []byte {
	le.PutUint64(file[at:], value)
	le.PutUint64(file[pageSize+at:], value)
	return seal(file)
}

// pageFinder finds pages of the newest generation that has branches, the root and
// the free list.
func pageFinder(t testing.TB, file []byte) func(kind string) int {
	s, err := newSnapshot(strings.NewReader(string(file)), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	places := map[string]int{"root": int(s.meta.root) * pageSize, "free": int(s.meta.freelist) * pageSize}
	for _, g := range s.generations {
		if g.root == 0 {
			continue
		}
		n, err := s.node(g.root, make([]byte, pageSize))
		if err != nil {
			t.Fatal(err)
		}
		if !n.leaf {
			places["branch"], places["leaf"] = int(g.root)*pageSize, int(n.child(1))*pageSize
			break
		}
	}
	return func(kind string) int {
		at, ok := places[kind]
		if !ok {
			t.Fatalf("no %s", kind)
		}
		return at
	}
}

func TestDamageCostsTimeOnly(t *testing.T) {
	file := sample(t)
	for _, h := range hurts {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			bad := h.do(append([]byte(nil), file...), pageFinder(t, file))
			if string(bad) == string(file) {
				t.Fatal("nothing was damaged")
			}
			survive(t, bad)
		})
	}
}

func TestTruncation(t *testing.T) {
	file := sample(t)
	for at := 0; at < len(file); at += pageSize {
		survive(t, append([]byte(nil), file[:at]...))
	}
	for _, at := range []int{1, 47, 48, 79, 80, 4095, 4097, len(file) - 1} {
		survive(t, append([]byte(nil), file[:at]...))
	}
}

func TestFlippedBytes(t *testing.T) {
	file := sample(t)
	random := rand.New(rand.NewPCG(6, 6))
	for range 400 {
		bad := append([]byte(nil), file...)
		for range 1 + random.IntN(4) {
			// Headers are where it hurts most.
			at := random.IntN(len(bad))
			if random.IntN(2) == 0 {
				at = at/pageSize*pageSize + random.IntN(80)
			}
			bad[min(at, len(bad)-1)] ^= byte(1 + random.IntN(255))
		}
		if random.IntN(2) == 0 {
			seal(bad)
		}
		survive(t, bad)
	}
}

// What bbolt does to a generation that was not checked is what the check is for.
func TestTheCheckFindsEachDamageOfTheStructure(t *testing.T) {
	file := sample(t)
	for _, h := range hurts {
		if h.name == "bytes behind the end" {
			continue
		}
		bad := h.do(append([]byte(nil), file...), pageFinder(t, file))
		_, err := checkForWriting(strings.NewReader(string(bad)), int64(len(bad)), func(s *snapshot) []generation { return s.generations })
		if !errors.Is(err, errDamaged) {
			t.Errorf("%s: %v", h.name, err)
		}
	}
}

func FuzzCache(f *testing.F) {
	file := sample(f)
	for _, h := range hurts {
		f.Add(h.do(append([]byte(nil), file...), pageFinder(f, file)), false)
	}
	f.Add(file, true)
	f.Add(emptyFile(), true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, file []byte, sealed bool) {
		if sealed {
			seal(file)
		}
		survive(t, file)
	})
}
