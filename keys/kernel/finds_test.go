package kernel

import (
	"testing"

	"github.com/imaseal/imaseal/sign"
)

// TestFinds: a label is kept from being replaced only where the kernel certainly
// lacks the key.
func TestFinds(t *testing.T) {
	key := func(id byte, dead bool) Key {
		return Key{Type: "asymmetric", KeyID: []byte{0, 0, 0, id}, Dead: dead}
	}
	ring := func(name string, keys ...Key) Keyring {
		return Keyring{Name: name, Listed: true, Keys: keys}
	}
	unlisted, partly := ring(".ima", key(1, false)), ring("_ima", key(1, false))
	unlisted.Listed, partly.Hidden = false, 1
	for name, c := range map[string]struct {
		rings []Keyring
		known bool
		finds map[sign.KeyID]bool
	}{
		"no keyring":          {nil, false, nil},
		"an empty one":        {[]Keyring{ring(".ima")}, false, nil},
		"of other keys":       {[]Keyring{ring(".builtin_trusted_keys", key(1, false))}, false, nil},
		"not to be read":      {[]Keyring{unlisted}, false, nil},
		"partly to be read":   {[]Keyring{partly}, false, nil},
		"two keys":            {[]Keyring{ring(".ima", key(1, false), key(2, false))}, true, map[sign.KeyID]bool{1: true, 2: true, 3: false}},
		"one that is revoked": {[]Keyring{ring("_ima", key(1, true), key(2, false))}, true, map[sign.KeyID]bool{1: false, 2: true}},
		"one that is refused": {[]Keyring{ring(".ima", key(1, false), key(2, false)), ring(".ima_blacklist", key(1, false))}, true, map[sign.KeyID]bool{1: false, 2: true}},
		"_ima beside .ima":    {[]Keyring{ring("_ima", key(1, false)), ring(".ima", key(2, false))}, true, map[sign.KeyID]bool{1: false, 2: true}},
		"no identifier":       {[]Keyring{ring(".ima", Key{}, key(2, false))}, true, map[sign.KeyID]bool{0: false, 2: true}},
	} {
		t.Run(name, func(t *testing.T) {
			finds := (&Keyrings{Rings: c.rings}).Finds()
			if (finds != nil) != c.known {
				t.Fatalf("it is known: %v", finds != nil)
			}
			for id, want := range c.finds {
				if finds(id) != want {
					t.Errorf("key %s is found: %v", id, !want)
				}
			}
		})
	}
}
