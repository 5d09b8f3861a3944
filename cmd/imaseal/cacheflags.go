package main

import (
	"crypto"
	"crypto/ecdsa"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys/cache"
	"github.com/imaseal/imaseal/sign"
)

// cacheFlags say where signatures are kept from run to run.
type cacheFlags struct {
	file  string
	size  byteSize
	given func(flag string) bool
}

func (f *cacheFlags) add(cmd *cobra.Command) {
	f.size = cache.DefaultSize
	f.given = cmd.Flags().Changed
	cmd.Flags().StringVar(&f.file, "cache", "", "keep signatures in `FILE`, and sign only what is not there; made when missing")
	cmd.Flags().Var(&f.size, "cache-size", "let the cache's file have at most `SIZE` bytes, such as 64M or 2G")
}

// open opens the cache, if one is named.
func (f *cacheFlags) open(out *output) (*cache.Cache, error) {
	if f.file == "" {
		for _, flag := range []string{"cache", "cache-size"} {
			if f.given(flag) {
				return nil, fmt.Errorf("--%s: no file is named for the cache: use --cache FILE", flag)
			}
		}
		return nil, nil
	}
	return cache.Open(f.file, cache.Options{MaxBytes: int64(f.size), Note: func(text string) { out.note("%s", text) }})
}

// serve lets signer use c.
func (f *cacheFlags) serve(c *cache.Cache, signer *sign.Signer, key crypto.Signer, out *output) {
	if _, software := key.(*ecdsa.PrivateKey); software {
		out.note("cache %s: not used, as an ECDSA key in a file is as fast", f.file)
	}
	signer.Cache = c
}

// sumUp says how much of the work c saved.
func (f *cacheFlags) sumUp(signer *sign.Signer, out *output) {
	if found, asked := signer.Cached(); out.verbose && asked > 0 {
		out.note("cache: %s of %s signatures found", thousands(found), thousands(asked))
	}
}

// thousands writes n with a comma between groups of three digits.
func thousands(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// A byteSize is a flag: a number of bytes above 0 with an optional K, M, G or T behind
// it, which count by 1024.
type byteSize int64

const sizeUnits = "KMGT"

// String implements [github.com/spf13/pflag.Value].
func (s *byteSize) String() string {
	n, unit := int64(*s), ""
	for i := 0; i < len(sizeUnits) && n > 0 && n%1024 == 0; i++ {
		n, unit = n/1024, sizeUnits[i:i+1]
	}
	return strconv.FormatInt(n, 10) + unit
}

// Set implements [github.com/spf13/pflag.Value].
func (s *byteSize) Set(text string) error {
	number := strings.TrimSuffix(strings.TrimSuffix(text, "B"), "i")
	shift := 0
	if n := len(number); n > 0 {
		if i := strings.IndexByte(sizeUnits, number[n-1]); i >= 0 {
			number, shift = number[:n-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > math.MaxInt64>>shift {
		return fmt.Errorf("%q is no size: write a number of bytes such as 512M or 2G", text)
	}
	*s = byteSize(n << shift)
	return nil
}

// Type implements [github.com/spf13/pflag.Value].
func (s *byteSize) Type() string { return "size" }
