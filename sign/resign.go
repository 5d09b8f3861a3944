package sign

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// KeyIDs returns the key ids that the well formed signatures of m name, that of the
// statement among them, in ascending order.
func (m *Manifest) KeyIDs() []KeyID {
	return slices.Sorted(maps.Keys(m.CountByKey()))
}

// CountByKey returns how many well formed signatures each key id has, that of the
// statement among them.
func (m *Manifest) CountByKey() map[KeyID]int {
	count := map[KeyID]int{}
	add := func(value []byte) {
		if s, err := ParseSignature(value); err == nil {
			count[s.KeyID]++
		}
	}
	for _, entries := range [][]Entry{m.Files, m.Control} {
		for _, e := range entries {
			add(e.Value)
		}
	}
	if m.Statement != nil {
		add(m.Statement.Signature)
	}
	return count
}

// Again returns the options by which a package that carries m is signed once more for
// the same files: the selection and hash of its statement or, where the format has
// none, the very set of files.
func (m *Manifest) Again() Options {
	if m.Statement != nil {
		return Options{Selection: m.Statement.Selection, Hash: m.Statement.Hash}
	}
	paths := make(map[string]bool, len(m.Files))
	for _, e := range m.Files {
		paths[e.Path] = true
	}
	return Options{Paths: paths}
}

// Resign verifies what p carries, as [Verify] does, and where nothing is bad signs the
// very same files by key. The payload is read once. The manifest is nil where something
// is bad, which the report tells; findings that accept takes do not count. accept may be
// nil.
//
// o.Jobs and o.Progress count; the selection and the hash are those of p.
func Resign(ctx context.Context, p Package, key *Signer, trusted *TrustedKeys, o Options, accept func(Finding) bool) (*Manifest, *Report, error) {
	carried, err := p.Manifest()
	if err != nil {
		return nil, nil, err
	}
	if carried == nil {
		return nil, nil, errors.New("it carries no file signatures")
	}
	again := carried.Again()
	again.Jobs, again.Progress = o.Jobs, o.Progress
	v, err := verifyAll(ctx, p, trusted, again)
	if err != nil {
		return nil, nil, err
	}
	if v.report.Extra > 0 {
		v.find("package", ReasonStray, fmt.Sprintf("it carries signatures of %d files that its selection does not ask for", v.report.Extra))
	}
	if slices.ContainsFunc(v.report.Findings, func(f Finding) bool { return f.Bad() && (accept == nil || !accept(f)) }) {
		return nil, v.report, nil
	}
	if again, err = again.settled(p); err != nil {
		return nil, v.report, err
	}
	m, err := signFiles(ctx, p, key, again, func(_ context.Context, each func(*digested) error) error {
		return v.selected(again.Hash, each)
	})
	return m, v.report, err
}

// selected hands on the files that were verified and have to be signed, by h.
func (v *verification) selected(h Hash, each func(*digested) error) error {
	for _, j := range v.judged {
		d := j.file
		if !d.selected {
			continue
		}
		if d.hash != h {
			return fmt.Errorf("%q is signed over %s, and the package over %s", d.path, d.hash, h)
		}
		if err := each(d); err != nil {
			return err
		}
	}
	return nil
}
