package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
)

// badHeaders are RPMs whose lead or headers can't be read.
func badHeaders() []badPackage {
	var all []badPackage
	add := func(name, want string, e edit) {
		all = append(all, badPackage{name: "rpm-" + name, base: v4RPM, edit: e, want: want})
	}
	bytesAt := func(name, want string, at int, b ...byte) {
		add(name, want, func(_ testing.TB, good []byte) []byte { good = bytes.Clone(good); copy(good[at:], b); return good })
	}
	bytesAt("wrong-magic", "neither a .deb nor an RPM", 0, 'R', 'P', 'M', '!')
	bytesAt("magic-swapped", "neither a .deb nor an RPM", 0, 0xdb, 0xee, 0xab, 0xed)
	bytesAt("lead-version-2", "offset 4", 4, 2)
	bytesAt("lead-version-255", "offset 4", 4, 0xff)
	bytesAt("lead-signature-type", "offset 78", 78, 0, 1)
	bytesAt("lead-source-package", "this is a source package", 6, 0, 1)
	all[len(all)-1].want = "this is a source package"
	for _, h := range []struct {
		name string
		at   func(offset int) func(testing.TB, []byte) int
		most uint32
	}{{"signature-header", inSig, 32}, {"main-header", inMain, 0xffff}} {
		where := map[string]string{"signature-header": "signature header", "main-header": "main header"}[h.name]
		put := func(name, want string, offset int, v uint32) {
			add(h.name+"-"+name, where+": "+want, put32(h.at(offset), v))
		}
		put("magic", "it begins with", 0, 0x8eade802)
		put("reserved-bytes", "it begins with", 4, 1)
		put("of-0-entries", "0 entries are declared", 8, 0)
		put("of-too-many-entries", fmt.Sprintf("%d entries are declared", h.most+1), 8, h.most+1)
		put("of-16-million-entries", "16777216 entries are declared", 8, 1<<24)
		put("of-negative-entries", "4294967295 entries are declared", 8, 0xffffffff)
		put("of-entries-that-overflow", "268435457 entries are declared", 8, 0x10000001)
		put("of-an-empty-store", "a store of 0 bytes is declared", 12, 0)
		put("of-a-negative-store", "a store of 2147483648 bytes is declared", 12, 0x80000000)
		put("of-a-store-past-the-end", "", 12, 32<<20)
		all[len(all)-1].want = where + ": "
		put("of-a-store-too-short", "", 12, 64)
		put("without-region", "it has no immutable region", 16, 1000)
		put("region-of-strings", "the region has type 6", 20, rpmString)
		put("region-of-no-bytes", "the region has type 7 and 0 bytes", 28, 0)
		put("trailer-past-the-store", "the region's trailer is at", 24, 1<<20)
		put("trailer-negative", "the region's trailer is at", 24, 0xffffffff)
		put("trailer-elsewhere", "the region's trailer at 0 is malformed", 24, 0)
		trailer := func(name, want string, v uint32) {
			add(h.name+"-"+name, where+": "+want, put32(func(t testing.TB, b []byte) int { _, end := headerAt(b, h.at(0)(t, b)); return end - 8 }, v))
		}
		trailer("region-larger-than-the-index", "the region's trailer", 0xffff0000)
		trailer("region-of-half-an-entry", "the region's trailer", 0xfffffff8)
		trailer("region-positive", "the region's trailer", 16)
	}
	for _, e := range []struct {
		name string
		at   func(b []byte) int
		tag  uint32
	}{
		{"string", func([]byte) int { return leadLength }, sigSHA256Tag},
		{"binary", func([]byte) int { return leadLength }, sigMD5Tag},
		{"string-array", mainAt, baseNamesTag},
		{"integers", mainAt, sizesTag},
	} {
		put := func(name, want string, field int, change func(v uint32) uint32) {
			add("tag-"+e.name+"-"+name, want, func(t testing.TB, good []byte) []byte {
				b := bytes.Clone(good)
				at := indexOf(t, b, e.at(b), e.tag) + field
				binary.BigEndian.PutUint32(b[at:], change(binary.BigEndian.Uint32(b[at:])))
				return b
			})
		}
		is := func(v uint32) func(uint32) uint32 { return func(uint32) uint32 { return v } }
		tag := fmt.Sprintf("tag %d", e.tag)
		put("number-0", "tag 0", 0, is(0))
		put("number-negative", "tag 4294967295", 0, is(0xffffffff))
		put("type-0", tag+": type 0 is not known", 4, is(0))
		put("type-10", tag+": type 10 is not known", 4, is(10))
		put("past-the-store", tag+" has its value at", 8, is(1<<24))
		put("offset-negative", tag+" has its value at", 8, is(0xfffffff0))
		put("within-another", tag+" has its value at", 8, func(v uint32) uint32 { return v - 4 })
		put("count-0", tag+": it has no value", 12, is(0))
		put("count-16-million", tag+": ", 12, is(16<<20))
		put("count-negative", tag+": ", 12, is(0xffffffff))
		put("count-that-overflows", tag+": ", 12, is(0x40000001))
	}
	add("tag-integers-not-aligned", "not a multiple of 4", func(t testing.TB, good []byte) []byte {
		b := bytes.Clone(good)
		at := indexOf(t, b, mainAt(b), sizesTag) + 8
		binary.BigEndian.PutUint32(b[at:], binary.BigEndian.Uint32(b[at:])+1)
		return b
	})
	// Sixteen million entries in a hundred bytes.
	add("16-million-entries-in-100-bytes", "16777216 entries are declared", func(_ testing.TB, good []byte) []byte {
		b := append(slices.Clone(good[:leadLength]), "\x8e\xad\xe8\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04"...)
		return b
	})
	add("4-gib-in-100-bytes", "a store of 4294967295 bytes is declared", func(_ testing.TB, good []byte) []byte {
		return append(slices.Clone(good[:leadLength]), "\x8e\xad\xe8\x01\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff"...)
	})
	add("16-million-strings", "tag 1117: 16777216 values are declared", func(t testing.TB, good []byte) []byte {
		b := bytes.Clone(good)
		binary.BigEndian.PutUint32(b[indexOf(t, b, mainAt(b), baseNamesTag)+12:], 1<<24)
		return b
	})
	return append(all, truncations()...)
}

// truncations are cut off at, before and behind every structure, in both formats.
func truncations() []badPackage {
	var all []badPackage
	for _, f := range []struct{ name, base string }{{"v4", v4RPM}, {"v6", v6RPM}} {
		for _, c := range []struct {
			name string
			at   func(b []byte) int
			want string
		}{
			{"to-nothing", func([]byte) int { return 0 }, "neither a .deb nor an RPM"},
			{"in-magic", func([]byte) int { return 3 }, "neither a .deb nor an RPM"},
			{"after-magic", func([]byte) int { return 4 }, "offset 0"},
			{"in-lead", func([]byte) int { return 95 }, "offset 0"},
			{"after-lead", func([]byte) int { return 96 }, "offset 96: signature header"},
			{"in-signature-intro", func([]byte) int { return 111 }, "offset 96: signature header"},
			{"after-signature-intro", func([]byte) int { return 112 }, "signature header"},
			{"in-signature-index", func([]byte) int { return 130 }, "signature header"},
			{"after-signature-index", func(b []byte) int { s, _ := headerAt(b, leadLength); return s }, "signature header"},
			{"in-signature-store", func(b []byte) int { _, e := headerAt(b, leadLength); return e - 1 }, "signature header"},
			{"after-signature-store", func(b []byte) int { _, e := headerAt(b, leadLength); return e }, "main header"},
			{"before-main-header", func(b []byte) int { return mainAt(b) }, "main header"},
			{"in-main-intro", func(b []byte) int { return mainAt(b) + 15 }, "main header"},
			{"after-main-intro", func(b []byte) int { return mainAt(b) + 16 }, "main header"},
			{"in-main-index", func(b []byte) int { return mainAt(b) + 40 }, "main header"},
			{"after-main-index", func(b []byte) int { s, _ := headerAt(b, mainAt(b)); return s }, "main header"},
			{"in-main-store", func(b []byte) int { return payloadAt(b) - 1 }, "main header"},
			{"before-payload", payloadAt, "payload at offset"},
			{"after-a-byte-of-payload", func(b []byte) int { return payloadAt(b) + 1 }, "payload"},
			{"in-payload", func(b []byte) int { return payloadAt(b) + 50 }, "payload"},
			{"by-a-byte", func(b []byte) int { return len(b) - 1 }, "payload"},
		} {
			all = append(all, badPackage{name: "rpm-" + f.name + "-cut-" + c.name, base: f.base, want: c.want,
				edit: func(_ testing.TB, b []byte) []byte { return b[:c.at(b)] }})
		}
	}
	return all
}
