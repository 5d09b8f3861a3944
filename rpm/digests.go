package rpm

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"github.com/imaseal/imaseal/sign"
)

// A part of the package, over which a digest is recorded.
type part int

const (
	partHeader   part = iota // the main header
	partBoth                 // main header and payload
	partPayload              // the payload as it is
	partExpanded             // the payload, decompressed
)

func (p part) String() string {
	return [...]string{"main header", "main header and payload", "payload", "decompressed payload"}[p]
}

// A recorded is a digest or a size that the package records of a part of itself.
type recorded struct {
	name   string // of the tag
	part   part
	make   func() hash.Hash // nil: want is a size
	want   []byte
	length int64 // where make is nil
	state  state
	got    string
}

type state int

const (
	unknown state = iota
	holds
	differs
)

// A digestSet holds all of them.
type digestSet struct {
	list []*recorded
}

// errMismatch is wrapped by errors about digests that do not hold.
var errMismatch = errors.New("the package is damaged: fetch or build it again")

// readDigests gathers what the two headers record.
func readDigests(sig, main *header) (*digestSet, error) {
	d := new(digestSet)
	addText := func(h *header, tag uint32, name string, p part, make func() hash.Hash) error {
		if h.find(tag) == nil {
			return nil
		}
		text, err := h.text(tag)
		if err != nil {
			return err
		}
		r := &recorded{name: name, part: p, make: make}
		if r.want, err = hex.DecodeString(strings.ToLower(text)); err != nil || len(r.want) != make().Size() {
			return fmt.Errorf("tag %d (%s): %.80q is no digest of %d bytes", tag, name, text, make().Size())
		}
		d.list = append(d.list, r)
		return nil
	}
	addSize := func(h *header, tag uint32, name string, p part) error {
		n, ok, err := h.number(tag)
		if ok && err == nil {
			d.list = append(d.list, &recorded{name: name, part: p, length: int64(n)})
		}
		return err
	}
	newSHA3 := func() hash.Hash { return sha3.New256() }
	payloadHash := sha256.New
	if algo, ok, err := main.number(tagPayloadDigestAlgo); err != nil {
		return nil, err
	} else if ok {
		h, err := sign.HashFromOpenPGP(int(algo & 0xffff))
		if err != nil {
			return nil, fmt.Errorf("tag %d: %w", tagPayloadDigestAlgo, err)
		}
		payloadHash = h.Crypto().New
	}
	var md5Err error
	if e := sig.find(sigMD5); e != nil {
		if e.kind != typeBin || len(e.data) != md5.Size {
			md5Err = fmt.Errorf("tag %d (MD5): %d bytes of type %d are no digest", sigMD5, len(e.data), e.kind)
		} else {
			d.list = append(d.list, &recorded{name: "MD5", part: partBoth, make: md5.New, want: e.data})
		}
	}
	// From the strongest to the weakest of each part.
	return d, cmp.Or(md5Err,
		addText(sig, sigSHA3, "SHA3_256", partHeader, newSHA3),
		addText(sig, sigSHA256, "SHA256", partHeader, sha256.New),
		addText(sig, sigSHA1, "SHA1", partHeader, sha1.New),
		addText(main, tagPayloadSHA256, "PAYLOADSHA256", partPayload, payloadHash),
		addText(main, tagPayloadSHA512, "PAYLOADSHA512", partPayload, sha512.New),
		addText(main, tagPayloadSHA3, "PAYLOADSHA3_256", partPayload, newSHA3),
		addText(main, tagPayloadSHA256Alt, "PAYLOADSHA256ALT", partExpanded, payloadHash),
		addText(main, tagPayloadSHA512Alt, "PAYLOADSHA512ALT", partExpanded, sha512.New),
		addText(main, tagPayloadSHA3Alt, "PAYLOADSHA3_256ALT", partExpanded, newSHA3),
		addSize(sig, sigSize, "SIZE", partBoth),
		addSize(sig, sigLongSize, "LONGSIZE", partBoth),
		addSize(main, tagPayloadSize, "PAYLOADSIZE", partPayload),
		addSize(sig, sigPayloadSize, "PAYLOADSIZE", partExpanded),
		addSize(sig, sigLongArchiveSize, "LONGARCHIVESIZE", partExpanded),
		addSize(main, tagPayloadSizeAlt, "PAYLOADSIZEALT", partExpanded),
	)
}

func (d *digestSet) of(parts ...part) []*recorded {
	var list []*recorded
	for _, r := range d.list {
		for _, p := range parts {
			if r.part == p {
				list = append(list, r)
			}
		}
	}
	return list
}

// raw returns all that need no decompression.
func (d *digestSet) raw() []*recorded { return d.of(partHeader, partBoth, partPayload) }

// required returns what has to hold before anything is blessed: the digests of the
// main header and the first of the payload, or where one of them is not recorded that
// of both.
func (d *digestSet) required() []*recorded {
	isSize := func(r *recorded) bool { return r.make == nil }
	header := d.of(partHeader)
	payload := slices.DeleteFunc(d.of(partPayload), isSize)
	both := slices.DeleteFunc(d.of(partBoth), isSize)
	list := append(header, payload[:min(len(payload), 1)]...)
	if len(header) == 0 || len(payload) == 0 {
		list = append(list, both...)
	}
	return list
}

// hashing computes several digests of one part.
type hashing struct {
	of     []*recorded
	hashes []hash.Hash
	n      int64
}

func newHashing(of []*recorded) *hashing {
	h := &hashing{of: of, hashes: make([]hash.Hash, len(of))}
	for i, r := range of {
		if r.make != nil {
			h.hashes[i] = r.make()
		}
	}
	return h
}

func (h *hashing) Write(b []byte) (int, error) {
	for _, x := range h.hashes {
		if x != nil {
			x.Write(b)
		}
	}
	h.n += int64(len(b))
	return len(b), nil
}

// done compares.
func (h *hashing) done() {
	for i, r := range h.of {
		ok := false
		if x := h.hashes[i]; x != nil {
			sum := x.Sum(nil)
			r.got, ok = hex.EncodeToString(sum), bytes.Equal(sum, r.want)
		} else {
			r.got, ok = fmt.Sprint(h.n), h.n == r.length
		}
		if r.state = holds; !ok {
			r.state = differs
		}
	}
}

func (r *recorded) finding() sign.Finding {
	want := hex.EncodeToString(r.want)
	if r.make == nil {
		want = fmt.Sprint(r.length)
	}
	reason := sign.ReasonDigestMismatch
	if r.make == nil {
		reason = sign.ReasonWarning // rpm takes no notice of sizes
	}
	return sign.Finding{Path: r.part.String(), Reason: reason, Detail: fmt.Sprintf("%s is %s, the package records %s", r.name, r.got, want)}
}

func pending(list []*recorded) []*recorded {
	var p []*recorded
	for _, r := range list {
		if r.state == unknown {
			p = append(p, r)
		}
	}
	return p
}

// mismatch returns an error about the first of list that does not hold.
func mismatch(list []*recorded) error {
	for _, r := range list {
		if r.state == differs {
			f := r.finding()
			return fmt.Errorf("%s: %s: %w", f.Path, f.Detail, errMismatch)
		}
	}
	return nil
}

// start computes list beside the walk. The caller must call finish, which waits, or
// gives up when the walk has failed, and returns the first mismatch.
func (d *digestSet) start(ctx context.Context, p *Package, list []*recorded) (finish func(wait bool) error) {
	ctx, cancel := context.WithCancel(ctx)
	result := make(chan error, 1)
	go func() { result <- d.compute(ctx, p, list) }()
	return func(wait bool) error {
		if !wait {
			cancel()
		}
		err := <-result
		cancel()
		return cmp.Or(err, mismatch(list))
	}
}

// compute reads main header and payload for those of list that are not known yet.
func (d *digestSet) compute(ctx context.Context, p *Package, list []*recorded) error {
	list = pending(list)
	byPart := map[part]*hashing{}
	for _, r := range list {
		if byPart[r.part] == nil {
			byPart[r.part] = newHashing((&digestSet{list: list}).of(r.part))
		}
	}
	if h := byPart[partHeader]; h != nil {
		h.Write(p.main.raw)
		h.done()
	}
	both, payload := byPart[partBoth], byPart[partPayload]
	if both == nil && payload == nil {
		return nil
	}
	if both != nil {
		both.Write(p.main.raw)
	}
	in := io.NewSectionReader(p.r, p.payloadAt, p.size-p.payloadAt)
	buffer := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := in.Read(buffer)
		if both != nil {
			both.Write(buffer[:n])
		}
		if payload != nil {
			payload.Write(buffer[:n])
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the payload: %w", err)
		}
	}
	for _, h := range []*hashing{both, payload} {
		if h != nil {
			h.done()
		}
	}
	return nil
}

// startAlt returns what the decompressed payload is to be written to, nil when all
// about that is known.
func (d *digestSet) startAlt() *hashing {
	if of := pending(d.of(partExpanded)); len(of) > 0 {
		return newHashing(of)
	}
	return nil
}

// requireDigests fails unless the digests that the package records of its main
// header and payload hold. Where it records none there is nothing to require.
func (p *Package) requireDigests(ctx context.Context) error {
	list := p.digests.required()
	if err := p.digests.compute(ctx, p, list); err != nil {
		return err
	}
	return mismatch(list)
}

// requireHeaderDigests is requireDigests for the main header alone.
func (p *Package) requireHeaderDigests(ctx context.Context) error {
	list := p.digests.of(partHeader)
	if err := p.digests.compute(ctx, p, list); err != nil {
		return err
	}
	return mismatch(list)
}

// CheckDigests returns a finding for each digest or size that the package records of
// its main header, of its payload, and of the decompressed payload, and that does
// not hold. The decompressed payload is left out where the header's digests are
// trusted.
func (p *Package) CheckDigests(ctx context.Context) ([]sign.Finding, error) {
	if err := p.digests.compute(ctx, p, p.digests.raw()); err != nil {
		return nil, err
	}
	if alt := p.digests.startAlt(); alt != nil && !p.trust {
		if err := p.expandInto(ctx, alt); err != nil {
			return nil, err
		}
		alt.done()
	}
	var findings []sign.Finding
	for _, r := range p.digests.list {
		if r.state == differs {
			findings = append(findings, r.finding())
		}
	}
	return findings, nil
}

// coverPayload reports whether a digest over the compressed payload is recorded.
func (d *digestSet) coverPayload() bool {
	for _, r := range d.of(partPayload, partBoth) {
		if r.make != nil {
			return true
		}
	}
	return false
}
