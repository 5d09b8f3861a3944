package main

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// badTags are RPMs whose headers can be read and say what can't be.
func badTags() []badPackage {
	var all []badPackage
	main := func(name, want string, change func(t testing.TB, tags []rpmTag) []rpmTag) {
		for _, f := range []struct{ name, base string }{{"v4", v4RPM}, {"v6", v6RPM}} {
			all = append(all, badPackage{name: "rpm-" + f.name + "-" + name, base: f.base, edit: editMain(change), want: want})
		}
	}
	by := func(e rpmTag) func(testing.TB, []rpmTag) []rpmTag {
		return func(_ testing.TB, tags []rpmTag) []rpmTag { return withTag(tags, e) }
	}
	without := func(tag uint32) func(testing.TB, []rpmTag) []rpmTag {
		return func(_ testing.TB, tags []rpmTag) []rpmTag { return withoutTag(tags, tag) }
	}
	main("name-twice", "tag 1000 is there twice", func(_ testing.TB, tags []rpmTag) []rpmTag { return append(tags, stringTag(nameTag, "other")) })
	main("no-name", "tag 1000: the package has no name", without(nameTag))
	main("name-is-a-number", "tag 1000 has type 4, not a string", by(intsTag(nameTag, rpmInt32, 1)))
	main("two-epochs", "tag 1003 has 2 values", by(intsTag(epochTag, rpmInt32, 1, 2)))
	main("format-5", "tag 5114: packages of format 5", by(intsTag(rpmFormatTag, rpmInt32, 5)))
	main("payload-is-drpm", "tag 1124", by(stringTag(formatTag, "drpm")))
	main("compressor-is-another", `tag 1125 says "xz"`, by(stringTag(compressorTag, "xz")))
	main("compressor-is-unknown", `tag 1125 says "rot13"`, by(stringTag(compressorTag, "rot13")))
	main("names-before-rpm-4", "tag 1027", by(stringsTag(oldFilenamesTag, "/a")))
	main("digest-algorithm-unknown", "tag 5011", by(intsTag(digestAlgoTag, rpmInt32, 99)))
	main("digest-algorithm-is-another", "", by(intsTag(digestAlgoTag, rpmInt32, 10)))
	for i := len(all) - 2; i < len(all); i++ {
		all[i].want = "tag 1035" // its digests are SHA-256
	}
	main("digest-algorithm-md5", "md5 digests are not safe to sign", func(t testing.TB, tags []rpmTag) []rpmTag {
		return withTag(withDigests(t, tags, func(b []byte) string { return fmt.Sprintf("%x", md5.Sum(b)) }), intsTag(digestAlgoTag, rpmInt32, 1))
	})
	main("digest-algorithm-left-out", "md5 digests are not safe to sign", func(t testing.TB, tags []rpmTag) []rpmTag {
		return withoutTag(withDigests(t, tags, func(b []byte) string { return fmt.Sprintf("%x", md5.Sum(b)) }), digestAlgoTag)
	})
	main("digest-algorithm-sha1", "sha1 digests are not safe to sign", func(t testing.TB, tags []rpmTag) []rpmTag {
		return withTag(withDigests(t, tags, func(b []byte) string { return fmt.Sprintf("%x", sha1.Sum(b)) }), intsTag(digestAlgoTag, rpmInt32, 2))
	})
	for i := len(all) - 6; i < len(all); i++ {
		all[i].readable, all[i].finds = true, "/etc/test.conf: unsigned"
	}
	main("payload-digest-not-hexadecimal", "tag 5092", by(stringsTag(payload256Tag, strings.Repeat("x", 64))))
	main("payload-digest-too-short", "tag 5092", by(stringsTag(payload256Tag, "abcd")))
	main("payload-digest-algorithm-unknown", "tag 5093", by(intsTag(payloadAlgoTag, rpmInt32, 77)))
	main("payload-size-of-strings", "tag 5113 has type 8", by(stringsTag(payloadSizeATag, "12")))
	sig := func(name, want string, e rpmTag) {
		all = append(all, badPackage{name: "rpm-" + name, base: v4RPM, want: want, edit: editSig(func(_ testing.TB, tags []rpmTag) []rpmTag { return withTag(tags, e) })})
	}
	sig("sha256-too-short", "tag 273", stringTag(sigSHA256Tag, "abcd"))
	sig("sha1-not-hexadecimal", "tag 269", stringTag(sigSHA1Tag, strings.Repeat("x", 40)))
	sig("md5-too-short", "tag 1004", rpmTag{sigMD5Tag, rpmBin, 5, []byte("short")})
	sig("size-of-strings", "tag 1000 has type 6", stringTag(sigSizeTag, "1"))
	sig("payload-size-twice", "tag 1007 has 2 values", intsTag(sigPayloadTag, rpmInt32, 1, 2))
	return all
}

// withDigests returns tags with other digests of the files.
func withDigests(t testing.TB, tags []rpmTag, sum func([]byte) string) []rpmTag {
	const script = "#!/bin/sh\necho hello\n"
	texts := find(t, tags, fileDigestsTag).strings()
	for i, content := range map[int]string{0: signedText, 1: script, 2: script, 5: script, 6: "", 7: "n\n"} {
		texts[i] = sum([]byte(content))
	}
	return withTag(tags, stringsTag(fileDigestsTag, texts...))
}

// badFileLists are RPMs whose main header lists files that can't be.
func badFileLists() []badPackage {
	var all []badPackage
	for _, f := range []struct {
		name, base string
		sizes      uint32
	}{{"v4", v4RPM, sizesTag}, {"v6", v6RPM, longSizesTag}} {
		add := func(name, want string, change func(t testing.TB, tags []rpmTag) []rpmTag) {
			all = append(all, badPackage{name: "rpm-" + f.name + "-files-" + name, base: f.base, edit: editMain(change), want: want})
		}
		by := func(name, want string, e rpmTag) {
			add(name, want, func(_ testing.TB, tags []rpmTag) []rpmTag { return withTag(tags, e) })
		}
		texts := func(name, want string, tag uint32, change func(texts []string) []string) {
			add(name, want, func(t testing.TB, tags []rpmTag) []rpmTag {
				return withTag(tags, stringsTag(tag, change(find(t, tags, tag).strings())...))
			})
		}
		first := func(text string) func([]string) []string {
			return func(all []string) []string { all[0] = text; return all }
		}
		const n = 9
		ones := slices.Repeat([]uint64{1}, n)
		for name, tag := range map[string]uint32{"modes": modesTag, "digests": fileDigestsTag, "folders": dirNamesTag, "folder-indexes": dirIndexesTag, "sizes": f.sizes} {
			add("without-"+name, "is missing", func(_ testing.TB, tags []rpmTag) []rpmTag { return withoutTag(tags, tag) })
		}
		by("modes-of-strings", "tag 1030 has type 8, not integers", stringsTag(modesTag, slices.Repeat([]string{"1"}, n)...))
		by("modes-too-few", "tag 1030 has 2 values, not 9", intsTag(modesTag, rpmInt16, 1, 2))
		by("digests-of-integers", "tag 1035 has type 4, not strings", intsTag(fileDigestsTag, rpmInt32, ones...))
		by("digests-too-many", "tag 1035 has 10 values for 9 files", stringsTag(fileDigestsTag, slices.Repeat([]string{""}, n+1)...))
		by("digest-too-short", "tag 1035", stringsTag(fileDigestsTag, slices.Repeat([]string{"abcd"}, n)...))
		by("digest-not-hexadecimal", "tag 1035", stringsTag(fileDigestsTag, slices.Repeat([]string{strings.Repeat("x", 64)}, n)...))
		by("flags-too-few", "tag 1037 has 1 values", intsTag(fileFlagsTag, rpmInt32, 0))
		by("inodes-too-many", "tag 1096 has 10 values", intsTag(inodesTag, rpmInt32, append(ones, 2)...))
		by("folder-past-the-end", "tag 1116: file 0 is in folder 9999", intsTag(dirIndexesTag, rpmInt32, slices.Repeat([]uint64{9999}, n)...))
		by("folder-negative", "tag 1116: file 0 is in folder 4294967295", intsTag(dirIndexesTag, rpmInt32, slices.Repeat([]uint64{0xffffffff}, n)...))
		by("size-of-an-exabyte", "1152921504606846976 bytes", intsTag(longSizesTag, rpmInt64, slices.Repeat([]uint64{1 << 60}, n)...))
		by("size-negative", "18446744073709551615 bytes", intsTag(longSizesTag, rpmInt64, slices.Repeat([]uint64{1<<64 - 1}, n)...))
		texts("folder-climbs-out", `component ".."`, dirNamesTag, first("/../etc/"))
		texts("folder-climbs-and-returns", `component ".."`, dirNamesTag, first("/etc/../etc/"))
		texts("folder-with-a-dot", `component "."`, dirNamesTag, first("/./etc/"))
		texts("folder-with-two-slashes", `component ""`, dirNamesTag, first("/etc//"))
		texts("folder-of-two-slashes", "is not relative", dirNamesTag, first("//etc/"))
		texts("name-climbs-out", `component ".."`, baseNamesTag, first("../shadow"))
		texts("name-is-two-dots", `component ".."`, baseNamesTag, first(".."))
		texts("name-empty", `component ""`, baseNamesTag, first(""))
		texts("name-twice", "have the same path", baseNamesTag, func(all []string) []string { all[1] = all[2]; return all })
		texts("links-differ-in-digest", "differ in size or digest", fileDigestsTag, func(all []string) []string { all[1] = strings.Repeat("ab", 32); return all })
		// Another content than the payload has.
		texts("digest-of-another-content", `"etc/test.conf": the content's sha256`, fileDigestsTag, first(strings.Repeat("ab", 32)))
		all[len(all)-1].readable, all[len(all)-1].finds = true, "/etc/test.conf: digest mismatch"
	}
	return all
}

// badPayloads are RPMs whose cpio archive is not what the main header says, or none.
func badPayloads() []badPackage {
	var all []badPackage
	cpio := func(name, want string, change func(b []byte) []byte) {
		all = append(all, badPackage{name: "rpm-cpio-" + name, base: v4RPM, edit: editCpio(change), want: want})
	}
	stripped := func(name, want, old, new string) {
		all = append(all, badPackage{name: "rpm-v6-cpio-" + name, base: v6RPM, want: want, edit: editCpio(func(b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(new), 1) })})
	}
	replaced := func(old, new string) func([]byte) []byte {
		return func(b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(new), 1) }
	}
	at := func(offset int, text string) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[offset:], text); return b }
	}
	trailer := cpioOf("TRAILER!!!", 0, 0, "")
	cut := func(b []byte) []byte { return b[:len(b)-len(trailer)] }
	plus := func(more ...[]byte) func([]byte) []byte {
		return func(b []byte) []byte { return slices.Concat(cut(b), slices.Concat(more...), trailer) }
	}
	conf := len(cpioOf("./etc/test.conf", 0, 0, signedText))
	link := len(cpioOf("./usr/bin/to", 0, 0, "b1"))

	cpio("other-name", `"./etc/test.c0nf" is not in the main header`, replaced("test.conf", "test.c0nf"))
	cpio("file-missing", `"etc/test.conf" is in the main header, but not in the payload`, func(b []byte) []byte { return b[conf:] })
	cpio("file-twice", "comes a second time", func(b []byte) []byte { return append(slices.Clone(b[:conf]), b...) })
	cpio("file-too-many", `"./usr/bin/extra" is not in the main header`, plus(cpioOf("./usr/bin/extra", 0o100755, 0, "")))
	cpio("name-climbs-out", "is not in the main header", plus(cpioOf("./../etc/passwd", 0o100644, 0, "")))
	cpio("name-absolute", "is not in the main header", plus(cpioOf("/etc/passwd", 0o100644, 0, "")))
	cpio("folder-is-a-file", "has mode 0100755, in the main header 040755", replaced("000041ed", "000081ed"))
	cpio("file-is-a-link", "has mode 0120644", replaced("000081a4", "0000a1a4"))
	cpio("file-is-a-device", "has mode 020644", replaced("000081a4", "000021a4"))
	cpio("link-is-a-file", `"usr/bin/to" has mode`, replaced("0000a1ff", "000081ff"))
	cpio("size-larger", "has 7 bytes", at(54, "00000007"))
	cpio("size-smaller", "has 5 bytes", at(54, "00000005"))
	cpio("size-of-4-gib", "has 4294967295 bytes", at(54, "ffffffff"))
	cpio("content-changed", `"etc/test.conf": the content's sha256`, replaced("a = 1", "a = 2"))
	all[len(all)-1].readable, all[len(all)-1].finds = true, "/etc/test.conf: digest mismatch"
	cpio("two-links-with-content", `"usr/bin/b`, func(b []byte) []byte {
		old := bytes.Index(b, []byte("./usr/bin/b2\x00")) - 110
		content := pad4([]byte("#!/bin/sh\necho hello\n"))
		copy(b[old+54:], "00000015")
		first := bytes.Index(b, []byte("./usr/bin/b1\x00")) - 110
		copy(b[first+54:], "00000015")
		return slices.Concat(b[:old], content, b[old:old+124], content, b[old+124:])
	})
	cpio("no-link-with-content", `"usr/share/test/b3"`, func(b []byte) []byte {
		i := bytes.Index(b, []byte("./usr/share/test/b3\x00")) - 110
		copy(b[i+54:], "00000000")
		return bytes.Replace(b, pad4([]byte("#!/bin/sh\necho hello\n")), nil, 1)
	})
	cpio("no-trailer", "the cpio archive is cut off", cut)
	cpio("trailer-with-content", "the trailer has content", func(b []byte) []byte { return append(cut(b), cpioOf("TRAILER!!!", 0, 4, "oops")...) })
	cpio("junk-behind-the-trailer", "junk follows the cpio archive", func(b []byte) []byte { return append(b, "\x00\x00junk"...) })
	cpio("an-archive-behind-the-trailer", "junk follows the cpio archive", func(b []byte) []byte { return append(b, b...) })
	cpio("of-the-old-form", "no cpio header", replaced("070701", "070707"))
	cpio("of-nothing", "the cpio archive is cut off", func([]byte) []byte { return nil })
	cpio("number-negative", "is not hexadecimal", at(54, "-0000006"))
	cpio("number-with-a-sign", "is not hexadecimal", at(54, "+0000006"))
	cpio("number-not-hexadecimal", "is not hexadecimal", at(54, "0000000g"))
	cpio("number-with-blanks", "is not hexadecimal", at(54, "       6"))
	cpio("name-of-0-bytes", "a name of 0 bytes is declared", at(94, "00000000"))
	cpio("name-of-4-gib", "a name of 4294967295 bytes is declared", at(94, "ffffffff"))
	cpio("name-too-long", "does not end where it should", at(94, "00000014"))
	cpio("name-too-short", "does not end where it should", at(94, "00000008"))
	cpio("padding-missing", "no cpio header", func(b []byte) []byte { return slices.Delete(b, conf-1, conf) })
	cpio("bomb", "refused as a decompression bomb", func(b []byte) []byte { return append(b, make([]byte, 32<<20)...) })
	for name, n := range map[string]int{"magic": 3, "header": 60, "name": 115, "content": 129, "second-header": conf + 20, "link-target": conf + link - 3} {
		cpio("cut-in-"+name, "the cpio archive is cut off", func(b []byte) []byte { return b[:n] })
	}
	stripped("index-past-the-list", "file 9 of 9", "07070X00000003", "07070X00000009")
	stripped("index-negative", "file 4294967295 of 9", "07070X00000003", "07070Xffffffff")
	stripped("index-no-number", "is not hexadecimal", "07070X00000003", "07070X0000000g")
	stripped("file-twice", "comes a second time", "07070X00000003", "07070X00000000")
	stripped("ghost", "calls it a ghost", "07070X00000003", "07070X00000008")
	stripped("padding-missing", "no cpio header", "07070X00000003\x00\x00", "07070X00000003")
	stripped("file-missing", `"usr/share/test/empty" is in the main header, but not in the payload`, "07070X00000006\x00\x00", "")
	stripped("content-missing", `"usr/share/test/b3": the content's sha256`, "#!/bin/sh\necho hello\n\x00\x00\x00", "")
	all[len(all)-1].finds = "no cpio header"

	// What stands where the payload should be.
	payload := func(name, want, base string, change func(t testing.TB, r *rpmFile)) {
		all = append(all, badPackage{name: "rpm-payload-" + name, base: base, want: want, edit: editRPM(func(t testing.TB, r *rpmFile) {
			change(t, r)
			r.sums(slices.Clone(r.payload))
		})})
	}
	payload("of-junk", "neither compressed in a known way nor a cpio archive", v4RPM, func(_ testing.TB, r *rpmFile) { r.payload = []byte("no payload at all") })
	payload("of-two-streams", "junk follows the cpio archive", v4RPM, func(_ testing.TB, r *rpmFile) { r.payload = slices.Concat(r.payload, r.payload) })
	payload("followed-by-junk", "payload", v4RPM, func(_ testing.TB, r *rpmFile) { r.payload = append(slices.Clone(r.payload), "junk"...) })
	payload("flipped", "gzip", v4RPM, func(_ testing.TB, r *rpmFile) { r.payload = bytes.Clone(r.payload); r.payload[40] ^= 0x10 })
	payload("zstd-window-of-2-gib", "zstd", v6RPM, func(_ testing.TB, r *rpmFile) { r.payload = []byte("\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00") })
	for suffix, base := range map[string]string{".gz": v4RPM, ".zst": v6RPM, ".xz": v4RPM} {
		payload("bomb-of-1-gib"+suffix, "refused as a decompression bomb", base, func(t testing.TB, r *rpmFile) {
			set(r.main, stringTag(compressorTag, map[string]string{".gz": "gzip", ".zst": "zstd", ".xz": "xz"}[suffix]))
			zero := compressed(t, suffix, io.LimitReader(zeros{}, 1<<20))
			r.payload = append(compressed(t, suffix, bytes.NewReader(r.archive(t))), bytes.Repeat(zero, 1024)...)
		})
	}
	return all
}

// badDigests are RPMs that are not what they record of themselves. One that is
// signed can still be read, and verify says what does not hold.
func badDigests() []badPackage {
	var all []badPackage
	add := func(name, want, finds string, v4 bool, e edit) {
		for base, label := range map[string]string{v4RPM: "v4", v6RPM: "v6"} {
			if v4 && base == v6RPM {
				continue
			}
			all = append(all,
				badPackage{name: fmt.Sprintf("rpm-%s-%s", label, name), base: base, edit: e, want: want},
				badPackage{name: fmt.Sprintf("rpm-%s-signed-%s", label, name), base: signedOf(base), edit: e, want: "it carries other file signatures (", readable: true, finds: finds})
		}
	}
	sig := func(name, finds string, v4 bool, e rpmTag) {
		add(name, finds, finds, v4, editSig(func(_ testing.TB, tags []rpmTag) []rpmTag { return withTag(tags, e) }))
	}
	sig("sha256-wrong", "main header: ", false, stringTag(sigSHA256Tag, strings.Repeat("ab", 32)))
	sig("sha3-wrong", "main header: ", false, stringTag(sigSHA3Tag, strings.Repeat("ab", 32)))
	sig("sha1-wrong", "main header: ", true, stringTag(sigSHA1Tag, strings.Repeat("ab", 20)))
	sig("md5-wrong", "main header and payload: ", true, rpmTag{sigMD5Tag, rpmBin, 16, make([]byte, 16)})
	// Where stronger digests hold, signing does not compute this one.
	all = slices.DeleteFunc(all, func(b badPackage) bool { return b.name == "rpm-v4-md5-wrong" })
	main := func(name, finds string, change func(t testing.TB, tags []rpmTag) []rpmTag) {
		add(name, finds, finds, false, editMain(change))
	}
	main("payload-digest-wrong", "payload: ", func(_ testing.TB, tags []rpmTag) []rpmTag {
		return withTag(tags, stringsTag(payload256Tag, strings.Repeat("ab", 32)))
	})
	add("renamed-without-its-digests", "main header: ", "main header: ", false, editRPM(func(_ testing.TB, r *rpmFile) {
		r.main = withTag(r.main, stringTag(nameTag, "tess"))
	}))
	return all
}
