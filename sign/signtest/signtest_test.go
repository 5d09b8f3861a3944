package signtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"io/fs"
	"iter"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

func example(t *testing.T) []byte {
	t.Helper()
	m := &Memory{
		About: sign.Info{Format: "memory", Name: "hello", Version: "1-1", Arch: "all"},
		Contents: []MemoryFile{
			{Path: "usr/bin/hello", Mode: 0o755, Content: []byte("\x7fELF hello")},
			{Path: "usr/bin/hi", Mode: 0o755, Link: "usr/bin/hello"},
			{Path: "usr/share/doc/hello/copyright", Mode: 0o644, Content: []byte("free")},
			{Path: "var/lib/hello/empty", Mode: 0o644},
			{Path: "postinst", Control: true, Mode: 0o755, Content: []byte("#!/bin/sh\n")},
		},
	}
	raw, err := m.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestMemoryKeepsTheContract(t *testing.T) {
	Run(t, Format{Open: OpenMemory, Raw: map[string][]byte{"hello": example(t)}})
}

// Each of these formats breaks one promise; the check of that name must see it.
type broken struct {
	*Memory
	walks int
	fault string
}

func (b *broken) Manifest() (*sign.Manifest, error) {
	if b.fault == "empty manifest" && b.Carried == nil {
		return new(sign.Manifest), nil
	}
	return b.Memory.Manifest()
}

func (b *broken) Files(ctx context.Context) iter.Seq2[*sign.File, error] {
	b.walks++
	if b.fault == "ignores cancellation" {
		ctx = context.Background()
	}
	return func(yield func(*sign.File, error) bool) {
		if b.fault == "one walk only" && b.walks > 1 {
			return
		}
		n := 0
		var shared valve
		for f, err := range b.Memory.Files(ctx) {
			n++
			if f != nil {
				switch b.fault {
				case "absolute path":
					f.Path = "/" + f.Path
				case "type in the mode":
					f.Mode |= 0o100000
				case "wrong size":
					f.Size++
				case "link without target":
					if f.Link != "" {
						f.Link += "x"
					}
				case "empty without content":
					if f.Size == 0 {
						f.Content = nil
					}
				case "late reads":
					if f.Content != nil {
						content, _ := io.ReadAll(f.Content)
						shared.Reader = bytes.NewReader(content)
						f.Content = &shared
					}
				case "second walk differs":
					f.Mode ^= fs.FileMode(b.walks & 1)
				case "leaks":
					if n == 1 {
						go func() { <-make(chan int) }()
					}
				}
			}
			if !yield(f, err) {
				return
			}
		}
	}
}

func (b *broken) Write(ctx context.Context, w io.Writer, m *sign.Manifest, o sign.WriteOptions) error {
	switch b.fault {
	case "swallows the writer's error":
		b.Memory.Write(ctx, w, m, o)
		return nil
	case "loses a signature":
		if m != nil && len(m.Files) > 0 {
			c := *m
			c.Files = c.Files[1:]
			m = &c
		}
	case "does not unsign":
		if m == nil {
			m = b.Carried
		}
	case "not deterministic":
		b.Memory = &Memory{About: b.About, Contents: b.Contents, Odd: []sign.Finding{{Reason: sign.ReasonWarning, Detail: rand.Text()}}}
	}
	return b.Memory.Write(ctx, w, m, o)
}

func TestTheSuiteSeesBrokenFormats(t *testing.T) {
	for how, name := range map[string]string{
		"empty manifest":              "unsigned package has no manifest",
		"absolute path":               "files are well formed",
		"type in the mode":            "files are well formed",
		"wrong size":                  "files are well formed",
		"link without target":         "files are well formed",
		"empty without content":       "files are well formed",
		"one walk only":               "walk can be repeated",
		"second walk differs":         "walk can be repeated",
		"leaks":                       "walk can stop early",
		"late reads":                  "content ends with its step",
		"loses a signature":           "signed package carries its manifest",
		"not deterministic":           "signing twice gives the same bytes",
		"does not unsign":             "unsigning gives the original bytes",
		"swallows the writer's error": "failing writer stops Write",
		"ignores cancellation":        "cancelled context stops everything",
	} {
		format := Format{Open: func(r io.ReaderAt, size int64) (sign.Package, error) {
			p, err := OpenMemory(r, size)
			if err != nil {
				return nil, err
			}
			return &broken{Memory: p.(*Memory), fault: how}, nil
		}}
		seen := false
		for _, c := range checks {
			if c.name == name {
				seen = c.run(&subject{Format: format, raw: example(t)}) != nil
			}
		}
		if !seen {
			t.Errorf("%s: %q does not see it", how, name)
		}
	}
}
