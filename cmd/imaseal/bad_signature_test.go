package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

// A badValue is a file signature that is wrong, made of a good one.
type badValue struct {
	name   string
	change func(t testing.TB, value []byte) []byte
	// finds is what verify says of a file with it, statement what it says of a package
	// statement with it; empty where that is of no interest.
	finds, statement string
}

// signedText is the content of the file in each base package whose signature is
// made bad: /etc/hello.conf and /etc/test.conf.
const signedText = "a = 1\n"

// badValues are bad in every way that verification tells apart.
func badValues() []badValue {
	put := func(at int, b ...byte) func(testing.TB, []byte) []byte {
		return func(_ testing.TB, value []byte) []byte {
			value = bytes.Clone(value)
			copy(value[at:], b)
			return value
		}
	}
	cut := func(n int) func(testing.TB, []byte) []byte {
		return func(_ testing.TB, value []byte) []byte { return value[:n] }
	}
	// withSig replaces what follows the header, and states its size.
	withSig := func(change func(sig []byte) []byte) func(testing.TB, []byte) []byte {
		return func(_ testing.TB, value []byte) []byte {
			sig := change(bytes.Clone(value[9:]))
			return append(append(bytes.Clone(value[:7]), byte(len(sig)>>8), byte(len(sig))), sig...)
		}
	}
	by := func(key string, ours bool, digest [32]byte) func(testing.TB, []byte) []byte {
		return func(t testing.TB, _ []byte) []byte {
			var under *sign.Signer
			if ours {
				under = signerOf(t, "test", nil)
			}
			value, err := signerOf(t, key, under).SignDigest(sign.SHA256, digest[:])
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	const bad, malformed = "bad signature", "malformed: "
	digest := sha256.Sum256([]byte(signedText))
	all := []badValue{
		{"of-one-byte", cut(1), malformed + "1 bytes are too short", ""},
		{"of-eight-bytes", cut(8), malformed + "8 bytes are too short", ""},
		{"of-a-bare-header", cut(9), malformed + "size at offset 7", ""},
		{"of-zeros", func(_ testing.TB, v []byte) []byte { return make([]byte, len(v)) }, malformed + "value is all zeros", malformed + "value is all zeros"},
		{"of-a-hash", put(0, 1), malformed + "type at offset 0 is 0x01", ""},
		{"of-a-hash-with-algorithm", put(0, 4), malformed + "type at offset 0 is 0x04", malformed + "type at offset 0"},
		{"of-an-evm-hmac", put(0, 2), malformed + "type at offset 0 is 0x02", ""},
		{"of-version-0", put(1, 0), malformed + "version at offset 1 is 0", ""},
		{"of-version-1", put(1, 1), malformed + "version at offset 1 is 1", malformed + "version at offset 1 is 1"},
		{"of-version-4", put(1, 4), malformed + "version at offset 1 is 4", ""},
		{"called-version-3", put(1, 3), bad, bad},
		{"of-hash-0", put(2, 0), malformed + "hash algorithm at offset 2 is 0", ""},
		{"of-hash-99", put(2, 99), malformed + "hash algorithm at offset 2 is 99", ""},
		{"called-sha384", put(2, byte(sign.SHA384)), bad, bad},
		{"called-md5", put(2, byte(sign.MD5)), bad, ""},
		{"size-zero", put(7, 0, 0), malformed + "size at offset 7 is 0", ""},
		{"size-too-small", put(7, 0, 5), malformed + "size at offset 7 is 5", ""},
		{"size-too-large", put(7, 1, 0), malformed + "size at offset 7 is 256", ""},
		{"size-negative", put(7, 0xff, 0xff), malformed + "size at offset 7 is 65535", malformed + "size at offset 7"},
		{"size-little-endian", func(_ testing.TB, v []byte) []byte { v = bytes.Clone(v); v[7], v[8] = v[8], v[7]; return v }, "wrong byte order", "wrong byte order"},
		{"with-a-byte-behind", func(_ testing.TB, v []byte) []byte { return append(bytes.Clone(v), 0) }, malformed + "size at offset 7", ""},
		{"cut-by-a-byte", func(_ testing.TB, v []byte) []byte { return v[:len(v)-1] }, malformed + "size at offset 7", ""},
		{"cut-with-its-size", withSig(func(s []byte) []byte { return s[:len(s)-1] }), bad, bad},
		{"with-a-byte-behind-the-der", withSig(func(s []byte) []byte { return append(s, 0) }), bad, ""},
		{"of-a-flipped-bit", withSig(func(s []byte) []byte { s[len(s)-1] ^= 1; return s }), bad, bad},
		{"of-zero-numbers", withSig(func([]byte) []byte { return []byte{0x30, 6, 2, 1, 0, 2, 1, 0} }), bad, ""},
		{"of-no-der", withSig(func(s []byte) []byte { return bytes.Repeat([]byte{0xff}, len(s)) }), bad, ""},
		{"like-rsa", withSig(func([]byte) []byte { return bytes.Repeat([]byte{1}, 256) }), bad, bad},
		{"of-5000-bytes", withSig(func([]byte) []byte { return make([]byte, 5000) }), malformed + "size at offset 7 is 5000", ""},
		{"by-an-unknown-key", by("other", false, digest), "unknown key ID", "unknown key ID"},
		{"by-another-key-under-our-id", by("other", true, digest), bad, bad},
		{"under-another-id", put(3, 1, 2, 3, 4), "unknown key ID", "unknown key ID"},
		{"over-other-content", by("test", true, sha256.Sum256([]byte("a = 2\n"))), bad, bad},
		{"over-a-file", by("test", true, sha256.Sum256([]byte("a = 1\n"))), "", bad}, // good for the file, not for the statement
		{"over-zeros", by("test", true, [32]byte{}), "zero digest", ""},
	}
	return all
}

// badDebSignatures are signed packages whose lists of signatures were changed,
// with the statement left as it was and with one made for the change.
func badDebSignatures() []badPackage {
	var all []badPackage
	add := func(name, want, finds string, e edit) {
		all = append(all, badPackage{name: "deb-" + name, base: signedOf(helloDeb), edit: e, want: want, readable: true, finds: finds})
	}
	const other = "it carries other file signatures ("
	at := func(t testing.TB, e []sign.Entry, path string) int {
		i := slices.IndexFunc(e, func(e sign.Entry) bool { return e.Path == path })
		if i < 0 {
			t.Fatalf("%s is not signed", path)
		}
		return i
	}
	const conf, program = "etc/hello.conf", "usr/bin/hello"
	for _, v := range badValues() {
		if v.finds == "" {
			continue
		}
		add("signature-"+v.name, other, "/"+conf+": "+v.finds, editEntriesOf(fileSeal, func(t testing.TB, e []sign.Entry) []sign.Entry {
			i := at(t, e, conf)
			e[i].Value = v.change(t, e[i].Value)
			return e
		}))
	}
	add("signature-empty", other, "/"+conf+": malformed: 0 bytes", editEntriesOf(fileSeal, func(t testing.TB, e []sign.Entry) []sign.Entry {
		e[at(t, e, conf)].Value = nil
		return e
	}))
	add("signature-of-one-link-only", other, "/usr/bin/hello-too: unsigned", editEntriesOf(fileSeal, func(t testing.TB, e []sign.Entry) []sign.Entry {
		return slices.DeleteFunc(e, func(e sign.Entry) bool { return e.Path == program+"-too" })
	}))

	// The lines of both lists, by somebody without the key and by somebody with it.
	for _, list := range []struct{ name, seal, path, finds string }{
		{"manifest", fileSeal, conf, "/" + conf}, {"script-list", scriptSeal, "preinst", "preinst"},
	} {
		for what, change := range map[string]struct {
			finds string
			edit  func(t testing.TB, e []sign.Entry) []sign.Entry
		}{
			"line-dropped": {list.finds + ": unsigned", func(t testing.TB, e []sign.Entry) []sign.Entry {
				return slices.DeleteFunc(e, func(e sign.Entry) bool { return e.Path == list.path })
			}},
			"line-added": {"zz-stray: stray", func(t testing.TB, e []sign.Entry) []sign.Entry {
				return append(e, sign.Entry{Path: "zz-stray", Value: e[0].Value})
			}},
			"line-renamed": {list.finds + "x: stray", func(t testing.TB, e []sign.Entry) []sign.Entry {
				e[at(t, e, list.path)].Path += "x"
				return e
			}},
			"line-for-a-folder": {"stray", func(t testing.TB, e []sign.Entry) []sign.Entry {
				return append(slices.Clone(e), sign.Entry{Path: "usr/share", Value: e[0].Value})
			}},
			"lines-swapped": {list.finds + ": bad signature", func(t testing.TB, e []sign.Entry) []sign.Entry {
				// Of a list with one line, with a signature of the other list.
				value := signatureOver(t, "#!/bin/sh\necho hello\n")
				e[at(t, e, list.path)].Value = value
				return e
			}},
			"emptied": {list.finds + ": unsigned", func(testing.TB, []sign.Entry) []sign.Entry { return nil }},
		} {
			sorted := func(t testing.TB, e []sign.Entry) []sign.Entry {
				m := sign.Manifest{Files: change.edit(t, e)}
				m.Sort()
				return m.Files
			}
			add(list.name+"-"+what, other, change.finds, editEntriesOf(list.seal, sorted))
			add(list.name+"-"+what+"-statement-kept", other, "package statement: digest mismatch: digest of "+list.seal[2:], editSealed(func(t testing.TB, d *sealedDeb) {
				e, err := sign.ParseAttributes([]byte(d.seal(list.seal).content))
				if err != nil {
					t.Fatal(err)
				}
				d.put(list.seal, string(sign.FormatAttributes(sorted(t, e))))
			}))
		}
	}

	text := func(name, finds string, change func(text string) string) {
		add("manifest-"+name, "malformed file signatures (control member ima-signatures: "+finds, "malformed: control member ima-signatures: "+finds, editSeal(fileSeal, change))
	}
	replaced := func(old, new string) func(string) string {
		return func(text string) string { return strings.Replace(text, old, new, 1) }
	}
	text("of-junk", "line 1 does not begin with", func(string) string { return "junk\n" })
	text("cut-in-a-name", "line 1 does not end in a newline", func(s string) string { return s[:12] })
	text("cut-in-a-value", "line 2 does not end in a newline", func(s string) string { return s[:60] })
	text("without-last-line", "line", func(s string) string { return s[:len(s)-1] })
	text("not-base64", "line 2: the value is not base64", replaced("=0s", "=0s*"))
	text("base64-of-another-padding", "line 2: the value is not base64", func(s string) string {
		line := strings.Split(s, "\n")[1]
		value, err := base64.StdEncoding.DecodeString(line[strings.Index(line, "=0s")+3:])
		if err != nil {
			return s
		}
		return strings.Replace(s, line, "security.ima=0s"+base64.RawStdEncoding.EncodeToString(append(value, 0)), 1)
	})
	text("in-hexadecimal", "line 2 does not begin with", replaced("=0s", "=0x"))
	text("of-another-attribute", "line 2 does not begin with", replaced("security.ima", "security.evm"))
	text("with-a-comment", "line 1 does not begin with", func(s string) string { return "# a comment\n" + s })
	text("with-a-blank-line", "line 1 does not begin with", func(s string) string { return "\n" + s })
	text("without-blank-line", "line 3 is not empty", replaced("\n\n", "\n"))
	text("with-carriage-returns", "line 1: ", func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") })
	text("with-an-absolute-name", "line 1: ", replaced("# file: ", "# file: /"))
	text("with-a-name-that-climbs", "line 1: ", replaced("# file: etc/", "# file: etc/../../etc/"))
	text("with-an-empty-name", "line 1: ", replaced("# file: etc/hello.conf", "# file: "))
	text("with-nul-in-a-name", "line 1: ", replaced("hello.conf", "hello\x00conf"))
	text("with-an-escape-for-nothing", "line 1: ", replaced("hello.conf", `hello\056conf`))
	text("with-an-escape-cut-off", "line 1: ", replaced("hello.conf", `hello\1`))
	text("with-an-escape-not-octal", "line 1: ", replaced("hello.conf", `hello\099conf`))
	text("with-a-name-twice", "line 4: ", replaced("# file: usr/bin/hello\n", "# file: etc/hello.conf\n"))
	text("not-sorted", "line 4: ", replaced("# file: usr/bin/hello\n", "# file: bin/hello\n"))
	text("of-200000-lines", "", func(s string) string { return strings.Repeat("# file: a\nsecurity.ima=0s\n\n", 200000) })
	all[len(all)-1].want, all[len(all)-1].finds = "has 200000 entries", "malformed: control member ima-signatures has 200000 entries"
	return all
}

// signatureOver signs content by the test key.
func signatureOver(t testing.TB, content string) []byte {
	t.Helper()
	digest := sha256.Sum256([]byte(content))
	value, err := signerOf(t, "test", nil).SignDigest(sign.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// badRPMSignatures are signed RPMs whose file signatures were changed.
func badRPMSignatures() []badPackage {
	var all []badPackage
	const other, malformed = "it carries other file signatures (", "malformed file signatures (signature header: tag 274 (FILESIGNATURES): "
	for _, f := range []struct{ name, base string }{{"v4", v4RPM}, {"v6", v6RPM}} {
		add := func(name, want, finds string, change func(t testing.TB, tags []rpmTag) []rpmTag) {
			all = append(all, badPackage{name: "rpm-" + f.name + "-" + name, base: signedOf(f.base), edit: editSig(change), want: want, readable: true, finds: finds})
		}
		texts := func(name, want, finds string, change func(t testing.TB, texts []string) []string) {
			add(name, want, finds, func(t testing.TB, tags []rpmTag) []rpmTag {
				return withTag(tags, stringsTag(fileSigTag, change(t, find(t, tags, fileSigTag).strings())...))
			})
		}
		// The files of the list are test.conf, b1, b2, to, test, b3, empty, ümläut x, test.db.
		one := func(i int, change func(t testing.TB, text string) string) func(testing.TB, []string) []string {
			return func(t testing.TB, texts []string) []string { texts[i] = change(t, texts[i]); return texts }
		}
		for _, v := range badValues() {
			if v.finds == "" {
				continue
			}
			texts("signature-"+v.name, other, "/etc/test.conf: "+v.finds, one(0, func(t testing.TB, text string) string {
				value, err := hex.DecodeString(text)
				if err != nil {
					t.Fatal(err)
				}
				return hex.EncodeToString(v.change(t, value))
			}))
		}
		text := func(i int, s string) func(testing.TB, []string) []string {
			return one(i, func(testing.TB, string) string { return s })
		}
		value := func(t testing.TB) string { return hex.EncodeToString(signatureOver(t, signedText)) }
		texts("line-dropped", other, "/etc/test.conf: unsigned", text(0, ""))
		texts("lines-all-dropped", other, "/etc/test.conf: unsigned", func(_ testing.TB, texts []string) []string { return make([]string, len(texts)) })
		texts("lines-swapped", other, "/usr/bin/b1: bad signature", func(_ testing.TB, texts []string) []string { texts[0], texts[1] = texts[1], texts[0]; return texts })
		texts("line-for-a-folder", other, "/usr/share/test: stray", one(4, func(t testing.TB, _ string) string { return value(t) }))
		texts("line-for-a-symbolic-link", other, "/usr/bin/to: stray", one(3, func(t testing.TB, _ string) string { return value(t) }))
		texts("line-for-a-ghost", other, "/var/lib/test.db: stray", one(8, func(t testing.TB, _ string) string { return value(t) }))
		texts("line-for-one-link-only", other, "/usr/bin/b2: unsigned", text(2, ""))
		texts("zeros-signed-for-a-folder", other, "/usr/share/test: zero digest", one(4, func(t testing.TB, _ string) string {
			zero, err := signerOf(t, "test", nil).SignDigest(sign.SHA256, make([]byte, 32))
			if err != nil {
				t.Fatal(err)
			}
			return hex.EncodeToString(zero)
		}))
		texts("lines-too-few", malformed+"it has 8 strings for 9 files", "malformed: ", func(_ testing.TB, texts []string) []string { return texts[1:] })
		texts("lines-too-many", malformed+"it has 10 strings for 9 files", "malformed: ", func(_ testing.TB, texts []string) []string { return append(texts, "") })
		texts("line-of-odd-length", malformed+`"etc/test.conf"`, "malformed: ", one(0, func(_ testing.TB, text string) string { return text + "0" }))
		texts("line-not-hexadecimal", malformed+`"etc/test.conf"`, "malformed: ", one(0, func(_ testing.TB, text string) string { return "zz" + text[2:] }))
		add("one-string", malformed+"it has type 6", "malformed: ", func(_ testing.TB, tags []rpmTag) []rpmTag { return withTag(tags, stringTag(fileSigTag, "0302")) })
		add("integers", malformed+"it has type 4", "malformed: ", func(_ testing.TB, tags []rpmTag) []rpmTag {
			return withTag(tags, intsTag(fileSigTag, rpmInt32, slices.Repeat([]uint64{1}, 9)...))
		})
		add("length-alone", "", "/etc/test.conf: unsigned", func(_ testing.TB, tags []rpmTag) []rpmTag { return withoutTag(tags, fileSigTag) })
		all[len(all)-1].want = "tags of other file signatures (274, 275)"

		// Where they can't be.
		moved := func(name, want, finds string, both bool) {
			all = append(all, badPackage{name: "rpm-" + f.name + "-" + name, base: signedOf(f.base), want: want, readable: true, finds: finds,
				edit: editRPM(func(t testing.TB, r *rpmFile) {
					e := *find(t, r.sig, fileSigTag)
					if e.tag = mainFileSigTag; !both {
						r.sig = withoutTag(withoutTag(r.sig, fileSigTag), fileSigLenTag)
						e.data = bytes.Replace(e.data, []byte("0302"), []byte("0301"), 1)
					}
					r.main = withTag(r.main, e)
					r.headerSums()
				})})
		}
		moved("signatures-in-both-headers", "", "file signatures are in the main header (tag 5090)", true)
		moved("signatures-in-the-main-header", "", "file signatures are in the main header (tag 5090)", false)
		all[len(all)-2].want, all[len(all)-1].want = other, other
	}

	// A signature header that is not as rpm lays it out can't be given back.
	odd := func(name, want string, e edit) {
		all = append(all, badPackage{name: "rpm-odd-" + name, base: v4RPM, edit: e, want: "its signature header is not laid out as rpm does it (" + want, readable: true, finds: "signature header: warning: it is not laid out as rpm does it: " + want})
	}
	odd("padding", "its padding is not zero", func(t testing.TB, good []byte) []byte {
		b := bytes.Clone(good)
		if b[mainAt(b)-1]++; mainAt(b)%8 != 0 {
			t.Fatal("no padding")
		}
		return b
	})
	odd("order-of-tags", "its tags are not sorted", func(_ testing.TB, good []byte) []byte {
		b := bytes.Clone(good)
		first, last := leadLength+16+16*3+3, leadLength+16+16*5+3 // SIZE and PAYLOADSIZE
		b[first], b[last] = b[last], b[first]
		return b
	})
	return all
}
