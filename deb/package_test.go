package deb

import (
	"io"
	"testing"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

func TestContract(t *testing.T) {
	raw := map[string][]byte{
		"plain": build{}.bytes(t),
		"gz":    build{controlSuffix: ".gz", dataSuffix: ".gz"}.bytes(t),
		"zst":   build{controlSuffix: ".zst", dataSuffix: ".zst"}.bytes(t),
		"no scripts": build{
			control: []entry{file("control", 0o644, controlText)},
			data:    []entry{file("a", 0o644, "1"), file("b", 0o644, "2")},
		}.bytes(t),
		"tail": build{tail: []arMember{{name: "_gpgorigin", content: []byte("stale")}, {name: "_other", content: []byte("kept")}}}.bytes(t),
	}
	signtest.Run(t, signtest.Format{
		Open:  func(r io.ReaderAt, size int64) (sign.Package, error) { return Open(r, size, Options{}) },
		Raw:   raw,
		Write: sign.WriteOptions{DropOpenPGP: true},
	})
}
