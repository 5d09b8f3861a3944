package sign_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

func examplePackage() *signtest.Memory {
	hello := "\x7fELF hello"
	return &signtest.Memory{
		About: sign.Info{Format: "memory", Name: "hello", Version: "1", Arch: "all"},
		Contents: []signtest.MemoryFile{
			{Path: "usr/bin/hello", Mode: 0o755, Content: []byte(hello), Recorded: digestOf(sign.SHA256, hello), RecordedHash: sign.SHA256},
			{Path: "usr/bin/hi", Mode: 0o755, Link: "usr/bin/hello", Recorded: digestOf(sign.SHA256, hello), RecordedHash: sign.SHA256},
			{Path: "usr/share/a", Content: []byte("a")},
			{Path: "usr/share/b", Content: []byte("b")},
			{Path: "postinst", Control: true, Content: []byte("#!/bin/sh")},
		},
	}
}

// signedPackage returns the example as it is after it was signed.
func signedPackage(t testing.TB, key *sign.Signer, o sign.Options) *signtest.Memory {
	t.Helper()
	p := examplePackage()
	m, err := sign.Sign(context.Background(), p, key, o)
	if err != nil {
		t.Fatal(err)
	}
	p.Carried = m
	return p
}

func TestVerifyReasons(t *testing.T) {
	key, other := testSigner(t, "p256"), testSigner(t, "rsa2048")
	value := func(s *sign.Signer, h sign.Hash, digest []byte) []byte {
		v, err := s.SignDigest(h, digest)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	const a = 2 // index of usr/share/a in Files
	for _, test := range []struct {
		name   string
		change func(*signtest.Memory)
		path   string
		want   sign.Reason
		detail string
	}{
		{"no signature", func(p *signtest.Memory) { p.Carried.Files = slices.Delete(p.Carried.Files, a, a+1) }, "/usr/share/a", sign.ReasonUnsigned, ""},
		{"unsigned control file", func(p *signtest.Memory) { p.Carried.Control = nil }, "postinst", sign.ReasonUnsigned, ""},
		{"unsigned link", func(p *signtest.Memory) { p.Carried.Files = slices.Delete(p.Carried.Files, 1, 2) }, "/usr/bin/hi", sign.ReasonUnsigned, ""},
		{"unknown key", func(p *signtest.Memory) {
			p.Carried.Files[a].Value = value(other, sign.SHA256, digestOf(sign.SHA256, "a"))
		}, "/usr/share/a", sign.ReasonUnknownKey, other.KeyID().String()},
		{"other content", func(p *signtest.Memory) { p.Contents[2].Content = []byte("x") }, "/usr/share/a", sign.ReasonBadSignature, key.KeyID().String()},
		{"other control content", func(p *signtest.Memory) { p.Contents[4].Content = []byte("#!/bin/bash") }, "postinst", sign.ReasonBadSignature, ""},
		{"recorded digest", func(p *signtest.Memory) { p.Contents[0].Content = []byte("x") }, "/usr/bin/hello", sign.ReasonDigestMismatch, "the package records"},
		{"recorded digest of a link", func(p *signtest.Memory) { p.Contents[1].Recorded = digestOf(sign.SHA256, "x") }, "/usr/bin/hi", sign.ReasonDigestMismatch, "the package records"},
		{"recorded digest by another hash", func(p *signtest.Memory) {
			p.Contents[2].RecordedHash, p.Contents[2].Recorded = sign.SHA1, digestOf(sign.SHA1, "b")
		}, "/usr/share/a", sign.ReasonDigestMismatch, "sha1"},
		{"recorded digest of an unsigned file", func(p *signtest.Memory) {
			p.Carried.Statement.Selection = sign.Selection{Select: []string{"/usr/bin/*"}}
			p.Contents = append(p.Contents[:4:4], signtest.MemoryFile{Path: "usr/share/c", RecordedHash: sign.SHA256, Recorded: make([]byte, 32)})
		}, "/usr/share/c", sign.ReasonDigestMismatch, ""},
		{"cut off", func(p *signtest.Memory) {
			p.Carried.Files[a].Value = p.Carried.Files[a].Value[:40]
		}, "/usr/share/a", sign.ReasonMalformed, "offset 7"},
		{"zeros", func(p *signtest.Memory) { p.Carried.Files[a].Value = make([]byte, 80) }, "/usr/share/a", sign.ReasonMalformed, "all zeros"},
		{"byte order", func(p *signtest.Memory) {
			v := bytes.Clone(p.Carried.Files[a].Value)
			v[7], v[8] = v[8], v[7]
			p.Carried.Files[a].Value = v
		}, "/usr/share/a", sign.ReasonByteOrder, "little endian"},
		{"zero digest", func(p *signtest.Memory) { p.Carried.Files[a].Value = value(key, sign.SHA256, make([]byte, 32)) }, "/usr/share/a", sign.ReasonZeroDigest, ""},
		{"stray", func(p *signtest.Memory) {
			p.Carried.Files = append(p.Carried.Files, sign.Entry{Path: "usr/share/z", Value: value(key, sign.SHA256, digestOf(sign.SHA256, "z"))})
		}, "/usr/share/z", sign.ReasonStray, ""},
		{"stray zero digest", func(p *signtest.Memory) {
			p.Carried.Files = append(p.Carried.Files, sign.Entry{Path: "usr/share/z", Value: value(key, sign.SHA256, make([]byte, 32))})
		}, "/usr/share/z", sign.ReasonZeroDigest, "not a regular file"},
		{"stray malformed", func(p *signtest.Memory) {
			p.Carried.Files = append(p.Carried.Files, sign.Entry{Path: "usr/share/z"})
		}, "/usr/share/z", sign.ReasonStray, ""},
		{"stray control", func(p *signtest.Memory) {
			p.Carried.Control = append(p.Carried.Control, sign.Entry{Path: "usr/share/a", Value: p.Carried.Files[a].Value})
		}, "usr/share/a", sign.ReasonStray, ""},
		{"link by another hash", func(p *signtest.Memory) {
			p.Carried.Files[1].Value = value(key, sign.SHA512, digestOf(sign.SHA512, "\x7fELF hello"))
		}, "/usr/bin/hi", sign.ReasonBadSignature, "other links"},
		{"begins like a statement", func(p *signtest.Memory) {
			text := "Format: imaseal-package-7\n"
			p.Contents[2].Content = []byte(text)
			p.Carried.Files[a].Value = value(key, sign.SHA256, digestOf(sign.SHA256, text))
		}, "/usr/share/a", sign.ReasonMalformed, "statement"},
		{"no statement", func(p *signtest.Memory) { p.Carried.Statement = nil }, "package statement", sign.ReasonUnsigned, ""},
		{"statement of another package", func(p *signtest.Memory) { p.About.Version = "2" }, "package statement", sign.ReasonDigestMismatch, "version is 2"},
		{"statement by an unknown key", func(p *signtest.Memory) { p.Carried.Statement.Sign(other) }, "package statement", sign.ReasonUnknownKey, ""},
		{"statement changed", func(p *signtest.Memory) { p.Carried.Statement.Package = "hullo" }, "package statement", sign.ReasonBadSignature, ""},
		{"statement by another hash", func(p *signtest.Memory) { p.Carried.Statement.Hash = sign.SHA512 }, "package statement", sign.ReasonBadSignature, "sha512"},
		{"statement without signature", func(p *signtest.Memory) { p.Carried.Statement.Signature = nil }, "package statement", sign.ReasonMalformed, "too short"},
		{"malformed manifest", func(p *signtest.Memory) { p.Malformed = "two of them" }, "", sign.ReasonMalformed, "two of them"},
		{"anomaly", func(p *signtest.Memory) {
			p.Odd = []sign.Finding{{Path: "header", Reason: sign.ReasonMalformed, Detail: "odd"}}
		}, "header", sign.ReasonMalformed, "odd"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, jobs := range []int{0, 4} {
				p := signedPackage(t, key, sign.Options{})
				test.change(p)
				r, err := sign.Verify(context.Background(), p, signtest.Trust(key), sign.Options{Jobs: jobs})
				if err != nil {
					t.Fatal(err)
				}
				if r.OK() {
					t.Error("it is ok")
				}
				if !slices.ContainsFunc(r.Findings, func(f sign.Finding) bool {
					return f.Path == test.path && f.Reason == test.want && strings.Contains(f.Detail, test.detail)
				}) {
					t.Errorf("no finding %q on %q: %+v", test.want, test.path, r.Findings)
				}
			}
		})
	}
}

func TestVerifyReports(t *testing.T) {
	key := testSigner(t, "p256")
	p := signedPackage(t, key, sign.Options{})
	p.Odd = []sign.Finding{{Reason: sign.ReasonWarning}}
	r, err := sign.Verify(context.Background(), p, signtest.Trust(key), sign.Options{})
	if err != nil || !r.OK() || r.Files != 5 || r.Signed != 5 || r.Extra != 0 || !slices.Equal(r.KeyIDs, []sign.KeyID{key.KeyID()}) {
		t.Errorf("%+v, %v", r, err)
	}
	exec, _ := sign.NewSelection([]string{"exec"}, nil)
	p = signedPackage(t, key, sign.Options{Selection: exec})
	for name, test := range map[string]struct {
		o     sign.Options
		ok    bool
		extra int
	}{
		"its own selection":   {sign.Options{}, true, 0},
		"everything":          {sign.Options{Selection: sign.Selection{Select: []string{"all"}}}, false, 0},
		"an exclusion only":   {sign.Options{Selection: sign.Selection{Exclude: []string{"/usr/share/*"}}}, true, 0},
		"another exclusion":   {sign.Options{Selection: sign.Selection{Exclude: []string{"/usr/bin/*"}}}, false, 2},
		"less than is signed": {sign.Options{Selection: sign.Selection{Select: []string{"/usr/bin/hi"}}}, true, 1},
	} {
		r, err := sign.Verify(context.Background(), p, signtest.Trust(key), test.o)
		if err != nil || r.OK() != test.ok || r.Extra != test.extra || r.Signed != 3 {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// A broken package is one whose payload fails on the way.
type brokenPackage struct {
	*signtest.Memory
	err error
}

func (p brokenPackage) Files(ctx context.Context) iter.Seq2[*sign.File, error] {
	return func(yield func(*sign.File, error) bool) {
		content := io.MultiReader(strings.NewReader("half a"), errReader{p.err})
		if p.err == nil {
			content = iotest.OneByteReader(strings.NewReader("Format: imaseal-package-1\n"))
		}
		yield(&sign.File{Path: "x", Content: content}, nil)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestContentThatFailsIsNotSigned(t *testing.T) {
	key := testSigner(t, "p256")
	for _, failure := range []error{io.ErrUnexpectedEOF, errors.New("bad sector")} {
		p := brokenPackage{examplePackage(), failure}
		if _, err := sign.Sign(context.Background(), p, key, sign.Options{}); !errors.Is(err, failure) {
			t.Errorf("Sign: %v, not %v", err, failure)
		}
		if _, err := sign.Verify(context.Background(), p, signtest.Trust(key), sign.Options{}); !errors.Is(err, failure) {
			t.Errorf("Verify: %v, not %v", err, failure)
		}
	}
}

// A reader that gives a byte at a time must not hide how the content begins.
func TestContentIsJudgedByItsBeginning(t *testing.T) {
	p := brokenPackage{Memory: examplePackage()}
	if _, err := sign.Sign(context.Background(), p, testSigner(t, "p256"), sign.Options{}); err == nil || !strings.Contains(err.Error(), "only a package statement") {
		t.Error(err)
	}
}

func TestSignRefuses(t *testing.T) {
	key := testSigner(t, "p256")
	for want, test := range map[string]struct {
		change func(*signtest.Memory)
		o      sign.Options
	}{
		"as only a package statement may": {func(p *signtest.Memory) { p.Contents[2].Content = []byte("Format: imaseal-package-2") }, sign.Options{}},
		"\"postinst\" begins with":        {func(p *signtest.Memory) { p.Contents[4].Content = []byte("Format: imaseal-package-1\n") }, sign.Options{}},
		"the package is damaged":          {func(p *signtest.Memory) { p.Contents[0].Content = nil }, sign.Options{}},
		"\"usr/bin/hi\": the content's":   {func(p *signtest.Memory) { p.Contents[1].Recorded = make([]byte, 32) }, sign.Options{}},
		"links to":                        {func(p *signtest.Memory) { p.Contents[1].RecordedHash = sign.SHA1 }, sign.Options{}},
		"did not come before":             {func(p *signtest.Memory) { p.Contents[1].Link = "usr/share/a" }, sign.Options{}},
		"by an unknown hash":              {func(p *signtest.Memory) { p.Contents[0].RecordedHash = 99 }, sign.Options{}},
		"its file digests are sha512":     {func(p *signtest.Memory) { p.About.FileHash = sign.SHA512 }, sign.Options{Hash: sign.SHA256}},
		"md5 digests are not safe":        {func(p *signtest.Memory) { p.About.FileHash = sign.MD5 }, sign.Options{}},
		"cannot be stated":                {func(p *signtest.Memory) { p.About.Name = "a\nb" }, sign.Options{}},
		"selection \"usr\"":               {func(*signtest.Memory) {}, sign.Options{Selection: sign.Selection{Select: []string{"usr"}}}},
	} {
		p := examplePackage()
		test.change(p)
		if m, err := sign.Sign(context.Background(), p, key, test.o); err == nil || m != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q; manifest %v", err, want, m)
		}
	}
}

func TestKeyThatFailsEndsSign(t *testing.T) {
	p := examplePackage()
	for i := range 5000 {
		p.Contents = append(p.Contents, signtest.MemoryFile{Path: fmt.Sprint("x", i), Content: fmt.Append(nil, i)})
	}
	for _, jobs := range []int{0, 1, 8} {
		// Only the third signature fails; the statement's would not.
		k := &token{failAt: 3}
		if m, err := sign.Sign(context.Background(), p, newToken(t, k), sign.Options{Jobs: jobs}); !errors.Is(err, errToken) || m != nil {
			t.Errorf("%v, %v", m, err)
		}
	}
}

// A token signs each time differently, but an inode has one attribute.
func TestLinksShareOneSignature(t *testing.T) {
	p := examplePackage()
	k := new(token)
	s := newToken(t, k)
	s.ForgetAll()
	m, err := sign.Sign(context.Background(), p, s, sign.Options{Jobs: 4})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(m.Files[0].Value, m.Files[1].Value) || bytes.Equal(m.Files[0].Value, m.Files[2].Value) {
		t.Errorf("%x", m.Files)
	}
	if n := k.calls.Load(); n != 5 { // four inodes and the statement
		t.Errorf("%d calls of the key", n)
	}
}

func TestSignOrdersEntriesAndReportsProgress(t *testing.T) {
	p := &signtest.Memory{About: sign.Info{Name: "x", Version: "1", Arch: "all"}}
	size := int64(0)
	for i := range 3000 {
		content := bytes.Repeat([]byte{byte(i)}, i)
		size += int64(len(content))
		p.Contents = append(p.Contents, signtest.MemoryFile{Path: fmt.Sprintf("%x/%d", i*7919%256, i), Content: content})
	}
	files, read := 0, int64(0)
	key := testSigner(t, "p256")
	m, err := sign.Sign(context.Background(), p, key, sign.Options{Jobs: 4, Progress: func(f int, b int64) { files += f; read += b }})
	if err != nil {
		t.Fatal(err)
	}
	if files != 3000 || read != size {
		t.Errorf("progress says %d files and %d bytes of %d", files, read, size)
	}
	if !slices.IsSortedFunc(m.Files, func(a, b sign.Entry) int { return strings.Compare(a.Path, b.Path) }) || len(m.Files) != 3000 {
		t.Error("not in order")
	}
	p.Carried = m
	if r, err := sign.Verify(context.Background(), p, signtest.Trust(key), sign.Options{Jobs: 4}); err != nil || !r.OK() {
		t.Errorf("%v, %v", r, err)
	}
}
