package rpm

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

// TestWildVariants has what other signers have written over the years.
func TestWildVariants(t *testing.T) {
	plain := usual()
	signedRaw, _ := signed(t, plain.build(t), Options{})
	texts := fileSignatureTexts(t, open(t, signedRaw, Options{}))
	longest := open(t, signedRaw, Options{}).sig.find(sigFileSignatureLength)
	var zero [32]byte
	overZero, err := testKey().SignDigest(sign.SHA256, zero[:])
	if err != nil {
		t.Fatal(err)
	}
	edit := func(change func(i int, text string) string) entry {
		changed := slices.Clone(texts)
		for i := range changed {
			changed[i] = change(i, changed[i])
		}
		return textsEntry(sigFileSignatures, changed...)
	}
	at := func(k int, change func(string) string) entry {
		return edit(func(i int, text string) string {
			if i == k {
				return change(text)
			}
			return text
		})
	}
	for name, c := range map[string]struct {
		tags []entry
		want map[string]sign.Reason // by path
	}{
		"as we write": {[]entry{edit(func(_ int, s string) string { return s }), *longest}, nil},
		"upper case":  {[]entry{edit(func(_ int, s string) string { return strings.ToUpper(s) }), *longest}, nil},
		"size little endian": {[]entry{at(1, func(s string) string { return s[:14] + s[16:18] + s[14:16] + s[18:] }), *longest},
			map[string]sign.Reason{"/etc/test.conf": sign.ReasonByteOrder}},
		"trailing bytes": {[]entry{at(1, func(s string) string { return s + "0000" }), intsEntry(sigFileSignatureLength, typeInt32, 99)},
			map[string]sign.Reason{"/etc/test.conf": sign.ReasonMalformed}},
		"zeros over all": {[]entry{edit(func(_ int, s string) string { return strings.Repeat("00", 9) }), *longest},
			map[string]sign.Reason{"/etc/test.conf": sign.ReasonMalformed, "/etc": sign.ReasonStray}},
		"zero digests": {[]entry{edit(func(_ int, s string) string {
			if s == "" {
				return hex.EncodeToString(overZero)
			}
			return s
		}), *longest}, map[string]sign.Reason{"/etc": sign.ReasonZeroDigest, "/usr/bin/to": sign.ReasonZeroDigest, "/var/lib/ghost": sign.ReasonZeroDigest}},
		"length missing":   {[]entry{edit(func(_ int, s string) string { return s })}, map[string]sign.Reason{"signature header": sign.ReasonWarning}},
		"length too short": {[]entry{edit(func(_ int, s string) string { return s }), intsEntry(sigFileSignatureLength, typeInt32, 9)}, map[string]sign.Reason{"signature header": sign.ReasonWarning}},
		"length alone":     {[]entry{*longest}, map[string]sign.Reason{"signature header": sign.ReasonWarning, "/etc/test.conf": sign.ReasonUnsigned}},
		"odd length":       {[]entry{at(1, func(s string) string { return s + "0" }), *longest}, map[string]sign.Reason{"": sign.ReasonMalformed}},
		"no hexadecimal":   {[]entry{at(1, func(s string) string { return "zz" + s[2:] }), *longest}, map[string]sign.Reason{"": sign.ReasonMalformed}},
		"too few":          {[]entry{textsEntry(sigFileSignatures, texts[1:]...), *longest}, map[string]sign.Reason{"": sign.ReasonMalformed}},
		"too many":         {[]entry{textsEntry(sigFileSignatures, append(texts, "")...), *longest}, map[string]sign.Reason{"": sign.ReasonMalformed}},
		"one string":       {[]entry{textEntry(sigFileSignatures, texts[1]), *longest}, map[string]sign.Reason{"": sign.ReasonMalformed}},
	} {
		t.Run(name, func(t *testing.T) {
			w := plain
			w.editSig = func(e []entry) []entry { return append(e, c.tags...) }
			p := open(t, w.build(t), Options{})
			report, err := sign.Verify(t.Context(), p, signtest.Trust(testKey()), sign.Options{})
			if err != nil {
				t.Fatal(err)
			}
			found := map[string]sign.Reason{}
			for _, f := range report.Findings {
				found[f.Path] = f.Reason
			}
			for path, reason := range c.want {
				if found[path] != reason {
					t.Errorf("%q: %q, not %q: %v", path, found[path], reason, report.Findings)
				}
			}
			if c.want == nil && len(report.Findings) > 0 {
				t.Errorf("findings %v", report.Findings)
			}
			// Force writes it right, and the original comes back.
			m, err := sign.Sign(t.Context(), p, testKey(), sign.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if name != "as we write" && name != "upper case" && name != "length missing" && name != "length too short" {
				if err := p.Write(t.Context(), io.Discard, m, sign.WriteOptions{}); err == nil {
					t.Error("replaced without force")
				}
			}
			right := write(t, p, m, sign.WriteOptions{Force: true})
			if !bytes.Equal(right, signedRaw) {
				t.Error("written with force it is not what signing the plain package gives")
			}
			if !bytes.Equal(write(t, p, nil, sign.WriteOptions{}), plain.build(t)) {
				t.Error("unsign does not give the plain package")
			}
		})
	}
}

// TestOutsideRegion has the file signatures behind the region's end.
func TestOutsideRegion(t *testing.T) {
	plain := usual().build(t)
	signedRaw, m := signed(t, plain, Options{})
	p := open(t, plain, Options{})
	added := open(t, signedRaw, Options{}).sig
	sig := bytes.Clone(p.sig.raw)
	index := introSize + indexSize*(len(p.sig.entries)+1)
	store := append(sig[index:len(sig):len(sig)], make([]byte, -len(sig[index:])&3)...)
	var dribbles []byte
	for _, tag := range []uint32{sigFileSignatureLength, sigFileSignatures} {
		e := added.find(tag)
		for _, v := range []uint32{e.tag, e.kind, uint32(len(store)), e.count} {
			dribbles = binary.BigEndian.AppendUint32(dribbles, v)
		}
		store = append(store, e.data...)
	}
	sig = slices.Concat(sig[:index], dribbles, store)
	binary.BigEndian.PutUint32(sig[8:], uint32(len(p.sig.entries)+3))
	binary.BigEndian.PutUint32(sig[12:], uint32(len(store)))
	raw := assemble(sig, p.main.raw, plain[p.payloadAt:], false)

	q := open(t, raw, Options{})
	if q.sig.outside != 2 || len(q.Anomalies()) < 2 {
		t.Errorf("%d tags outside, anomalies %v", q.sig.outside, q.Anomalies())
	}
	got, err := q.Manifest()
	if err != nil || len(got.Files) != len(m.Files) {
		t.Errorf("manifest %v, %v", got, err)
	}
	if err := q.CanWrite(m, sign.WriteOptions{}); err == nil {
		t.Error("written anew without force")
	}
	if !bytes.Equal(write(t, q, m, sign.WriteOptions{Force: true}), signedRaw) {
		t.Error("written with force it is not what signing gives")
	}
	if !bytes.Equal(write(t, q, nil, sign.WriteOptions{}), plain) {
		t.Error("unsign does not give the plain package")
	}
}

// TestMainHeaderSignatures has the tags where rpm 4.13 and 4.14 put them.
func TestMainHeaderSignatures(t *testing.T) {
	plain := usual()
	signedRaw, m := signed(t, plain.build(t), Options{})
	tags := open(t, signedRaw, Options{}).sig
	texts, length := *tags.find(sigFileSignatures), *tags.find(sigFileSignatureLength)
	texts.tag, length.tag = tagFileSignatures, tagFileSignatureLength
	plain.editMain = func(e []entry) []entry { return append(e, texts, length) }
	p := open(t, plain.build(t), Options{})
	if got, err := p.Manifest(); err != nil || len(got.Files) != len(m.Files) {
		t.Errorf("manifest %v, %v", got, err)
	}
	if a := p.Anomalies(); len(a) != 1 || a[0].Path != "main header" || a[0].Bad() {
		t.Errorf("anomalies %v", a)
	}
	for name, err := range map[string]error{
		"CanWrite": p.CanWrite(m, sign.WriteOptions{Force: true}),
		"Write":    p.Write(t.Context(), io.Discard, m, sign.WriteOptions{Force: true}),
		"unsign":   p.Write(t.Context(), io.Discard, nil, sign.WriteOptions{Force: true}),
	} {
		if err == nil || !strings.Contains(err.Error(), "main header") {
			t.Errorf("%s: %v", name, err)
		}
	}
	plain.v6 = true
	if a := open(t, plain.build(t), Options{}).Anomalies(); len(a) != 1 || !a[0].Bad() {
		t.Errorf("in format 6: anomalies %v", a)
	}
	plain.v6 = false
	plain.editSig = func(e []entry) []entry {
		return append(e, *tags.find(sigFileSignatures), *tags.find(sigFileSignatureLength))
	}
	if a := open(t, plain.build(t), Options{}).Anomalies(); len(a) != 1 || !a[0].Bad() {
		t.Errorf("in both headers: anomalies %v", a)
	}
}

// TestIrregular has a signature header that rpm would lay out in another way.
func TestIrregular(t *testing.T) {
	raw := usual().build(t)
	p := open(t, raw, Options{})
	sig := bytes.Clone(p.sig.raw)
	// Two more bytes in front of the trailer, which moves.
	at := len(sig) - trailerSize
	sig = slices.Concat(sig[:at], []byte{0, 0}, sig[at:])
	binary.BigEndian.PutUint32(sig[12:], uint32(storeSize(sig)+2))
	binary.BigEndian.PutUint32(sig[introSize+8:], binary.BigEndian.Uint32(sig[introSize+8:])+2)
	odd := assemble(sig, p.main.raw, raw[p.payloadAt:], false)
	padding := bytes.Clone(raw)
	if p.sigEnd == p.mainAt {
		t.Fatal("the package has no padding to spoil")
	}
	padding[p.sigEnd] = 1
	for name, raw := range map[string][]byte{"gap": odd, "padding": padding} {
		q := open(t, raw, Options{})
		if len(q.Anomalies()) != 1 {
			t.Errorf("%s: anomalies %v", name, q.Anomalies())
		}
		m, err := sign.Sign(t.Context(), q, testKey(), sign.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := q.Write(t.Context(), io.Discard, m, sign.WriteOptions{}); err == nil || !strings.Contains(err.Error(), "--force") {
			t.Errorf("%s: %v", name, err)
		}
		write(t, q, m, sign.WriteOptions{Force: true})
		if !bytes.Equal(write(t, q, nil, sign.WriteOptions{}), raw) {
			t.Errorf("%s: unsigning an unsigned package changes it", name)
		}
	}
}

// TestMainOutsideRegion has a tag in the main header that nothing covers.
func TestMainOutsideRegion(t *testing.T) {
	raw := usual().build(t)
	p := open(t, raw, Options{})
	main := bytes.Clone(p.main.raw)
	index := introSize + indexSize*(len(p.main.entries)+1)
	store := len(main) - index
	var dribble []byte
	for _, v := range []uint32{tagEpoch + 1, typeString, uint32(store), 1} {
		dribble = binary.BigEndian.AppendUint32(dribble, v)
	}
	main = slices.Concat(main[:index], dribble, main[index:], []byte("x\x00"))
	binary.BigEndian.PutUint32(main[8:], uint32(len(p.main.entries)+2))
	binary.BigEndian.PutUint32(main[12:], uint32(store+2))
	bad := assemble(p.sig.raw, main, raw[p.payloadAt:], false)
	if _, err := Open(bytes.NewReader(bad), int64(len(bad)), Options{}); err == nil || !strings.Contains(err.Error(), "outside the region") {
		t.Errorf("error %v", err)
	}
}
