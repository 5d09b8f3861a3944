package rpm

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

// FuzzHeader: what is read as a header in rpm's layout is written again as it was.
func FuzzHeader(f *testing.F) {
	for _, raw := range golden(f) {
		p := open(f, raw, Options{})
		f.Add(p.sig.raw, true)
		f.Add(p.main.raw, false)
	}
	f.Add([]byte(headerMagic), true)
	f.Fuzz(func(t *testing.T, raw []byte, sig bool) {
		kind := mainHeader
		if sig {
			kind = signatureHeader
		}
		h, err := readHeader(bytes.NewReader(raw), 0, int64(len(raw)), kind)
		if err != nil {
			return
		}
		for i := range h.entries {
			e := &h.entries[i]
			h.text(e.tag)
			h.number(e.tag)
			if s, err := e.strings(); err == nil {
				n := 0
				for k := range s.len() {
					n += len(s.at(k)) + 1
				}
				if s.len() != int(e.count) || n != len(e.data) {
					t.Fatalf("tag %d: %d strings of %d, %d bytes of %d", e.tag, s.len(), e.count, n, len(e.data))
				}
			}
		}
		built := buildHeader(h.entries, kind.region)
		again, err := readHeader(bytes.NewReader(built), 0, int64(len(built)), kind)
		if err != nil {
			t.Fatalf("what was written is refused: %v", err)
		}
		if !bytes.Equal(buildHeader(again.entries, kind.region), built) || len(again.entries) != len(h.entries) {
			t.Fatal("written again it is another header")
		}
		if !slices.EqualFunc(unsignedEntries(again.entries), unsignedEntries(unsignedEntries(again.entries)), func(a, b entry) bool {
			return a.tag == b.tag && bytes.Equal(a.data, b.data)
		}) {
			t.Fatal("unsigned twice it is another header")
		}
		dropMarked(again.entries)
	})
}

// FuzzOpen: what is accepted can be read, signed, written and given back.
func FuzzOpen(f *testing.F) {
	for _, raw := range golden(f) {
		f.Add(raw)
	}
	// Small and not compressed, so that a change comes through.
	for i := range 4 {
		p := usual()
		p.compress, p.noReserve, p.stripped, p.v6 = "none", true, i&1 > 0, i&2 > 0
		raw := p.build(f)
		f.Add(raw)
		raw, _ = signed(f, raw, Options{})
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := Open(bytes.NewReader(raw), int64(len(raw)), Options{})
		if err != nil {
			return
		}
		p.Info()
		p.Details()
		p.Anomalies()
		p.OpenPGP()
		p.Manifest()
		if _, err := p.CheckDigests(t.Context()); err != nil {
			return
		}
		var b bytes.Buffer
		if err := p.Write(t.Context(), &b, nil, sign.WriteOptions{}); err == nil && !p.signed() && !marked(p.sig.entries) && !bytes.Equal(b.Bytes(), raw) {
			t.Fatal("an unsigned package is not copied as it is")
		}
		p.digests = new(digestSet) // no mutation gets past them
		m, err := sign.Sign(t.Context(), p, testKey(), sign.Options{})
		if err != nil {
			return
		}
		var signed bytes.Buffer
		if err := p.Write(t.Context(), &signed, m, sign.WriteOptions{}); err != nil {
			return
		}
		q, err := Open(bytes.NewReader(signed.Bytes()), int64(signed.Len()), Options{})
		if err != nil {
			t.Fatalf("what was written is refused: %v", err)
		}
		got, err := q.Manifest()
		if err != nil || p.files.n > 0 && !q.carries(m) {
			t.Fatalf("the manifest that was written is not there: %v, %v", got, err)
		}
		b.Reset()
		if err := q.Write(t.Context(), &b, nil, sign.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		if !p.signed() && !marked(p.sig.entries) && !bytes.Equal(b.Bytes(), raw) {
			t.Fatal("unsign does not give the original")
		}
	})
}

// FuzzCpio: the reader ends, and gives no more than there is.
func FuzzCpio(f *testing.F) {
	for _, stripped := range []bool{false, true} {
		p := usual()
		p.stripped = stripped
		f.Add(p.cpio())
	}
	f.Add(cpioEntryOf(cpioTrailer, 0, 0, 0))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := newCpioReader(bytes.NewReader(raw))
		total := 0
		for {
			e, err := c.next()
			if err == io.EOF && c.at != int64(len(raw)) {
				t.Fatalf("the end at %d of %d", c.at, len(raw))
			}
			if err != nil {
				return
			}
			if e.stripped {
				c.left = int64(e.index % 16)
			} else if len(e.name) == 0 || len(e.name) >= maxCpioName {
				t.Fatalf("a name of %d bytes", len(e.name))
			}
			content, err := io.ReadAll(c)
			if total += len(content); total > len(raw) {
				t.Fatalf("%d bytes of content in %d", total, len(raw))
			}
			if err != nil {
				return
			}
		}
	})
}
