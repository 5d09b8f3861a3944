package sign_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

// What DigestsOf says, signed elsewhere, is what Sign makes.
func TestDigestsAreWhatIsSigned(t *testing.T) {
	p := examplePackage()
	p.Contents = append(p.Contents, signtest.MemoryFile{Path: "a/link", Link: p.Contents[0].Path})
	key := testSigner(t, "p256")
	o := sign.Options{Selection: sign.Selection{Exclude: []string{"/usr/share/b"}}, Hash: sign.SHA384}
	want, err := sign.Sign(t.Context(), p, key, o)
	if err != nil {
		t.Fatal(err)
	}
	d, err := sign.DigestsOf(t.Context(), p, o)
	if err != nil {
		t.Fatal(err)
	}
	entries := func(files []sign.FileDigest) (made []sign.Entry) {
		for _, f := range files {
			value, err := key.SignDigest(d.Hash, f.Digest)
			if err != nil {
				t.Fatal(err)
			}
			made = append(made, sign.Entry{Path: f.Path, Value: value})
		}
		return made
	}
	got := &sign.Manifest{Files: entries(d.Files), Control: entries(d.Control), Statement: d.Statement}
	got.Statement.AddSignatures(got)
	if err := got.Statement.Sign(key); err != nil {
		t.Fatal(err)
	}
	equal := func(a, b sign.Entry) bool { return a.Path == b.Path && bytes.Equal(a.Value, b.Value) }
	if !slices.EqualFunc(got.Files, want.Files, equal) || !slices.EqualFunc(got.Control, want.Control, equal) {
		t.Errorf("%v, Sign makes %v", got, want)
	}
	a, err := got.Statement.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	b, err := want.Statement.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Errorf("%s, Sign makes %s", a, b)
	}
	names := map[int][]string{}
	for _, f := range d.Files {
		names[f.Inode] = append(names[f.Inode], f.Path)
	}
	// The link comes before what it links to: an inode is numbered at its first name.
	if !slices.Equal(names[1], []string{"a/link", "usr/bin/hello", "usr/bin/hi"}) || len(names) != 2 {
		t.Errorf("the hard links are %v", names)
	}
}

func TestDigestsOfRefusesWhatSignDoes(t *testing.T) {
	p := examplePackage()
	p.Contents = append(p.Contents, signtest.MemoryFile{Path: "forged", Content: []byte("Format: imaseal-package-1\nPackage: x\n")})
	if _, err := sign.DigestsOf(t.Context(), p, sign.Options{}); err == nil || !strings.Contains(err.Error(), "only a package statement may") {
		t.Errorf("a file like a statement: %v", err)
	}
	if _, err := sign.DigestsOf(t.Context(), p, sign.Options{Hash: sign.SHA1}); err == nil {
		t.Error("SHA-1 was taken")
	}
}
