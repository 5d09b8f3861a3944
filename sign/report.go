package sign

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Reason is a verdict on one file of a package, in the words of the command's
// output.
type Reason string

// The verdicts. ReasonOK is the only good one.
const (
	ReasonOK             Reason = "ok"
	ReasonUnsigned       Reason = "unsigned"         // has to be signed and is not
	ReasonUnknownKey     Reason = "unknown key ID"   // signed by a key that is not trusted
	ReasonBadSignature   Reason = "bad signature"    // not made by that key over this content
	ReasonDigestMismatch Reason = "digest mismatch"  // the content is not what the package records
	ReasonMalformed      Reason = "malformed"        // the kernel could not read it; Detail says why
	ReasonByteOrder      Reason = "wrong byte order" // little-endian size field
	ReasonZeroDigest     Reason = "zero digest"      // a signature over zeros in place of a digest
	ReasonStray          Reason = "stray"            // for a file that is not there
	ReasonOpenPGP        Reason = "openpgp"          // the signature over the whole package
	ReasonWarning        Reason = "warning"          // odd, but not wrong
)

// A Finding is a verdict that is not [ReasonOK].
type Finding struct {
	// Path is the absolute path at which the file is installed, the name of a
	// control file, or that of a part of the package.
	Path   string
	Reason Reason
	// Detail says what was expected and what was found, for a person.
	Detail string
}

// Bad reports whether the package must not be taken for a well signed one.
func (f Finding) Bad() bool { return f.Reason != ReasonWarning }

// A Report is what [Verify] found.
type Report struct {
	// Files is how many files the package has, control files included; Signed how
	// many of them carry a signature, good or bad; Extra how many of these the
	// selection does not ask for.
	Files, Signed, Extra int
	// KeyIDs are the key ids that the signatures name, in ascending order.
	KeyIDs []KeyID
	// Findings are in the order of the payload, those on whole parts last.
	Findings []Finding
}

// OK reports whether nothing bad was found.
func (r *Report) OK() bool { return !slices.ContainsFunc(r.Findings, Finding.Bad) }

// Verify reads the whole payload of p and judges every signature that p carries,
// every file that should have one, and the package's own digests and statement.
// The selection is o's if it names any rule, otherwise the one that the package
// records, otherwise everything. An error means that the package could not be
// read; what is wrong with signatures is in the report.
func Verify(ctx context.Context, p Package, keys *TrustedKeys, o Options) (*Report, error) {
	v, err := verifyAll(ctx, p, keys, o)
	if err != nil {
		return nil, err
	}
	return v.report, nil
}

func verifyAll(ctx context.Context, p Package, keys *TrustedKeys, o Options) (*verification, error) {
	v := &verification{keys: keys, report: new(Report), ids: map[KeyID]bool{}}
	m, err := p.Manifest()
	if err != nil {
		v.find("", ReasonMalformed, err.Error())
	}
	if m == nil {
		m = new(Manifest)
	}
	if o.Paths == nil && len(o.Selection.Select) == 0 && len(o.Selection.Exclude) == 0 && m.Statement != nil {
		o.Selection = m.Statement.Selection
	}
	if err := v.files(ctx, p, m, o); err != nil {
		return nil, err
	}
	if err := v.whole(ctx, p, m); err != nil {
		return nil, err
	}
	v.report.KeyIDs = slices.Sorted(maps.Keys(v.ids))
	return v, nil
}

type verification struct {
	keys   *TrustedKeys
	report *Report
	ids    map[KeyID]bool
	judged []*judged // in the order of the payload
}

func (v *verification) find(path string, r Reason, detail string) {
	v.report.Findings = append(v.report.Findings, Finding{Path: path, Reason: r, Detail: detail})
}

// A judged is a file with its signature on the way to a verdict.
type judged struct {
	file   *digested
	signed *signedEntry // nil: none
	reason Reason
	detail string
}

type signedEntry struct {
	entry Entry
	sig   Signature
	err   error // from ParseSignature
	met   bool  // its file was in the payload
}

func (v *verification) index(entries []Entry) map[string]*signedEntry {
	index := make(map[string]*signedEntry, len(entries))
	for _, e := range entries {
		s := &signedEntry{entry: e}
		if s.sig, s.err = ParseSignature(e.Value); s.err == nil {
			v.ids[s.sig.KeyID] = true
		}
		index[e.Path] = s
	}
	return index
}

func (v *verification) files(ctx context.Context, p Package, m *Manifest, o Options) error {
	payload, control := v.index(m.Files), v.index(m.Control)
	entryOf := func(path string, isControl bool) *signedEntry {
		if isControl {
			return control[path]
		}
		return payload[path]
	}
	var all []*judged
	b := newBatch(ctx, o.Jobs)
	// An unsigned file is hashed too: a hard link to it may be signed.
	usual := p.Info().FileHash
	if m.Statement != nil {
		usual = m.Statement.Hash
	}
	if usual == 0 {
		usual = SHA256
	}
	hashOf := func(f *File) Hash {
		if s := entryOf(f.Path, f.Control); s != nil && s.err == nil {
			return s.sig.Hash
		}
		return usual
	}
	err := walk(b.ctx, p, o, hashOf, func(d *digested) error {
		v.report.Files++
		j := &judged{file: d, signed: entryOf(d.path, d.control), reason: ReasonOK}
		if j.signed != nil {
			j.signed.met = true
			v.report.Signed++
			if !d.selected {
				v.report.Extra++
			}
		}
		if j.signed == nil && !d.selected && d.recorded == "" {
			return nil
		}
		all = append(all, j)
		return b.add(func() error { j.judge(v.keys); return nil })
	})
	if failed := b.wait(); failed != nil {
		err = failed
	}
	if err != nil {
		return err
	}
	v.judged = all
	for _, j := range all {
		if j.reason != ReasonOK {
			v.find(displayPath(j.file.path, j.file.control), j.reason, j.detail)
		}
	}
	v.strays(control, true)
	v.strays(payload, false)
	return nil
}

func displayPath(path string, control bool) string {
	if control {
		return path
	}
	return "/" + path
}

// judge sets the reason. It runs on a worker.
func (j *judged) judge(keys *TrustedKeys) {
	d, s := j.file, j.signed
	switch {
	case d.recorded != "":
		j.reason, j.detail = ReasonDigestMismatch, d.recorded
	case s == nil:
		j.reason = ReasonUnsigned
	case s.err != nil:
		j.reason, j.detail = reasonOf(s.err)
	case d.beginsLikeStatement():
		j.reason, j.detail = ReasonMalformed, "a signed file must not begin like a package statement"
	case len(d.digest) != s.sig.Hash.Size():
		j.reason, j.detail = ReasonBadSignature, fmt.Sprintf("it is over %s, other links of the file over another hash", s.sig.Hash)
	default:
		err := keys.VerifyDigest(s.sig, d.digest)
		if err == nil {
			return
		}
		if j.reason, j.detail = reasonOf(err); overZeros(keys, s.sig) {
			j.reason, j.detail = ReasonZeroDigest, "the signature is over zeros, not over the content"
		}
	}
}

// reasonOf returns what an error of [ParseSignature] or [TrustedKeys.VerifyDigest]
// means, and what it says beyond that.
func reasonOf(err error) (Reason, string) {
	reason := ReasonMalformed
	said := ""
	switch {
	case errors.Is(err, ErrWrongByteOrder):
		reason = ReasonByteOrder
	case errors.Is(err, ErrUnknownKey):
		reason, said = ReasonUnknownKey, ErrUnknownKey.Error()
	case errors.Is(err, ErrBadSignature):
		reason, said = ReasonBadSignature, ErrBadSignature.Error()
	}
	return reason, strings.TrimPrefix(err.Error(), said+": ")
}

// strays judges the signatures whose path is no regular file of the package.
func (v *verification) strays(entries map[string]*signedEntry, control bool) {
	for _, path := range slices.Sorted(maps.Keys(entries)) {
		s := entries[path]
		switch {
		case s.met:
		case s.err == nil && overZeros(v.keys, s.sig):
			v.find(displayPath(path, control), ReasonZeroDigest, "not a regular file, with a signature over zeros")
		default:
			v.find(displayPath(path, control), ReasonStray, "signed, but the package has no such regular file")
		}
	}
}

// overZeros reports whether s is over a digest of zeros, as one signing service
// wrote for everything that has no digest.
func overZeros(keys *TrustedKeys, s Signature) bool {
	return keys.VerifyDigest(s, make([]byte, s.Hash.Size())) == nil
}

// whole judges what is about the package and not about one file.
func (v *verification) whole(ctx context.Context, p Package, m *Manifest) error {
	if checked, ok := p.(Checked); ok {
		findings, err := checked.CheckDigests(ctx)
		if err != nil {
			return err
		}
		v.report.Findings = append(v.report.Findings, findings...)
	}
	v.report.Findings = append(v.report.Findings, p.Anomalies()...)
	stated, ok := p.(Stated)
	if !ok {
		return nil
	}
	const name = "package statement"
	if m.Statement == nil {
		v.find(name, ReasonUnsigned, "nothing binds the file signatures to this package")
		return nil
	}
	if sig, err := ParseSignature(m.Statement.Signature); err == nil {
		v.ids[sig.KeyID] = true
	}
	if err := m.Statement.Verify(v.keys); err != nil {
		reason, detail := reasonOf(err)
		v.find(name, reason, detail)
	}
	holds, err := stated.Statement(ctx)
	if err != nil {
		return err
	}
	holds.AddSignatures(m)
	for _, line := range m.Statement.Diff(holds) {
		v.find(name, ReasonDigestMismatch, line)
	}
	return nil
}
