package rpm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

// golden reads the packages that rpmbuild made; testdata/README.md says how.
func golden(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/*.rpm")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d golden packages, %v", len(files), err)
	}
	packages := map[string][]byte{}
	for _, f := range files {
		if packages[strings.TrimSuffix(filepath.Base(f), ".rpm")], err = os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
	}
	return packages
}

// variants are unsigned packages of every shape that we build.
func variants(t testing.TB) map[string][]byte {
	with := func(change func(*testPackage)) []byte {
		p := usual()
		change(&p)
		return p.build(t)
	}
	return map[string][]byte{
		"gzip":     with(func(p *testPackage) {}),
		"zstd":     with(func(p *testPackage) { p.compress = "zstd" }),
		"none":     with(func(p *testPackage) { p.compress = "none" }),
		"stripped": with(func(p *testPackage) { p.stripped = true }),
		"v6":       with(func(p *testPackage) { p.v6 = true }),
		"sha512":   with(func(p *testPackage) { p.algo = 10 }),
		"reserve0": with(func(p *testPackage) { p.noReserve = true }),
		"unsorted": with(func(p *testPackage) { slices.Reverse(p.files) }),
	}
}

func TestContract(t *testing.T) {
	raw := variants(t)
	raw["v4-gzip"] = golden(t)["v4-gzip"]
	signtest.Run(t, signtest.Format{
		Open: func(r io.ReaderAt, size int64) (sign.Package, error) { return Open(r, size, Options{}) },
		Raw:  raw,
	})
}

type seen struct {
	Path, Link, Content string
	Mode                fs.FileMode
}

func walk(t testing.TB, p *Package) ([]seen, error) {
	t.Helper()
	var list []seen
	for f, err := range p.Files(context.Background()) {
		if err != nil {
			return list, err
		}
		s := seen{Path: f.Path, Link: f.Link, Mode: f.Mode}
		if f.Content != nil {
			b, err := io.ReadAll(f.Content)
			if err != nil {
				return list, err
			}
			s.Content = string(b)
		}
		list = append(list, s)
	}
	return list, nil
}

func TestFiles(t *testing.T) {
	const script = "#!/bin/sh\necho hello\n"
	want := []seen{
		{"etc/test.conf", "", "a = 1\n", 0o644},
		{"usr/bin/b3", "", script, 0o755},
		{"usr/bin/b1", "usr/bin/b3", "", 0o755},
		{"usr/bin/b2", "usr/bin/b3", "", 0o755},
		{"usr/bin/su", "", "\x7fELF...", 0o755 | fs.ModeSetuid},
		{"usr/share/\xff\xfe name\n", "", "odd", 0o644},
		{"usr/share/empty", "", "", 0o644},
		{"usr/share/empty2", "", "", 0o644},
		{"usr/share/\u00fcml\u00e4ut", "", "n", 0o644},
	}
	for _, stripped := range []bool{false, true} {
		p := usual()
		p.stripped = stripped
		got, err := walk(t, open(t, p.build(t), Options{}))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("stripped %v: %s", stripped, diff)
		}
	}
}

func TestTrustHeaderDigests(t *testing.T) {
	raw := usual().build(t)
	classes := map[string]sign.Class{}
	for f, err := range open(t, raw, Options{TrustHeaderDigests: true}).Files(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if f.Content != nil || f.Recorded == nil || f.RecordedHash != sign.SHA256 {
			t.Errorf("%q: content %v, digest %x", f.Path, f.Content, f.Recorded)
		}
		classes[f.Path] = f.Class
	}
	if len(classes) != 9 || classes["usr/bin/su"] != sign.ClassELF || classes["usr/bin/b1"] != sign.ClassScript || classes["usr/share/empty"] != sign.ClassOther {
		t.Errorf("classes %v", classes)
	}
	// It is said when the package is written.
	p := open(t, raw, Options{TrustHeaderDigests: true})
	warned := ""
	write(t, p, new(sign.Manifest), sign.WriteOptions{Warn: func(s string) { warned += s }})
	if !strings.Contains(warned, "payload was not read") || !strings.Contains(warned, "FILECOLORS, FILECLASS") {
		t.Errorf("warned %q", warned)
	}
	// The same signatures come out as with the payload read.
	a, _ := signed(t, raw, Options{})
	b, _ := signed(t, raw, Options{TrustHeaderDigests: true})
	if !bytes.Equal(a, b) {
		t.Error("trusting the header's digests gives another package")
	}
}

// TestDigestsGuardSigning flips bits of what only a digest covers: nothing may be
// signed then, in neither mode.
func TestDigestsGuardSigning(t *testing.T) {
	raw := usual().build(t)
	p := open(t, raw, Options{})
	for name, at := range map[string]int64{
		"main header": p.mainAt + int64(bytes.Index(p.main.raw, []byte("noarch"))),
		"payload":     p.payloadAt + 4, // the time in gzip's header
	} {
		bad := bytes.Clone(raw)
		bad[at] ^= 1
		for _, trust := range []bool{false, true} {
			p := open(t, bad, Options{TrustHeaderDigests: trust})
			if _, err := sign.Sign(t.Context(), p, testKey(), sign.Options{}); !errors.Is(err, errMismatch) {
				t.Errorf("%s, trusting %v: signing gives %v", name, trust, err)
			}
		}
		// One that carries signatures can be verified, which reports it, but not
		// be signed again.
		good, m := signed(t, raw, Options{})
		q := open(t, good, Options{})
		good[at+q.mainAt-p.mainAt] ^= 1
		q = open(t, good, Options{})
		report, err := sign.Verify(t.Context(), q, signtest.Trust(testKey()), sign.Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !slices.ContainsFunc(report.Findings, func(f sign.Finding) bool {
			return f.Path == name && f.Reason == sign.ReasonDigestMismatch
		}) {
			t.Errorf("%s: verify finds %v", name, report.Findings)
		}
		if err := q.Write(t.Context(), io.Discard, m, sign.WriteOptions{Force: true}); !errors.Is(err, errMismatch) {
			t.Errorf("%s: writing gives %v", name, err)
		}
	}
}

// TestFileDigestMismatch has a header whose file digest is not the payload's.
func TestFileDigestMismatch(t *testing.T) {
	p := usual()
	p.editCpio = func(b []byte) []byte { return bytes.Replace(b, []byte("a = 1"), []byte("a = 2"), 1) }
	_, err := sign.Sign(t.Context(), open(t, p.build(t), Options{}), testKey(), sign.Options{})
	if err == nil || !strings.Contains(err.Error(), "etc/test.conf") {
		t.Errorf("signing gives %v", err)
	}
}

func TestCheckDigests(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*testPackage)
		want   string
	}{
		"good": {func(*testPackage) {}, ""},
		"md5": {func(p *testPackage) {
			p.editSig = func(s []entry) []entry { return replace(s, binEntry(sigMD5, make([]byte, 16))) }
		}, "MD5"},
		"sha1": {func(p *testPackage) {
			p.editSig = func(s []entry) []entry { return replace(s, textEntry(sigSHA1, strings.Repeat("0", 40))) }
		}, "SHA1"},
		"size": {func(p *testPackage) {
			p.editSig = func(s []entry) []entry { return replace(s, intsEntry(sigSize, typeInt32, 9)) }
		}, "SIZE"},
		"payload": {func(p *testPackage) {
			p.editMain = func(s []entry) []entry { return replace(s, textsEntry(tagPayloadSHA256, strings.Repeat("0", 64))) }
		}, "PAYLOADSHA256 "},
		"decompressed payload": {func(p *testPackage) {
			p.editMain = func(s []entry) []entry {
				return replace(s, textsEntry(tagPayloadSHA256Alt, strings.Repeat("0", 64)))
			}
		}, "PAYLOADSHA256ALT"},
		"payload size": {func(p *testPackage) {
			p.editSig = func(s []entry) []entry { return replace(s, intsEntry(sigPayloadSize, typeInt32, 9)) }
		}, "PAYLOADSIZE"},
	} {
		t.Run(name, func(t *testing.T) {
			p := usual()
			c.change(&p)
			got, err := open(t, p.build(t), Options{}).CheckDigests(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if c.want == "" && len(got) == 0 {
				return
			}
			if len(got) != 1 || !strings.HasPrefix(got[0].Detail, c.want) {
				t.Errorf("findings %v", got)
			}
		})
	}
}

func replace(entries []entry, by entry) []entry {
	return append(without(entries, by.tag), by)
}

func TestInfo(t *testing.T) {
	p := usual()
	p.editMain = func(e []entry) []entry {
		return append(e, intsEntry(tagEpoch, typeInt32, 3), intsEntry(tagSize, typeInt32, 4711))
	}
	want := sign.Info{Format: "rpm", FormatVersion: "4", Name: "test", Version: "3:1-2", Arch: "noarch", InstalledSize: 4711, FileHash: sign.SHA256}
	if diff := cmp.Diff(want, open(t, p.build(t), Options{}).Info()); diff != "" {
		t.Error(diff)
	}
	p.v6, p.algo = true, 9
	if i := open(t, p.build(t), Options{}).Info(); i.FormatVersion != "6" || i.FileHash != sign.SHA384 {
		t.Errorf("%+v", i)
	}
}

func TestWeakFileDigests(t *testing.T) {
	for algo, name := range map[int]string{1: "md5", 2: "sha1"} {
		p := usual()
		p.algo = algo
		q := open(t, p.build(t), Options{})
		if got := q.Info().FileHash.String(); got != name {
			t.Errorf("file digests are %s, not %s", got, name)
		}
		if _, err := sign.Sign(t.Context(), q, testKey(), sign.Options{}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: signing gives %v", name, err)
		}
	}
}

func TestSourcePackage(t *testing.T) {
	p := usual()
	p.editMain = func(e []entry) []entry { return without(e, tagSourceRPM) }
	if q := open(t, p.build(t), Options{}); !q.IsSource() || q.CanWrite(new(sign.Manifest), sign.WriteOptions{}) == nil {
		t.Error("a source package is taken for a binary one")
	}
	if open(t, usual().build(t), Options{}).IsSource() {
		t.Error("a binary package is taken for a source package")
	}
}

func TestEmptyPackage(t *testing.T) {
	raw := testPackage{}.build(t)
	out, m := signed(t, raw, Options{})
	if len(m.Files) != 0 || !bytes.Equal(out, raw) {
		t.Errorf("a package without files: %d signatures, changed %v", len(m.Files), !bytes.Equal(out, raw))
	}
}

// TestNoHeaderDigest has a main header that only the MD5 over header and payload covers.
func TestNoHeaderDigest(t *testing.T) {
	p := usual()
	p.editSig = func(e []entry) []entry { return without(e, sigSHA1, sigSHA256) }
	raw := p.build(t)
	signed(t, raw, Options{TrustHeaderDigests: true})
	raw = bytes.Replace(raw, []byte("noarch"), []byte("nOarch"), 1)
	for _, trust := range []bool{false, true} {
		if _, err := sign.Sign(t.Context(), open(t, raw, Options{TrustHeaderDigests: trust}), testKey(), sign.Options{}); !errors.Is(err, errMismatch) {
			t.Errorf("trusting %v: signing gives %v", trust, err)
		}
	}
}

// TestNoPayloadDigest has nothing that the header's digests could be trusted by.
func TestNoPayloadDigest(t *testing.T) {
	p := usual()
	p.editMain = func(e []entry) []entry {
		return without(e, tagPayloadSHA256, tagPayloadSHA256Alt, tagPayloadDigestAlgo)
	}
	signed(t, p.build(t), Options{TrustHeaderDigests: true}) // the MD5 covers it
	p.editSig = func(e []entry) []entry { return without(e, sigMD5) }
	raw := p.build(t)
	signed(t, raw, Options{})
	if _, err := sign.Sign(t.Context(), open(t, raw, Options{TrustHeaderDigests: true}), testKey(), sign.Options{}); err == nil || !strings.Contains(err.Error(), "--trust-header-digests") {
		t.Errorf("signing gives %v", err)
	}
}

// TestZeroDigest has zeros where a digest should be: there is none, then.
func TestZeroDigest(t *testing.T) {
	p := usual()
	texts := slices.Repeat([]string{strings.Repeat("0", 64)}, len(p.files))
	p.editMain = func(e []entry) []entry { return replace(e, textsEntry(tagFileDigests, texts...)) }
	n := 0
	for f, err := range open(t, p.build(t), Options{}).Files(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; f.Recorded != nil {
			t.Errorf("%q has the digest %x", f.Path, f.Recorded)
		}
	}
	if n != 9 {
		t.Errorf("%d files", n)
	}
}

// TestCutContent wants content that is cut off not to look like its end.
func TestCutContent(t *testing.T) {
	raw := cpioEntryOf("./x", 0o100644, 1, 10)
	c := newCpioReader(bytes.NewReader(append(raw, "only"...)))
	if _, err := c.next(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); !errors.Is(err, io.ErrUnexpectedEOF) || string(b) != "only" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestStrangers opens packages of other builders, those of go-rpmutils' own tests.
func TestStrangers(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/sassoftware/go-rpmutils").Output()
	if err != nil {
		t.Skip("no go command")
	}
	dir := strings.TrimSpace(string(out))
	found, _ := filepath.Glob(dir + "/testdata/*.rpm")
	nfpm, _ := filepath.Glob(dir + "/testdata/*/*.rpm")
	if found = append(found, nfpm...); len(found) < 5 {
		t.Skipf("%d packages in %s", len(found), dir)
	}
	for _, path := range found {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(filepath.Base(path), func(t *testing.T) {
			p := open(t, raw, Options{})
			findings, err := p.CheckDigests(t.Context())
			if err != nil || slices.ContainsFunc(findings, sign.Finding.Bad) {
				t.Errorf("digests: %v, %v", findings, err)
			}
			if !p.Info().FileHash.Strong() && p.files.n > 0 {
				return
			}
			signedRaw, m := signed(t, raw, Options{})
			if len(m.Files) == 0 && p.files.n > 0 {
				t.Error("nothing was signed")
			}
			if p.irregular == "" && !bytes.Equal(write(t, open(t, signedRaw, Options{}), nil, sign.WriteOptions{}), raw) {
				t.Error("unsign does not give the original")
			}
			if len(p.Anomalies()) > 0 {
				t.Errorf("anomalies %v", p.Anomalies())
			}
		})
	}
}

// Builders other than rpmbuild repeat the digest algorithm for each file.
func TestDigestAlgorithmForEachFile(t *testing.T) {
	p := usual()
	p.editMain = func(e []entry) []entry {
		return replace(e, intsEntry(tagFileDigestAlgo, typeInt32, slices.Repeat([]uint64{8}, len(p.files))...))
	}
	if got := open(t, p.build(t), Options{}).Info().FileHash; got != sign.SHA256 {
		t.Errorf("the file digests are %v, not SHA-256", got)
	}
}
