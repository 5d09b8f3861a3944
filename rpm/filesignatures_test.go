package rpm

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sassoftware/go-rpmutils"

	"github.com/imaseal/imaseal/internal/atomicfile"
	"github.com/imaseal/imaseal/sign"
)

// fileSignatureTexts returns tag 274 as it stands in raw.
func fileSignatureTexts(t testing.TB, p *Package) []string {
	t.Helper()
	e := p.sig.find(sigFileSignatures)
	if e == nil {
		t.Fatal("no file signatures")
	}
	return strings.Split(strings.TrimSuffix(string(e.data), "\x00"), "\x00")
}

// TestFileSignatures looks at the tags that are written.
func TestFileSignatures(t *testing.T) {
	raw := usual().build(t)
	out, m := signed(t, raw, Options{})
	before, after := open(t, raw, Options{}), open(t, out, Options{})
	texts := fileSignatureTexts(t, after)
	values := map[string]string{}
	longest := 0
	for _, e := range m.Files {
		values["/"+e.Path] = hex.EncodeToString(e.Value)
		longest = max(longest, len(e.Value))
	}
	for i, f := range usual().files {
		if texts[i] != values[f.path] {
			t.Errorf("%q has %q, not %q", f.path, texts[i], values[f.path])
		}
		if none := f.mode&modeType != 0 && f.mode&modeType != modeRegular || f.flags&fileGhost != 0; none != (texts[i] == "") {
			t.Errorf("%q has %q", f.path, texts[i])
		}
	}
	if texts[2] != texts[4] || texts[2] == "" {
		t.Error("names of one file have other signatures")
	}
	if n, ok, err := after.sig.number(sigFileSignatureLength); int(n) != longest || !ok || err != nil {
		t.Errorf("length %d %v %v, the longest is %d", n, ok, err, longest)
	}
	if !bytes.Equal(out[after.mainAt:], raw[before.mainAt:]) || !bytes.Equal(out[:leadSize], raw[:leadSize]) {
		t.Error("main header, payload or lead have changed")
	}
	for _, e := range before.sig.entries {
		if got := after.sig.find(e.tag); got == nil || !bytes.Equal(got.data, e.data) {
			t.Errorf("tag %d has changed", e.tag)
		}
	}
	if after.irregular != "" || len(after.Anomalies()) > 0 {
		t.Errorf("irregular: %s, anomalies %v", after.irregular, after.Anomalies())
	}
}

// TestOtherReader reads what we write by go-rpmutils.
func TestOtherReader(t *testing.T) {
	out, _ := signed(t, golden(t)["v4-gzip"], Options{})
	h, err := rpmutils.ReadHeader(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	texts, err := h.GetStrings(sigFileSignatures)
	if err != nil {
		t.Fatal(err)
	}
	p := open(t, out, Options{})
	if want := fileSignatureTexts(t, p); !slices.Equal(texts, want) {
		t.Errorf("go-rpmutils reads %q, not %q", texts, want)
	}
	nevra, err := h.GetNEVRA()
	if err != nil || nevra.Name != p.Info().Name || nevra.Version+"-"+nevra.Release != p.Info().Version {
		t.Errorf("go-rpmutils reads %v, %v", nevra, err)
	}
	files, err := h.GetFiles()
	if err != nil || len(files) != p.files.n {
		t.Fatalf("go-rpmutils reads %d files, %v", len(files), err)
	}
	for i, f := range files {
		if f.Name() != "/"+p.files.path(i) || f.Size() != int64(p.files.sizes.at(i)) || f.Digest() != string(p.files.digests.at(i)) {
			t.Errorf("file %d: go-rpmutils reads %v", i, f)
		}
	}
}

// TestRpmsign verifies what rpmsign signed, and takes it off.
func TestRpmsign(t *testing.T) {
	text, err := os.ReadFile("testdata/signed.pub")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	id, err := sign.KeyIDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	keys := new(sign.TrustedKeys)
	if err := keys.Add(id, pub); err != nil {
		t.Fatal(err)
	}
	for name, plain := range map[string]string{"v4-rpmsign418": "v4-gzip", "v6-rpmsign61": "v6-zstd"} {
		raw := golden(t)[name]
		p := open(t, raw, Options{})
		report, err := sign.Verify(t.Context(), p, keys, sign.Options{})
		if err != nil || !report.OK() || report.Signed != report.Files || report.Files != 6 {
			t.Errorf("%s: %+v, %v", name, report, err)
		}
		if len(p.OpenPGP()) != 1 {
			t.Errorf("%s: OpenPGP signatures %v", name, p.OpenPGP())
		}
		// The OpenPGP signature stays. Without it the builder's bytes are left.
		q := open(t, write(t, p, nil, sign.WriteOptions{}), Options{})
		built := open(t, golden(t)[plain], Options{})
		entries := without(q.sig.entries, openPGPTags...)
		for i := range entries {
			if isReserve(entries[i]) {
				entries[i] = binEntry(entries[i].tag, make([]byte, usualReserve))
			}
		}
		if !bytes.Equal(buildHeader(entries, sigRegion), built.sig.raw) || q.mainAt != built.mainAt {
			t.Errorf("%s: the reserve was not given back", name)
		}
		// Signing anew and taking that off ends in the same bytes.
		again, _ := signed(t, raw, Options{})
		if !bytes.Equal(write(t, open(t, again, Options{}), nil, sign.WriteOptions{}), write(t, p, nil, sign.WriteOptions{})) {
			t.Errorf("%s: signed anew and taken off: other bytes", name)
		}
	}
}

func TestForce(t *testing.T) {
	raw, m := signed(t, usual().build(t), Options{})
	p := open(t, raw, Options{})
	fewer := &sign.Manifest{Files: m.Files[1:]}
	for name, c := range map[string]struct {
		m     *sign.Manifest
		force bool
		ok    bool
	}{
		"the same":            {m, false, true},
		"others":              {fewer, false, false},
		"others, with force":  {fewer, true, true},
		"unsign":              {nil, false, true},
		"an unsorted one":     {&sign.Manifest{Files: []sign.Entry{m.Files[1], m.Files[0]}}, true, false},
		"no such file":        {&sign.Manifest{Files: []sign.Entry{{Path: "nosuch", Value: m.Files[0].Value}}}, true, false},
		"a folder":            {&sign.Manifest{Files: []sign.Entry{{Path: "etc", Value: m.Files[0].Value}}}, true, false},
		"a ghost":             {&sign.Manifest{Files: []sign.Entry{{Path: "var/lib/ghost", Value: m.Files[0].Value}}}, true, false},
		"an empty value":      {&sign.Manifest{Files: []sign.Entry{{Path: "etc/test.conf"}}}, true, false},
		"a maintainer script": {&sign.Manifest{Control: m.Files[:1]}, true, false},
	} {
		err := p.Write(t.Context(), io.Discard, c.m, sign.WriteOptions{Force: c.force})
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// wild is a change to a signed package that is out there; rpm.md of the design lists
// who made them.
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
			report, err := sign.Verify(t.Context(), p, trusted(testKey()), sign.Options{})
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

func TestLimits(t *testing.T) {
	many := func(n int) []byte {
		p := testPackage{}
		for i := range n {
			p.files = append(p.files, testFile{path: "/usr/share/" + strings.Repeat("x", i+1)})
		}
		return p.build(t)
	}
	for name, c := range map[string]struct {
		files  int
		target string
		warn   string
		fail   bool
	}{
		"small":                    {3, "", "", false},
		"small for 4.14":           {3, "4.14.3", "", false},
		"8 KiB":                    {40, "", "before 4.15", false},
		"8 KiB for 4.14":           {40, "4.14.3", "", true},
		"8 KiB for 4.15":           {40, "4.15", "", false},
		"64 KiB":                   {450, "", "before 4.16", false},
		"64 KiB for 4.15":          {450, "4.15.1", "", true},
		"64 KiB for 4.16":          {450, "4.16.0", "", false},
		"64 KiB for 6.0":           {450, "6.0", "", false},
		"64 KiB for 4.14 and less": {450, "4.11", "", true},
	} {
		p := open(t, many(c.files), Options{TargetVersion: c.target})
		m, err := sign.Sign(t.Context(), p, testKey(), sign.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var warned string
		o := sign.WriteOptions{Warn: func(s string) { warned += s }}
		err = p.Write(t.Context(), io.Discard, m, o)
		if can := p.CanWrite(m, o); (can == nil) != (err == nil) {
			t.Errorf("%s: CanWrite says %v, Write %v", name, can, err)
		}
		if (err != nil) != c.fail || err != nil && !strings.Contains(err.Error(), "--select exec") {
			t.Errorf("%s: %v", name, err)
		}
		if (c.warn == "") != (warned == "") || !strings.Contains(warned, c.warn) {
			t.Errorf("%s: warned %q", name, warned)
		}
	}
	for _, bad := range []string{"four", "4.x", "-1.2", "0.1"} {
		if _, err := Open(bytes.NewReader(many(1)), 1<<20, Options{TargetVersion: bad}); err == nil || !strings.Contains(err.Error(), "version") {
			t.Errorf("target %q: %v", bad, err)
		}
	}
}

// TestAmbiguousReserve has a reserve that our signatures bring just to the length at
// which it looks as if rpmsign had used it.
func TestAmbiguousReserve(t *testing.T) {
	plain := usual()
	raw := plain.build(t)
	out, m := signed(t, raw, Options{})
	added := len(out) - len(raw)
	refused := 0
	for shorter := added - 20; shorter < added+20; shorter++ {
		plain.editSig = func(e []entry) []entry {
			return replace(e, binEntry(sigReservedSpace, make([]byte, usualReserve-shorter)))
		}
		raw := plain.build(t)
		p := open(t, raw, Options{})
		var b bytes.Buffer
		if err := p.Write(t.Context(), &b, m, sign.WriteOptions{}); err != nil {
			if !strings.Contains(err.Error(), "reserved space") {
				t.Fatal(err)
			}
			refused++
			continue
		}
		if !bytes.Equal(write(t, open(t, b.Bytes(), Options{}), nil, sign.WriteOptions{}), raw) {
			t.Fatalf("reserve %d shorter: unsign gives other bytes", shorter)
		}
	}
	if refused == 0 || refused > 4 {
		t.Errorf("%d lengths were refused", refused)
	}
}

func TestOpenPGP(t *testing.T) {
	made := 0
	options := func(packet string, rsa, force bool) sign.WriteOptions {
		return sign.WriteOptions{Force: force, OpenPGP: func(_ context.Context, r io.Reader) (sign.NewOpenPGPSignature, error) {
			made++
			signed, err := io.ReadAll(r)
			if !bytes.HasPrefix(signed, []byte(headerMagic)) {
				t.Errorf("what is signed begins with %x", signed[:8])
			}
			return sign.NewOpenPGPSignature{Packet: []byte(packet), RSA: rsa}, err
		}}
	}
	signedBy := func(raw []byte, o sign.WriteOptions) []byte {
		p := open(t, raw, Options{})
		m, err := sign.Sign(t.Context(), p, testKey(), sign.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return write(t, p, m, o)
	}
	where := func(raw []byte) string {
		var s []string
		for _, o := range open(t, raw, Options{}).OpenPGP() {
			s = append(s, o.Where+"="+string(o.Packet))
		}
		return strings.Join(s, " ")
	}
	unsign := func(raw []byte) []byte { return write(t, open(t, raw, Options{}), nil, sign.WriteOptions{}) }
	for _, v6 := range []bool{false, true} {
		plain := usual()
		plain.v6 = v6
		raw := plain.build(t)
		for _, rsa := range []bool{false, true} {
			want := map[bool]string{false: "DSAHEADER=one", true: "RSAHEADER=one"}[rsa]
			if v6 {
				want = "OPENPGP=one"
			}
			one := signedBy(raw, options("one", rsa, false))
			if got := where(one); got != want {
				t.Errorf("v6 %v, RSA %v: %s, not %s", v6, rsa, got, want)
			}
			if !bytes.Equal(unsign(one), raw) {
				t.Errorf("v6 %v, RSA %v: unsign does not give the original", v6, rsa)
			}
			// Another one in its place, or behind it.
			if p := open(t, one, Options{}); (p.CanWrite(nil, sign.WriteOptions{}) != nil) || (p.CanWrite(must(p.Manifest()), options("two", rsa, false)) == nil) != v6 {
				t.Errorf("v6 %v: a second signature without force", v6)
			}
			two := signedBy(one, options("two", !rsa, true))
			want = map[bool]string{false: "RSAHEADER=two", true: "DSAHEADER=two"}[rsa]
			if v6 {
				want = "OPENPGP=one OPENPGP=two"
			}
			if got := where(two); got != want {
				t.Errorf("v6 %v, RSA %v: %s, not %s", v6, rsa, got, want)
			}
			if !bytes.Equal(unsign(two), raw) {
				t.Errorf("v6 %v, RSA %v: unsign after a second signature does not give the original", v6, rsa)
			}
		}
		// One that was there before stays, unless it was replaced.
		plain.editSig = func(e []entry) []entry {
			if v6 {
				return append(e, textsEntry(sigOpenPGP, "b2xk"))
			}
			return append(e, binEntry(sigRSA, []byte("old")), binEntry(sigPGP, []byte("older")))
		}
		raw = plain.build(t)
		kept := signedBy(raw, sign.WriteOptions{})
		if where(kept) != where(raw) || !bytes.Equal(unsign(kept), raw) {
			t.Errorf("v6 %v: an earlier signature is not kept: %s", v6, where(kept))
		}
		added := signedBy(raw, options("new", true, true))
		if want := map[bool]string{false: "RSAHEADER=new", true: "OPENPGP=old OPENPGP=new"}[v6]; where(added) != want {
			t.Errorf("v6 %v: %s, not %s", v6, where(added), want)
		}
		if v6 != bytes.Equal(unsign(added), raw) || !v6 && where(unsign(added)) != "RSAHEADER=new" {
			t.Errorf("v6 %v: unsign gives %s", v6, where(unsign(added)))
		}
	}
	if made != 10 {
		t.Errorf("%d signatures were made", made)
	}
	p := open(t, usual().build(t), Options{})
	o := sign.WriteOptions{OpenPGP: func(context.Context, io.Reader) (sign.NewOpenPGPSignature, error) {
		return sign.NewOpenPGPSignature{}, nil
	}}
	if err := p.Write(t.Context(), io.Discard, new(sign.Manifest), o); err == nil {
		t.Error("an empty OpenPGP signature is written")
	}
}

func must(m *sign.Manifest, err error) *sign.Manifest {
	if err != nil {
		panic(err)
	}
	return m
}

// TestFilesOnDisk writes from file to file, where the kernel copies.
func TestFilesOnDisk(t *testing.T) {
	raw := usual().build(t)
	out, m := signed(t, raw, Options{})
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/in", raw, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir + "/in")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := Open(f, int64(len(raw)), Options{Jobs: 2})
	if err != nil {
		t.Fatal(err)
	}
	err = atomicfile.Write(t.Context(), dir+"/out", func(w *os.File) error {
		return p.Write(t.Context(), w, m, sign.WriteOptions{})
	}, atomicfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dir + "/out"); err != nil || !bytes.Equal(got, out) {
		t.Errorf("other bytes, %v", err)
	}
}
