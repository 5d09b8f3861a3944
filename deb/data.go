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
	"path"
	"strings"

	"github.com/imaseal/imaseal/internal/compression"
	"github.com/imaseal/imaseal/sign"
)

// Bounds of the payload, far above the largest package of Debian (some 100,000
// files). They keep a hostile archive of nothing but headers from filling memory.
// The size of files has no bound: they are streamed, and dpkg would store them.
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
	t := newTarReader(stream)
	seen := entries{kinds: map[string]byte{}, carriers: map[string]string{}}
	f := new(sign.File)
	for {
		h, err := t.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, err
		}
		link, err := seen.add(h)
		if err != nil {
			return false, t.wrap(err)
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
		content := &valve{r: t.tar, member: p.archive.data.name}
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

// implied is the kind of a folder that was not listed but has something in it.
const implied = 'i'

// entries remembers what the archive has had, to refuse what dpkg would resolve in
// a way that nobody else does: a name that stands there twice, a name beneath a
// symbolic link, a hard link to a file that is not the package's.
type entries struct {
	kinds    map[string]byte   // path to type flag
	carriers map[string]string // hard link to the regular file that it is a name of
	bytes    int
}

// add checks one more entry. Of a hard link it returns the path of the file that
// carries the content.
func (e *entries) add(h *tar.Header) (link string, err error) {
	if err := e.count(h.Name); err != nil {
		return "", err
	}
	kind, twice := e.kinds[h.Name]
	if twice && (kind != implied || h.Name == "") {
		return "", fmt.Errorf("%q stands there twice", "./"+h.Name)
	}
	if twice && h.Typeflag != tar.TypeDir {
		return "", fmt.Errorf("%q is no folder, but something that came before is in it", h.Name)
	}
	for dir := path.Dir(h.Name); dir != "."; dir = path.Dir(dir) {
		kind, ok := e.kinds[dir]
		if ok && kind != tar.TypeDir && kind != implied {
			return "", fmt.Errorf("%q is beneath %q, which is no folder", h.Name, dir)
		}
		if ok {
			break // what is above it was checked when it came
		}
		if err := e.count(dir); err != nil {
			return "", err
		}
		e.kinds[dir] = implied
	}
	e.kinds[h.Name] = h.Typeflag
	if h.Typeflag != tar.TypeLink {
		return "", nil
	}
	link = strings.TrimPrefix(h.Linkname, "./")
	if carrier, ok := e.carriers[link]; ok {
		link = carrier
	}
	if link == h.Name || e.kinds[link] != tar.TypeReg {
		return "", fmt.Errorf("%q is a hard link to %q, which is no regular file that came before it: dpkg would link to a file outside the package", h.Name, h.Linkname)
	}
	e.carriers[h.Name] = link
	return link, nil
}

func (e *entries) count(name string) error {
	e.bytes += len(name)
	if len(e.kinds) >= maxEntries || e.bytes > maxNameBytes {
		return fmt.Errorf("more than %d entries, or more than %d bytes of names", maxEntries, maxNameBytes)
	}
	return nil
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
