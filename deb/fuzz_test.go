package deb

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/imaseal/imaseal/deb/dpkgtar"
	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

// FuzzOpen looks for ar archives that do harm, and for ones in which the library
// sees other members than our scan.
func FuzzOpen(f *testing.F) {
	for _, c := range arCases(f) {
		if len(c.raw) < 64<<10 {
			f.Add(c.raw)
		}
	}
	f.Add(noFolder().bytes(f))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := scanArchive(bytes.NewReader(raw), int64(len(raw)))
		if err != nil {
			return
		}
		at := int64(len(arMagic))
		for _, m := range append([]member{a.version, a.control, a.data}, a.extra...) {
			if m.offset != at {
				t.Fatalf("member %q is at %d, the last ended at %d", m.name, m.offset, at)
			}
			at = m.stop()
			content, err := a.read(&m)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(content, raw[m.start():m.start()+m.size]) {
				t.Fatalf("member %q has another content to the library", m.name)
			}
		}
		if at != int64(len(raw)) {
			t.Fatalf("the members end at %d of %d", at, len(raw))
		}
	})
}

// FuzzControlTar looks for control archives that do harm. What is accepted can be
// sealed, and is found again.
func FuzzControlTar(f *testing.F) {
	for _, c := range badTars(f, file("./control", 0o644, controlText)) {
		if len(c.raw) < 64<<10 {
			f.Add(c.raw)
		}
	}
	f.Add(tarOf(f, controlFiles()...))
	f.Add(open(f, signed(f, noFolder().bytes(f), sign.WriteOptions{})).kept.raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := parseControl(raw)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, m := range c.members {
			if seen[m.name] || m.header < 0 || m.header >= c.end || len(m.content) > len(raw) {
				t.Fatalf("member %+v", m)
			}
			seen[m.name] = true
		}
		if c.end < dpkgtar.BlockSize || c.end > len(raw)-dpkgtar.BlockSize || c.end%dpkgtar.BlockSize != 0 {
			t.Fatalf("end mark at %d of %d", c.end, len(raw))
		}
		dpkgtar.Fields(c.member("control").content)
		for _, m := range c.members {
			if dpkgtar.Ours(m.name) {
				return
			}
		}
		o := &original{name: "control.tar", member: raw, entries: raw[:c.end], control: c.member("control")}
		var b bytes.Buffer
		b.Write(o.entries)
		if err := o.writeSeals(&b, nil); err != nil {
			return
		}
		again, err := parseControl(b.Bytes())
		if err != nil {
			t.Fatalf("sealed: %v", err)
		}
		first, unsigned, _, err := seals(again)
		if err != nil || first != c.end || !bytes.Equal(unsigned.content, raw) {
			t.Fatalf("sealed: ours begin at %d, not %d: %v", first, c.end, err)
		}
		if err := o.checkEntries(); err != nil {
			t.Fatalf("sealed: %v", err)
		}
	})
}

// FuzzPackage signs whatever can be opened. What is accepted is reproduced: the
// original by unsign, the signed package by the manifest that it carries.
func FuzzPackage(f *testing.F) {
	f.Add(noFolder().bytes(f))
	f.Add(noFolder(arMember{name: "_gpgorigin", content: []byte("abc")}, arMember{name: "_x"}).bytes(f))
	for _, suffix := range []string{".gz", ".zst"} {
		b := build{controlSuffix: suffix, dataSuffix: suffix}.bytes(f)
		f.Add(b)
		f.Add(signed(f, b, sign.WriteOptions{}))
	}
	f.Add(build{data: treeFiles}.bytes(f))
	o := sign.WriteOptions{DropOpenPGP: true}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := Open(bytes.NewReader(raw), int64(len(raw)), Options{})
		if err != nil {
			return
		}
		p.Details()
		for _, s := range p.OpenPGP() {
			io.Copy(io.Discard, s.Signed())
		}
		keys := signtest.Trust(testKey)
		m, malformed := p.Manifest()
		if r, err := sign.Verify(t.Context(), p, keys, sign.Options{}); err == nil && r.OK() && m == nil {
			t.Fatalf("a package that is not signed is ok: %+v", r)
		}
		if (p.CanWrite(nil, o) == nil) != (malformed == nil) {
			t.Fatalf("Manifest: %v, CanWrite: %v", malformed, p.CanWrite(nil, o))
		}
		if malformed != nil {
			return
		}
		unsigned := write(t, p, nil, o)
		if m == nil && !bytes.Equal(unsigned, raw) {
			t.Fatal("the copy of an unsigned package differs")
		}
		if m != nil {
			if q := open(t, unsigned); q.signed {
				t.Fatal("unsign leaves a signed package")
			}
		}
		made, err := sign.Sign(t.Context(), p, testKey, sign.Options{})
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := p.Write(t.Context(), &b, made, o); err != nil {
			if p.CanWrite(made, o) == nil && !errors.Is(err, errDiffers) && b.Len() > 0 {
				t.Fatalf("Write fails after %d bytes: %v", b.Len(), err)
			}
			return
		}
		q := open(t, b.Bytes())
		if r, err := sign.Verify(t.Context(), q, keys, sign.Options{}); err != nil || !r.OK() {
			t.Fatalf("Verify: %+v, %v", r, err)
		}
		if back := write(t, q, nil, o); !bytes.Equal(back, unsigned) {
			t.Fatal("unsign gives other bytes")
		}
		carried, err := q.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		if again := write(t, q, carried, o); !bytes.Equal(again, b.Bytes()) {
			t.Fatal("the manifest that it carries gives other bytes")
		}
	})
}
