package rpm

import (
	"bytes"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestInstalled: what rpm keeps of a package says of its files what the package says.
func TestInstalled(t *testing.T) {
	odd := testPackage{files: []testFile{
		{path: "/a", mode: 0o040755},
		{path: "/a/config", content: "x", flags: fileConfig},
		{path: "/a/ghost", content: "ghost", flags: fileGhost},
		{path: "/a/line\nfeed", content: "y", mode: 0o104755},
		{path: "/a/missing", content: "z", flags: fileConfig | fileMissingOK},
	}}
	list := append(slices.Collect(maps.Values(golden(t))), odd.build(t), usual().build(t))
	for _, raw := range list {
		p := open(t, raw, Options{})
		i, err := ReadInstalled(p.main.raw[len(headerMagic):])
		if err != nil {
			t.Fatal(err)
		}
		if i.Info() != p.Info() || i.Len() != p.files.n {
			t.Errorf("%+v with %d files, not %+v with %d", i.Info(), i.Len(), p.Info(), p.files.n)
		}
		if over, err := io.ReadAll(i.Signed()); err != nil || !bytes.Equal(over, p.main.raw) {
			t.Errorf("signatures are over something else: %v", err)
		}
		regular := 0
		for k := range i.Len() {
			f, err := i.File(k)
			if err != nil {
				t.Fatal(err)
			}
			if !f.Regular || f.Ghost {
				continue
			}
			regular++
			want, err := p.files.file(k)
			if err != nil || f.Path != want.Path || !bytes.Equal(f.Digest, want.Recorded) || f.Hash != want.RecordedHash || f.Executable != (want.Mode&0o111 != 0) {
				t.Errorf("%+v, not %+v, %v", f, want, err)
			}
			if strings.HasPrefix(f.Path, "a/") && (f.Config != (f.Path == "a/config" || f.Path == "a/missing") || f.MissingOK != (f.Path == "a/missing")) {
				t.Errorf("marks: %+v", f)
			}
		}
		for k := range p.files.n {
			if p.files.carriesFile(k) {
				regular--
			}
		}
		if regular != 0 {
			t.Errorf("%d regular files more than the package has", regular)
		}
	}
	good := open(t, odd.build(t), Options{}).main.raw[len(headerMagic):]
	for name, bad := range map[string][]byte{
		"empty": nil, "cut off": good[:len(good)-1], "more behind it": append(bytes.Clone(good), 0), "with the magic": append([]byte(headerMagic), good...),
	} {
		if _, err := ReadInstalled(bad); err == nil || !strings.Contains(err.Error(), "main header") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzInstalled: what is accepted can be read to the end.
func FuzzInstalled(f *testing.F) {
	for _, raw := range golden(f) {
		f.Add(open(f, raw, Options{}).main.raw[len(headerMagic):])
	}
	f.Fuzz(func(t *testing.T, region []byte) {
		p, err := ReadInstalled(region)
		if err != nil {
			return
		}
		for i := range p.Len() {
			if f, err := p.File(i); err == nil && f.Digest != nil && len(f.Digest) != f.Hash.Size() {
				t.Fatalf("%+v", f)
			}
		}
	})
}
