package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

func digest(h sign.Hash, i int) []byte {
	state := h.Crypto().New()
	fmt.Fprint(state, i)
	return state.Sum(nil)
}

func signature(i, size int) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint32(nil, uint32(i+1)), size/4)
}

var someone, another = sha256.Sum256([]byte("someone")), sha256.Sum256([]byte("another"))

// open opens a cache that must note nothing but what is in expected.
func open(t testing.TB, path string, o Options, expected ...string) *Cache {
	t.Helper()
	if o.Note == nil {
		o.Note = func(text string) {
			for _, part := range expected {
				if bytes.Contains([]byte(text), []byte(part)) {
					return
				}
			}
			t.Errorf("noted: %s", text)
		}
	}
	c, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// fill remembers the signatures from to to and closes the cache.
func fill(t testing.TB, path string, o Options, from, to, size int) {
	t.Helper()
	c := open(t, path, o)
	for i := from; i < to; i++ {
		c.Remember(someone, sign.SHA256, digest(sign.SHA256, i), signature(i, size))
		if i%batchSize == 0 {
			c.batches.Wait() // signing is slower than writing, which this is not
		}
	}
	c.Close()
}

// found counts those of from to to that are there. One that is wrong is an error.
func found(t testing.TB, c *Cache, from, to, size int) int {
	t.Helper()
	n := 0
	for i := from; i < to; i++ {
		switch got := c.Lookup(someone, sign.SHA256, digest(sign.SHA256, i)); {
		case got == nil:
		case !bytes.Equal(got, signature(i, size)):
			t.Fatalf("signature %d is %x", i, got)
		default:
			n++
		}
	}
	return n
}

func TestRemembersFromRunToRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	fill(t, path, Options{}, 0, 5000, 512)
	c := open(t, path, Options{})
	if n := found(t, c, 0, 5000, 512); n != 5000 {
		t.Errorf("found %d of 5000", n)
	}
	if n := found(t, c, 5000, 6000, 512); n != 0 {
		t.Errorf("found %d that were never there", n)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestKeysHashesAndDigestsAreApart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	c := open(t, path, Options{})
	n := 0
	each := func(f func(identity [sha256.Size]byte, h sign.Hash, d, sig []byte)) {
		n = 0
		for _, identity := range [][sha256.Size]byte{someone, another} {
			for _, h := range []sign.Hash{sign.SHA256, sign.SHA384, sign.SHA512} {
				for i := range 10 {
					f(identity, h, digest(h, i), signature(n, 64))
					n++
				}
			}
		}
	}
	each(func(identity [sha256.Size]byte, h sign.Hash, d, sig []byte) { c.Remember(identity, h, d, sig) })
	check := func(identity [sha256.Size]byte, h sign.Hash, d, sig []byte) {
		t.Helper()
		if got := c.Lookup(identity, h, d); !bytes.Equal(got, sig) {
			t.Errorf("%s of %x by %x: %x, want %x", h, d[:4], identity[:4], got, sig[:4])
		}
	}
	each(check)
	c.Close()
	c = open(t, path, Options{})
	each(check)
	if got := c.Lookup(sha256.Sum256(nil), sign.SHA256, digest(sign.SHA256, 1)); got != nil {
		t.Errorf("a third key finds %x", got)
	}
	for _, wrong := range []struct {
		h    sign.Hash
		size int
	}{{sign.SHA256, 31}, {sign.SHA1, 20}, {0, 32}, {sign.SHA256, 0}} {
		c.Remember(someone, wrong.h, make([]byte, wrong.size), signature(1, 64))
		if got := c.Lookup(someone, wrong.h, make([]byte, wrong.size)); got != nil {
			t.Errorf("%v", wrong)
		}
	}
}
