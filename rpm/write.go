package rpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/imaseal/imaseal/internal/atomicfile"
	"github.com/imaseal/imaseal/sign"
)

// An rpmVersion is a version of rpm by its first three numbers; the zero value is
// none.
type rpmVersion [3]int

func parseVersion(text string) (v rpmVersion, err error) {
	if text == "" {
		return v, nil
	}
	parts := strings.Split(text, ".")
	for i := range min(len(parts), len(v)) {
		if v[i], err = strconv.Atoi(parts[i]); err != nil || v[i] < 0 {
			return v, fmt.Errorf("%q is no version of rpm: give one such as 4.14.3", text)
		}
	}
	if v[0] == 0 {
		return v, fmt.Errorf("%q is no version of rpm: give one such as 4.14.3", text)
	}
	return v, nil
}

func (v rpmVersion) before(major, minor int) bool {
	return v[0] < major || v[0] == major && v[1] < minor
}

func (v rpmVersion) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// What rpm takes of a signature header (hdrblobRead and rpmReadSignature): 8 KiB of
// values to 4.14, 64 KiB in 4.15, which forgot a factor of 1024, then 64 MiB.
const (
	store414 = 8 << 10
	store415 = 64 << 10
)

// storeLimit returns how many bytes of values v takes in a signature header.
func (v rpmVersion) storeLimit() int64 {
	switch {
	case v == rpmVersion{}:
		return maxSigStore
	case v.before(4, 15):
		return store414
	case v.before(4, 16):
		return store415
	}
	return maxSigStore
}

// maxFiles is how many strings rpm takes in a tag.
const maxFiles = 0xfffff

// checkLimits reports why rpm would not read a signature header, and tells o.Warn
// which versions would not.
func (p *Package) checkLimits(raw []byte, tags int, o sign.WriteOptions) error {
	size := storeSize(raw)
	if tags > maxSigIndex-1 {
		return fmt.Errorf("the signature header would have %d tags: rpm takes %d", tags+1, maxSigIndex)
	}
	if size > maxSigStore {
		return fmt.Errorf("the signature header would have %d bytes: rpm takes %d; sign fewer files, for example with --select exec", size, maxSigStore)
	}
	if p.files.n > maxFiles {
		return fmt.Errorf("the package has %d files: rpm takes signatures of %d", p.files.n, maxFiles)
	}
	if limit := p.target.storeLimit(); size > limit {
		return fmt.Errorf("the signature header would have %d bytes: rpm %s takes %d; sign fewer files, for example with --select exec", size, p.target, limit)
	}
	if p.target != (rpmVersion{}) {
		return nil
	}
	switch {
	case size > store415:
		o.Warn(fmt.Sprintf("the signature header has %d bytes: rpm before 4.16 refuses the package (4.15 takes %d, older ones %d); --select exec makes it smaller", size, store415, store414))
	case size > store414:
		o.Warn(fmt.Sprintf("the signature header has %d bytes: rpm before 4.15 refuses the package (it takes %d); --select exec makes it smaller", size, store414))
	}
	return nil
}

// CanWrite reports why Write would refuse o.
func (p *Package) CanWrite(m *sign.Manifest, o sign.WriteOptions) error {
	o.Warn = func(string) {}
	if err := p.checkWrite(m, o); err != nil {
		return err
	}
	if m == nil || len(m.Files) == 0 {
		return nil
	}
	entries, err := p.signedEntries(m)
	if err != nil {
		return err
	}
	if o.OpenPGP == nil { // whose signature has a length of its own
		if entries, err = keepReserve(entries); err != nil {
			return err
		}
	}
	return p.checkLimits(buildHeader(entries, sigRegion), len(entries), o)
}

func (p *Package) checkWrite(m *sign.Manifest, o sign.WriteOptions) error {
	switch {
	case p.carried.inMain && m == nil:
		return errors.New("its file signatures are in the main header, which the package's other signatures cover: they cannot be taken out")
	case p.carried.inMain:
		return errors.New("it has file signatures in the main header, which cannot be changed, and rpm refuses a package with both: build it again")
	case m == nil:
		return nil
	case p.source:
		return errors.New("it is a source package: nothing in it is installed")
	case p.irregular != "" && !o.Force:
		return fmt.Errorf("its signature header is not laid out as rpm does it (%s): --force writes it anew, after which unsign cannot give back the same bytes", p.irregular)
	case p.carried.inSig && !o.Force && !o.Replace && !p.carries(m):
		return errors.New("its signature header has tags of other file signatures (274, 275): --force replaces them, which unsign cannot undo")
	}
	return p.checkOpenPGP(o)
}

// carries reports whether the package carries m as it would be written.
func (p *Package) carries(m *sign.Manifest) bool {
	if p.carried.manifest == nil || p.carried.malformed != nil || len(m.Files) != len(p.carried.manifest.Files) {
		return false
	}
	for i, e := range m.Files {
		if has := p.carried.manifest.Files[i]; has.Path != e.Path || !bytes.Equal(has.Value, e.Value) {
			return false
		}
	}
	return true
}

// Write writes a copy of the package. Lead, main header and payload stay as they
// are, and so do OpenPGP signatures and the reserved space. With a nil m the file
// signatures are taken away, with them the OpenPGP signature that was added together
// with them, and what rpmsign took from the reserved space for them is given back.
//
// A package whose recorded digests do not hold is not signed.
func (p *Package) Write(ctx context.Context, w io.Writer, m *sign.Manifest, o sign.WriteOptions) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.checkWrite(m, o); err != nil {
		return err
	}
	if m == nil && !p.carried.inSig && !marked(p.sig.entries) {
		return p.copyFrom(ctx, w, 0)
	}
	raw, err := p.newSignatureHeader(ctx, m, o)
	if err != nil {
		return err
	}
	for _, b := range [][]byte{p.lead, raw, make([]byte, padded(int64(len(raw)))-int64(len(raw)))} {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return p.copyFrom(ctx, w, p.mainAt)
}

func (p *Package) newSignatureHeader(ctx context.Context, m *sign.Manifest, o sign.WriteOptions) ([]byte, error) {
	if m == nil {
		return buildHeader(dropMarked(unsignedEntries(p.sig.entries)), sigRegion), nil
	}
	if err := p.requireDigests(ctx); err != nil {
		return nil, err
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	if p.trust {
		o.Warn("its payload was not read: the digests are those of its header, and exec means what FILECOLORS, FILECLASS and the modes there say")
	}
	if p.irregular != "" {
		o.Warn(fmt.Sprintf("its signature header is written anew, which unsign cannot undo (%s)", p.irregular))
	}
	if p.carried.inSig && !o.Replace && !p.carries(m) {
		o.Warn("its other file signatures are replaced, which unsign cannot undo")
	}
	entries, err := p.signedEntries(m)
	if err != nil {
		return nil, err
	}
	if o.OpenPGP != nil {
		if entries, err = p.addOpenPGP(ctx, entries, o); err != nil {
			return nil, err
		}
	}
	if entries, err = keepReserve(entries); err != nil {
		return nil, err
	}
	raw := buildHeader(entries, sigRegion)
	return raw, p.checkLimits(raw, len(entries), o)
}

// copyFrom copies the package from offset at to its end, in steps between which ctx
// is looked at.
func (p *Package) copyFrom(ctx context.Context, w io.Writer, at int64) error {
	const step = 64 << 20
	for ; at < p.size; at += step {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := atomicfile.CopyRange(w, p.r, at, min(step, p.size-at)); err != nil {
			return err
		}
	}
	return nil
}
