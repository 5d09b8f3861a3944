package cache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"
)

// errDamaged says that the file is not built as it must be.
var errDamaged = errors.New("the cache is damaged")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errDamaged, fmt.Sprintf(format, args...))
}

// A node is a branch or a leaf of a tree, with the header of its page. Nothing in
// it is trusted: its methods check what they read.
type node struct {
	data     []byte
	leaf     bool
	count    int
	overflow int
}

// parseNode reads the header of a node that has all of data.
func parseNode(data []byte) (node, error) {
	n := node{data: data}
	if len(data) < headerSize {
		return n, damaged("a page of %d bytes", len(data))
	}
	flags := binary.NativeEndian.Uint16(data[8:])
	n.count = int(binary.NativeEndian.Uint16(data[10:]))
	n.leaf = flags == flagLeaf
	switch {
	case flags != flagLeaf && flags != flagBranch:
		return n, damaged("a page with flags %#x in a tree", flags)
	case n.count == 0 && !n.leaf:
		return n, damaged("a branch without leaves")
	case headerSize+n.count*elementSize > len(data):
		return n, damaged("%d entries in a page of %d bytes", n.count, len(data))
	}
	return n, nil
}

// key returns the key of entry i < count.
func (n node) key(i int) ([]byte, error) {
	at := headerSize + i*elementSize
	e := n.data[at : at+elementSize]
	pos, size := binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:])
	if n.leaf {
		pos, size = binary.NativeEndian.Uint32(e[4:]), binary.NativeEndian.Uint32(e[8:])
	}
	return n.bytes(at, uint64(pos), uint64(size))
}

// bytes returns size bytes at pos behind the element at at, which must lie behind
// all elements.
func (n node) bytes(at int, pos, size uint64) ([]byte, error) {
	from := uint64(at) + pos
	if from < uint64(headerSize+n.count*elementSize) || from+size > uint64(len(n.data)) {
		return nil, damaged("an entry outside its page")
	}
	return n.data[from : from+size : from+size], nil
}

// value returns the value of entry i of a leaf, and its flags.
func (n node) value(i int) ([]byte, uint32, error) {
	at := headerSize + i*elementSize
	e := n.data[at : at+elementSize]
	order := binary.NativeEndian
	value, err := n.bytes(at, uint64(order.Uint32(e[4:]))+uint64(order.Uint32(e[8:])), uint64(order.Uint32(e[12:])))
	return value, order.Uint32(e), err
}

// child returns the page of entry i of a branch.
func (n node) child(i int) uint64 {
	return binary.NativeEndian.Uint64(n.data[headerSize+i*elementSize+8:])
}

// search returns the first entry whose key is not less than key, and whether it is
// equal.
func (n node) search(key []byte) (at int, found bool, err error) {
	at = sort.Search(n.count, func(i int) bool {
		k, failed := n.key(i)
		if failed != nil {
			err = failed
			return true
		}
		return bytes.Compare(k, key) >= 0
	})
	if err != nil || at == n.count {
		return at, false, err
	}
	k, err := n.key(at)
	return at, err == nil && bytes.Equal(k, key), err
}

// childFor returns the page of the branch in which key is, if it is anywhere.
func (n node) childFor(key []byte) (uint64, error) {
	at, found, err := n.search(key)
	if err != nil {
		return 0, err
	}
	if !found && at > 0 {
		at--
	}
	return n.child(at), nil
}

// pages reads the pages of a file by read(2), not by a mapping: one that is cut off
// meanwhile gives an error and no SIGBUS.
type pages struct {
	file io.ReaderAt
	high uint64 // the high-water mark
}

// node reads the node at page id into buffer, of pageSize bytes, or into a longer
// one where it has more.
func (p pages) node(id uint64, buffer []byte) (node, error) {
	if id < 2 || id >= p.high {
		return node{}, damaged("page %d of %d", id, p.high)
	}
	if _, err := p.file.ReadAt(buffer[:pageSize], int64(id)*pageSize); err != nil {
		return node{}, damaged("page %d: %v", id, err)
	}
	if own := binary.NativeEndian.Uint64(buffer); own != id {
		return node{}, damaged("page %d says that it is page %d", id, own)
	}
	overflow := binary.NativeEndian.Uint32(buffer[12:])
	if overflow > 0 {
		if overflow > maxOverflow || id+uint64(overflow) >= p.high {
			return node{}, damaged("page %d has %d more", id, overflow)
		}
		buffer = append(bytes.Clone(buffer[:pageSize]), make([]byte, int(overflow)*pageSize)...)
		if _, err := p.file.ReadAt(buffer[pageSize:], int64(id+1)*pageSize); err != nil {
			return node{}, damaged("page %d: %v", id, err)
		}
	}
	n, err := parseNode(buffer[:pageSize*(1+int(overflow))])
	n.overflow = int(overflow)
	return n, err
}
