package main

import (
	"encoding/binary"
	"slices"

	"github.com/imaseal/imaseal/keys/kernel"
	"github.com/imaseal/imaseal/sign"
)

// runningKernelFinds returns which keys the running kernel finds when it appraises a
// file, nil where that can't be told or it has none at all and so appraises nothing.
func runningKernelFinds() func(sign.KeyID) bool {
	rings, err := kernel.ReadKeyrings()
	if err != nil {
		return nil
	}
	return kernelFinds(rings)
}

func kernelFinds(rings *kernel.Keyrings) func(sign.KeyID) bool {
	var found, refused []sign.KeyID
	for _, ring := range rings.Rings {
		list := &found
		switch ring.Name {
		case ".ima_blacklist":
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
