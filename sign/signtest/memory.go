package signtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"iter"

	"github.com/imaseal/imaseal/sign"
)

// Memory is a package format without a file format, for tests of what handles
// packages: the fields are the package. On disk it is its JSON.
type Memory struct {
	About    sign.Info
	Contents []MemoryFile
	Carried  *sign.Manifest
	Odd      []sign.Finding
	// Malformed is the error that Manifest returns, none where empty.
	Malformed string
}

// A MemoryFile is a [sign.File] with its content.
type MemoryFile struct {
	Path         string
	Control      bool
	Mode         fs.FileMode
	Link         string
	Recorded     []byte
	RecordedHash sign.Hash
	Content      []byte
}

var (
	_ sign.Package = (*Memory)(nil)
	_ sign.Stated  = (*Memory)(nil)
)

// onDisk is the JSON. A statement has a text form, of which JSON would know only
// how to write it.
type onDisk struct {
	About     sign.Info
	Contents  []MemoryFile
	Signed    bool
	Files     []sign.Entry
	Control   []sign.Entry
	Statement string
	Odd       []sign.Finding
	Malformed string
}

// OpenMemory reads the JSON.
func OpenMemory(r io.ReaderAt, size int64) (sign.Package, error) {
	raw, err := io.ReadAll(io.NewSectionReader(r, 0, size))
	if err != nil {
		return nil, err
	}
	var d onDisk
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, err
	}
	m := &Memory{About: d.About, Contents: d.Contents, Odd: d.Odd, Malformed: d.Malformed}
	if d.Signed {
		m.Carried = &sign.Manifest{Files: d.Files, Control: d.Control}
	}
	if d.Statement != "" && d.Signed {
		if m.Carried.Statement, err = sign.ParseStatement([]byte(d.Statement)); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// MarshalText returns the JSON.
func (m *Memory) MarshalText() ([]byte, error) {
	d := onDisk{About: m.About, Contents: m.Contents, Odd: m.Odd, Malformed: m.Malformed}
	if c := m.Carried; c != nil {
		d.Signed, d.Files, d.Control = true, c.Files, c.Control
		if c.Statement != nil {
			text, err := c.Statement.MarshalText()
			if err != nil {
				return nil, err
			}
			d.Statement = string(text)
		}
	}
	return json.Marshal(&d)
}

func (m *Memory) Info() sign.Info                                  { return m.About }
func (m *Memory) Anomalies() []sign.Finding                        { return m.Odd }
func (m *Memory) OpenPGP() []sign.OpenPGPSignature                 { return nil }
func (m *Memory) Details() []sign.Detail                           { return nil }
func (m *Memory) CanWrite(*sign.Manifest, sign.WriteOptions) error { return nil }

// Manifest returns Carried, and Malformed as an error.
func (m *Memory) Manifest() (*sign.Manifest, error) {
	if m.Malformed != "" {
		return m.Carried, fmt.Errorf("%s", m.Malformed)
	}
	return m.Carried, nil
}

// A valve is a reader that can be shut.
type valve struct{ io.Reader }

func (v *valve) Read(b []byte) (int, error) {
	if v.Reader == nil {
		return 0, fs.ErrClosed
	}
	return v.Reader.Read(b)
}

// Files walks Contents in its order.
func (m *Memory) Files(ctx context.Context) iter.Seq2[*sign.File, error] {
	return func(yield func(*sign.File, error) bool) {
		for i := range m.Contents {
			f := &m.Contents[i]
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			file := &sign.File{
				Path: f.Path, Control: f.Control, Mode: f.Mode, Link: f.Link,
				Recorded: f.Recorded, RecordedHash: f.RecordedHash,
			}
			v := &valve{bytes.NewReader(f.Content)}
			if f.Link == "" {
				file.Size = int64(len(f.Content))
				file.Content = v
			}
			more := yield(file, nil)
			v.Reader = nil
			if !more {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// Statement states one digest of everything but the signatures.
func (m *Memory) Statement(context.Context) (*sign.Statement, error) {
	payload, err := (&Memory{About: m.About, Contents: m.Contents}).MarshalText()
	if err != nil {
		return nil, err
	}
	return &sign.Statement{
		Package: m.About.Name, Version: m.About.Version, Arch: m.About.Arch,
		Members: []sign.MemberDigest{{Name: "payload", SHA256: sha256.Sum256(payload)}},
	}, nil
}

// Write writes the JSON.
func (m *Memory) Write(ctx context.Context, w io.Writer, manifest *sign.Manifest, _ sign.WriteOptions) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	written := *m
	written.Carried = manifest
	raw, err := written.MarshalText()
	if err != nil {
		return err
	}
	_, err = w.Write(raw)
	return err
}
