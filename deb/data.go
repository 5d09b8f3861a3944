package deb

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"

	"github.com/imaseal/imaseal/deb/dpkgtar"
	"github.com/imaseal/imaseal/internal/compression"
	"github.com/imaseal/imaseal/sign"
)

// Files walks the payload and then the control members that are executed, as
// [sign.Package] asks.
func (p *Package) Files(ctx context.Context) iter.Seq2[*sign.File, error] {
	return func(yield func(*sign.File, error) bool) {
		more, err := p.walkData(ctx, func(f *sign.File) bool { return yield(f, nil) })
		if err != nil {
			yield(nil, fmt.Errorf("%s: %w", p.archive.data.name, err))
			return
		}
		if !more {
			return
		}
		for i := range p.scripts {
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			m := &p.scripts[i]
			content := &valve{r: bytes.NewReader(m.content), member: p.archive.control.name}
			more := yield(&sign.File{
				Path: m.name, Control: true, Mode: fileMode(m.mode),
				Size: int64(len(m.content)), Content: content,
			}, nil)
			content.shut()
			if !more {
				return
			}
		}
	}
}

// walkData hands every regular file of data.tar to each, until that says false. A
// walk to the end leaves the digest of the decompressed archive behind.
func (p *Package) walkData(ctx context.Context, each func(*sign.File) bool) (more bool, err error) {
	body, err := p.openData()
	if err != nil {
		return false, err
	}
	defer body.Close()
	stream := readAhead(ctx, body)
	defer stream.close()
	t := dpkgtar.NewReader(stream)
	var seen dpkgtar.Entries
	f := new(sign.File)
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, err
		}
		link, err := seen.Add(h.Name, h.Typeflag, h.Linkname)
		if err != nil {
			return false, t.Wrap(err)
		}
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeLink {
			continue
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
		*f = sign.File{Path: h.Name, Mode: fileMode(h.Mode), Size: h.Size, Link: link}
		if link != "" {
			f.Size = 0
			if !each(f) {
				return false, nil
			}
			continue
		}
		content := &valve{r: t, member: p.archive.data.name}
		f.Content = content
		more := each(f)
		content.shut()
		if !more {
			return false, nil
		}
	}
	stream.sum.Sum(p.dataDigest[:0])
	p.dataRead = true
	return true, nil
}

// openData decompresses data.tar.
func (p *Package) openData() (io.ReadCloser, error) {
	m := &p.archive.data
	f, err := formatOf(m.name)
	if err != nil {
		return nil, err
	}
	content := m.content(p.archive.r)
	head := make([]byte, compression.HeadSize)
	n, err := content.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if found := compression.Detect(head[:n]); found != f {
		return nil, fmt.Errorf("the content is not %s but %s", f, found)
	}
	if err := oneStream(content, m.size, f); err != nil {
		return nil, err
	}
	return compression.NewReaderAt(content, m.size, f, p.jobs)
}

// errStepOver says that a file's content was read after the walk had gone on.
var errStepOver = errors.New("the walk has gone on: the content can no longer be read")

// A valve is the content of a file until it is shut. Its errors name the ar member.
type valve struct {
	r      io.Reader
	member string
}

func (v *valve) Read(p []byte) (int, error) {
	if v.r == nil {
		return 0, errStepOver
	}
	n, err := v.r.Read(p)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%s: %w", v.member, err)
	}
	return n, err
}

func (v *valve) shut() { v.r = nil }

// fileMode turns the mode of a tar header into Go's.
func fileMode(mode int64) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for bit, flag := range map[int64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= flag
		}
	}
	return m
}
