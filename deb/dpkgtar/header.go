// Package dpkgtar knows what dpkg reads in the two tar archives of a .deb: the
// dialect of their headers, which entries mean what they say, and which control
// members are executed. The .deb file and the installed side both read archives, and
// must see the same.
//
// [Reader] reads an archive for its content. [Scanner] watches one that passes by on
// its way to dpkg.
package dpkgtar

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/imaseal/imaseal/sign"
)

const (
	// BlockSize is the unit of a tar archive.
	BlockSize = 512
	// MaxPath is PATH_MAX of Linux: dpkg could not create a longer name.
	MaxPath = 4096
	// MaxPadding bounds the zeros after the end mark. GNU tar pads to 10 KiB, and
	// to 1 MiB when told to. Without a bound a few bytes of zstd would be hours of
	// zeros; content needs none, as whoever installs the package stores it.
	MaxPadding = 1 << 20
)

// A Header is what dpkg reads in a header, lib/dpkg/tarfn.c.
type Header struct {
	// Name and Link are as they stand there, long names put in.
	Name, Link string
	// Kind is the type flag, '0' for the NUL of V7 archives.
	Kind        byte
	Size, Mode  int64
	UID, GID    int64
	User, Group string // win over the numbers where the system knows them
	ModTime     int64
}

// path brings the name into the form of [sign.File], "" for the root folder, and
// refuses entries that do not mean what they say.
func (h *Header) path() (string, error) {
	if h.Kind == tar.TypeReg && strings.HasSuffix(h.Name, "/") {
		return "", fmt.Errorf("%q is a regular file by its type and a folder by its name", h.Name)
	}
	if h.Kind != tar.TypeReg && h.Size != 0 {
		return "", fmt.Errorf("%q is no regular file and has a size of %d", h.Name, h.Size)
	}
	if len(h.Name) > MaxPath || len(h.Link) > MaxPath {
		return "", fmt.Errorf("a name of %d bytes is longer than any path", max(len(h.Name), len(h.Link)))
	}
	name := strings.TrimPrefix(h.Name, "./")
	if h.Kind == tar.TypeDir {
		name = strings.TrimSuffix(name, "/")
		if name == "" || name == "." {
			return "", nil
		}
	}
	return name, sign.CheckPath(name)
}

// A decoder takes the header blocks of an archive, one after the other, and the
// blocks of GNU long names among them.
type decoder struct {
	header Header // the last one that was complete
	ended  bool   // the end mark was seen

	// A GNU long name is collected as long as longLeft is not 0.
	long     []byte
	longLeft int64 // bytes of its blocks that are to come
	longSize int64
	longKind byte
	names    map[byte]string // by type flag, for the next entry
}

// take looks at a header block. It reports whether header is complete now, or the
// archive has ended; otherwise what follows is a long name, for [decoder.takeLong].
func (d *decoder) take(b *[BlockSize]byte) (complete bool, err error) {
	if d.ended {
		return true, nil
	}
	if *b == ([BlockSize]byte{}) {
		d.ended = true
		if len(d.names) > 0 {
			return true, errors.New("the archive ends after a long name")
		}
		return true, nil
	}
	if b[0] == 0 {
		return false, errors.New("a header without a name, at which dpkg stops reading")
	}
	kind := b[156]
	switch kind {
	case 0, '0', '1', '2', '3', '4', '5', '6', 'L', 'K':
	case 'x', 'g':
		return false, errors.New("a PAX header, which dpkg does not read")
	default:
		return false, fmt.Errorf("an entry of type %q, which dpkg does not read", kind)
	}
	if err := d.header.decode(b); err != nil {
		return false, err
	}
	if kind == 'L' || kind == 'K' {
		size := d.header.Size
		if size < 2 || size > MaxPath+1 {
			return false, fmt.Errorf("a long name of %d bytes", size)
		}
		if _, twice := d.names[kind]; twice {
			return false, errors.New("an entry has two long names")
		}
		d.long, d.longKind, d.longSize = d.long[:0], kind, size
		d.longLeft = (size + BlockSize - 1) &^ (BlockSize - 1)
		return false, nil
	}
	if name, ok := d.names['L']; ok {
		d.header.Name = name
	}
	if name, ok := d.names['K']; ok {
		d.header.Link = name
	}
	clear(d.names)
	return true, nil
}

// takeLong takes the next bytes of a long name, at most longLeft of them. One that
// is whole ends in a NUL, where dpkg's copy of it ends.
func (d *decoder) takeLong(p []byte) error {
	d.long = append(d.long, p...)
	if d.longLeft -= int64(len(p)); d.longLeft > 0 {
		return nil
	}
	name, ended := cString(d.long[:d.longSize])
	if !ended || name == "" {
		return fmt.Errorf("a long name that is empty or has no end: %q", name)
	}
	if d.names == nil {
		d.names = map[byte]string{}
	}
	d.names[d.longKind] = name
	return nil
}

// decode reads the block of a header as dpkg does. Unlike archive/tar it takes the
// prefix of every ustar header and of no other.
func (h *Header) decode(b *[BlockSize]byte) error {
	h.Name, _ = cString(b[0:100])
	h.Link, _ = cString(b[157:257])
	keep(&h.User, b[265:297])
	keep(&h.Group, b[297:329])
	if h.Kind = b[156]; h.Kind == 0 {
		h.Kind = tar.TypeReg
	}
	if prefix, _ := cString(b[345:500]); prefix != "" && string(b[257:263]) == "ustar\x00" {
		h.Name = prefix + "/" + h.Name
	}
	for _, field := range []struct {
		name  string
		bytes []byte
		value *int64
	}{
		{"size", b[124:136], &h.Size}, {"mode", b[100:108], &h.Mode}, {"time", b[136:148], &h.ModTime},
		{"uid", b[108:116], &h.UID}, {"gid", b[116:124], &h.GID},
	} {
		var err error
		if *field.value, err = number(field.bytes); err == nil && *field.value < 0 && field.value != &h.ModTime {
			err = fmt.Errorf("%d is negative", *field.value)
		}
		if err != nil {
			return fmt.Errorf("%q: %s: %w", h.Name, field.name, err)
		}
	}
	stated, err := number(b[148:156])
	if sum := checksum(b); err != nil || stated != sum {
		return fmt.Errorf("%q: the checksum of the header is %d, not what it says", h.Name, sum)
	}
	return nil
}

// checksum is the sum of the bytes of a header, those of the checksum counted as spaces.
func checksum(b *[BlockSize]byte) (sum int64) {
	for _, c := range b {
		sum += int64(c)
	}
	for _, c := range b[148:156] {
		sum += ' ' - int64(c)
	}
	return sum
}

// cString returns the bytes of field up to a NUL, and whether there is one.
func cString(field []byte) (s string, ended bool) {
	before, _, ended := bytes.Cut(field, []byte{0})
	return string(before), ended
}

// keep is cString for fields of which most entries have the same: it takes no memory
// for one that *s holds already.
func keep(s *string, field []byte) {
	before, _, _ := bytes.Cut(field, []byte{0})
	if *s != string(before) {
		*s = string(before)
	}
}

// number reads a number as dpkg does: spaces, octal digits, then spaces and NULs
// only; or big-endian binary, of which the first byte says the sign.
func number(field []byte) (int64, error) {
	var n int64
	if field[0] == 0x80 || field[0] == 0xff {
		if field[0] == 0xff {
			n = -1
		}
		for _, c := range field[1:] {
			if n >= 1<<54 || n < -1<<54 {
				return 0, fmt.Errorf("%q is too large", field)
			}
			n = n<<8 | int64(c)
		}
		return n, nil
	}
	rest := bytes.TrimLeft(field, " ")
	digits := bytes.TrimRight(rest, " \x00")
	if len(rest) == 0 {
		return 0, fmt.Errorf("%q is no octal number", field)
	}
	for _, c := range digits {
		if c < '0' || c > '7' {
			return 0, fmt.Errorf("%q is no octal number", field)
		}
		n = n<<3 | int64(c-'0')
	}
	return n, nil
}
