package main

import (
	"archive/tar"
	"bytes"
	"slices"
	"strings"
)

// badTars are wrong in whichever of the two tar archives, member, they are.
func badTars(part string, member int) []badPackage {
	var all []badPackage
	add := func(name, want string, e edit) {
		all = append(all, badPackage{name: "deb-" + part + "-" + name, base: helloDeb, edit: e, want: want})
	}
	extra := func(name, want string, more ...tarEntry) { add(name, want, appendEntries(member, more...)) }
	raw := func(name, want string, change func(b []byte) []byte) {
		add(name, want, editArchive(member, editBytes(change)))
	}
	plain := tarFile("./extra", "content")
	end := func(b []byte) int { return bytes.LastIndexFunc(b, func(r rune) bool { return r != 0 })/512*512 + 512 }

	raw("of-nothing", "no end mark", func([]byte) []byte { return nil })
	raw("without-end-mark", "no end mark", func(b []byte) []byte { return b[:end(b)] })
	raw("cut-in-first-header", "unexpected EOF", func(b []byte) []byte { return b[:100] })
	raw("cut-in-last-block", "", func(b []byte) []byte { return b[:end(b)-100] })
	raw("cut-in-end-mark", "unexpected EOF", func(b []byte) []byte { return b[:end(b)+100] })
	raw("with-junk-behind", "after the end mark", func(b []byte) []byte { return append(slices.Clone(b), 'x') })
	raw("with-an-archive-behind", "after the end mark", func(b []byte) []byte { return append(slices.Clone(b), b...) })
	raw("that-is-none", "an entry of type", func([]byte) []byte { return bytes.Repeat([]byte("no archive "), 200) })
	raw("with-wrong-checksum", "the checksum of the header", func(b []byte) []byte { b = bytes.Clone(b); b[100] ^= 1; return b })

	for name, field := range map[string]string{"negative": "-0000000007\x00", "not-octal": "0000000008\x00\x00", "blank": "            ",
		"of-two-numbers": "0000007 0007"} {
		extra("size-"+name, "is no octal number", plain.patched(124, field))
	}
	extra("size-negative-in-binary", "is negative", plain.patched(124, strings.Repeat("\xff", 11)+"\xf9"))
	extra("size-of-2^90", "is too large", plain.patched(124, "\x80\x04"+strings.Repeat("\x00", 10)))
	extra("size-of-8-gib", "", plain.patched(124, "77777777777\x00"))
	extra("mode-not-octal", "is no octal number", plain.patched(100, "000064x\x00"))
	for name, kind := range map[string]string{"sparse-file": "S", "dump-folder": "D", "volume-label": "V", "continued-file": "M", "unknown-type": "z"} {
		extra(name, "which dpkg does not read", plain.patched(156, kind))
	}
	pax := tarFile("./"+longName+"\u00fc", "")
	pax.Format = tar.FormatPAX
	extra("pax-header", "a PAX header", pax)
	attribute := tarFile("./extra", "x")
	attribute.Format, attribute.PAXRecords = tar.FormatPAX, map[string]string{"SCHILY.xattr.security.ima": "x"}
	extra("pax-attribute", "a PAX header", attribute)
	extra("name-empty", "at which dpkg stops reading", plain.patched(0, strings.Repeat("\x00", 100)))
	extra("name-absolute", "is not relative", tarFile("/etc/passwd", "root"))
	extra("name-that-climbs-out", `component ".."`, tarFile("./../etc/passwd", "root"))
	extra("name-that-climbs-and-returns", `component ".."`, tarFile("./a/../extra", ""))
	extra("name-of-two-dots", `component ".."`, tarFile("..", ""))
	extra("long-name-of-8-gib", "a long name of 8589934591 bytes", tarFile("./"+longName, "").patched(124, "77777777777\x00"))
	extra("long-name-negative", "is no octal number", tarFile("./"+longName, "").patched(124, "-0000000010\x00"))
	extra("long-name-of-5000-bytes", "a long name of", tarFile(strings.Repeat("n/", 2500)+"n", ""))
	extra("link-with-content", "is no regular file and has a size", plain.patched(156, "2"))
	return all
}

var longName = strings.Repeat("n", 300)

// badControlArchives are those whose control archive is wrong.
func badControlArchives() []badPackage {
	all := badTars("control", theControl)
	for i := range all {
		switch all[i].name {
		case "deb-control-cut-in-last-block":
			all[i].want = "no end mark"
		case "deb-control-size-of-8-gib":
			all[i].want = "has 8589934591 bytes, but only"
		}
	}
	add := func(name, want string, e edit) {
		all = append(all, badPackage{name: "deb-control-" + name, base: helloDeb, edit: e, want: want})
	}
	extra := func(name, want string, more ...tarEntry) { add(name, want, appendEntries(theControl, more...)) }
	text := func(name, want, old, new string) {
		add(name, want, editEntries(theControl, func(e []tarEntry) []tarEntry {
			i := slices.IndexFunc(e, func(e tarEntry) bool { return e.Name == "./control" })
			e[i].content = strings.Replace(e[i].content, old, new, 1)
			e[i].Size = int64(len(e[i].content))
			return e
		}))
	}
	script := "#!/bin/sh\n"
	extra("member-twice", `"preinst" stands there twice`, tarScript("./preinst", script))
	extra("member-twice-once-without-dot", `"preinst" stands there twice`, tarScript("preinst", script))
	extra("file-twice", `"control" stands there twice`, tarFile("./control", "Package: other\n"))
	extra("symbolic-link", `"postinst" is no plain file`, tarOther(tar.TypeSymlink, "./postinst", "/bin/sh"))
	extra("hard-link", `"postinst" is no plain file`, tarOther(tar.TypeLink, "./postinst", "./preinst"))
	extra("hard-link-to-the-outside", `"postinst" is no plain file`, tarOther(tar.TypeLink, "./postinst", "/bin/sh"))
	extra("device", `"postinst" is no plain file`, tarOther(tar.TypeChar, "./postinst", ""))
	extra("fifo", `"postinst" is no plain file`, tarOther(tar.TypeFifo, "./postinst", ""))
	extra("folder", `"postinst" is no plain file`, tarOther(tar.TypeDir, "./postinst/", ""))
	extra("member-in-a-folder", "is in a folder", tarScript("./sub/postinst", script))
	extra("member-with-a-blank", "has a name that no control member has", tarFile("./post inst", ""))
	extra("member-with-a-newline", "has a name that no control member has", tarFile("./post\ninst", ""))
	extra("member-with-a-long-name", "has a name that no control member has", tarFile("./"+longName, ""))
	extra("script-of-9-mib", "members that are executed have more than", tarScript("./postinst", script+strings.Repeat("#", 9<<20)))
	add("of-1100-members", "is one of more than 1024", editEntries(theControl, func(e []tarEntry) []tarEntry {
		for i := range 1100 {
			e = append(e, tarFile("./f"+strings.Repeat("x", i/26)+string(rune('a'+i%26)), ""))
		}
		return e
	}))
	add("without-file", "no member control", editEntries(theControl, func(e []tarEntry) []tarEntry {
		return slices.DeleteFunc(e, func(e tarEntry) bool { return e.Name == "./control" })
	}))
	text("file-without-package", `field package is ""`, "Package: hello\n", "")
	text("file-without-version", `field version is ""`, "Version: 1\n", "")
	text("file-without-architecture", `field architecture is ""`, "Architecture: all\n", "")
	text("file-field-twice", "stands there twice", "Version: 1\n", "Version: 1\nversion: 2\n")
	text("file-of-two-stanzas", "is no field", "Version: 1\n", "Version: 1\n\nPackage: other\n")
	text("file-without-colon", "is no field", "Version: 1\n", "Version: 1\nnonsense\n")
	text("file-version-folded", "continues a field that has one line", "Version: 1\n", "Version: 1\n .2\n")
	text("file-begins-folded", "continues a field that has one line", "Package:", " x\nPackage:")
	text("file-package-climbs", "field package", "Package: hello", "Package: ../hello")
	text("file-version-with-blank", "field version", "Version: 1", "Version: 1 2")
	text("file-nul-in-field", "is no field", "Installed-Size", "Installed\x00Size")
	text("file-of-2-mib", `"control" has 2097`, "Description: a", "Description: "+strings.Repeat("a", 2<<20))

	all = append(all, badPackage{name: "deb-control-script-like-a-statement", base: helloDeb, readable: true, finds: "postinst: unsigned",
		edit: appendEntries(theControl, tarScript("./postinst", "Format: imaseal-package-1\nPackage: sudo\n")), want: `"postinst" begins with`})

	// Our names in a package that is not signed, alone and together.
	ours := []string{"ima-signatures", "ima-control-signatures", "ima-package", "unsigned.control.tar.gz", "unsigned.tail", "unsigned.other"}
	for _, name := range ours {
		all = append(all, badPackage{name: "deb-reserved-name-" + name, base: helloDeb, edit: appendEntries(theControl, tarFile("./"+name, "x")),
			want: "malformed file signatures (control member", readable: true, finds: "malformed"})
	}
	all = append(all, badPackage{name: "deb-reserved-names-all", base: helloDeb, edit: appendEntries(theControl,
		tarFile("./ima-control-signatures", ""), tarFile("./ima-package", "Format: imaseal-package-1\n"), tarFile("./ima-signatures", ""), tarFile("./unsigned.control.tar.gz", "x")),
		want: "malformed file signatures (control member unsigned.control.tar.gz", readable: true, finds: "malformed"})
	return all
}

// badDataArchives are those whose payload is wrong.
func badDataArchives() []badPackage {
	all := badTars("data", theData)
	for i := range all {
		switch all[i].name {
		case "deb-data-cut-in-last-block", "deb-data-size-of-8-gib":
			all[i].want = "unexpected EOF"
		}
	}
	add := func(name, want string, e edit) {
		all = append(all, badPackage{name: "deb-data-" + name, base: helloDeb, edit: e, want: want})
	}
	extra := func(name, want string, more ...tarEntry) { add(name, want, appendEntries(theData, more...)) }
	const outside = "which is no regular file that came before it"
	extra("file-twice", "stands there twice", tarFile("./etc/hello.conf", "b = 2\n"))
	extra("file-twice-once-without-dot", "stands there twice", tarFile("etc/hello.conf", "b = 2\n"))
	extra("folder-twice", "stands there twice", tarOther(tar.TypeDir, "./etc/", ""))
	extra("folder-where-a-file-is", "stands there twice", tarOther(tar.TypeDir, "./usr/bin/hello/", ""))
	extra("link-where-a-file-is", "stands there twice", tarOther(tar.TypeSymlink, "./usr/bin/hello", "to"))
	extra("hard-link-to-the-outside", outside, tarOther(tar.TypeLink, "./usr/bin/shadow", "./etc/shadow"))
	extra("hard-link-to-an-absolute-name", outside, tarOther(tar.TypeLink, "./usr/bin/shadow", "/etc/hello.conf"))
	extra("hard-link-that-climbs", outside, tarOther(tar.TypeLink, "./usr/bin/shadow", "./usr/../etc/hello.conf"))
	extra("hard-link-to-itself", outside, tarOther(tar.TypeLink, "./usr/bin/shadow", "./usr/bin/shadow"))
	extra("hard-link-to-a-folder", outside, tarOther(tar.TypeLink, "./usr/bin/shadow", "./etc"))
	extra("hard-link-to-a-symbolic-link", outside, tarOther(tar.TypeLink, "./usr/bin/shadow", "./usr/bin/to"))
	extra("hard-link-to-what-comes-later", outside, tarOther(tar.TypeLink, "./usr/bin/shadow", "./usr/later"), tarFile("./usr/later", ""))
	extra("file-beneath-a-symbolic-link", "which is no folder", tarOther(tar.TypeSymlink, "./lib", "/etc"), tarFile("./lib/passwd", "root"))
	extra("file-beneath-a-file", "which is no folder", tarFile("./usr/bin/hello/x", ""))
	extra("symbolic-link-over-a-folder", "something that came before is in it", tarFile("./opt/x", ""), tarOther(tar.TypeSymlink, "./opt", "/etc"))
	extra("file-like-a-statement", `"usr/statement" begins with`, tarFile("./usr/statement", "Format: imaseal-package-1\nPackage: sudo\n"))
	extra("file-like-a-later-statement", `"usr/statement" begins with`, tarFile("./usr/statement", "Format: imaseal-package-2"))
	for i := len(all) - 2; i < len(all); i++ {
		all[i].readable, all[i].finds = true, "/usr/statement: unsigned" // it is a legal file
	}
	return all
}
