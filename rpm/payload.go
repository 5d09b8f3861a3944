package rpm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"

	"github.com/imaseal/imaseal/internal/compression"
	"github.com/imaseal/imaseal/sign"
)

// errStopped says that the caller of a walk wants no more.
var errStopped = errors.New("the walk was stopped")

// Files walks the regular files of the payload, %ghost files not among them. Where
// the payload and the main header disagree about names, types, sizes or links, or
// rpm would install something else than it reads as, the walk fails.
//
// The walk of a package that carries no file signatures also fails when the digests
// that the package records of its main header and of the compressed payload do not
// hold. Of one that does they are for [Package.CheckDigests] to report, and
// [Package.Write] refuses it.
//
// Of a package that was opened to trust the header's digests the payload is not
// decompressed: its compressed form is checked first (unless only the header is to be
// read), then the files come in the order of the main header, without Content.
func (p *Package) Files(ctx context.Context) iter.Seq2[*sign.File, error] {
	return func(yield func(*sign.File, error) bool) {
		walk := p.walkPayload
		if p.trust {
			walk = p.walkHeader
		}
		if err := walk(ctx, func(f *sign.File) bool { return yield(f, nil) }); err != nil && err != errStopped {
			yield(nil, err)
		}
	}
}

// walkHeader yields the files by what the main header says of them.
func (p *Package) walkHeader(ctx context.Context, yield func(*sign.File) bool) error {
	require := p.requireDigests
	if p.header {
		require = p.requireHeaderDigests
	}
	if err := require(ctx); err != nil {
		return err
	}
	if !p.digests.coverPayload() {
		return errors.New("the package records no digest of its payload, so its header's digests cannot be trusted: sign it without --trust-header-digests")
	}
	for i := range p.files.n {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !p.files.carriesFile(i) {
			continue
		}
		f, err := p.files.file(i)
		if err != nil {
			return err
		}
		f.Class = p.files.classOf(i)
		if g, linked := p.files.links[int32(i)]; linked {
			if first := p.files.groups[g].members[0]; first != int32(i) {
				f.Link = p.files.path(int(first))
			}
		}
		if !yield(f) {
			return errStopped
		}
	}
	return nil
}

// walkPayload yields the files as the payload has them.
func (p *Package) walkPayload(ctx context.Context, yield func(*sign.File) bool) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	var alt *hashing
	wanted := p.digests.required()
	if p.signed() { // to be verified: then CheckDigests will want the others too
		wanted = p.digests.raw()
		alt = p.digests.startAlt()
	}
	finish := p.digests.start(ctx, p, wanted)
	defer func() {
		failed := finish(err == nil)
		if err == nil && !(p.signed() && errors.Is(failed, errMismatch)) {
			err = failed
		}
	}()
	body, err := p.decompress()
	if err != nil {
		return err
	}
	defer body.Close()
	var in io.Reader = compression.Limit(body, p.payloadLimit(), "the payload at offset "+fmt.Sprint(p.payloadAt))
	if alt != nil {
		in = io.TeeReader(in, alt)
	}
	w := &payloadWalk{
		ctx: ctx, list: p.files, yield: yield,
		cpio: newCpioReader(in),
		seen: make([]uint64, (p.files.n+63)/64),
	}
	if err := w.run(); err != nil {
		return err
	}
	if alt != nil {
		alt.done()
	}
	return nil
}

func (p *Package) decompress() (io.ReadCloser, error) {
	payload := io.NewSectionReader(p.r, p.payloadAt, p.size-p.payloadAt)
	body, err := compression.NewReaderAt(payload, payload.Size(), p.compression, p.jobs)
	if err != nil {
		return nil, fmt.Errorf("payload at offset %d: %w", p.payloadAt, err)
	}
	return located{body, p.payloadAt}, nil
}

// located is a decompressor whose errors say where what it reads begins.
type located struct {
	io.ReadCloser
	at int64
}

func (l located) Read(b []byte) (int, error) {
	n, err := l.ReadCloser.Read(b)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("payload at offset %d: %w", l.at, err)
	}
	return n, err
}

// expandInto decompresses the payload into w.
func (p *Package) expandInto(ctx context.Context, w io.Writer) error {
	body, err := p.decompress()
	if err != nil {
		return err
	}
	defer body.Close()
	in := compression.Limit(body, p.payloadLimit(), "the payload at offset "+fmt.Sprint(p.payloadAt))
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := io.CopyN(w, in, 1<<20); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// payloadLimit bounds the decompressed payload by what the main header says of it.
func (p *Package) payloadLimit() int64 {
	const each = cpioHeader + len("./") + 1 + 3 + 3 // header, NUL, twice padding
	const slack = 64 << 10                          // the trailer and what others pad it to
	return p.files.total + p.files.names + int64(each*p.files.n) + slack
}

// A payloadWalk brings payload and main header together.
type payloadWalk struct {
	ctx   context.Context
	list  *fileList
	cpio  *cpioReader
	yield func(*sign.File) bool

	seen []uint64 // a bit for each file of the header
	next int      // the file that comes next if the payload is in the header's order
	// All names of a file of which some have come, but not the last; nil otherwise.
	names []int32
}

func (w *payloadWalk) run() error {
	for {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		e, err := w.cpio.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := w.entry(e); err != nil {
			return err
		}
	}
	for i := range w.list.n {
		if w.list.inPayload(i) && !w.isSeen(i) {
			return fmt.Errorf("%q is in the main header, but not in the payload", w.list.path(i))
		}
	}
	return nil
}

func (w *payloadWalk) isSeen(i int) bool { return w.seen[i/64]&(1<<(i%64)) != 0 }

// fileOf returns which file of the header e is.
func (w *payloadWalk) fileOf(e cpioEntry) (int, error) {
	l := w.list
	i := int(e.index)
	if e.stripped {
		if int64(e.index) >= int64(l.n) {
			return 0, fmt.Errorf("payload offset %d: file %d of %d", e.at, e.index, l.n)
		}
	} else {
		name := e.name
		switch {
		case len(name) > 1 && name[0] == '.' && name[1] == '/':
			name = name[2:]
		case name[0] == '/':
			name = name[1:]
		}
		for w.next < l.n && (w.isSeen(w.next) || !l.inPayload(w.next)) {
			w.next++
		}
		i = w.next
		if i >= l.n || !l.samePath(i, name) {
			var ok bool
			if i, ok = l.find(name); !ok {
				return 0, fmt.Errorf("payload offset %d: %q is not in the main header", e.at, e.name)
			}
		}
	}
	if w.isSeen(i) {
		return 0, fmt.Errorf("payload offset %d: %q comes a second time", e.at, l.path(i))
	}
	w.seen[i/64] |= 1 << (i % 64)
	return i, nil
}

func (w *payloadWalk) entry(e cpioEntry) error {
	i, err := w.fileOf(e)
	if err != nil {
		return err
	}
	l := w.list
	if !l.inPayload(i) {
		// rpm before 4.11 sometimes wrote a %ghost file, and rpm passes over it.
		if e.stripped {
			return fmt.Errorf("payload offset %d: %q is there, though the main header calls it a ghost", e.at, l.path(i))
		}
		return nil
	}
	var names []int32 // nil where this is the only one
	if group, linked := l.links[int32(i)]; linked {
		names = l.groups[group].members
	}
	size := int64(l.sizes.at(i))
	if len(names) > 0 && int(last(names)) != i {
		size = 0 // the last name in the header's order has the content
	}
	if e.stripped {
		if mode := l.modes.at(i) & modeType; mode == modeRegular || mode == modeLink {
			e.size = size
		}
		w.cpio.left = e.size
	} else if e.mode&modeType != l.modes.at(i)&modeType {
		return fmt.Errorf("payload offset %d: %q has mode %#o, in the main header %#o", e.at, l.path(i), e.mode, l.modes.at(i))
	}
	if !l.isRegular(i) {
		return nil
	}
	if e.size != size {
		return fmt.Errorf("payload offset %d: %q has %d bytes, by the main header %d", e.at, l.path(i), e.size, size)
	}
	if w.names != nil && (names == nil || names[0] != w.names[0]) {
		return fmt.Errorf("payload offset %d: %q comes between %q and the other names of that file", e.at, l.path(i), l.path(int(w.names[0])))
	}
	if names == nil {
		return w.file(i, "")
	}
	return w.link(i, names, e)
}

// link yields a file with several names when the last of them in the header's order
// comes, which has the content. Until then no other file may come: rpm takes it for
// one more name. And no name may come afterwards: rpm makes an empty file of it. It
// would notice neither, as it compares digests only where there is content.
func (w *payloadWalk) link(i int, names []int32, e cpioEntry) error {
	if w.names = names; int(last(names)) != i {
		return nil
	}
	w.names = nil
	for _, other := range names {
		if !w.isSeen(int(other)) {
			return fmt.Errorf("payload offset %d: %q comes before %q, which is the same file and has no content of its own", e.at, w.list.path(i), w.list.path(int(other)))
		}
	}
	if err := w.file(i, ""); err != nil {
		return err
	}
	for _, other := range names[:len(names)-1] {
		if err := w.file(int(other), w.list.path(i)); err != nil {
			return err
		}
	}
	return nil
}

// file yields file i, as a link to another name unless that is empty.
func (w *payloadWalk) file(i int, link string) error {
	f, err := w.list.file(i)
	if err != nil {
		return err
	}
	var content *fileContent
	if link != "" {
		f.Link = link
	} else {
		content = &fileContent{walk: w}
		f.Content = content
	}
	more := w.yield(f)
	if content != nil {
		content.walk = nil
	}
	if !more {
		return errStopped
	}
	return nil
}

// fileContent is the content of a file as long as the walk is at it.
type fileContent struct{ walk *payloadWalk }

func (c *fileContent) Read(b []byte) (int, error) {
	if c.walk == nil {
		return 0, fs.ErrClosed
	}
	if err := c.walk.ctx.Err(); err != nil {
		return 0, err
	}
	return c.walk.cpio.Read(b)
}

func last(members []int32) int32 { return members[len(members)-1] }
