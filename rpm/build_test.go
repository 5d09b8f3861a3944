package rpm

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"path"
	"slices"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

// A testFile is a file of a package that buildRPM makes.
type testFile struct {
	path    string // absolute
	mode    uint32 // 0 means a regular file 0644
	content string // of a link its target
	inode   uint32 // 0 means one of its own
	flags   uint32
	class   string
	color   uint32
}

// A testPackage is an RPM to build. The hooks change parts on the way; digests are
// made after them, so that nothing but the change is wrong.
type testPackage struct {
	files    []testFile
	stripped bool // payload as in format 6
	v6       bool
	compress string // gzip (""), zstd, none
	algo     int    // FILEDIGESTALGO, 0 means SHA-256, 1 leaves the tag out

	editMain  func([]entry) []entry
	editCpio  func([]byte) []byte
	editSig   func([]entry) []entry
	noReserve bool
}

func textEntry(tag uint32, text string) entry {
	return entry{tag, typeString, 1, append([]byte(text), 0)}
}

func textsEntry(tag uint32, texts ...string) entry {
	e := entry{tag: tag, kind: typeStringArray, count: uint32(len(texts))}
	for _, t := range texts {
		e.data = append(append(e.data, t...), 0)
	}
	return e
}

func intsEntry(tag, kind uint32, values ...uint64) entry {
	e := entry{tag: tag, kind: kind, count: uint32(len(values))}
	for _, v := range values {
		e.data = append(e.data, binary.BigEndian.AppendUint64(nil, v)[8-intWidth(kind):]...)
	}
	return e
}

func binEntry(tag uint32, data []byte) entry { return entry{tag, typeBin, uint32(len(data)), data} }

func (p testPackage) digest(content string) string {
	switch p.algo {
	case 1:
		return fmt.Sprintf("%x", md5.Sum([]byte(content)))
	case 2:
		return fmt.Sprintf("%x", sha1.Sum([]byte(content)))
	case 9:
		return fmt.Sprintf("%x", sha512.Sum384([]byte(content)))
	case 10:
		return fmt.Sprintf("%x", sha512.Sum512([]byte(content)))
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(content)))
}

// mainEntries returns the main header but for what depends on the payload.
func (p testPackage) mainEntries() []entry {
	entries := []entry{
		textEntry(tagName, "test"), textEntry(tagVersion, "1"), textEntry(tagRelease, "2"), textEntry(tagArch, "noarch"),
		textEntry(1021, "linux"), textEntry(tagSourceRPM, "test-1-2.src.rpm"), textEntry(tagPayloadFormat, "cpio"),
	}
	if c := p.compress; c != "none" {
		entries = append(entries, textEntry(tagPayloadCompressor, map[string]string{"": "gzip", "zstd": "zstd"}[c]))
	}
	if p.v6 {
		entries = append(entries, intsEntry(tagRPMFormat, typeInt32, 6))
	}
	if p.algo == 0 {
		p.algo = 8
	}
	if p.algo != 1 {
		entries = append(entries, intsEntry(tagFileDigestAlgo, typeInt32, uint64(p.algo)))
	}
	n := len(p.files)
	if n == 0 {
		return entries
	}
	var base, dirs, digests, classes, targets []string
	var dirIndex, sizes, modes, flags, inodes, devices, colors, class []uint64
	for i, f := range p.files {
		dir, name := path.Split(f.path)
		at := slices.Index(dirs, dir)
		if at < 0 {
			at = len(dirs)
			dirs = append(dirs, dir)
		}
		mode, inode, digest := f.mode, f.inode, ""
		if mode == 0 {
			mode = 0o100644
		}
		if inode == 0 {
			inode = uint32(i + 1)
		}
		if mode&modeType == modeRegular && f.flags&fileGhost == 0 {
			digest = p.digest(f.content)
		}
		target := ""
		if mode&modeType == modeLink {
			target = f.content
		}
		targets = append(targets, target)
		if !slices.Contains(classes, f.class) {
			classes = append(classes, f.class)
		}
		base, digests = append(base, name), append(digests, digest)
		dirIndex, sizes, modes = append(dirIndex, uint64(at)), append(sizes, uint64(len(f.content))), append(modes, uint64(mode))
		flags, inodes, devices = append(flags, uint64(f.flags)), append(inodes, uint64(inode)), append(devices, 1)
		colors, class = append(colors, uint64(f.color)), append(class, uint64(slices.Index(classes, f.class)))
	}
	return append(entries,
		textsEntry(tagBaseNames, base...), textsEntry(tagDirNames, dirs...), intsEntry(tagDirIndexes, typeInt32, dirIndex...),
		intsEntry(tagFileSizes, typeInt32, sizes...), intsEntry(tagFileModes, typeInt16, modes...),
		textsEntry(tagFileDigests, digests...), intsEntry(tagFileFlags, typeInt32, flags...),
		intsEntry(tagFileInodes, typeInt32, inodes...), intsEntry(tagFileDevices, typeInt32, devices...),
		intsEntry(tagFileColors, typeInt32, colors...), intsEntry(tagFileClass, typeInt32, class...), textsEntry(tagClassDict, classes...),
		// What rpm wants besides: FILERDEVS, FILEMTIMES, FILELINKTOS, FILEUSERNAME, FILEGROUPNAME.
		intsEntry(1033, typeInt16, make([]uint64, n)...), intsEntry(1034, typeInt32, make([]uint64, n)...), textsEntry(1036, targets...),
		textsEntry(1039, slices.Repeat([]string{"root"}, n)...), textsEntry(1040, slices.Repeat([]string{"root"}, n)...),
	)
}

func pad4(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }

func cpioEntryOf(name string, mode uint32, ino, size int) []byte {
	b := fmt.Appendf(nil, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		ino, mode, 0, 0, 1, 0, size, 0, 1, 0, 0, len(name)+1, 0)
	return pad4(append(append(b, name...), 0))
}

// cpio returns the payload, with the links of a file behind each other and the
// content with the last, as rpmbuild does it.
func (p testPackage) cpio() []byte {
	var b []byte
	add := func(i int, content string) {
		f := p.files[i]
		mode := f.mode
		if mode == 0 {
			mode = 0o100644
		}
		if p.stripped || p.v6 {
			b = pad4(fmt.Appendf(b, "07070X%08x", i))
		} else {
			b = append(b, cpioEntryOf("."+f.path, mode, int(f.inode), len(content))...)
		}
		b = pad4(append(b, content...))
	}
	for i, f := range p.files {
		if f.flags&fileGhost != 0 {
			continue
		}
		if f.mode&modeType == 0o040000 {
			add(i, "")
			continue
		}
		var names []int
		for k, g := range p.files {
			if k == i || f.inode != 0 && g.inode == f.inode && g.flags&fileGhost == 0 {
				names = append(names, k)
			}
		}
		if names[len(names)-1] != i {
			continue
		}
		for _, k := range names[:len(names)-1] {
			add(k, "")
		}
		add(i, f.content)
	}
	return append(b, cpioEntryOf(cpioTrailer, 0, 0, 0)...)
}

// build returns the package file.
func (p testPackage) build(t testing.TB) []byte {
	t.Helper()
	archive := p.cpio()
	if p.editCpio != nil {
		archive = p.editCpio(archive)
	}
	payload := compress(t, p.compress, archive)
	entries := append(p.mainEntries(),
		textsEntry(tagPayloadSHA256, fmt.Sprintf("%x", sha256.Sum256(payload))), intsEntry(tagPayloadDigestAlgo, typeInt32, 8),
		textsEntry(tagPayloadSHA256Alt, fmt.Sprintf("%x", sha256.Sum256(archive))))
	if p.editMain != nil {
		entries = p.editMain(entries)
	}
	main := buildHeader(entries, tagRegion)
	both := md5.Sum(append(slices.Clone(main), payload...))
	sig := []entry{textEntry(sigSHA256, fmt.Sprintf("%x", sha256.Sum256(main)))}
	reserve := binEntry(sigReserved, make([]byte, usualReserve))
	if !p.v6 {
		reserve.tag = sigReservedSpace
		sig = append(sig, textEntry(sigSHA1, fmt.Sprintf("%x", sha1.Sum(main))),
			intsEntry(sigSize, typeInt32, uint64(len(main)+len(payload))), binEntry(sigMD5, both[:]),
			intsEntry(sigPayloadSize, typeInt32, uint64(len(archive))))
	}
	if !p.noReserve {
		sig = append(sig, reserve)
	}
	if p.editSig != nil {
		sig = p.editSig(sig)
	}
	return assemble(buildHeader(sig, sigRegion), main, payload, p.v6)
}

func compress(t testing.TB, format string, archive []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	switch format {
	case "none":
		return archive
	case "zstd":
		w, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(archive)
		w.Close()
	default:
		w := gzip.NewWriter(&b)
		w.Write(archive)
		w.Close()
	}
	return b.Bytes()
}

func assemble(sig, main, payload []byte, v6 bool) []byte {
	b := make([]byte, leadSize)
	copy(b, magic)
	if b[4] = 3; v6 {
		b[4] = 4
	}
	copy(b[10:], "test-1-2")
	b[77], b[79] = 1, leadHeaderSignature
	b = append(b, sig...)
	b = append(b, make([]byte, -len(b)&7)...)
	return append(append(b, main...), payload...)
}

// usual is a package with one of everything.
func usual() testPackage {
	return testPackage{files: []testFile{
		{path: "/etc", mode: 0o040755},
		{path: "/etc/test.conf", content: "a = 1\n", flags: 1},
		{path: "/usr/bin/b1", mode: 0o100755, content: "#!/bin/sh\necho hello\n", inode: 77, class: "POSIX shell script, ASCII text executable"},
		{path: "/usr/bin/b2", mode: 0o100755, content: "#!/bin/sh\necho hello\n", inode: 77, class: "POSIX shell script, ASCII text executable"},
		{path: "/usr/bin/b3", mode: 0o100755, content: "#!/bin/sh\necho hello\n", inode: 77, class: "POSIX shell script, ASCII text executable"},
		{path: "/usr/bin/su", mode: 0o104755, content: "\x7fELF...", color: 2},
		{path: "/usr/bin/to", mode: 0o120777, content: "b1"},
		{path: "/usr/share/\xff\xfe name\n", content: "odd"},
		{path: "/usr/share/empty"},
		{path: "/usr/share/empty2"},
		{path: "/usr/share/\u00fcml\u00e4ut", content: "n"},
		{path: "/var/lib/ghost", flags: fileGhost, content: "not there"},
	}}
}

func open(t testing.TB, raw []byte, o Options) *Package {
	t.Helper()
	p, err := Open(bytes.NewReader(raw), int64(len(raw)), o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func write(t testing.TB, p *Package, m *sign.Manifest, o sign.WriteOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := p.Write(t.Context(), &b, m, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// testKey is made once; what it signs is of no consequence.
var testKey = sync.OnceValue(signtest.NewSigner)

// signed signs raw with testKey.
func signed(t testing.TB, raw []byte, o Options) ([]byte, *sign.Manifest) {
	t.Helper()
	p := open(t, raw, o)
	m, err := sign.Sign(t.Context(), p, testKey(), sign.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return write(t, p, m, sign.WriteOptions{Force: true}), m
}
