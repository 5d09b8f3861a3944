package kernel

import (
	"encoding/binary"
	"slices"

	"github.com/imaseal/imaseal/sign"
)

// Finds returns which keys the kernel finds when it appraises a file, nil where that
// can't be told or it has none at all and so appraises nothing. A kernel looks for the
// four bytes of a key id, in its refused keys, too.
func (k *Keyrings) Finds() func(sign.KeyID) bool {
	var found, refused []sign.KeyID
	for _, ring := range k.Rings {
		list := &found
		switch ring.Name {
		case ringIMABlacklist:
			list = &refused
		case ".ima", "_ima":
			if !ring.Listed || ring.Hidden > 0 {
				return nil
			}
		default:
			continue
		}
		for _, key := range ring.Keys {
			if len(key.KeyID) == 4 && !key.Dead {
				*list = append(*list, sign.KeyID(binary.BigEndian.Uint32(key.KeyID)))
			}
		}
	}
	if len(found) == 0 {
		return nil
	}
	return func(id sign.KeyID) bool { return slices.Contains(found, id) && !slices.Contains(refused, id) }
}
