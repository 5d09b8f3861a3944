package deb

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"os"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

func TestScratch(t *testing.T) {
	raw, err := os.ReadFile(os.Getenv("DEB"))
	if err != nil {
		t.Skip(err)
	}
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	id, _ := sign.KeyIDFromPublicKey(key.Public())
	s, _ := sign.NewSigner(key, id)
	p, err := Open(bytes.NewReader(raw), int64(len(raw)), Options{Jobs: 2})
	if err != nil {
		t.Fatal(err)
	}
	m, err := sign.Sign(t.Context(), p, s, sign.Options{Jobs: 2})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := p.Write(t.Context(), &b, m, sign.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	os.WriteFile("/tmp/signed.deb", b.Bytes(), 0o644)
	q, err := Open(bytes.NewReader(b.Bytes()), int64(b.Len()), Options{Jobs: 2})
	if err != nil {
		t.Fatal(err)
	}
	keys := new(sign.TrustedKeys)
	keys.Add(id, key.Public())
	r, err := sign.Verify(t.Context(), q, keys, sign.Options{Jobs: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r.Files, r.Signed, r.Findings, q.Details())
	if !r.OK() {
		t.Fatal("not ok")
	}
	var u bytes.Buffer
	if err := q.Write(t.Context(), &u, nil, sign.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(u.Bytes(), raw) {
		t.Fatal("not the same")
	}
}
