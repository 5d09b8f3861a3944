package main

import (
	"strings"
	"testing"
)

// badChanges are .changes files that list a good package.
func badChanges() []badPackage {
	var all []badPackage
	add := func(name, want string, change func(text string) string) {
		all = append(all, badPackage{name: "changes-" + name, base: helloChanges, want: want,
			edit: func(_ testing.TB, good []byte) []byte { return []byte(change(string(good))) }})
	}
	replaced := func(old, new string) func(string) string {
		return func(text string) string { return strings.Replace(text, old, new, 1) }
	}
	everywhere := func(old, new string) func(string) string {
		return func(text string) string { return strings.ReplaceAll(text, old, new) }
	}
	const list = "Checksums-Sha1:\n"
	add("empty", "no list", func(string) string { return "" })
	add("cut-in-a-line", "2 columns, not 5", func(text string) string { return text[:len(text)-30] })
	add("cut-before-files", "no list Files", func(text string) string { return text[:strings.Index(text, "Files:")] })
	add("of-binary", "line 1", func(string) string { return "\x7fELF\x00\x01\x02" })
	add("with-carriage-returns", "line 1", everywhere("\n", "\r\n"))
	add("with-nul", "line 3", replaced("hello", "hel\x00lo"))
	add("of-two-paragraphs", "begins a second paragraph", replaced(list, "\n"+list))
	add("begins-folded", "continues nothing", func(text string) string { return " x\n" + text })
	add("no-field", "is no field", replaced(list, "nonsense\n"+list))
	add("field-twice", "a second field version", replaced(list, "version: 2\n"+list))
	add("list-twice", "a second field Files", func(text string) string { return text + text[strings.Index(text, "Files:"):] })
	add("without-sha256", "no list Checksums-Sha256", replaced("Checksums-Sha256:", "X-Checksums:"))
	add("unknown-checksums", "Checksums-Sha512 is a kind of checksums that is not known", replaced("Checksums-Sha256:", "Checksums-Sha512:"))
	add("sum-too-short", "is not a sum of 40", replaced("Checksums-Sha1:\n ", "Checksums-Sha1:\n a"))
	add("sum-in-upper-case", "is not a sum of 64", func(text string) string {
		at := strings.Index(text, "Sha256:\n ") + 9
		return text[:at] + strings.ToUpper(text[at:at+64]) + text[at+64:]
	})
	add("size-negative", "is not a number of bytes", replaced(" 834 ", " -834 "))
	add("size-overflows", "is not a number of bytes", replaced(" 834 ", " 99999999999999999999 "))
	add("size-with-a-zero", "is not a number of bytes", replaced(" 834 ", " 0834 "))
	add("size-in-one-list-only", "bytes, but", replaced(" 834 ", " 835 "))
	add("columns-missing", "columns, not 3", replaced(" 834 ", " "))
	add("name-climbs-out", "is not a plain file name", everywhere("hello_1_all.deb", "../hello_1_all.deb"))
	add("name-absolute", "is not a plain file name", everywhere("hello_1_all.deb", "/etc/hello_1_all.deb"))
	add("name-of-two-dots", "is not a plain file name", everywhere("hello_1_all.deb", ".."))
	add("name-in-one-list-only", "is not in the other lists", replaced("hello_1_all.deb", "other_1_all.deb"))
	add("file-listed-twice", "is listed twice", func(text string) string {
		at := strings.Index(text, "Checksums-Sha256:")
		line := text[strings.Index(text, list)+len(list) : at]
		return text[:at] + line + text[at:]
	})
	add("signature-of-nothing", "malformed", func(text string) string { return "-----BEGIN PGP SIGNED MESSAGE-----\n" + text })

	// These can be read, and do not fit what is beside them.
	misfit := func(name string, change func(text string) string) {
		add(name, "hello_1_all.deb: size or checksums", change)
		b := &all[len(all)-1]
		b.readable, b.finds = true, "hello_1_all.deb: digest mismatch"
	}
	misfit("size-of-another-file", everywhere(" 834 ", " 835 "))
	misfit("sha1-of-another-file", replaced("Sha1:\n 4", "Sha1:\n 5"))
	misfit("sha256-of-another-file", replaced("Sha256:\n 0", "Sha256:\n 1"))
	misfit("md5-of-another-file", replaced("Files:\n 8", "Files:\n 9"))
	add("file-that-is-not-there", "gone_1_all.deb: ", everywhere("hello_1_all.deb", "gone_1_all.deb"))
	last := &all[len(all)-1]
	last.readable, last.finds = true, "gone_1_all.deb: digest mismatch"
	return all
}
