package deb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/deb/dpkgtar"
	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

// A badTar is a tar archive that is refused, and what the error says.
type badTar struct {
	raw  []byte
	want string
}

// badTars are refused as control.tar and as data.tar; first is an entry that each
// begins with.
func badTars(t testing.TB, first entry) map[string]badTar {
	whole := tarOf(t, first, file("second", 0o644, "content"))
	at := len(tarOf(t, first)) - 1024 // where the second entry's header is
	entries := whole[:at]
	long := strings.Repeat("n", 300)
	withLong := tarOf(t, first, file(long, 0o644, "x"))
	pax := func(h tar.Header) []byte {
		h.Format = tar.FormatPAX
		return tarOf(t, first, entry{Header: h})
	}
	patch := func(offset int, bytes ...byte) []byte {
		return patched(whole, at, func(b []byte) { copy(b[offset:], bytes) })
	}
	typed := func(kind byte) []byte { return patch(156, kind) }
	number := func(offset int, field string) []byte { return patch(offset, []byte(field)...) }
	cases := map[string]badTar{
		"empty":                      {nil, "no end mark"},
		"cut off after an entry":     {entries, "no end mark"},
		"cut off in a header":        {whole[:at+100], "unexpected EOF"},
		"cut off in content":         {whole[:at+dpkgtar.BlockSize+3], "unexpected EOF"},
		"cut off in padding":         {whole[:at+dpkgtar.BlockSize+100], "unexpected EOF"},
		"cut off in the end mark":    {whole[:len(whole)-1024+100], "unexpected EOF"},
		"no archive":                 {bytes.Repeat([]byte("no archive "), 200), "an entry of type"},
		"wrong checksum":             {append(append(bytes.Clone(entries), 'X'), whole[at+1:]...), "the checksum of the header"},
		"byte after the end mark":    {append(bytes.Clone(whole), 'x'), "0x78 after the end mark"},
		"archive after the end mark": {append(bytes.Clone(whole), whole...), "after the end mark"},
		"padding without end":        {append(bytes.Clone(whole), make([]byte, 2<<20)...), "of padding after the end mark"},
		"entry without a name":       {patched(whole, at, func(b []byte) { clear(b[:100]) }), "at which dpkg stops reading"},
		"PAX header":                 {pax(tar.Header{Typeflag: tar.TypeReg, Name: "ü" + long}), "PAX header"},
		"PAX record of an attribute": {pax(tar.Header{Typeflag: tar.TypeReg, Name: "a", PAXRecords: map[string]string{"SCHILY.xattr.security.ima": "x"}}), "PAX header"},
		"PAX global header":          {pax(tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"path": "x"}}), "PAX header"},
		"GNU sparse file":            {typed('S'), "an entry of type 'S'"},
		"GNU dump folder":            {typed('D'), "an entry of type 'D'"},
		"GNU volume label":           {typed('V'), "an entry of type 'V'"},
		"GNU continued file":         {typed('M'), "an entry of type 'M'"},
		"contiguous file":            {typed('7'), "an entry of type '7'"},
		"Solaris attributes":         {typed('X'), "an entry of type 'X'"},
		"unknown type":               {typed('z'), "an entry of type 'z'"},
		"type 8":                     {typed('8'), "an entry of type '8'"},
		"link with content":          {typed('1'), "is no regular file and has a size"},
		"folder with content":        {typed('5'), "is no regular file and has a size"},
		"symbolic link with content": {typed('2'), "is no regular file and has a size"},
		"file called like a folder":  {patched(whole, at, func(b []byte) { copy(b, "second/") }), "a folder by its name"},
		"V7 file called like one":    {patched(whole, at, func(b []byte) { copy(b, "second/"); b[156] = 0 }), "a folder by its name"},
		"absolute name":              {tarOf(t, first, file("/second", 0o644, "")), "is not relative"},
		"name that climbs":           {tarOf(t, first, file("./a/../second", 0o644, "")), `component ".."`},
		"name that climbs out":       {tarOf(t, first, file("../second", 0o644, "")), `component ".."`},
		"name that is ..":            {tarOf(t, first, file("..", 0o644, "")), `component ".."`},
		"name that is .":             {tarOf(t, first, file(".", 0o644, "")), `component "."`},
		"name with two slashes":      {tarOf(t, first, file(".//second", 0o644, "")), "is not relative"},
		"name with ./ inside":        {tarOf(t, first, file("././second", 0o644, "")), `component "."`},
		"link called like a folder":  {tarOf(t, first, link(tar.TypeSymlink, "second/", "x")), `component ""`},
		"ustar prefix in GNU format": {patched(whole, at, func(b []byte) { copy(b[345:], "prefix") }), "to others"},
		"prefix of star's format": {patched(whole, at, func(b []byte) {
			copy(b[257:], "ustar\x0000")
			copy(b[345:], strings.Repeat("p", 131)+"00000000000\x0000000000000\x00")
			copy(b[508:], "tar\x00")
		}), "to others"},
		"size negative":           {number(124, "-0000000007\x00"), "size"},
		"size not octal":          {number(124, "0000000008\x00\x00"), "is no octal number"},
		"size blank":              {number(124, "            "), "is no octal number"},
		"size with NUL in front":  {number(124, "\x000000000007\x00"), "is no octal number"},
		"size of two numbers":     {number(124, "0000007 0007"), "is no octal number"},
		"size negative in binary": {number(124, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xf9"), "is negative"},
		"size of 2^90 in binary":  {number(124, "\x80\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), "is too large"},
		"mode not octal":          {number(100, "000064x\x00"), "is no octal number"},
		"mode with NUL in front":  {number(100, "\x00000644\x00"), "is no octal number"},
		"long name without end":   {bytes.Replace(withLong, []byte(long+"\x00"), []byte(long+"n"), 1), "has no end"},
		"long name empty":         {bytes.Replace(withLong, []byte(long+"\x00"), make([]byte, 301), 1), "is empty"},
		"long name at the end":    {append(bytes.Clone(withLong[:at+2*dpkgtar.BlockSize]), make([]byte, 1024)...), "the archive ends after a long name"},
		"long name twice":         {append(bytes.Clone(withLong[:at+2*dpkgtar.BlockSize]), withLong[at:]...), "two long names"},
		"long name of 5000 bytes": {tarOf(t, first, file(strings.Repeat("n/", 2500)+"n", 0o644, "")), "a long name of 5002 bytes"},
		"long link of 5000 bytes": {tarOf(t, first, link(tar.TypeSymlink, "a", strings.Repeat("n", 5000))), "a long name of 5001 bytes"},
		"long name of 8 GiB": {patched(withLong, at, func(b []byte) { copy(b[124:], "77777777777\x00") }),
			"a long name of 8589934591 bytes"},
	}
	for name, kind := range map[string]byte{"hard link": '1', "symbolic link": '2', "device": '3', "block device": '4', "fifo": '6'} {
		cases["absolute name of a "+name] = badTar{tarOf(t, first, link(kind, "/second", "control")), "is not relative"}
	}
	return cases
}

func withControl(t testing.TB, raw []byte) []byte {
	m := build{}.members(t)
	m[1].content = raw
	return arOf(m...)
}

func withData(t testing.TB, raw []byte) []byte {
	m := build{}.members(t)
	m[2].content = raw
	return arOf(m...)
}

// notSigned checks that every way to a signed copy of raw fails, with an error that
// says want, and that Verify does not call raw good.
func notSigned(t *testing.T, raw []byte, want string) {
	t.Helper()
	err := func() error {
		p, err := Open(bytes.NewReader(raw), int64(len(raw)), Options{})
		if err != nil {
			return err
		}
		if r, err := sign.Verify(t.Context(), p, signtest.Trust(testKey), sign.Options{}); err == nil && r.OK() {
			t.Error("Verify says ok")
		}
		m, err := sign.Sign(t.Context(), p, testKey, sign.Options{})
		if err != nil {
			return err
		}
		return p.Write(t.Context(), io.Discard, m, sign.WriteOptions{})
	}()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v does not say %q", err, want)
		return
	}
	if strings.ContainsAny(err.Error(), "\n\r") || !saysWhere.MatchString(err.Error()) {
		t.Errorf("error %q is not one line that names an offset, a member or a file", err)
	}
}

// saysWhere finds the place that an error is about.
var saysWhere = regexp.MustCompile(`offset \d|member |control members |(control|data)\.tar|^"`)

func TestBadControlArchives(t *testing.T) {
	control := file("./control", 0o644, controlText)
	cases := badTars(t, control)
	cases["cut off in content"] = badTar{cases["cut off in content"].raw, "has 7 bytes, but only 3 follow"}
	for name, c := range map[string]struct {
		entries []entry
		want    string
	}{
		"no control file":         {[]entry{file("./preinst", 0o755, "#!/bin/sh\n")}, "no member control"},
		"nothing":                 {nil, "no member control"},
		"control in a folder":     {[]entry{folder("a/"), file("a/control", 0o644, controlText)}, "is no plain file"},
		"member in a folder":      {[]entry{control, file("a/control", 0o644, controlText)}, "is in a folder"},
		"folder":                  {[]entry{control, folder("./preinst/")}, "is no plain file"},
		"symbolic link preinst":   {[]entry{control, link(tar.TypeSymlink, "./preinst", "/bin/sh")}, "is no plain file"},
		"hard link preinst":       {[]entry{control, link(tar.TypeLink, "./preinst", "./control")}, "is no plain file"},
		"device preinst":          {[]entry{control, link(tar.TypeChar, "./preinst", "")}, "is no plain file"},
		"fifo preinst":            {[]entry{control, link(tar.TypeFifo, "./preinst", "")}, "is no plain file"},
		"preinst twice":           {[]entry{control, file("./preinst", 0o755, "a"), file("./preinst", 0o755, "b")}, "stands there twice"},
		"preinst and ./preinst":   {[]entry{control, file("./preinst", 0o755, "a"), file("preinst", 0o755, "b")}, "stands there twice"},
		"control twice":           {[]entry{control, control}, "stands there twice"},
		"root folder twice":       {[]entry{folder("./"), control, folder("./")}, "stands there twice"},
		"name with a blank":       {[]entry{control, file("./a b", 0o644, "")}, "has a name that no control member has"},
		"name with a newline":     {[]entry{control, file("./a\nb", 0o644, "")}, "has a name that no control member has"},
		"name of 101 bytes":       {[]entry{control, file(strings.Repeat("n", 101), 0o644, "")}, "has a name that no control member has"},
		"control empty":           {[]entry{file("./control", 0o644, "")}, "is no field"},
		"field without colon":     {[]entry{file("./control", 0o644, controlText+"Nonsense\n")}, "line 8 is no field"},
		"field twice":             {[]entry{file("./control", 0o644, controlText+"package: other\n")}, "field package stands there twice"},
		"second stanza":           {[]entry{file("./control", 0o644, controlText+"\nPackage: other\n")}, "line 8 is no field"},
		"no Version":              {[]entry{file("./control", 0o644, "Package: a\nArchitecture: all\n")}, `field version is ""`},
		"no Package":              {[]entry{file("./control", 0o644, "Version: 1\nArchitecture: all\n")}, `field package is ""`},
		"no Architecture":         {[]entry{file("./control", 0o644, "Package: a\nVersion: 1\n")}, `field architecture is ""`},
		"Package that climbs":     {[]entry{file("./control", 0o644, "Package: ../a\nVersion: 1\nArchitecture: all\n")}, "field package"},
		"Package with a slash":    {[]entry{file("./control", 0o644, "Package: a/b\nVersion: 1\nArchitecture: all\n")}, "field package"},
		"Version folded":          {[]entry{file("./control", 0o644, "Package: a\nVersion: 1\n 2\nArchitecture: all\n")}, "line 3 continues"},
		"first line continues":    {[]entry{file("./control", 0o644, " x\nPackage: a\nVersion: 1\nArchitecture: all\n")}, "line 1 continues"},
		"Version with a blank":    {[]entry{file("./control", 0o644, "Package: a\nVersion: 1 2\nArchitecture: all\n")}, "field version"},
		"blank before the colon":  {[]entry{file("./control", 0o644, "Package : a\nVersion: 1\nArchitecture: all\n")}, "is no field"},
		"NUL in a field name":     {[]entry{file("./control", 0o644, controlText+"Pack\x00age: x\n")}, "is no field"},
		"1025 members":            {append([]entry{control}, manyFiles(1025)...), "is one of more than 1024"},
		"script like a statement": {[]entry{control, file("./preinst", 0o755, "Format: imaseal-package-1\nPackage: x\n")}, "as only a package statement may"},
	} {
		cases[name] = badTar{tarOf(t, c.entries...), c.want}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) { notSigned(t, withControl(t, c.raw), c.want) })
	}
}

func manyFiles(n int) []entry {
	var all []entry
	for i := range n {
		all = append(all, file(fmt.Sprintf("f%d", i), 0o644, ""))
	}
	return all
}

func TestBadDataArchives(t *testing.T) {
	cases := badTars(t, file("./first", 0o644, "content"))
	a := file("./usr/a", 0o644, "x")
	for name, c := range map[string]struct {
		entries []entry
		want    string
	}{
		"file twice":                    {[]entry{a, a}, "stands there twice"},
		"file twice, once without ./":   {[]entry{a, file("usr/a", 0o644, "y")}, "stands there twice"},
		"folder twice":                  {[]entry{folder("./usr/"), folder("./usr")}, "stands there twice"},
		"root folder twice":             {[]entry{folder("./"), folder("./")}, "stands there twice"},
		"file and folder":               {[]entry{a, folder("./usr/a/")}, "stands there twice"},
		"folder and file":               {[]entry{folder("./usr/a/"), a}, "stands there twice"},
		"file and symbolic link":        {[]entry{a, link(tar.TypeSymlink, "./usr/a", "b")}, "stands there twice"},
		"file and hard link":            {[]entry{a, link(tar.TypeLink, "./usr/a", "./usr/a")}, "stands there twice"},
		"hard link to the outside":      {[]entry{a, link(tar.TypeLink, "./usr/b", "./etc/shadow")}, "which is no regular file that came before it"},
		"hard link to an absolute name": {[]entry{a, link(tar.TypeLink, "./usr/b", "/usr/a")}, "which is no regular file that came before it"},
		"hard link that climbs":         {[]entry{a, link(tar.TypeLink, "./usr/b", "./usr/../usr/a")}, "which is no regular file that came before it"},
		"hard link to itself":           {[]entry{link(tar.TypeLink, "./usr/b", "./usr/b")}, "which is no regular file that came before it"},
		"hard link to what comes later": {[]entry{link(tar.TypeLink, "./usr/b", "./usr/a"), a}, "which is no regular file that came before it"},
		"hard link to a folder":         {[]entry{folder("./usr/"), link(tar.TypeLink, "./b", "./usr")}, "which is no regular file that came before it"},
		"hard link to a symbolic link":  {[]entry{link(tar.TypeSymlink, "./a", "/etc/shadow"), link(tar.TypeLink, "./b", "./a")}, "which is no regular file that came before it"},
		"hard link to a device":         {[]entry{link(tar.TypeChar, "./a", ""), link(tar.TypeLink, "./b", "./a")}, "which is no regular file that came before it"},
		"hard link to nothing":          {[]entry{a, link(tar.TypeLink, "./b", "")}, "which is no regular file that came before it"},
		"file beneath a symbolic link":  {[]entry{link(tar.TypeSymlink, "./usr", "/etc"), a}, "is beneath \"usr\""},
		"file deep beneath a link":      {[]entry{link(tar.TypeSymlink, "./usr", "/etc"), file("./usr/x/y/z", 0o644, "")}, "is beneath \"usr\""},
		"file beneath a file":           {[]entry{file("./usr", 0o644, ""), a}, "is beneath \"usr\""},
		"symbolic link over its folder": {[]entry{a, link(tar.TypeSymlink, "./usr", "/etc")}, "something that came before is in it"},
		"file over its folder":          {[]entry{a, file("./usr", 0o644, "")}, "something that came before is in it"},
		"file like a statement":         {[]entry{file("./a", 0o644, "Format: imaseal-package-1\nPackage: x\n")}, "as only a package statement may"},
		"file like a later statement":   {[]entry{file("./a", 0o644, "Format: imaseal-package-2")}, "as only a package statement may"},
		"name of 4097 bytes":            {[]entry{file(strings.Repeat("n/", 2048)+"n", 0o644, "")}, "a long name of 4098 bytes"},
	} {
		cases[name] = badTar{tarOf(t, c.entries...), c.want}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) { notSigned(t, withData(t, c.raw), c.want) })
	}
}

// A hostile writer yields the blocks of an archive that would be too large to hold.
func TestEntriesAreBounded(t *testing.T) {
	for name, entryName := range map[string]func(i int) string{
		"entries":        func(i int) string { return fmt.Sprintf("f%d", i) },
		"bytes of names": func(i int) string { return fmt.Sprintf("%s%d", strings.Repeat("n", 3000), i) },
		"folders":        func(i int) string { return fmt.Sprintf("%d/%s/f", i, strings.Repeat("n/", 40)+"n") },
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
			w := tar.NewWriter(z)
			for i := range dpkgtar.MaxEntries + 10 {
				e := file(entryName(i), 0o644, "")
				if err := w.WriteHeader(&e.Header); err != nil {
					t.Fatal(err)
				}
				if name != "entries" && i == 20000 {
					break
				}
			}
			w.Close()
			z.Close()
			m := build{}.members(t)
			m[2] = arMember{name: "data.tar.gz", content: b.Bytes()}
			notSigned(t, arOf(m...), "more than 262144 entries, or more than 25165824 bytes of names")
		})
	}
}

func TestBadCompression(t *testing.T) {
	flip := func(b []byte, from int) []byte {
		b = bytes.Clone(b)
		if from < 0 {
			from += len(b)
		}
		b[from] ^= 1
		return b
	}
	for _, suffix := range []string{".gz", ".xz", ".zst", ".bz2", ".lzma"} {
		whole := build{dataSuffix: suffix}.members(t)
		content := whole[2].content
		cases := map[string][]byte{
			"empty":            nil,
			"one byte":         content[:1],
			"half":             content[:len(content)/2],
			"all but a byte":   content[:len(content)-1],
			"magic broken":     flip(content, 0),
			"other content":    []byte("this is not compressed at all"),
			"not compressed":   tarOf(t, payloadFiles()...),
			"byte in the data": flip(content, len(content)/2),
		}
		if suffix == ".gz" || suffix == ".xz" || suffix == ".zst" {
			cases["junk at the end"] = append(bytes.Clone(content), "junk"...)
		}
		if suffix == ".gz" || suffix == ".xz" {
			cases["check"] = flip(content, -12)
		}
		for name, bad := range cases {
			t.Run("data"+suffix+" "+name, func(t *testing.T) {
				m := append([]arMember(nil), whole...)
				m[2].content = bad
				notSigned(t, arOf(m...), "data.tar"+suffix)
			})
			if suffix == ".bz2" || suffix == ".lzma" {
				continue
			}
			t.Run("control"+suffix+" "+name, func(t *testing.T) {
				m := append([]arMember(nil), whole...)
				m[1] = arMember{name: "control.tar" + suffix, content: bad}
				notSigned(t, arOf(m...), "control.tar"+suffix)
			})
		}
		t.Run("plain name of "+suffix, func(t *testing.T) {
			m := append([]arMember(nil), whole...)
			m[2].name = "data.tar"
			notSigned(t, arOf(m...), "data.tar: the content is not none but")
		})
	}
}

// TestControlBomb: a mebibyte of compressed zeros must neither be held nor taken.
func TestControlBomb(t *testing.T) {
	bomb := io.MultiReader(bytes.NewReader(tarOf(t, controlFiles()...)), io.LimitReader(zeros{}, 1<<30))
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	io.Copy(z, bomb)
	z.Close()
	m := build{}.members(t)
	m[1] = arMember{name: "control.tar.gz", content: b.Bytes()}
	notSigned(t, arOf(m...), "decompression bomb")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestReadErrors: what the disk says must reach the user.
func TestReadErrors(t *testing.T) {
	for _, suffix := range []string{"", ".gz", ".xz", ".zst", ".bz2", ".lzma"} {
		t.Run("data.tar"+suffix, func(t *testing.T) { readErrors(t, build{dataSuffix: suffix, controlSuffix: ".gz"}.bytes(t)) })
	}
	for _, suffix := range []string{"", ".xz", ".zst"} {
		t.Run("control.tar"+suffix, func(t *testing.T) { readErrors(t, build{dataSuffix: ".gz", controlSuffix: suffix}.bytes(t)) })
	}
}

func readErrors(t *testing.T, raw []byte) {
	broken := errors.New("the disk is broken")
	for n := 0; n < len(raw); n += 1 + len(raw)/100 {
		r := readerAt(func(p []byte, off int64) (int, error) {
			if off+int64(len(p)) > int64(n) {
				return 0, broken
			}
			return copy(p, raw[off:]), nil
		})
		p, err := Open(r, int64(len(raw)), Options{})
		if err == nil {
			for _, err = range p.Files(context.Background()) {
				if err != nil {
					break
				}
			}
		}
		if !errors.Is(err, broken) {
			t.Fatalf("broken at %d: %v", n, err)
		}
	}
}

type readerAt func(p []byte, off int64) (int, error)

func (f readerAt) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }
