package deb

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"path"

	"github.com/imaseal/imaseal/internal/compression"
	"github.com/imaseal/imaseal/sign"
)

// Bounds of the payload, far above the largest package of Debian (some 60,000
// files). They keep a hostile archive of nothing but headers from filling memory.
const (
	maxEntries   = 1 << 18
	maxNameBytes = 24 << 20
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
		for i := range p.original.members {
			m := &p.original.members[i]
			if !m.executed() {
				continue
			}
			f := &sign.File{
				Path: m.name, Control: true, Mode: fileMode(m.mode),
				Size: int64(len(m.content)), Content: bytes.NewReader(m.content),
			}
			if !yield(f, nil) {
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
	stream := &hashedStream{ctx: ctx, r: body, sum: sha256.New()}
	t := newTarReader(stream)
	seen := entries{kinds: map[string]byte{}}
	f := new(sign.File)
	for {
		h, err := t.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, err
		}
		if h.Name == "" {
			continue
		}
		link, err := seen.add(h)
		if err != nil {
			return false, t.wrap(err)
		}
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeLink {
			continue
		}
		*f = sign.File{Path: h.Name, Mode: fileMode(h.Mode), Size: h.Size, Link: link}
		if link == "" {
			f.Content = t.tar
		}
		if !each(f) {
			return false, nil
		}
	}
	stream.sum.Sum(p.dataDigest[:0])
	p.dataRead = true
	return true, nil
}

// openData decompresses data.tar.
func (p *Package) openData() (io.ReadCloser, error) {
	m := p.archive.data
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
	return compression.NewReaderAt(content, m.size, f, p.jobs)
}

// entries remembers what the archive has had, to refuse what dpkg would resolve in
// a way that nobody else does.
type entries struct {
	kinds map[string]byte // path to type flag
	bytes int
}

// add checks one more entry. Of a hard link it returns the path that it links to.
func (e *entries) add(h *tar.Header) (link string, err error) {
	e.bytes += len(h.Name)
	if len(e.kinds) == maxEntries || e.bytes > maxNameBytes {
		return "", fmt.Errorf("more than %d entries, or more than %d bytes of names", maxEntries, maxNameBytes)
	}
	if kind, twice := e.kinds[h.Name]; twice {
		if kind == tar.TypeDir && h.Typeflag == tar.TypeDir {
			return "", nil
		}
		return "", fmt.Errorf("%q stands there twice", h.Name)
	}
	for dir := path.Dir(h.Name); dir != "."; dir = path.Dir(dir) {
		kind, ok := e.kinds[dir]
		if ok && kind != tar.TypeDir {
			return "", fmt.Errorf("%q is beneath %q, which is no folder", h.Name, dir)
		}
		if ok {
			break // it was checked when it came
		}
	}
	e.kinds[h.Name] = h.Typeflag
	if h.Typeflag != tar.TypeLink {
		return "", nil
	}
	link = h.Linkname
	if len(link) > 2 && link[:2] == "./" {
		link = link[2:]
	}
	kind, ok := e.kinds[link]
	if !ok || link == h.Name || kind != tar.TypeReg && kind != tar.TypeLink {
		return "", fmt.Errorf("%q is a hard link to %q, which is no regular file that came before it: dpkg would link to a file outside the package", h.Name, h.Linkname)
	}
	return link, nil
}

// A hashedStream computes the digest of what is read through it.
type hashedStream struct {
	ctx context.Context
	r   io.Reader
	sum hash.Hash
}

func (s *hashedStream) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := s.r.Read(p)
	s.sum.Write(p[:n])
	return n, err
}

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
