package cache

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"sync"
)

// maxDepth bounds the depth of a tree. One of 1 TiB has eight levels.
const maxDepth = 16

// maxGenerations bounds how many there are: [generationShare] of them fill the file,
// fuller or emptier.
const maxGenerations = 64

// A generation is a bucket of entries.
type generation struct {
	number uint64
	root   uint64 // its page; 0 where the one node is inline
	inline []byte
	bytes  uint64 // about what it holds
}

// A snapshot is the file as a transaction left it. Writers never change a page that
// the last two transactions use; an older snapshot may find another page there.
// That looks damaged, or like a miss, and costs time: what is found is verified.
type snapshot struct {
	pages
	meta        metaPage
	generations []generation // the newest first

	mu       sync.RWMutex
	branches map[uint64]node
}

// maxBranches bounds the branches that a snapshot remembers, to 16 MiB.
const maxBranches = 4096

// readMeta returns the meta page that counts.
func readMeta(f io.ReaderAt) (metaPage, error) {
	var best metaPage
	any := false
	var page [metaSize]byte
	for i := range int64(2) {
		if _, err := f.ReadAt(page[:], i*pageSize); err != nil {
			return best, damaged("meta page %d: %v", i, err)
		}
		if m, ok, _ := parseMeta(page[:]); ok && (!any || m.transaction > best.transaction) {
			best, any = m, true
		}
	}
	if !any {
		return best, damaged("no meta page is whole")
	}
	return best, nil
}

// newSnapshot reads the list of generations. size is that of the file.
func newSnapshot(f io.ReaderAt, size int64) (*snapshot, error) {
	m, err := readMeta(f)
	if err != nil {
		return nil, err
	}
	if m.pages*pageSize > uint64(size) {
		return nil, damaged("%d pages in %d bytes", m.pages, size)
	}
	s := &snapshot{pages: pages{f, m.pages}, meta: m, branches: map[uint64]node{}}
	err = s.walk(s.meta.root, nil, newVisited(s.high), func(key, value []byte, flags uint32) error {
		g, err := parseGeneration(key, value, flags)
		if err != nil {
			return err
		}
		if len(s.generations) == maxGenerations {
			return damaged("more than %d generations", maxGenerations)
		}
		s.generations = append(s.generations, g)
		return nil
	})
	slices.Reverse(s.generations)
	return s, err
}

func parseGeneration(name, value []byte, flags uint32) (generation, error) {
	if flags != flagBucket || len(name) != 8 || len(value) < bucketSize {
		return generation{}, damaged("the root has an entry that is no generation")
	}
	g := generation{
		number: binary.BigEndian.Uint64(name),
		root:   binary.NativeEndian.Uint64(value),
		bytes:  binary.NativeEndian.Uint64(value[8:]),
	}
	if g.number >= maxNumber || g.bytes >= maxNumber {
		return generation{}, damaged("a generation has the number %d and %d bytes", g.number, g.bytes)
	}
	if g.root == 0 {
		g.inline = bytes.Clone(value[bucketSize:])
	}
	return g, nil
}

var pageBuffers = sync.Pool{New: func() any { return new([pageSize]byte) }}

// find returns a copy of the value of key, and in the how many newest generation it
// is, counted from 0; nil where it is in none.
func (s *snapshot) find(key []byte) (value []byte, age int, err error) {
	buffer := pageBuffers.Get().(*[pageSize]byte)
	defer pageBuffers.Put(buffer)
	for age, g := range s.generations {
		n, err := s.leaf(g, key, buffer[:])
		if err != nil {
			return nil, 0, err
		}
		at, found, err := n.search(key)
		if err != nil {
			return nil, 0, err
		}
		if !found {
			continue
		}
		value, flags, err := n.value(at)
		if err != nil {
			return nil, 0, err
		}
		e, err := parseEntry(key, value, flags)
		if err != nil {
			return nil, 0, err
		}
		return bytes.Clone(e.value), age, nil
	}
	return nil, 0, nil
}

// inlineLeaf returns the one node of a generation that has no page.
func (g generation) inlineLeaf() (node, error) {
	n, err := parseNode(g.inline)
	if err == nil && !n.leaf {
		err = damaged("an inline generation has branches")
	}
	return n, err
}

// leaf returns the leaf of g in which key is, if it is there.
func (s *snapshot) leaf(g generation, key, buffer []byte) (node, error) {
	if g.root == 0 {
		return g.inlineLeaf()
	}
	id := g.root
	for range maxDepth {
		n, err := s.branchOrLeaf(id, buffer)
		if err != nil || n.leaf {
			return n, err
		}
		if id, err = n.childFor(key); err != nil {
			return node{}, err
		}
	}
	return node{}, damaged("a tree is more than %d levels deep", maxDepth)
}

// branchOrLeaf returns the node at page id, from memory where it is a branch that
// was read before.
func (s *snapshot) branchOrLeaf(id uint64, buffer []byte) (node, error) {
	s.mu.RLock()
	n, ok := s.branches[id]
	s.mu.RUnlock()
	if ok {
		return n, nil
	}
	n, err := s.node(id, buffer)
	if err != nil || n.leaf {
		return n, err
	}
	n.data = bytes.Clone(n.data)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.branches) < maxBranches {
		s.branches[id] = n
	}
	return n, nil
}

// entries calls each for the entries of g whose keys are not less than from, in
// order. What each gets is valid during the call. Malformed ones are an error.
func (s *snapshot) entries(g generation, from []byte, each func(entry) error) error {
	leaf := func(key, value []byte, flags uint32) error {
		e, err := parseEntry(key, value, flags)
		if err != nil {
			return err
		}
		return each(e)
	}
	if g.root == 0 {
		n, err := g.inlineLeaf()
		if err != nil {
			return err
		}
		return n.each(from, leaf)
	}
	return s.walk(g.root, from, newVisited(s.high), leaf)
}

// each calls f for the entries of a leaf.
func (n node) each(from []byte, f func(key, value []byte, flags uint32) error) error {
	for i := range n.count {
		key, err := n.key(i)
		if err != nil {
			return err
		}
		if bytes.Compare(key, from) < 0 {
			continue
		}
		value, flags, err := n.value(i)
		if err != nil {
			return err
		}
		if err := f(key, value, flags); err != nil {
			return err
		}
	}
	return nil
}

// walk calls f for the entries of a tree in order, from the key from on. No page is
// visited twice, so that a tree that bites its tail ends.
func (s *snapshot) walk(root uint64, from []byte, seen visited, f func(key, value []byte, flags uint32) error) error {
	var down func(id uint64, depth int) error
	down = func(id uint64, depth int) error {
		n, err := s.visit(id, depth, seen)
		if err != nil {
			return err
		}
		if n.leaf {
			return n.each(from, f)
		}
		for i := range n.count {
			if i+1 < n.count {
				next, err := n.key(i + 1)
				if err != nil {
					return err
				}
				if bytes.Compare(next, from) <= 0 {
					continue
				}
			}
			if err := down(n.child(i), depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return down(root, 0)
}

// visit returns the node at page id of a tree, so many levels down, and adds its pages
// to seen.
func (s *snapshot) visit(id uint64, depth int, seen visited) (node, error) {
	if depth == maxDepth {
		return node{}, damaged("a tree is more than %d levels deep", maxDepth)
	}
	n, err := s.node(id, make([]byte, pageSize))
	if err == nil {
		err = seen.add(id, n.overflow)
	}
	return n, err
}

// visited is a set of pages.
type visited []uint64

func newVisited(high uint64) visited { return make(visited, high/64+1) }

// add takes the page id, which is below the high-water mark with all that it has
// more; it is an error when one is there already.
func (v visited) add(id uint64, overflow int) error {
	for i := id; i <= id+uint64(overflow); i++ {
		if v[i/64]&(1<<(i%64)) != 0 {
			return damaged("page %d is used twice", i)
		}
		v[i/64] |= 1 << (i % 64)
	}
	return nil
}
