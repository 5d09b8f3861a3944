package rpm

import (
	"bytes"
	"crypto/sha256"
	"io"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

// A fence is a package of which nothing may be read from some offset on.
type fence struct {
	r       io.ReaderAt
	at      int64
	touched bool
}

func (f *fence) ReadAt(b []byte, off int64) (int, error) {
	// What tells the compression stands at the beginning of the payload.
	f.touched = f.touched || off+int64(len(b)) > f.at+64
	return f.r.ReadAt(b, off)
}

// TestHeaderOnlyReadsNoPayload opens a package as split signing does on the build host.
func TestHeaderOnlyReadsNoPayload(t *testing.T) {
	raw := usual().build(t)
	whole := open(t, raw, Options{TrustHeaderDigests: true})
	f := &fence{r: bytes.NewReader(raw), at: whole.payloadAt}
	p, err := Open(f, int64(len(raw)), Options{HeaderOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	d, err := sign.DigestsOf(t.Context(), p, sign.Options{})
	if err != nil || len(d.Files) == 0 {
		t.Fatalf("%v, %v", d, err)
	}
	if f.touched {
		t.Error("the payload was read")
	}
	want, err := sign.DigestsOf(t.Context(), open(t, raw, Options{}), sign.Options{})
	if err != nil || len(want.Files) != len(d.Files) {
		t.Fatalf("%v, %v", want, err)
	}
	for i, w := range want.Files {
		if has := d.Files[i]; has.Path != w.Path || !bytes.Equal(has.Digest, w.Digest) || has.Inode != w.Inode {
			t.Errorf("%+v, from the payload %+v", has, w)
		}
	}
	if p.HeaderSHA256() != sha256.Sum256(p.main.raw) {
		t.Error("the hash is not that of the main header")
	}

	// Write still finds a payload that is not the one of the header.
	bad := bytes.Clone(raw)
	bad[len(bad)-20] ^= 1
	p = open(t, bad, Options{HeaderOnly: true})
	m, err := sign.Sign(t.Context(), p, signtest.NewSigner(), sign.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(t.Context(), io.Discard, m, sign.WriteOptions{}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged payload is written: %v", err)
	}
	// Nor is the header taken that its own digest does not fit.
	bad = bytes.Clone(raw)
	bad[p.mainAt+int64(bytes.Index(p.main.raw, []byte("noarch")))] = 'x'
	if _, err := sign.DigestsOf(t.Context(), open(t, bad, Options{HeaderOnly: true}), sign.Options{}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a changed header is trusted: %v", err)
	}
}
