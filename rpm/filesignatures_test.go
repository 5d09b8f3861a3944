package rpm

import (
	"bytes"
	"context"
	"crypto/x509"
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
		return nil
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
	const lost = "unsign cannot undo"
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
		warned := ""
		err := p.Write(t.Context(), io.Discard, c.m, sign.WriteOptions{Force: c.force, Warn: func(s string) { warned += s }})
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if name == "others" && !strings.Contains(err.Error(), lost) {
			t.Errorf("%s: %v does not say %q", name, err, lost)
		}
		if c.ok && strings.Contains(warned, lost) != (name == "others, with force") {
			t.Errorf("%s: warned %q", name, warned)
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

// TestAmbiguousReserve has reserves that our signatures bring to, and around, the
// length at which it looks as if rpmsign had used them.
func TestAmbiguousReserve(t *testing.T) {
	for name, c := range map[string]struct {
		openPGP []byte // that we add
		last    byte   // of the reserve: unless it is 0 there is no room for a mark
		long    bool   // sizes of 64 bits
	}{
		"":                        {},
		"with OpenPGP":            {openPGP: []byte("packet")},
		"without room for a mark": {last: 1},
		"long sizes":              {long: true},
	} {
		t.Run(name, func(t *testing.T) {
			o := sign.WriteOptions{}
			if c.openPGP != nil {
				o.OpenPGP = func(context.Context, io.Reader) (sign.NewOpenPGPSignature, error) {
					return sign.NewOpenPGPSignature{Packet: c.openPGP}, nil
				}
			}
			plain := usual()
			shorter := 0
			plain.editSig = func(e []entry) []entry {
				reserve := make([]byte, usualReserve-shorter)
				reserve[len(reserve)-1] = c.last
				if c.long {
					e = append(without(e, sigSize, sigPayloadSize), intsEntry(sigLongSize, typeInt64, 1), intsEntry(sigLongArchiveSize, typeInt64, 1))
				}
				return replace(e, binEntry(sigReservedSpace, reserve))
			}
			unmarked := plain.build(t)
			p := open(t, unmarked, Options{})
			m, err := sign.Sign(t.Context(), p, testKey(), sign.Options{})
			if err != nil {
				t.Fatal(err)
			}
			added, err := p.signedEntries(m)
			if err != nil {
				t.Fatal(err)
			}
			if c.openPGP != nil {
				added = append(added, binEntry(sigDSA, c.openPGP))
			}
			about := len(buildHeader(added, sigRegion)) - len(p.sig.raw)
			odd, refused := 0, 0
			for shorter = about - 40; shorter < about+40; shorter++ {
				raw := plain.build(t)
				p := open(t, raw, Options{})
				var b bytes.Buffer
				err := p.Write(t.Context(), &b, m, o)
				if can := p.CanWrite(m, o); c.openPGP == nil && (can == nil) != (err == nil) {
					t.Fatalf("CanWrite says %v, Write %v", can, err)
				}
				if err != nil {
					if !strings.Contains(err.Error(), "reserved space") {
						t.Fatal(err)
					}
					refused++
					continue
				}
				out := open(t, b.Bytes(), Options{})
				if _, ok := cutMark(out.sig.find(sigReservedSpace).data, keptMark); ok {
					odd++
				}
				if !bytes.Equal(write(t, out, nil, sign.WriteOptions{}), raw) {
					t.Fatalf("reserve %d shorter: unsign gives other bytes", shorter)
				}
				// So it does after signing anew, with more and fewer files.
				again := &sign.Manifest{Files: m.Files[1:]}
				for range 2 {
					out = open(t, write(t, out, again, sign.WriteOptions{Force: true}), Options{})
					again = m
				}
				if back := write(t, out, nil, sign.WriteOptions{}); !bytes.Equal(back, raw) {
					t.Fatalf("reserve %d shorter: signed three times, unsign gives other bytes", shorter)
				}
			}
			if noRoom := c.last != 0; (odd > 0) == noRoom || (refused > 0) != noRoom || odd+refused > 8 {
				t.Errorf("%d were marked, %d refused", odd, refused)
			}
		})
	}
}

// TestReserveGivenBack takes off what rpmsign put into the reserve, of packages whose
// sizes rpmbuild writes in 32 and in 64 bits.
func TestReserveGivenBack(t *testing.T) {
	for _, long := range []bool{false, true} {
		plain := usual()
		plain.editSig = func(e []entry) []entry {
			if !long {
				return e
			}
			// As rpm's rpmGenerateSignature: the header stays as long as with 32 bits.
			before := len(buildHeader(without(e, sigReservedSpace), sigRegion))
			e = append(without(e, sigSize, sigPayloadSize), intsEntry(sigLongSize, typeInt64, 1), intsEntry(sigLongArchiveSize, typeInt64, 1))
			grown := len(buildHeader(without(e, sigReservedSpace), sigRegion)) - before
			return replace(e, binEntry(sigReservedSpace, make([]byte, usualReserve-grown)))
		}
		raw := plain.build(t)
		p := open(t, raw, Options{})
		_, m := signed(t, raw, Options{})
		entries, err := p.signedEntries(m)
		if err != nil {
			t.Fatal(err)
		}
		// As rpmsign: the reserve pays for it.
		left := usualReserve - (len(buildHeader(entries, sigRegion)) - len(p.sig.raw))
		if long {
			left -= usualReserve - len(p.sig.find(sigReservedSpace).data)
		}
		sig := buildHeader(replace(entries, binEntry(sigReservedSpace, make([]byte, left))), sigRegion)
		theirs := open(t, assemble(sig, p.main.raw, raw[p.payloadAt:], false), Options{})
		if theirs.mainAt != p.mainAt || theirs.irregular != "" {
			t.Fatalf("the test does it otherwise than rpmsign: %d, %d %s", theirs.mainAt, p.mainAt, theirs.irregular)
		}
		if !bytes.Equal(write(t, theirs, nil, sign.WriteOptions{}), raw) {
			t.Errorf("sizes of 64 bits %v: unsign gives other bytes", long)
		}
	}
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
