package sign_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

// unstated is a package of a format without a statement, as an RPM is.
type unstated struct{ sign.Package }

// signedBy returns the example, signed by a key.
func signedBy(t *testing.T, key *sign.Signer, o sign.Options) *signtest.Memory {
	t.Helper()
	p := examplePackage()
	m, err := sign.Sign(t.Context(), p, key, o)
	if err != nil {
		t.Fatal(err)
	}
	p.Carried = m
	return p
}

func sameManifest(t *testing.T, a, b *sign.Manifest) bool {
	t.Helper()
	equal := func(a, b sign.Entry) bool { return a.Path == b.Path && bytes.Equal(a.Value, b.Value) }
	same := slices.EqualFunc(a.Files, b.Files, equal) && slices.EqualFunc(a.Control, b.Control, equal)
	if a.Statement == nil || b.Statement == nil {
		return same && a.Statement == b.Statement
	}
	x, err := a.Statement.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	y, err := b.Statement.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	return same && bytes.Equal(x, y)
}

// What Resign makes is what Sign makes with the same selection and hash.
func TestResignIsSign(t *testing.T) {
	old, next := testSigner(t, "p256"), testSigner(t, "rsa2048")
	for name, o := range map[string]sign.Options{
		"everything":  {},
		"a selection": {Selection: sign.Selection{Select: []string{"exec"}}, Hash: sign.SHA512},
		"with jobs":   {Selection: sign.Selection{Exclude: []string{"/usr/share/b"}}, Hash: sign.SHA384, Jobs: 4},
	} {
		t.Run(name, func(t *testing.T) {
			want := signedBy(t, next, o).Carried
			got, report, err := sign.Resign(t.Context(), signedBy(t, old, o), next, signtest.Trust(old), sign.Options{Jobs: o.Jobs}, nil)
			if err != nil || !report.OK() || !sameManifest(t, got, want) {
				t.Errorf("%v, %+v\n%v\n%v", err, report, got, want)
			}
		})
	}
	// Without a statement the set of files is what is signed.
	p := signedBy(t, old, sign.Options{Selection: sign.Selection{Select: []string{"/usr/share/a"}}})
	p.Carried.Statement, p.Carried.Control = nil, nil
	p.Contents = p.Contents[:4]
	got, report, err := sign.Resign(t.Context(), unstated{p}, next, signtest.Trust(old), sign.Options{}, nil)
	if err != nil || !report.OK() || len(got.Files) != 1 || got.Files[0].Path != "usr/share/a" || got.Statement != nil {
		t.Errorf("%v, %+v, %v", err, report, got)
	}
	if err := signtest.Trust(next).VerifyDigest(parsed(t, got.Files[0].Value), digestOf(sign.SHA256, "a")); err != nil {
		t.Error(err)
	}
}

func parsed(t *testing.T, value []byte) sign.Signature {
	t.Helper()
	s, err := sign.ParseSignature(value)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestResignRefuses(t *testing.T) {
	old, next, other := testSigner(t, "p256"), testSigner(t, "rsa2048"), testSigner(t, "p384")
	unknown := func(f sign.Finding) bool { return f.Reason == sign.ReasonUnknownKey }
	for name, c := range map[string]struct {
		change func(*signtest.Memory)
		keys   *sign.TrustedKeys
		accept func(sign.Finding) bool
		want   sign.Reason // "": nothing is refused
	}{
		"another key":              {nil, signtest.Trust(other), nil, sign.ReasonUnknownKey},
		"another key, as accepted": {nil, signtest.Trust(other), unknown, ""},
		"a changed file, though unknown keys are accepted": {func(p *signtest.Memory) { p.Contents[0].Content = []byte("changed") }, signtest.Trust(other), unknown, sign.ReasonDigestMismatch},
		"a changed file":          {func(p *signtest.Memory) { p.Contents[2].Content = []byte("changed") }, signtest.Trust(old), nil, sign.ReasonBadSignature},
		"one that is gone":        {func(p *signtest.Memory) { p.Contents = slices.Delete(p.Contents, 2, 3) }, signtest.Trust(old), nil, sign.ReasonStray},
		"one without a signature": {func(p *signtest.Memory) { p.Carried.Files = slices.Delete(p.Carried.Files, 2, 3) }, signtest.Trust(old), nil, sign.ReasonUnsigned},
		"no statement":            {func(p *signtest.Memory) { p.Carried.Statement = nil }, signtest.Trust(old), nil, sign.ReasonUnsigned},
		"more than it says":       {func(p *signtest.Memory) { p.Carried.Statement.Selection.Exclude = []string{"/usr/share/a"} }, signtest.Trust(old), nil, sign.ReasonStray},
	} {
		t.Run(name, func(t *testing.T) {
			p := signedBy(t, old, sign.Options{})
			if c.change != nil {
				c.change(p)
			}
			m, report, err := sign.Resign(t.Context(), p, next, c.keys, sign.Options{}, c.accept)
			switch {
			case c.want == "" && (err != nil || m == nil):
				t.Errorf("%v, %+v", err, report)
			case c.want != "" && (m != nil || err != nil || !slices.ContainsFunc(report.Findings, func(f sign.Finding) bool { return f.Reason == c.want })):
				t.Errorf("manifest %v, %v, findings %+v, want %q", m, err, report.Findings, c.want)
			}
		})
	}
	if _, _, err := sign.Resign(t.Context(), examplePackage(), next, signtest.Trust(old), sign.Options{}, nil); err == nil {
		t.Error("an unsigned package was signed")
	}
}

func TestAgain(t *testing.T) {
	p := signedBy(t, testSigner(t, "p256"), sign.Options{})
	o := p.Carried.Again()
	o.Paths = map[string]bool{"usr/share/a": true}
	if _, err := sign.Sign(t.Context(), p, testSigner(t, "p256"), o); err == nil {
		t.Error("a package with a statement was signed by paths")
	}
	if count := p.Carried.CountByKey()[testSigner(t, "p256").KeyID()]; count != 6 {
		t.Errorf("%d signatures, not those of 4 files, a script and the statement", count)
	}
}
