package sign

import (
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
