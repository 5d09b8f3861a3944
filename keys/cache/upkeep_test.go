package cache

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

func TestUpkeep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	c := open(t, path, Options{})
	for i := range 3000 {
		c.Remember(someone, sign.SHA256, digest(sign.SHA256, i), signature(i, 512))
		if i%3 == 0 {
			c.Remember(another, sign.SHA512, digest(sign.SHA512, i), signature(i, 72))
		}
	}
	c.Close()
	stats, err := Stats(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(stats.Groups) != 2 || stats.Groups[0].Entries+stats.Groups[1].Entries != 4000 || stats.Bytes != fileSize(t, path) {
		t.Errorf("%+v", stats)
	}
	had, has, err := Trim(path, TrimOptions{Remove: func(identity [32]byte) bool { return identity == another }})
	if err != nil || len(had.Groups) != 2 || len(has.Groups) != 1 || has.Groups[0].Identity != someone || has.Groups[0].Entries != 3000 {
		t.Errorf("%+v %+v %v", had, has, err)
	}
	if has.Bytes >= had.Bytes || has.Bytes > 3000*760 {
		t.Errorf("%d bytes, of %d", has.Bytes, had.Bytes)
	}
	if _, has, err = Trim(path, TrimOptions{MaxBytes: 1 << 20}); err != nil || has.Bytes > 1<<20 || has.Groups[0].Entries < 1000 {
		t.Errorf("%+v %v", has, err)
	}
	if _, _, err := Trim(path, TrimOptions{MaxBytes: 1000}); err == nil {
		t.Error("a size of 1000 bytes is taken")
	}
	fill(t, path, Options{}, 5000, 5010, 512)
	c = open(t, path, Options{})
	if n := found(t, c, 5000, 5010, 512); n != 10 {
		t.Errorf("%d of 10", n)
	}
}

// A counter is a key that is no software key, as far as a Signer can tell.
type counter struct {
	crypto.Signer
	calls atomic.Int64
	broke atomic.Bool
}

func (k *counter) Sign(random io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	if k.broke.Load() {
		return nil, errors.New("the token was pulled out")
	}
	k.calls.Add(1)
	return k.Signer.Sign(random, digest, o)
}

var testKeys = sync.OnceValue(func() (keys [2]*rsa.PrivateKey) {
	for i := range keys {
		var err error
		if keys[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			panic(err)
		}
	}
	return keys
})

// signRun signs the digests of h from to to and returns the values, and how many
// the key made itself.
func signRun(t *testing.T, path string, key crypto.Signer, h sign.Hash, from, to int) (values []string, made int) {
	t.Helper()
	k := &counter{Signer: key}
	s, err := sign.NewSigner(k, 7)
	if err != nil {
		t.Fatal(err)
	}
	if path != "" {
		c := open(t, path, Options{})
		defer c.Close()
		s.Cache = c
	}
	for i := from; i < to; i++ {
		v, err := s.SignDigest(h, digest(h, i))
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, string(v))
	}
	if found, asked := s.Cached(); path != "" && (asked != int64(to-from) || found != asked-k.calls.Load()) {
		t.Errorf("Cached is %d of %d, the key made %d", found, asked, k.calls.Load())
	}
	return values, int(k.calls.Load())
}

func TestAWarmRunSignsNothing(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"RSA": testKeys()[0], "ECDSA of a token": ec} {
		for _, h := range []sign.Hash{sign.SHA256, sign.SHA384, sign.SHA512} {
			t.Run(name+" "+h.String(), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "cache")
				cold, made := signRun(t, path, key, h, 0, 30)
				if made != 30 {
					t.Errorf("the cold run made %d", made)
				}
				warm, made := signRun(t, path, key, h, 0, 30)
				if made != 0 || !slices.Equal(cold, warm) {
					t.Errorf("the warm run made %d of 30", made)
				}
				if _, made = signRun(t, path, key, h, 10, 35); made != 5 {
					t.Errorf("%d were made though 5 are new", made)
				}
				if name == "RSA" {
					if without, _ := signRun(t, "", key, h, 0, 30); !slices.Equal(without, warm) {
						t.Error("without a cache the values are others")
					}
				}
				if _, made = signRun(t, path, testKeys()[1], h, 0, 30); made != 30 {
					t.Errorf("another key found %d", 30-made)
				}
			})
		}
	}
}

func TestASoftwareECDSAKeyIsNotCached(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cache")
	s, err := sign.NewSigner(key, 7)
	if err != nil {
		t.Fatal(err)
	}
	c := open(t, path, Options{})
	s.Cache = c
	if _, err := s.SignDigest(sign.SHA256, digest(sign.SHA256, 1)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if stats, err := Stats(path); err != nil || len(stats.Groups) != 0 {
		t.Errorf("%+v, %v", stats, err)
	}
}

// TestAPoisonedCacheCostsTimeOnly puts into the cache what an attacker could, and
// expects that each is found out, replaced, and reported by Verify.
func TestAPoisonedCacheCostsTimeOnly(t *testing.T) {
	keys := testKeys()
	sum := func(i int) []byte { return digest(sign.SHA256, i) }
	raw := func(key *rsa.PrivateKey, i int) []byte {
		sig, err := key.Sign(nil, sum(i), crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	zeros := make([]byte, 256)
	noise := make([]byte, 256)
	rand.Read(noise)
	poison := [][]byte{
		raw(keys[1], 0),       // by another key
		raw(keys[0], 99),      // over another digest
		noise,                 // nothing
		zeros,                 // nothing
		raw(keys[0], 4)[:255], // too short
		append(raw(keys[0], 5), 0),
		{1},
		make([]byte, maxSignature),
	}
	identity, err := Identity(keys[0].Public())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cache")
	want, _ := signRun(t, path, keys[0], sign.SHA256, 0, len(poison)+10)
	c := open(t, path, Options{})
	for i, sig := range poison {
		c.Remember(identity, sign.SHA256, sum(i), sig)
	}
	c.Close()
	v, err := Verify(t.Context(), path, []crypto.PublicKey{keys[0].Public()}, false)
	if err != nil || len(v.Bad) != len(poison) || v.Checked != len(want) || v.Other != 0 || v.Removed != 0 {
		t.Errorf("Verify: %d bad of %d, %d other, %v", len(v.Bad), v.Checked, v.Other, err)
	}
	if v, err = Verify(t.Context(), path, []crypto.PublicKey{keys[1].Public()}, true); err != nil || len(v.Bad) != 0 || v.Other != len(want) {
		t.Errorf("Verify by another key: %+v, %v", v, err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, made := signRun(t, path, keys[0], sign.SHA256, 0, len(want))
	if !slices.Equal(got, want) || made != len(poison) {
		t.Errorf("%d were made, of %d that were poisoned; equal: %v", made, len(poison), slices.Equal(got, want))
	}
	if _, made = signRun(t, path, keys[0], sign.SHA256, 0, len(want)); made != 0 {
		t.Errorf("%d were not replaced", made)
	}
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if v, err = Verify(t.Context(), path, []crypto.PublicKey{keys[0].Public()}, true); err != nil || v.Removed != len(poison) {
		t.Errorf("Verify with remove: %d, %v", v.Removed, err)
	}
	if v, err = Verify(t.Context(), path, []crypto.PublicKey{keys[0].Public()}, true); err != nil || len(v.Bad) != 0 || v.Checked != 10 {
		t.Errorf("Verify afterwards: %+v, %v", v, err)
	}
}

// What a token did not sign because it failed is not remembered.
func TestFailuresAreNotCached(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	k := &counter{Signer: testKeys()[0]}
	s, err := sign.NewSigner(k, 7)
	if err != nil {
		t.Fatal(err)
	}
	c := open(t, path, Options{})
	s.Cache = c
	k.broke.Store(true)
	if _, err := s.SignDigest(sign.SHA256, digest(sign.SHA256, 1)); err == nil {
		t.Error("no error")
	}
	k.broke.Store(false)
	if _, err := s.SignDigest(sign.SHA256, digest(sign.SHA256, 1)); err != nil {
		t.Error(err)
	}
	c.Close()
	if stats, err := Stats(path); err != nil || len(stats.Groups) != 1 || stats.Groups[0].Entries != 1 {
		t.Errorf("%+v, %v", stats, err)
	}
}

// Verify reads in batches, and none must be read twice or left out.
func TestVerifyReadsAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	for run := range 3 {
		fill(t, path, Options{MaxBytes: 8 << 20, noSync: true}, run*1100, run*1100+1100, 256)
	}
	stats, err := Stats(path)
	if err != nil || stats.Groups[0].Entries != 3300 || stats.Generations < 2 {
		t.Fatalf("%+v, %v", stats, err)
	}
	if v, err := Verify(t.Context(), path, nil, false); err != nil || v.Other != 3300 {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestExplained has each error name the file once, and what to do.
func TestExplained(t *testing.T) {
	for want, err := range map[string]error{
		"cache x.db: other processes hold its lock all the time: run this again when they have finished":   errBusy,
		"cache x.db: the cache is damaged: page 7\nimaseal cache trim makes it anew from what can be read": damaged("page 7"),
		"cache: open x.db: no such file or directory":                                                      hint(&fs.PathError{Op: "open", Path: "x.db", Err: syscall.ENOENT}),
		"cache x.db: it is a folder: name a file, or a name that is not there yet":                         errors.New("cache x.db: it is a folder: name a file, or a name that is not there yet"),
	} {
		if got := explained("x.db", err); got.Error() != want || !errors.Is(got, err) {
			t.Errorf("%q, not %q", got, want)
		}
	}
}
