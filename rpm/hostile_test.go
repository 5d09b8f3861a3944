package rpm

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

// A badCase is a package that must be refused, by Open or on the way through it.
type badCase struct {
	name string
	raw  []byte
	want string // in the error
}

func put32(raw []byte, at int64, v uint32) []byte {
	b := bytes.Clone(raw)
	binary.BigEndian.PutUint32(b[at:], v)
	return b
}

// indexOf returns where the index entry of a tag is in a header that begins at off.
func indexOf(raw []byte, off int64, tag uint32) int64 {
	il := int64(binary.BigEndian.Uint32(raw[off+8:]))
	for i := range il {
		at := off + introSize + indexSize*i
		if binary.BigEndian.Uint32(raw[at:]) == tag {
			return at
		}
	}
	panic(fmt.Sprintf("no tag %d", tag))
}

func structureCases(t *testing.T) []badCase {
	raw := usual().build(t)
	p := open(t, raw, Options{})
	sig, main := int64(leadSize), p.mainAt
	sigStore := sig + introSize + indexSize*int64(len(p.sig.entries)+1)
	cases := []badCase{
		{"empty", nil, "offset 0"},
		{"wrong magic", append([]byte("RPM!"), raw[4:]...), "not an RPM"},
		{"version 2", append(bytes.Clone(raw[:4]), append([]byte{2}, raw[5:]...)...), "offset 4"},
		{"old signature type", append(bytes.Clone(raw[:79]), append([]byte{1}, raw[80:]...)...), "offset 78"},
		{"signature header magic", put32(raw, sig, 0x8eade802), "offset 96"},
		{"reserved bytes of the magic", put32(raw, main+4, 1), "main header"},
		{"no entries", put32(raw, sig+8, 0), "0 entries"},
		{"33 entries", put32(raw, sig+8, 33), "33 entries"},
		{"negative entries", put32(raw, main+8, 0xffffffff), "entries"},
		{"overflowing entries", put32(raw, main+8, 0x10000001), "entries"},
		{"no store", put32(raw, main+12, 0), "store"},
		{"negative store", put32(raw, main+12, 0x80000000), "store"},
		{"store past the end", put32(raw, main+12, 64<<20), "are left"},
		{"store too short", put32(raw, main+12, 16), "main header"},
		{"no region", put32(raw, main+introSize, 64), "format 3"},
		{"no region in the signature header", put32(raw, sig+introSize, 1000), "format 3"},
		{"region of another type", put32(raw, sig+introSize+4, typeString), "region"},
		{"region's trailer past the store", put32(raw, sig+introSize+8, 1<<20), "trailer"},
		{"region's trailer negative", put32(raw, sig+introSize+8, 0xffffffff), "trailer"},
		{"region's trailer elsewhere", put32(raw, sig+introSize+8, 0), "trailer"},
		{"region larger than the index", put32(raw, sigStore+storeSize(p.sig.raw)-8, 0xffff0000), "index"},
		{"region of a part of an entry", put32(raw, sigStore+storeSize(p.sig.raw)-8, 0xfffffff8), "index"},
		{"region positive", put32(raw, sigStore+storeSize(p.sig.raw)-8, 16), "index"},
		{"junk payload", append(bytes.Clone(raw[:p.payloadAt]), "no payload at all"...), "payload at offset"},
		{"no payload", raw[:p.payloadAt], "cpio"},
	}
	at := indexOf(raw, main, tagFileSizes)
	cases = append(cases, badCase{"integers not aligned", put32(raw, at+8, binary.BigEndian.Uint32(raw[at+8:])+1), "multiple of 4"})
	for _, h := range []struct {
		name string
		off  int64
		tag  uint32
	}{{"signature header", sig, sigSHA256}, {"main header", main, tagBaseNames}, {"integers", main, tagFileSizes}, {"binary", sig, sigMD5}} {
		at := indexOf(raw, h.off, h.tag)
		cases = append(cases,
			badCase{h.name + ": offset past the store", put32(raw, at+8, 1<<24), "value at"},
			badCase{h.name + ": offset negative", put32(raw, at+8, 0xfffffff0), "value at"},
			badCase{h.name + ": offset within another value", put32(raw, at+8, binary.BigEndian.Uint32(raw[at+8:])-4), "header"},
			badCase{h.name + ": count 0", put32(raw, at+12, 0), "no value"},
			badCase{h.name + ": count 16 million", put32(raw, at+12, 16<<20), "declared"},
			badCase{h.name + ": count negative", put32(raw, at+12, 0xffffffff), "declared"},
			badCase{h.name + ": count that overflows", put32(raw, at+12, 0x40000001), "declared"},
			badCase{h.name + ": type 0", put32(raw, at+4, 0), "type"},
			badCase{h.name + ": type 10", put32(raw, at+4, 10), "type"},
			badCase{h.name + ": tag 0", put32(raw, at, 0), "tag 0"},
			badCase{h.name + ": tag negative", put32(raw, at, 0xffffffff), "tag"},
		)
	}
	// Sixteen million entries declared in a hundred bytes.
	tiny := append(bytes.Clone(raw[:leadSize]), headerMagic...)
	tiny = binary.BigEndian.AppendUint32(tiny, 16<<20)
	cases = append(cases, badCase{"16 million entries in 100 bytes", binary.BigEndian.AppendUint32(tiny, 4), "entries"})
	// Truncations at every structure.
	for _, cut := range []int64{1, 4, 95, 96, 100, 111, 112, 127, sigStore - 1, sigStore, p.sigEnd - 1, p.sigEnd, main - 1, main, main + 15, main + 16,
		main + 40, p.payloadAt - 1, p.payloadAt, p.payloadAt + 1, p.payloadAt + 12, p.payloadAt + 100, int64(len(raw)) - 9, int64(len(raw)) - 1} {
		cases = append(cases, badCase{fmt.Sprintf("cut off at %d", cut), raw[:cut], ""})
	}
	return cases
}

// packageCases have headers in order whose values are not.
func packageCases(t *testing.T) []badCase {
	var cases []badCase
	add := func(name, want string, change func(*testPackage)) {
		p := usual()
		change(&p)
		cases = append(cases, badCase{name, p.build(t), want})
	}
	main := func(name, want string, edit func([]entry) []entry) {
		add(name, want, func(p *testPackage) { p.editMain = edit })
	}
	by := func(e entry) func([]entry) []entry {
		return func(list []entry) []entry { return replace(list, e) }
	}
	n := len(usual().files)
	ones := make([]uint64, n)
	main("two tags of a kind", "twice", func(e []entry) []entry { return append(e, textEntry(tagName, "other")) })
	main("no name", "no name", func(e []entry) []entry { return without(e, tagName) })
	main("name is a number", "not a string", by(intsEntry(tagName, typeInt32, 1)))
	main("old file names", "before 4.0", func(e []entry) []entry { return append(e, textsEntry(tagOldFilenames, "/a")) })
	main("format 5", "format 5", by(intsEntry(tagRPMFormat, typeInt32, 5)))
	main("two epochs", "values", by(intsEntry(tagEpoch, typeInt32, 1, 2)))
	main("two digest algorithms", "values", by(intsEntry(tagFileDigestAlgo, typeInt32, 8, 9)))
	main("payload is no cpio", "drpm", by(textEntry(tagPayloadFormat, "drpm")))
	main("other compression", "gzip", by(textEntry(tagPayloadCompressor, "xz")))
	main("unknown compression", "gzip", by(textEntry(tagPayloadCompressor, "rot13")))
	main("unknown digest algorithm", "algorithm", by(intsEntry(tagFileDigestAlgo, typeInt32, 99)))
	main("no modes", "missing", func(e []entry) []entry { return without(e, tagFileModes) })
	main("no sizes", "missing", func(e []entry) []entry { return without(e, tagFileSizes) })
	main("no digests", "missing", func(e []entry) []entry { return without(e, tagFileDigests) })
	main("no folders", "missing", func(e []entry) []entry { return without(e, tagDirNames) })
	main("modes are strings", "not integers", by(textsEntry(tagFileModes, slices.Repeat([]string{"1"}, n)...)))
	main("digests are integers", "not strings", by(intsEntry(tagFileDigests, typeInt32, ones...)))
	main("too few modes", "values", by(intsEntry(tagFileModes, typeInt16, 1, 2)))
	main("too many digests", "values", by(textsEntry(tagFileDigests, slices.Repeat([]string{""}, n+1)...)))
	main("folder past the end", "folder", by(intsEntry(tagDirIndexes, typeInt32, slices.Repeat([]uint64{9999}, n)...)))
	main("folder negative", "folder", by(intsEntry(tagDirIndexes, typeInt32, slices.Repeat([]uint64{0xffffffff}, n)...)))
	main("size of an exabyte", "tag 5008", by(intsEntry(tagLongFileSizes, typeInt64, slices.Repeat([]uint64{1 << 60}, n)...)))
	main("digest too short", "digest", by(textsEntry(tagFileDigests, slices.Repeat([]string{"abcd"}, n)...)))
	main("digest not hexadecimal", "digest", by(textsEntry(tagFileDigests, slices.Repeat([]string{strings.Repeat("x", 64)}, n)...)))
	main("payload digest not hexadecimal", "PAYLOADSHA256", by(textsEntry(tagPayloadSHA256, strings.Repeat("x", 64))))
	main("payload digest algorithm", "algorithm", by(intsEntry(tagPayloadDigestAlgo, typeInt32, 77)))
	add("sha256 too short", "SHA256", func(p *testPackage) {
		p.editSig = by(textEntry(sigSHA256, "abcd"))
	})
	add("md5 too short", "MD5", func(p *testPackage) { p.editSig = by(binEntry(sigMD5, []byte("short"))) })

	name := func(name, path, want string) {
		add(name, want, func(p *testPackage) { p.files = append(p.files, testFile{path: path, content: "x"}) })
	}
	name("climbs out", "/usr/../../etc/passwd", "..")
	name("climbs out at the end", "/usr/..", "..")
	name("dot", "/usr/./x", `"."`)
	name("empty component", "/usr//x", "component")
	name("no name at all", "/", "relative")
	name("same name again", "/etc/test.conf", "same path")
	add("links differ in size", "differ", func(p *testPackage) { p.files[3].content += "more" })
	add("links differ in content", "differ", func(p *testPackage) { p.files[3].content = strings.ToUpper(p.files[3].content) })
	add("too many tags", "tags", func(p *testPackage) {
		p.editSig = func(e []entry) []entry {
			for tag := uint32(500); len(e) < maxSigIndex-2; tag++ {
				e = append(e, textEntry(tag, "x"))
			}
			return e
		}
	})
	add("payload has another name", "not in the main header", func(p *testPackage) {
		p.editCpio = func(b []byte) []byte { return bytes.Replace(b, []byte("test.conf"), []byte("test.c0nf"), 1) }
	})
	cpio := func(name, want string, edit func([]byte) []byte) {
		add(name, want, func(p *testPackage) { p.editCpio = edit })
	}
	trailer := cpioEntryOf(cpioTrailer, 0, 0, 0)
	conf := append(cpioEntryOf("./etc/test.conf", 0o100644, 0, 6), "a = 1\n\x00\x00"...)
	cut := func(b []byte) []byte { return bytes.Clone(b[:len(b)-len(trailer)]) }
	cpio("file missing", "not in the payload", func(b []byte) []byte { return bytes.Replace(b, conf, nil, 1) })
	cpio("file twice", "second time", func(b []byte) []byte { return append(append(cut(b), conf...), trailer...) })
	cpio("file too many", "not in the main header", func(b []byte) []byte {
		return append(append(cut(b), cpioEntryOf("./usr/extra", 0o100644, 0, 0)...), trailer...)
	})
	cpio("climbs out in the payload", "not in the main header", func(b []byte) []byte {
		return append(append(cut(b), cpioEntryOf("./../etc/passwd", 0o100644, 0, 0)...), trailer...)
	})
	cpio("folder is a file", "mode", func(b []byte) []byte { return bytes.Replace(b, []byte("000041ed"), []byte("000081ed"), 1) })
	cpio("file is a link", "mode", func(b []byte) []byte { return bytes.Replace(b, []byte("000081a4"), []byte("0000a1a4"), 1) })
	cpio("size larger", "bytes", func(b []byte) []byte {
		at := bytes.Index(b, conf)
		return append(append(bytes.Clone(b[:at]), bytes.Replace(conf, []byte("00000006"), []byte("00000007"), 1)...), b[at+len(conf):]...)
	})
	cpio("no trailer", "cut off", cut)
	cpio("trailer with content", "trailer", func(b []byte) []byte {
		return append(append(cut(b), cpioEntryOf(cpioTrailer, 0, 0, 4)...), "oops"...)
	})
	cpio("junk behind the trailer", "junk", func(b []byte) []byte { return append(b, "\x00\x00junk"...) })
	cpio("another archive behind the trailer", "junk", func(b []byte) []byte { return append(b, b...) })
	cpio("old cpio", "cpio header", func(b []byte) []byte { return bytes.Replace(b, []byte("070701"), []byte("070707"), 1) })
	cpio("signed number", "hexadecimal", func(b []byte) []byte {
		return bytes.Replace(b, []byte("07070100000000"), []byte("070701-0000001"), 1)
	})
	cpio("no digit", "hexadecimal", func(b []byte) []byte {
		return bytes.Replace(b, []byte("07070100000000"), []byte("0707010000x000"), 1)
	})
	nameSize := func(size string) func([]byte) []byte {
		return func(b []byte) []byte { b = bytes.Clone(b); copy(b[94:], size); return b }
	}
	cpio("name of 0 bytes", "name of 0", nameSize("00000000"))
	cpio("name of 4 GiB", "a name of", nameSize("ffffffff"))
	cpio("name longer than it is", "does not end", nameSize("00000008"))
	cpio("name shorter than it is", "does not end", nameSize("00000003"))
	cpio("empty", "cut off", func([]byte) []byte { return nil })
	for _, cutAt := range []int{1, 6, 13, 50, 109, 110, 112, 230, 260} {
		cpio(fmt.Sprintf("archive cut off at %d", cutAt), "cut off", func(b []byte) []byte { return b[:cutAt] })
	}
	cpio("bomb", "decompression bomb", func(b []byte) []byte { return append(b, make([]byte, 64<<20)...) })
	stripped := func(name, want string, edit func([]byte) []byte) {
		add("stripped: "+name, want, func(p *testPackage) { p.stripped, p.editCpio = true, edit })
	}
	stripped("index past the list", "of 12", func(b []byte) []byte { return bytes.Replace(b, []byte("07070X00000001"), []byte("07070X0000000c"), 1) })
	stripped("index negative", "of 12", func(b []byte) []byte { return bytes.Replace(b, []byte("07070X00000001"), []byte("07070Xffffffff"), 1) })
	stripped("index no number", "hexadecimal", func(b []byte) []byte { return bytes.Replace(b, []byte("07070X00000001"), []byte("07070X0000000g"), 1) })
	stripped("file twice", "second time", func(b []byte) []byte { return bytes.Replace(b, []byte("07070X00000001"), []byte("07070X00000000"), 1) })
	stripped("ghost", "ghost", func(b []byte) []byte { return bytes.Replace(b, []byte("07070X00000001"), []byte("07070X0000000b"), 1) })
	stripped("padding missing", "cpio header", func(b []byte) []byte {
		return bytes.Replace(b, []byte("07070X00000001\x00\x00"), []byte("07070X00000001"), 1)
	})
	return cases
}

// oneLine is what an error about a bad package looks like.
var oneLine = regexp.MustCompile(`^[^\n]*(offset [0-9]+|tags? |[0-9]+ tags|"[^\n]+" is in the main header)[^\n]*$`)

// TestHostile wants each bad package refused with a reason, without much memory.
func TestHostile(t *testing.T) {
	cases := append(structureCases(t), packageCases(t)...)
	if len(cases) < 140 {
		t.Errorf("only %d cases", len(cases))
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := through(c.raw)
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v does not speak of %q", err, c.want)
			}
			if err != nil && !oneLine.MatchString(err.Error()) {
				t.Errorf("error is no short line that names an offset, a tag or a file: %v", err)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 {
				t.Errorf("%d bytes were allocated", used)
			}
		})
	}
	if err := through(usual().build(t)); err != nil {
		t.Errorf("the package that the others are made of: %v", err)
	}
}

// through signs raw and forgets the result.
func through(raw []byte) error {
	p, err := Open(bytes.NewReader(raw), int64(len(raw)), Options{})
	if err != nil {
		return err
	}
	for f, err := range p.Files(background) {
		if err != nil {
			return err
		}
		if f.Content != nil {
			if _, err := io.Copy(io.Discard, f.Content); err != nil {
				return err
			}
		}
	}
	m, err := sign.Sign(background, p, testKey(), sign.Options{})
	if err != nil {
		return err
	}
	return p.Write(background, io.Discard, m, sign.WriteOptions{})
}

var background = context.Background()
