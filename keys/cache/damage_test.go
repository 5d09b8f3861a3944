package cache

import (
	"bytes"
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
		order.PutUint64(page[72:], sum.Sum64())
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
	// The older generations may still be damaged, many puts make them go; and pages may
	// be lost, which a trim brings back.
	rememberMany := func() {
		for i := 2000; i < 2300; i++ {
			c.Remember(someone, sign.SHA256, digest(sign.SHA256, i), signature(i, 512))
		}
		c.Close()
	}
	rememberMany()
	if _, _, err := Trim(path, TrimOptions{}); err != nil {
		t.Errorf("trim: %v", err)
	}
	if _, err := Stats(path); err != nil {
		t.Errorf("stats after trim: %v", err)
	}
	if c, err = Open(path, o); err != nil {
		t.Fatal(err)
	}
	rememberMany()
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
	for range 200 {
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

// A file without its meta pages is known by what else is in it: a run goes on.
func TestACacheWithoutItsMetaPagesIsMadeAnew(t *testing.T) {
	few := filepath.Join(t.TempDir(), "few")
	fill(t, few, Options{}, 0, 1, 256) // it is inline in the root
	small, err := os.ReadFile(few)
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string][]byte{"large": sample(t), "one inline entry": small} {
		for _, with := range []byte{0, 0xff} {
			copy(file, bytes.Repeat([]byte{with}, 2*pageSize))
			path := filepath.Join(t.TempDir(), "cache")
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
			var noted []string
			fill(t, path, Options{Note: func(text string) { noted = append(noted, text) }}, 1000, 1020, 512)
			if len(noted) != 1 || !strings.Contains(noted[0], "it is damaged, and made anew") {
				t.Errorf("%s: noted: %q", name, noted)
			}
			if n := found(t, open(t, path, Options{}), 1000, 1020, 512); n != 20 {
				t.Errorf("%s: %d of 20 are left that were just remembered", name, n)
			}
		}
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

// FuzzCache edits a cache: edits are records of a page, an offset in it and four
// bytes that stand there. Nearly all that comes of it is damaged; what is not goes
// through bbolt.
func FuzzCache(f *testing.F) {
	file := sample(f)
	record := func(page, offset int, value uint32) []byte {
		r := order.AppendUint16(nil, uint16(page))
		return order.AppendUint32(order.AppendUint16(r, uint16(offset)), value)
	}
	for kind, offsets := range map[string][]int{"root": {10, 12, 16, 20, 24, 28}, "branch": {8, 10, 12, 16, 24}, "leaf": {8, 12, 20, 28}, "free": {8, 12, 16}} {
		page := pageFinder(f, file)(kind) / pageSize
		for _, offset := range offsets {
			f.Add(record(page, offset, 1<<32-1), uint32(0))
			f.Add(record(page, offset, uint32(page)), uint32(0))
		}
	}
	for offset := headerSize; offset < metaSize; offset += 4 {
		f.Add(append(record(0, offset, 3), record(1, offset, 3)...), uint32(0))
	}
	f.Add([]byte{}, uint32(7*pageSize))
	f.Add([]byte{}, uint32(1))
	f.Fuzz(func(t *testing.T, edits []byte, cut uint32) {
		bad := append([]byte(nil), file...)
		for ; len(edits) >= 8; edits = edits[8:] {
			at := int(order.Uint16(edits))%(len(bad)/pageSize)*pageSize + int(order.Uint16(edits[2:]))%(pageSize-3)
			copy(bad[at:], edits[4:8])
		}
		bad = seal(bad[:len(bad)-int(cut)%len(bad)])
		in, size := bytes.NewReader(bad), int64(len(bad))
		_, err := checkForWriting(in, size, func(s *snapshot) []generation { return s.generations })
		if err == nil {
			survive(t, bad)
			return
		}
		s, _ := newSnapshot(in, size)
		if s == nil {
			return
		}
		for i := range 20 {
			s.find(entryKey(someone, sign.SHA256, digest(sign.SHA256, i)))
		}
		for _, g := range s.generations {
			s.entries(g, nil, func(entry) error { return nil })
		}
	})
}
