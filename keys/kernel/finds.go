package kernel

import (
	"encoding/binary"
	"slices"

	"github.com/imaseal/imaseal/sign"
)

// foundBy reports whether a kernel that looks for a key id finds the key. It looks for
// four bytes at the end of the identifier: request_asymmetric_key of
// security/integrity/digsig_asymmetric.c, asymmetric_key_id_partial.
func (k Key) foundBy(id sign.KeyID) bool {
	return !k.Dead && len(k.KeyID) == 4 && sign.KeyID(binary.BigEndian.Uint32(k.KeyID)) == id
}

// find returns the keys that a kernel finds by a key id in the keyrings of a name.
func (k *Keyrings) find(name string, id sign.KeyID) []Key {
	var found []Key
	for _, ring := range k.Named(name) {
		for _, key := range ring.Keys {
			if key.foundBy(id) {
				found = append(found, key)
			}
		}
	}
	return found
}

// Finds returns which keys the kernel finds when it appraises a file, nil where that
// can't be told or it has none at all and so appraises nothing. Those in .ima_blacklist
// are refused.
func (k *Keyrings) Finds() func(sign.KeyID) bool {
	name := ".ima"
	if len(k.Named(name)) == 0 {
		name = "_ima" // which is nothing to a kernel with the other
	}
	some := false
	for _, ring := range k.Named(name) {
		if !ring.Listed || ring.Hidden > 0 {
			return nil
		}
		some = some || slices.ContainsFunc(ring.Keys, func(key Key) bool { return len(key.KeyID) == 4 && !key.Dead })
	}
	if !some {
		return nil
	}
	return func(id sign.KeyID) bool { return len(k.find(name, id)) > 0 && len(k.find(ringIMABlacklist, id)) == 0 }
}
