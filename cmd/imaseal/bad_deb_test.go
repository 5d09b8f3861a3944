package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"testing"
)

// badArchives are those whose ar archive is wrong.
func badArchives() []badPackage {
	var all []badPackage
	add := func(name, want string, e edit) {
		all = append(all, badPackage{name: "deb-" + name, base: helloDeb, edit: e, want: want})
	}
	header := func(name, want string, i, at, width int, text string) {
		add(name, want, editMember(i, func(m *arMember) { m.put(at, width, text) }))
	}
	size := func(name, want string, i int, size string) {
		add(name, want, editMember(i, func(m *arMember) { m.size = size }))
	}
	members := func(name, want string, change func(m []arMember) []arMember) { add(name, want, editAr(change)) }

	add("wrong-magic", "neither a .deb nor an RPM", func(_ testing.TB, b []byte) []byte { return append([]byte("!<arcs>\n"), b[8:]...) })
	add("thin-archive-magic", "neither a .deb nor an RPM", func(_ testing.TB, b []byte) []byte { return append([]byte("!<thin>\n"), b[8:]...) })
	add("empty", "neither a .deb nor an RPM", cutAt(0))
	for _, at := range []int{1, 7} {
		add(fmt.Sprintf("cut-in-magic-at-%d", at), "neither a .deb nor an RPM", cutAt(at))
	}
	// debian-binary is at 8, its content at 68, control.tar at 72, its content at 132.
	add("cut-after-magic", "the file ends where the ar member debian-binary should be", cutAt(8))
	for _, at := range []int{9, 24, 56, 67} {
		add(fmt.Sprintf("cut-in-first-header-at-%d", at), "too few for the header", cutAt(at))
	}
	add("cut-after-first-header", `"debian-binary" has 4 bytes, but only 0 follow`, cutAt(68))
	add("cut-in-debian-binary", `"debian-binary" has 4 bytes, but only 2 follow`, cutAt(70))
	add("cut-after-debian-binary", "the file ends where the ar member control.tar should be", cutAt(72))
	add("cut-in-control-header", "offset 72", cutAt(100))
	add("cut-in-control", "control.tar.gz", cutAt(132+100))
	add("cut-after-control", "the file ends where the ar member data.tar should be", cutBefore(theData))
	for at, n := range map[string]int{"first-byte": 1, "name": 12, "size": 55, "end-mark": 59} {
		add("cut-in-data-header-at-"+at, "too few for the header", cutBehind(theData, n))
	}
	add("cut-in-data", `"data.tar.gz" has`, cutBehind(theData, 60+10))
	add("cut-by-a-byte", `"data.tar.gz"`, func(_ testing.TB, b []byte) []byte { return b[:len(b)-1-len(b)&1] })

	header("no-header-end-mark", "no header of an ar member", theControl, 58, 2, "x")
	header("header-end-mark-swapped", "no header of an ar member", theData, 58, 2, "\n`")
	header("name-empty", "is not one that a member of a .deb has", theControl, 0, 16, "")
	header("name-of-a-slash", "is not one that a member of a .deb has", theControl, 0, 16, "/")
	header("name-with-nul", "is not one that a member of a .deb has", theControl, 0, 16, "control.tar.gz\x00")
	header("name-of-gnu-table", "is not one that a member of a .deb has", theControl, 0, 16, "//")
	header("name-of-bsd", "is not one that a member of a .deb has", theControl, 0, 16, "#1/20")
	header("name-that-climbs", "is not one that a member of a .deb has", theControl, 0, 16, "../control.tar")
	header("mtime-no-number", "modification time", theControl, 16, 12, "yesterday")
	header("mtime-negative", "modification time", theControl, 16, 12, "-1")
	header("owner-blank", "owner", theControl, 28, 6, "")
	header("group-no-number", "group", theControl, 34, 6, "root")
	header("mode-blank", "mode", theControl, 40, 8, "")
	header("mode-not-octal", "mode", theControl, 40, 8, "100648")
	header("mode-of-two-digits", "mode", theControl, 40, 8, "64")
	size("size-past-the-end", "but only", theData, "99999")
	size("size-of-ten-digits", "has 9999999999 bytes", theData, "9999999999")
	size("size-negative", "is no number", theData, "-60")
	size("size-negative-in-control", "is no number", theControl, "-1")
	size("size-blank", "is no number", theData, " ")
	size("size-with-a-letter", "is no number", theControl, "4x")
	size("size-hexadecimal", "is no number", theControl, "0x10")
	size("size-with-a-sign", "is no number", theControl, "+10")
	size("size-with-a-blank-in-front", "is no number", theControl, " 10")
	size("size-too-small", "offset", theControl, "100")
	size("size-zero", "offset", theControl, "0")

	members("two-debian-binary-members", `"debian-binary" where control.tar should be`, func(m []arMember) []arMember { return slices.Insert(m, 1, m[0]) })
	members("two-control-members", `"control.tar.gz" where data.tar should be`, func(m []arMember) []arMember { return slices.Insert(m, 2, m[1]) })
	members("two-control-members-of-two-formats", `"control.tar.xz" where data.tar should be`, func(m []arMember) []arMember {
		other := m[1]
		other.rename("control.tar.xz")
		return slices.Insert(m, 2, other)
	})
	members("control-member-after-data", `"control.tar.gz" after data.tar`, func(m []arMember) []arMember { return append(m, m[1]) })
	members("two-data-members", `"data.tar.gz" after data.tar`, func(m []arMember) []arMember { return append(m, m[2]) })
	members("two-data-members-of-two-formats", `"data.tar" after data.tar`, func(m []arMember) []arMember { return append(m, newMember("data.tar", "x")) })
	members("wrong-order-data-first", `"data.tar.gz" where control.tar should be`, func(m []arMember) []arMember { return []arMember{m[0], m[2], m[1]} })
	members("wrong-order-version-last", `"control.tar.gz" where debian-binary should be`, func(m []arMember) []arMember { return []arMember{m[1], m[2], m[0]} })
	members("no-debian-binary", `where debian-binary should be`, func(m []arMember) []arMember { return m[1:] })
	members("no-control-member", `where control.tar should be`, func(m []arMember) []arMember { return []arMember{m[0], m[2]} })
	members("no-data-member", "the file ends where the ar member data.tar", func(m []arMember) []arMember { return m[:2] })
	members("member-between", `"_between" where data.tar should be`, func(m []arMember) []arMember { return slices.Insert(m, 2, newMember("_between", "xx")) })
	members("member-in-front", `"_first" where debian-binary should be`, func(m []arMember) []arMember { return slices.Insert(m, 0, newMember("_first", "xx")) })
	members("member-after-data", `"readme" after data.tar`, func(m []arMember) []arMember { return append(m, newMember("readme", "xx")) })
	members("two-members-of-a-name-after-data", `"_extra" stands there twice`, func(m []arMember) []arMember { return append(m, newMember("_extra", "x"), newMember("_extra", "y")) })
	members("65-members-after-data", "more than 64 ar members", func(m []arMember) []arMember {
		for i := range 65 {
			m = append(m, newMember(fmt.Sprintf("_%d", i), "xx"))
		}
		return m
	})
	add("junk-after-data", "too few for the header", func(_ testing.TB, b []byte) []byte { return append(slices.Clone(b), "junk"...) })
	add("newline-after-data", "too few for the header", func(_ testing.TB, b []byte) []byte { return append(slices.Clone(b), '\n') })
	odd := func(m []arMember, change func(m *arMember)) []arMember {
		m[0].content = []byte("2.0\nx")
		change(&m[0])
		return m
	}
	members("padding-of-nul", "is padded with 0x00", func(m []arMember) []arMember { return odd(m, func(m *arMember) { m.pad = "\x00" }) })
	members("padding-missing", "is padded with", func(m []arMember) []arMember { return odd(m, func(m *arMember) { m.unpad = true }) })
	members("padding-missing-at-the-end", "is not padded", func(m []arMember) []arMember {
		last := newMember("_last", "odd")
		last.unpad = true
		return append(m, last)
	})
	members("padding-too-long", "offset", func(m []arMember) []arMember { return odd(m, func(m *arMember) { m.pad = "\n\n" }) })
	for name, text := range map[string]string{"3": "3.0\n", "1": "1.0\n", "nothing": "", "no-number": "two\n", "no-newline": "2.0", "a-blank": " 2.0\n", "negative": "2.-1\n"} {
		members("format-"+name, "debian-binary says", func(m []arMember) []arMember { m[0].content = []byte(text); return m })
	}
	members("format-of-a-megabyte", "debian-binary has 1048576 bytes", func(m []arMember) []arMember { m[0].content = bytes.Repeat([]byte("2"), 1<<20); return m })
	return all
}

// cutAt keeps the first n bytes.
func cutAt(n int) edit { return func(_ testing.TB, b []byte) []byte { return b[:n] } }

// cutBefore keeps what stands before the i-th member; cutBehind n bytes more.
func cutBefore(i int) edit { return cutBehind(i, 0) }

func cutBehind(i, n int) edit {
	return func(t testing.TB, b []byte) []byte { return b[:len(formatAr(parseAr(t, b)[:i]))+n] }
}

// badCompressions are those whose tar archives can't be decompressed, or not in
// bounds.
func badCompressions() []badPackage {
	var all []badPackage
	add := func(name, want string, member int, change func(t testing.TB, m *arMember)) {
		all = append(all, badPackage{name: "deb-" + name, base: helloDeb, want: want, edit: func(t testing.TB, good []byte) []byte {
			m := parseAr(t, good)
			change(t, &m[member])
			return formatAr(m)
		}})
	}
	for part, member := range map[string]int{"control": theControl, "data": theData} {
		for suffix := range compressors {
			name := part + ".tar" + suffix
			recode := func(t testing.TB, m *arMember, change func(b []byte) []byte) {
				m.rename(name)
				m.content = change(compressed(t, suffix, bytes.NewReader(gunzipped(t, m.content))))
			}
			for what, change := range map[string]func(b []byte) []byte{
				"cut":          func(b []byte) []byte { return b[:len(b)/2] },
				"cut-by-a-few": func(b []byte) []byte { return b[:len(b)-3] },
				"followed":     func(b []byte) []byte { return append(b, "junk"...) },
			} {
				add(name+"-"+what, name, member, func(t testing.TB, m *arMember) { recode(t, m, change) })
			}
			add(name+"-is-not-"+suffix[1:], name, member, func(t testing.TB, m *arMember) {
				m.rename(name)
				m.content = gunzipped(t, m.content)
			})
		}
		add(part+"-empty", "but none", member, func(_ testing.TB, m *arMember) { m.content = nil })
		add(part+"-checksum", part+".tar.gz", member, func(_ testing.TB, m *arMember) { m.content = bytes.Clone(m.content); m.content[len(m.content)-8] ^= 1 })
		add(part+"-called-plain", "the content is not none but gzip", member, func(_ testing.TB, m *arMember) { m.rename(part + ".tar") })
		add(part+"-called-rot13", "dpkg knows no such compression", member, func(_ testing.TB, m *arMember) { m.rename(part + ".tar.rot13") })
		// Zeros behind the archive, in one stream: dpkg reads no second one.
		for suffix, size := range map[string]int64{".gz": 256 << 20, ".zst": 1 << 30, ".xz": 1 << 30} {
			want := map[string]string{"control": "decompression bomb", "data": "of padding after the end mark"}[part]
			add(part+"-bomb"+suffix, want, member, func(t testing.TB, m *arMember) {
				first := bytes.NewReader(gunzipped(t, m.content))
				m.rename(part + ".tar" + suffix)
				if suffix == ".xz" {
					zero := compressed(t, suffix, io.LimitReader(zeros{}, 1<<20))
					m.content = xzOf(append([][]byte{compressed(t, suffix, first)}, slices.Repeat([][]byte{zero}, int(size>>20))...)...)
					return
				}
				m.content = compressed(t, suffix, io.MultiReader(first, io.LimitReader(zeros{}, size)))
			})
			want = map[string]string{".gz": "", ".xz": "more than one compressed stream", ".zst": "more than one compressed stream"}[suffix]
			add(part+"-of-two-streams"+suffix, cmp.Or(want, part+".tar.gz"), member, func(t testing.TB, m *arMember) {
				one := compressed(t, suffix, bytes.NewReader(gunzipped(t, m.content)))
				m.rename(part + ".tar" + suffix)
				m.content = slices.Concat(one, one)
			})
		}
	}
	add("control-called-bz2", "dpkg knows no such compression", theControl, func(_ testing.TB, m *arMember) { m.rename("control.tar.bz2") })
	// A frame that declares a window of 2 GiB, and one that declares 16 exabytes of content.
	add("data-zstd-window-of-2-gib", "data.tar.zst", theData, func(_ testing.TB, m *arMember) {
		m.rename("data.tar.zst")
		m.content = []byte("\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00")
	})
	add("control-zstd-window-of-2-gib", "control.tar.zst", theControl, func(_ testing.TB, m *arMember) {
		m.rename("control.tar.zst")
		m.content = []byte("\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00")
	})
	add("data-zstd-size-of-16-eib", "data.tar.zst", theData, func(_ testing.TB, m *arMember) {
		m.rename("data.tar.zst")
		m.content = []byte("\x28\xb5\x2f\xfd\xe0\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x00")
	})
	add("data-lzma-dictionary-of-2-gib", "a dictionary of 2147483648 bytes is declared", theData, func(_ testing.TB, m *arMember) {
		m.rename("data.tar.lzma")
		m.content = append([]byte("\x5d\x00\x00\x00\x80"), bytes.Repeat([]byte{0xff}, 8)...)
		m.content = append(m.content, make([]byte, 16)...)
	})
	add("data-of-300000-entries", "more than 262144 entries", theData, func(t testing.TB, m *arMember) {
		m.rename("data.tar.zst")
		m.content = compressed(t, ".zst", &manyEntries{left: 300000})
	})
	return all
}

// manyEntries is a tar archive of empty files.
type manyEntries struct {
	left  int
	block []byte
	rest  []byte
}

func (m *manyEntries) Read(p []byte) (int, error) {
	if len(m.rest) == 0 {
		if m.left == 0 {
			return 0, io.EOF
		}
		if m.left--; m.block == nil {
			var b bytes.Buffer
			h := tarFile("./0000000000", "").Header
			if err := tar.NewWriter(&b).WriteHeader(&h); err != nil {
				return 0, err
			}
			m.block = b.Bytes()[:512]
		}
		copy(m.block[2:], fmt.Sprintf("%010d", m.left))
		mendChecksum(m.block)
		m.rest = m.block
	}
	n := copy(p, m.rest)
	m.rest = m.rest[n:]
	return n, nil
}
