package rpm

import (
	"io"
	"os"
	"testing"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

// BenchmarkSign signs what scripts/bench-inputs makes: 11,751 files, zstd.
func BenchmarkSign(b *testing.B) {
	f, err := os.Open(signtest.Cached(b, "bench-inputs-*[^k]/golang.rpm", "scripts/bench-inputs"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		b.Fatal(err)
	}
	for name, o := range map[string]Options{"payload": {Jobs: 2}, "header": {Jobs: 2, TrustHeaderDigests: true}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p, err := Open(f, info.Size(), o)
				if err != nil {
					b.Fatal(err)
				}
				m, err := sign.Sign(b.Context(), p, signtest.NewSigner(), sign.Options{Jobs: 2}) // one that remembers nothing
				if err != nil {
					b.Fatal(err)
				}
				if err := p.Write(b.Context(), io.Discard, m, sign.WriteOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("walk", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p, err := Open(f, info.Size(), Options{Jobs: 2})
			if err != nil {
				b.Fatal(err)
			}
			for _, err := range p.Files(b.Context()) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Open(f, info.Size(), Options{Jobs: 2}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
