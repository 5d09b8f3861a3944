package main

import (
	"archive/tar"
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imaseal/imaseal/sign"
)

// badSeals are signed packages whose members of ours are not what signing makes of
// the builder's package, the embedded original above all.
func badSeals() []badPackage {
	var all []badPackage
	malformed := func(name, finds string, e edit) {
		all = append(all, badPackage{name: "deb-sealed-" + name, base: signedOf(helloDeb), edit: e,
			want: finds, readable: true})
	}
	sealed := func(name, finds string, change func(t testing.TB, d *sealedDeb)) {
		malformed(name, finds, editSealed(change))
	}
	for name, missing := range map[string]string{"script-signatures": scriptSeal, "statement": statementSeal, "file-signatures": fileSeal, "original": originalSeal} {
		finds := "control members of a signed package are there, but not " + strings.TrimSuffix(missing[2:], ".gz")
		sealed("without-"+name, finds, func(_ testing.TB, d *sealedDeb) {
			d.seals = slices.DeleteFunc(d.seals, func(e tarEntry) bool { return e.Name == missing })
		})
	}
	sealed("two-originals", "control members unsigned.control.tar.gz and unsigned.control.tar.xz: a package has one original", func(_ testing.TB, d *sealedDeb) {
		d.seals = append(d.seals, tarFile("./unsigned.control.tar.xz", "x"))
	})
	sealed("builders-member-behind-ours", "control member triggers stands behind", func(_ testing.TB, d *sealedDeb) {
		d.seals = append(d.seals, tarFile("./triggers", ""))
	})
	sealed("builders-member-among-ours", "control member postinst stands behind ima-package", func(_ testing.TB, d *sealedDeb) {
		d.seals = slices.Insert(d.seals, 2, tarScript("./postinst", "#!/bin/sh\n"))
	})
	const layout = "not laid out as that of a signed package"
	sealed("in-another-order", layout, func(_ testing.TB, d *sealedDeb) { d.seals[0], d.seals[1] = d.seals[1], d.seals[0] })
	sealed("member-executable", layout, func(_ testing.TB, d *sealedDeb) { d.seal(fileSeal).Mode = 0o755 })
	sealed("member-of-another-time", layout, func(_ testing.TB, d *sealedDeb) { d.seal(fileSeal).ModTime = debTime.Add(time.Second) })
	sealed("member-of-another-owner", layout, func(_ testing.TB, d *sealedDeb) { d.seal(statementSeal).Uid = 1000 })
	sealed("member-called-without-dot", layout, func(_ testing.TB, d *sealedDeb) { d.seal(statementSeal).Name = "ima-package" })
	sealed("control-archive-in-xz", "the control archive of a signed package is control.tar.gz, not control.tar", func(t testing.TB, d *sealedDeb) {
		d.ar[theControl].rename("control.tar")
	})
	// What editSealed compresses must not be: put it right behind its back.
	last := &all[len(all)-1]
	gz := last.edit
	last.edit = func(t testing.TB, good []byte) []byte {
		m := parseAr(t, gz(t, good))
		m[theControl].content = gunzipped(t, m[theControl].content)
		return formatAr(m)
	}

	// The embedded original, which dpkg does not install and unsign would give back.
	original := func(name, finds string, change func(t testing.TB, raw []byte) []byte) {
		sealed("original-"+name, "control member unsigned.control.tar.gz: "+finds, func(t testing.TB, d *sealedDeb) {
			d.put(originalSeal, string(change(t, []byte(d.seal(originalSeal).content))))
		})
	}
	entries := func(name string, change func(e []tarEntry) []tarEntry) {
		original(name, "it does not have the entries that the package shows", func(t testing.TB, raw []byte) []byte {
			return gzipped(t, formatTar(t, change(parseTar(t, gunzipped(t, raw)))))
		})
	}
	entries("with-another-script", func(e []tarEntry) []tarEntry {
		i := slices.IndexFunc(e, func(e tarEntry) bool { return e.Name == "./preinst" })
		e[i].content = "#!/bin/sh\nexit 1\n"
		return e
	})
	entries("with-a-script-more", func(e []tarEntry) []tarEntry { return append(e, tarScript("./postinst", "#!/bin/sh\n")) })
	entries("with-a-member-less", func(e []tarEntry) []tarEntry { return e[:len(e)-1] })
	entries("with-our-names", func(e []tarEntry) []tarEntry { return append(e, tarFile("./ima-package", "x")) })
	entries("with-another-order", func(e []tarEntry) []tarEntry { e[1], e[2] = e[2], e[1]; return e })
	entries("with-another-mode", func(e []tarEntry) []tarEntry { e[1].Mode ^= 0o111; return e })
	entries("of-nothing", func([]tarEntry) []tarEntry { return nil })
	original("of-another-package", "it does not have the entries that the package shows", func(t testing.TB, _ []byte) []byte {
		return parseAr(t, readShared(t, otherDeb))[theControl].content
	})
	original("empty", "the content is not gzip", func(testing.TB, []byte) []byte { return nil })
	original("not-compressed", "the content is not gzip", func(t testing.TB, raw []byte) []byte { return gunzipped(t, raw) })
	original("cut", "gzip", func(_ testing.TB, raw []byte) []byte { return raw[:len(raw)/2] })
	original("followed-by-junk", "gzip", func(_ testing.TB, raw []byte) []byte { return append(raw, "junk"...) })
	original("without-end-mark", "it does not have the entries that the package shows", func(t testing.TB, raw []byte) []byte {
		raw = gunzipped(t, raw)
		return gzipped(t, raw[:bytes.LastIndexFunc(raw, func(r rune) bool { return r != 0 })/512*512+512])
	})
	original("bomb", "it does not have the entries", func(t testing.TB, raw []byte) []byte {
		return slices.Concat(compressed(t, ".gz", bytes.NewReader(gunzipped(t, raw))), bytes.Repeat(compressed(t, ".gz", io.LimitReader(zeros{}, 1<<20)), 1024))
	})
	for name, seal := range map[string]string{"called-lzma": "./unsigned.control.tar.lzma", "called-rot13": "./unsigned.control.tar.rot13"} {
		sealed("original-"+name, "dpkg knows no such compression", func(_ testing.TB, d *sealedDeb) { d.seal(originalSeal).Name = seal })
		all[len(all)-1].finds = "malformed: control member"
	}
	sealed("original-called-data", "the name is not that of a control archive", func(_ testing.TB, d *sealedDeb) {
		d.seal(originalSeal).Name = "./unsigned.data.tar.gz"
	})
	all[len(all)-1].finds = "malformed: control member"
	sealed("visible-script-changed", "it does not have the entries that the package shows", func(_ testing.TB, d *sealedDeb) {
		d.builder = bytes.Replace(d.builder, []byte("exit 0\n"), []byte("exit 9\n"), 1)
	})
	all[len(all)-1].finds = "malformed: control member"

	tail := func(name, finds, content string) {
		sealed("tail-"+name, "control member unsigned.tail: "+finds, func(_ testing.TB, d *sealedDeb) {
			d.seals = append(d.seals, tarFile("./unsigned.tail", content))
		})
	}
	tail("of-nothing", "it has 0 bytes", "")
	tail("of-junk", "offset 0", strings.Repeat("junk", 20))
	tail("with-a-data-member", `offset 0: ar member "data.tar"`, strings.TrimPrefix(string(formatAr([]arMember{newMember("data.tar", "xx")})), "!<arch>\n"))
	tail("with-a-member-that-is-gone", "0 ar members other than OpenPGP signatures follow data.tar, once there were 1",
		strings.TrimPrefix(string(formatAr([]arMember{newMember("_extra", "xx")})), "!<arch>\n"))
	tail("of-2-mib", "it has 2097152 bytes", strings.Repeat("x", 2<<20))
	malformed("member-after-data-added", "1 ar members other than OpenPGP signatures follow data.tar, once there were 0",
		editAr(func(m []arMember) []arMember { return append(m, newMember("_extra", "xx")) }))
	all[len(all)-1].want = "1 ar members other than"
	all[len(all)-1].finds = "malformed: control member unsigned.tail"

	// These can't be opened at all.
	refused := func(name, want string, change func(t testing.TB, d *sealedDeb)) {
		all = append(all, badPackage{name: "deb-sealed-" + name, base: signedOf(helloDeb), edit: editSealed(change), want: want})
	}
	refused("member-twice", `"ima-package" stands there twice`, func(_ testing.TB, d *sealedDeb) { d.seals = append(d.seals, *d.seal(statementSeal)) })
	refused("member-is-a-link", `"ima-package" is no plain file`, func(_ testing.TB, d *sealedDeb) {
		*d.seal(statementSeal) = tarOther(tar.TypeSymlink, statementSeal, "/etc/passwd")
	})
	return all
}

// badStatements are signed packages whose statement is not theirs, or not whole.
func badStatements() []badPackage {
	var all []badPackage
	add := func(name, finds string, e edit) {
		all = append(all, badPackage{name: "deb-statement-" + name, base: signedOf(helloDeb), edit: e,
			want: "it carries other file signatures (", readable: true, finds: finds})
	}
	moved := func(from string) edit {
		return editSealed(func(t testing.TB, d *sealedDeb) {
			d.put(statementSeal, parseSealed(t, readShared(t, signedOf(from))).seal(statementSeal).content)
		})
	}
	add("of-another-package", "package statement: digest mismatch: package name", moved(otherDeb))
	add("of-another-version", "package statement: digest mismatch: version", moved(hello2Deb))
	add("and-signatures-of-another-version", "package statement: digest mismatch: version", editSealed(func(t testing.TB, d *sealedDeb) {
		from := parseSealed(t, readShared(t, signedOf(hello2Deb)))
		for _, name := range []string{statementSeal, fileSeal, scriptSeal} {
			d.put(name, from.seal(name).content)
		}
	}))
	add("with-data-of-another-version", "package statement: digest mismatch: digest of data.tar", editSealed(func(t testing.TB, d *sealedDeb) {
		d.ar[theData] = parseAr(t, readShared(t, hello2Deb))[theData]
	}))
	text := func(name, finds, old, new string) {
		add(name, finds, editSeal(statementSeal, func(text string) string { return strings.Replace(text, old, new, 1) }))
	}
	const badSignature = "package statement: bad signature"
	text("package-changed", badSignature, "Package: hello", "Package: other")
	text("version-changed", badSignature, "Version: 1", "Version: 2")
	text("architecture-changed", badSignature, "Architecture: all", "Architecture: amd64")
	text("selection-changed", badSignature, "Select: all", "Select: exec")
	text("exclude-added", badSignature, "Hash:", "Exclude: /usr/**\nHash:")
	text("hash-changed", badSignature, "Hash: sha256", "Hash: sha512")
	for _, member := range []string{"control", "conffiles", "ima-signatures", "ima-control-signatures", "data.tar"} {
		flip := func(text string) string {
			at := strings.Index(text, "SHA256-"+member+": ") + len("SHA256-"+member+": ")
			digit := "0"
			if text[at] == '0' {
				digit = "1"
			}
			return text[:at] + digit + text[at+1:]
		}
		add("digest-of-"+member+"-changed", badSignature, editSeal(statementSeal, flip))
		restated := func(change func(s *sign.Statement, i int)) edit {
			return editSealed(func(t testing.TB, d *sealedDeb) {
				d.restate(t, func(s *sign.Statement) {
					change(s, slices.IndexFunc(s.Members, func(m sign.MemberDigest) bool { return m.Name == member }))
				})
			})
		}
		add("digest-of-"+member+"-wrong", "package statement: digest mismatch: digest of "+member, restated(func(s *sign.Statement, i int) { s.Members[i].SHA256[0] ^= 1 }))
		add("digest-of-"+member+"-left-out", "package statement: digest mismatch: ", restated(func(s *sign.Statement, i int) { s.Members = slices.Delete(s.Members, i, i+1) }))
	}
	add("digest-too-many", "package statement: digest mismatch: ", editSealed(func(t testing.TB, d *sealedDeb) {
		d.restate(t, func(s *sign.Statement) { s.Members = append(s.Members, sign.MemberDigest{Name: "md5sums"}) })
	}))
	for _, v := range badValues() {
		if v.statement == "" {
			continue
		}
		add("signature-"+v.name, "package statement: "+v.statement, resign(func(t testing.TB, value []byte) []byte { return v.change(t, value) }))
	}

	malformed := func(name, finds, old, new string) {
		text(name, "malformed: control member ima-package: "+finds, old, new)
		all[len(all)-1].want = "malformed file signatures (control member ima-package: " + finds
	}
	malformed("of-a-later-format", "first line", "imaseal-package-1", "imaseal-package-2")
	malformed("of-no-format", "first line", "Format: imaseal-package-1\n", "")
	malformed("with-carriage-return", "", "Package: hello\n", "Package: hello\r\n")
	malformed("without-last-newline", "last line does not end in a newline", "", "")
	all[len(all)-1].edit = editSeal(statementSeal, func(text string) string { return strings.TrimSuffix(text, "\n") })
	malformed("with-text-behind", "line", "Signature: ", "Nonsense\nSignature: ")
	malformed("with-unknown-field", "line", "Hash:", "Colour: green\nHash:")
	malformed("with-field-twice", "fields are missing, repeated or out of order", "Version: 1\n", "Version: 1\nVersion: 1\n")
	malformed("without-version", "", "Version: 1\n", "")
	malformed("with-fields-swapped", "fields are missing, repeated or out of order", "Package: hello\nVersion: 1\n", "Version: 1\nPackage: hello\n")
	malformed("without-hash", "no usable field Hash", "Hash: sha256\n", "")
	malformed("of-hash-md5", "no usable field Hash", "Hash: sha256", "Hash: md5")
	malformed("of-hash-rot13", "line", "Hash: sha256", "Hash: rot13")
	malformed("with-short-digest", "line", "SHA256-control: ", "SHA256-control: 0")
	malformed("with-a-blank-line", "line", "Version:", "\nVersion:")
	malformed("signature-not-base64", "line", "Signature: 0s", "Signature: 0s!")
	malformed("signature-in-hexadecimal", "line", "Signature: 0s", "Signature: 0x")
	malformed("of-2-mib", "", "Version: 1", "Version: 1"+strings.Repeat("1", 2<<20))
	return all
}
