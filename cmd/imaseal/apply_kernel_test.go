package main

import (
	"testing"

	"github.com/imaseal/imaseal/keys/kernel"
	"github.com/imaseal/imaseal/sign"
)

// TestKernelFinds: a label is kept from being replaced only where the kernel certainly
// lacks the key.
func TestKernelFinds(t *testing.T) {
	key := func(id byte, dead bool) kernel.Key {
		return kernel.Key{Type: "asymmetric", KeyID: []byte{0, 0, 0, id}, Dead: dead}
	}
	ring := func(name string, keys ...kernel.Key) kernel.Keyring {
		return kernel.Keyring{Name: name, Listed: true, Keys: keys}
	}
	unlisted, partly := ring(".ima", key(1, false)), ring("_ima", key(1, false))
	unlisted.Listed, partly.Hidden = false, 1
	for name, c := range map[string]struct {
		rings []kernel.Keyring
		known bool
		finds map[sign.KeyID]bool
	}{
		"no keyring":          {nil, false, nil},
		"an empty one":        {[]kernel.Keyring{ring(".ima")}, false, nil},
		"of other keys":       {[]kernel.Keyring{ring(".builtin_trusted_keys", key(1, false))}, false, nil},
		"not to be read":      {[]kernel.Keyring{unlisted}, false, nil},
		"partly to be read":   {[]kernel.Keyring{partly}, false, nil},
		"two keys":            {[]kernel.Keyring{ring(".ima", key(1, false), key(2, false))}, true, map[sign.KeyID]bool{1: true, 2: true, 3: false}},
		"one that is revoked": {[]kernel.Keyring{ring("_ima", key(1, true), key(2, false))}, true, map[sign.KeyID]bool{1: false, 2: true}},
		"one that is refused": {[]kernel.Keyring{ring(".ima", key(1, false), key(2, false)), ring(".ima_blacklist", key(1, false))}, true, map[sign.KeyID]bool{1: false, 2: true}},
		"no identifier":       {[]kernel.Keyring{ring(".ima", kernel.Key{}, key(2, false))}, true, map[sign.KeyID]bool{0: false, 2: true}},
	} {
		t.Run(name, func(t *testing.T) {
			finds := kernelFinds(&kernel.Keyrings{Rings: c.rings})
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
