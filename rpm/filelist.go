package rpm

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/imaseal/imaseal/sign"
)

// A fileList is what the main header says of the package's files. Its values stay
// in the header's store: a package may have a million files.
type fileList struct {
	n         int
	base, dir stringArray
	dirIndex  ints
	modes     ints
	sizes     ints
	sizeTag   int
	flags     ints        // width 0: none
	digests   stringArray // hexadecimal
	hash      sign.Hash
	colors    ints // width 0: none
	class     ints // width 0: none
	classDict stringArray

	byName []int32       // the files sorted by path; nil when they are in that order
	links  map[int32]int // of a file with several names its index in groups
	groups []linkGroup   // the files that have several names
	total  int64         // the sizes of all regular files, each inode once
	names  int64         // the lengths of all paths
}

// A linkGroup is a file with several names.
type linkGroup struct{ members []int32 }

// readFileList reads and checks the list of files.
func readFileList(h *header) (*fileList, error) {
	l := &fileList{hash: sign.MD5}
	if h.find(tagOldFilenames) != nil {
		return nil, fmt.Errorf("main header: tag %d: file names as rpm wrote them before 4.0: build it again", tagOldFilenames)
	}
	base := h.find(tagBaseNames)
	if base == nil {
		return l, nil
	}
	if err := l.read(h, base); err != nil {
		return nil, fmt.Errorf("main header: %w", err)
	}
	if err := l.checkNames(); err != nil {
		return nil, fmt.Errorf("main header: %w", err)
	}
	return l, nil
}

func (l *fileList) read(h *header, base *entry) error {
	var err error
	stringsOf := func(tag uint32, n int) stringArray {
		var s stringArray
		e := h.find(tag)
		if err != nil || e == nil {
			if err == nil {
				err = fmt.Errorf("tag %d is missing", tag)
			}
			return s
		}
		s, err = e.strings()
		if err == nil && n >= 0 && s.len() != n {
			err = fmt.Errorf("tag %d has %d values for %d files", tag, s.len(), n)
		}
		return s
	}
	intsOf := func(tag uint32, need bool) ints {
		var v ints
		if e := h.find(tag); e != nil && err == nil {
			v, err = e.ints(l.n)
		} else if need && err == nil {
			err = fmt.Errorf("tag %d is missing", tag)
		}
		return v
	}
	if l.base, err = base.strings(); err != nil {
		return err
	}
	l.n = l.base.len()
	l.dir = stringsOf(tagDirNames, -1)
	l.dirIndex = intsOf(tagDirIndexes, true)
	l.modes = intsOf(tagFileModes, true)
	l.flags = intsOf(tagFileFlags, false)
	l.sizeTag = tagLongFileSizes
	if l.sizes = intsOf(tagLongFileSizes, false); l.sizes.width == 0 {
		l.sizeTag = tagFileSizes
		l.sizes = intsOf(tagFileSizes, true)
	}
	l.digests = stringsOf(tagFileDigests, l.n)
	if h.find(tagFileColors) != nil {
		l.colors = intsOf(tagFileColors, false)
	}
	if h.find(tagFileClass) != nil && h.find(tagClassDict) != nil {
		l.class = intsOf(tagFileClass, false)
		l.classDict = stringsOf(tagClassDict, -1)
	}
	inodes, devices := intsOf(tagFileInodes, false), intsOf(tagFileDevices, false)
	if err != nil {
		return err
	}
	algo, ok, err := h.number(tagFileDigestAlgo)
	if err != nil {
		return err
	}
	if ok {
		if l.hash, err = sign.HashFromOpenPGP(int(algo & 0xffff)); err != nil {
			return fmt.Errorf("tag %d: %w", tagFileDigestAlgo, err)
		}
	}
	for i := range l.n {
		if d := l.dirIndex.at(i); d >= uint64(l.dir.len()) {
			return fmt.Errorf("tag %d: file %d is in folder %d of %d", tagDirIndexes, i, d, l.dir.len())
		}
	}
	return l.findLinks(inodes, devices)
}

// findLinks finds the files that have several names: those of one device and inode,
// where both are known and the inode is not 0, as rpm does (rpmfilesBuildNLink).
func (l *fileList) findLinks(inodes, devices ints) error {
	id := func(i int32) uint64 { return devices.at(int(i))<<32 | inodes.at(int(i))&0xffffffff }
	var order []int32
	sorted := true
	if inodes.width > 0 && devices.width > 0 {
		for i := range int32(l.n) {
			if l.carriesFile(int(i)) && inodes.at(int(i)) != 0 {
				sorted = sorted && (len(order) == 0 || id(order[len(order)-1]) <= id(i))
				order = append(order, i)
			}
		}
	}
	if !sorted {
		slices.SortFunc(order, func(a, b int32) int { return cmp.Or(cmp.Compare(id(a), id(b)), cmp.Compare(a, b)) })
	}
	for i := 0; i < len(order); {
		end := i + 1
		for end < len(order) && id(order[end]) == id(order[i]) {
			end++
		}
		if end-i > 1 {
			if err := l.addGroup(order[i:end:end]); err != nil {
				return err
			}
		}
		i = end
	}
	for i := range l.n {
		l.names += int64(len(l.base.at(i)) + len(l.dir.at(int(l.dirIndex.at(i)))))
		size := l.sizes.at(i)
		if size > 1<<50 {
			return fmt.Errorf("tag %d: file %d has %d bytes, more than any file", l.sizeTag, i, size)
		}
		if g, linked := l.links[int32(i)]; linked && l.groups[g].members[0] != int32(i) {
			continue
		}
		l.total += int64(size)
	}
	return nil
}

func (l *fileList) addGroup(members []int32) error {
	if l.links == nil {
		l.links = map[int32]int{}
	}
	first := int(members[0])
	for _, m := range members {
		if l.sizes.at(int(m)) != l.sizes.at(first) || !bytes.Equal(l.digests.at(int(m)), l.digests.at(first)) {
			return fmt.Errorf("tag %d: files %q and %q are one by their inode, but differ in size or digest", tagFileInodes, l.path(first), l.path(int(m)))
		}
		l.links[m] = len(l.groups)
	}
	l.groups = append(l.groups, linkGroup{members})
	return nil
}

// checkNames refuses paths that climb out and paths that are there twice.
func (l *fileList) checkNames() error {
	sorted := true
	last := ""
	for i := range l.n {
		path := l.path(i)
		// Only a folder may be the root itself.
		if path != "" || l.isRegular(i) {
			if err := sign.CheckPath(path); err != nil {
				return fmt.Errorf("tag %d: file %d: %w", tagBaseNames, i, err)
			}
		}
		if i > 0 && path <= last {
			sorted = false
		}
		last = path
	}
	if sorted {
		return nil
	}
	l.byName = make([]int32, l.n)
	for i := range l.byName {
		l.byName[i] = int32(i)
	}
	slices.SortFunc(l.byName, func(a, b int32) int { return l.compare(int(a), int(b)) })
	for i := 1; i < l.n; i++ {
		if a, b := int(l.byName[i-1]), int(l.byName[i]); l.compare(a, b) == 0 {
			return fmt.Errorf("tag %d: files %d and %d have the same path %q", tagBaseNames, a, b, l.path(a))
		}
	}
	return nil
}

// compare compares paths without making them.
func (l *fileList) compare(a, b int) int {
	da, db := l.dirOf(a), l.dirOf(b)
	if bytes.Equal(da, db) {
		return bytes.Compare(l.base.at(a), l.base.at(b))
	}
	return strings.Compare(l.path(a), l.path(b))
}

func (l *fileList) dirOf(i int) []byte { return l.dir.at(int(l.dirIndex.at(i))) }

// path returns the path of file i relative to the root.
func (l *fileList) path(i int) string {
	dir, base := l.dirOf(i), l.base.at(i)
	if len(dir) > 0 && dir[0] == '/' {
		dir = dir[1:]
	}
	var b strings.Builder
	b.Grow(len(dir) + len(base))
	b.Write(dir)
	b.Write(base)
	return b.String()
}

// samePath reports whether file i has the path name, relative to the root.
func (l *fileList) samePath(i int, name []byte) bool {
	dir, base := l.dirOf(i), l.base.at(i)
	if len(dir) > 0 && dir[0] == '/' {
		dir = dir[1:]
	}
	return len(name) == len(dir)+len(base) && bytes.HasPrefix(name, dir) && bytes.HasSuffix(name, base)
}

// sortedAt returns the i-th file in the order of paths.
func (l *fileList) sortedAt(i int) int {
	if l.byName == nil {
		return i
	}
	return int(l.byName[i])
}

// find returns the file with the path name, relative to the root.
func (l *fileList) find(name []byte) (int, bool) {
	want := string(name)
	i, ok := 0, false
	for lo, hi := 0, l.n; lo < hi; {
		mid := int(uint(lo+hi) >> 1)
		i = l.sortedAt(mid)
		switch c := strings.Compare(l.path(i), want); {
		case c == 0:
			return i, true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return i, ok
}

func (l *fileList) isRegular(i int) bool { return l.modes.at(i)&modeType == modeRegular }

// inPayload reports whether the payload has an entry for file i.
func (l *fileList) inPayload(i int) bool {
	return l.flags.width == 0 || l.flags.at(i)&fileGhost == 0
}

// carriesFile reports whether file i is a regular file that the package installs.
func (l *fileList) carriesFile(i int) bool { return l.isRegular(i) && l.inPayload(i) }

// digest returns the recorded digest of file i, nil when there is none: an empty
// string, or zeros.
func (l *fileList) digest(i int) ([]byte, error) {
	text := l.digests.at(i)
	if len(text) == 0 {
		return nil, nil
	}
	digest := make([]byte, hex.DecodedLen(len(text)))
	if _, err := hex.Decode(digest, text); err != nil || len(digest) != l.hash.Size() {
		return nil, fmt.Errorf("main header: tag %d: %q has the digest %.140q, which is not one of %s", tagFileDigests, l.path(i), text, l.hash)
	}
	if bytes.Count(digest, []byte{0}) == len(digest) {
		return nil, nil
	}
	return digest, nil
}

// file fills in what the header says of file i.
func (l *fileList) file(i int) (*sign.File, error) {
	digest, err := l.digest(i)
	if err != nil {
		return nil, err
	}
	mode := l.modes.at(i)
	f := &sign.File{
		Path: l.path(i),
		Mode: fs.FileMode(mode & 0o777),
		Size: int64(l.sizes.at(i)),
	}
	if mode&0o4000 != 0 {
		f.Mode |= fs.ModeSetuid
	}
	if mode&0o2000 != 0 {
		f.Mode |= fs.ModeSetgid
	}
	if mode&0o1000 != 0 {
		f.Mode |= fs.ModeSticky
	}
	if digest != nil {
		f.Recorded, f.RecordedHash = digest, l.hash
	}
	return f, nil
}

// classOf returns what rpmbuild found file i to be.
func (l *fileList) classOf(i int) sign.Class {
	if l.colors.width > 0 && l.colors.at(i)&3 != 0 {
		return sign.ClassELF
	}
	if l.class.width == 0 {
		return sign.ClassOther
	}
	c := l.class.at(i)
	if c >= uint64(l.classDict.len()) {
		return sign.ClassOther
	}
	text := l.classDict.at(int(c))
	switch {
	case bytes.Contains(text, []byte(" compressed data")):
		return sign.ClassOther // rpmbuild looks into what is compressed
	case bytes.HasPrefix(text, []byte("ELF ")):
		return sign.ClassELF
	case bytes.Contains(text, []byte("script")) && bytes.Contains(text, []byte("executable")):
		return sign.ClassScript
	}
	return sign.ClassOther
}
