package cache

import (
	"bytes"
	"encoding/binary"
	"io"
)

// bbolt trusts its file. A page that names itself as its child makes it recurse
// until the process is ended, and no recover helps; a free list with a huge count
// makes it read what is not there. So before it writes, what it is going to touch
// is checked with bounds: the meta pages, the free list, the root and the
// generations that change. The check holds as long as the file is locked.

// checkForWriting returns a snapshot in which bbolt can be let loose on the
// generations that touched names, or an error that is errDamaged.
func checkForWriting(f io.ReaderAt, size int64, touched func(s *snapshot) []generation) (*snapshot, error) {
	if err := checkMetas(f); err != nil {
		return nil, err
	}
	s, err := newSnapshot(f, size)
	if err != nil {
		return nil, err
	}
	seen := newVisited(s.high)
	if err := s.checkFreelist(seen); err != nil {
		return nil, err
	}
	if err := s.checkTree(s.meta.root, seen, func(key, value []byte, flags uint32) error {
		_, err := parseGeneration(key, value, flags)
		return err
	}); err != nil {
		return nil, err
	}
	for _, g := range touched(s) {
		if err := s.checkGeneration(g, seen); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// checkMetas demands that bbolt takes the meta page that we take. It asks the first
// that it believes for the size of the pages, so that one must be whole.
func checkMetas(f io.ReaderAt) error {
	var page [metaSize]byte
	for i := range int64(2) {
		if _, err := f.ReadAt(page[:], i*pageSize); err != nil {
			return damaged("meta page %d: %v", i, err)
		}
		if _, ok, sound := parseMeta(page[:]); !ok && (i == 0 || sound) {
			return damaged("meta page %d does not hold", i)
		}
	}
	return nil
}

// checkFreelist puts the free pages, and those of the list, into seen.
func (s *snapshot) checkFreelist(seen visited) error {
	var header [headerSize + 8]byte
	at := int64(s.meta.freelist) * pageSize
	if _, err := s.file.ReadAt(header[:], at); err != nil {
		return damaged("free list: %v", err)
	}
	order := binary.NativeEndian
	overflow := uint64(order.Uint32(header[12:]))
	count, from := uint64(order.Uint16(header[10:])), int64(headerSize)
	if count == 0xffff { // the number stands in the first place of the list
		count, from = order.Uint64(header[headerSize:]), headerSize+8
	}
	switch {
	case order.Uint64(header[:]) != s.meta.freelist || order.Uint16(header[8:]) != flagFreelist:
		return damaged("page %d is no free list", s.meta.freelist)
	case s.meta.freelist+overflow >= s.high:
		return damaged("the free list has %d pages more", overflow)
	case count > s.high || uint64(from)+8*count > (overflow+1)*pageSize:
		return damaged("the free list has %d entries", count)
	}
	if err := seen.add(s.meta.freelist, int(overflow)); err != nil {
		return err
	}
	list := io.NewSectionReader(s.file, at+from, int64(8*count))
	var chunk [pageSize]byte
	last := uint64(1)
	for count > 0 {
		n := min(count, pageSize/8)
		if _, err := io.ReadFull(list, chunk[:8*n]); err != nil {
			return damaged("free list: %v", err)
		}
		for i := range n {
			id := order.Uint64(chunk[8*i:])
			if id <= last || id >= s.high {
				return damaged("the free list has page %d after %d", id, last)
			}
			if err := seen.add(id, 0); err != nil {
				return err
			}
			last = id
		}
		count -= n
	}
	return nil
}

// checkGeneration checks the tree of g and each of its entries.
func (s *snapshot) checkGeneration(g generation, seen visited) error {
	each := func(key, value []byte, flags uint32) error {
		_, err := parseEntry(key, value, flags)
		return err
	}
	if g.root != 0 {
		return s.checkTree(g.root, seen, each)
	}
	n, err := g.inlineLeaf()
	if err != nil {
		return err
	}
	return n.checkLeaf(nil, nil, each)
}

// checkTree checks every node of a tree: that no page is used twice, that all keys
// stand in order and below the branch that leads to them.
func (s *snapshot) checkTree(root uint64, seen visited, each func(key, value []byte, flags uint32) error) error {
	// from and to bound the keys of the node; nil stands for no bound.
	var down func(id uint64, depth int, from, to []byte) error
	down = func(id uint64, depth int, from, to []byte) error {
		n, err := s.visit(id, depth, seen)
		if err != nil {
			return err
		}
		if n.leaf {
			return n.checkLeaf(from, to, each)
		}
		if err := n.checkKeys(from, to); err != nil {
			return err
		}
		for i := range n.count {
			below := to
			if i+1 < n.count {
				if below, err = n.key(i + 1); err != nil {
					return err
				}
			}
			first, err := n.key(i)
			if err != nil {
				return err
			}
			if err := down(n.child(i), depth+1, first, below); err != nil {
				return err
			}
		}
		return nil
	}
	return down(root, 0, nil, nil)
}

func (n node) checkLeaf(from, to []byte, each func(key, value []byte, flags uint32) error) error {
	if err := n.checkKeys(from, to); err != nil {
		return err
	}
	return n.each(nil, each)
}

// checkKeys demands that the keys of n rise, from from on and below to.
func (n node) checkKeys(from, to []byte) error {
	var last []byte
	for i := range n.count {
		key, err := n.key(i)
		if err != nil {
			return err
		}
		if len(key) == 0 || i > 0 && bytes.Compare(key, last) <= 0 || bytes.Compare(key, from) < 0 || to != nil && bytes.Compare(key, to) >= 0 {
			return damaged("a key is out of order")
		}
		last = key
	}
	return nil
}
