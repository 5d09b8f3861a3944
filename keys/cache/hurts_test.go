package cache

import (
	"encoding/binary"
	"strings"
	"testing"
)

// A hurt is a way to damage a sample. page returns the offset of a page of a kind.
type hurt struct {
	name string
	do   func(file []byte, page func(kind string) int) []byte
}

var order = binary.NativeEndian

var hurts = []hurt{
	{"a branch that is its own child", func(f []byte, page func(string) int) []byte {
		p := f[page("branch"):]
		for i := range int(order.Uint16(p[10:])) {
			order.PutUint64(p[headerSize+16*i+8:], order.Uint64(p))
		}
		return f
	}},
	{"a branch whose child is the root bucket", func(f []byte, page func(string) int) []byte {
		order.PutUint64(f[page("branch")+headerSize+8:], uint64(page("root")/pageSize))
		return f
	}},
	{"a branch whose children are one leaf", func(f []byte, page func(string) int) []byte {
		p := f[page("branch"):]
		order.PutUint64(p[headerSize+24:], order.Uint64(p[headerSize+8:]))
		return f
	}},
	{"a child beyond the end", func(f []byte, page func(string) int) []byte {
		order.PutUint64(f[page("branch")+headerSize+8:], 1<<40)
		return f
	}},
	{"a child with the largest number", func(f []byte, page func(string) int) []byte {
		order.PutUint64(f[page("branch")+headerSize+8:], 1<<64-1)
		return f
	}},
	{"a leaf with a huge overflow", func(f []byte, page func(string) int) []byte {
		order.PutUint32(f[page("leaf")+12:], 1<<32-1)
		return f
	}},
	{"a branch with a huge overflow", func(f []byte, page func(string) int) []byte {
		order.PutUint32(f[page("branch")+12:], 1<<32-1)
		return f
	}},
	{"a leaf with more entries than it has room for", func(f []byte, page func(string) int) []byte {
		order.PutUint16(f[page("leaf")+10:], 1<<16-1)
		return f
	}},
	{"a branch without entries", func(f []byte, page func(string) int) []byte {
		order.PutUint16(f[page("branch")+10:], 0)
		return f
	}},
	{"an entry beyond its page", func(f []byte, page func(string) int) []byte {
		order.PutUint32(f[page("leaf")+headerSize+4:], 1<<31)
		return f
	}},
	{"a value of 4 GiB", func(f []byte, page func(string) int) []byte {
		order.PutUint32(f[page("leaf")+headerSize+12:], 1<<32-1)
		return f
	}},
	{"a key that is empty", func(f []byte, page func(string) int) []byte {
		order.PutUint32(f[page("leaf")+headerSize+8:], 0)
		return f
	}},
	{"a bucket in a generation", func(f []byte, page func(string) int) []byte {
		order.PutUint32(f[page("leaf")+headerSize:], flagBucket)
		return f
	}},
	{"a page of an unknown kind", func(f []byte, page func(string) int) []byte {
		order.PutUint16(f[page("leaf")+8:], 0x40)
		return f
	}},
	{"a generation that is the root", func(f []byte, page func(string) int) []byte {
		p := f[page("root"):]
		at := headerSize + int(order.Uint32(p[headerSize+4:])) + int(order.Uint32(p[headerSize+8:]))
		order.PutUint64(p[at:], uint64(page("root")/pageSize))
		return f
	}},
	{"an inline generation that is cut off", func(f []byte, page func(string) int) []byte {
		p := f[page("root"):]
		at := headerSize + int(order.Uint32(p[headerSize+4:])) + int(order.Uint32(p[headerSize+8:]))
		order.PutUint64(p[at:], 0)
		return f
	}},
	{"a free list with the most entries", func(f []byte, page func(string) int) []byte {
		p := f[page("free"):]
		order.PutUint16(p[10:], 0xffff)
		order.PutUint64(p[headerSize:], 1<<62)
		return f
	}},
	{"a free list with a huge overflow", func(f []byte, page func(string) int) []byte {
		order.PutUint32(f[page("free")+12:], 1<<32-1)
		return f
	}},
	{"a free list with the meta pages", func(f []byte, page func(string) int) []byte {
		p := f[page("free"):]
		order.PutUint16(p[10:], 2)
		order.PutUint64(p[headerSize:], 0)
		order.PutUint64(p[headerSize+8:], 1)
		return f
	}},
	{"a free list with pages that are used", func(f []byte, page func(string) int) []byte {
		p := f[page("free"):]
		order.PutUint16(p[10:], 1)
		order.PutUint64(p[headerSize:], uint64(page("leaf")/pageSize))
		return f
	}},
	{"a free list with a page twice", func(f []byte, page func(string) int) []byte {
		p := f[page("free"):]
		order.PutUint16(p[10:], 2)
		order.PutUint64(p[headerSize:], 9)
		order.PutUint64(p[headerSize+8:], 9)
		return f
	}},
	{"a free list that has all pages", func(f []byte, page func(string) int) []byte {
		p := f[page("free"):]
		n := min((pageSize-headerSize)/8, len(f)/pageSize-2)
		order.PutUint16(p[10:], uint16(n))
		for i := range n {
			order.PutUint64(p[headerSize+8*i:], uint64(i+2))
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
		order.PutUint32(f[24:], 512)
		order.PutUint32(f[pageSize+24:], 512)
		return seal(f)
	}},
	{"pages of no bytes", func(f []byte, page func(string) int) []byte {
		order.PutUint32(f[24:], 0)
		return seal(f)
	}},
	{"another version of bbolt", func(f []byte, page func(string) int) []byte {
		order.PutUint32(f[20:], 3)
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
	order.PutUint64(file[at:], value)
	order.PutUint64(file[pageSize+at:], value)
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
