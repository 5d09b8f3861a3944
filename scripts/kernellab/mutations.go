package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/scripts/kernellab/plan"
	"github.com/imaseal/imaseal/sign"
)

// A judge gives the verdict that imaseal gives: that of check and verify.
type judge struct{ keys *sign.TrustedKeys }

// verdict says what a kernel should do with a file of this content and label.
func (j judge) verdict(content, label []byte) string {
	s, err := sign.ParseSignature(label)
	if err != nil || !s.Hash.Known() || s.Hash.Size() == 0 {
		return plan.Denied
	}
	h := s.Hash.Crypto().New()
	h.Write(content)
	if j.keys.VerifyDigest(s, h.Sum(nil)) != nil {
		return plan.Denied
	}
	return plan.Allowed
}

// mutations returns variations of a label: each byte with each of three bits
// flipped, every length up to its own and a bit more, and each field changed to what
// it could be.
func mutations(label []byte) map[string][]byte {
	found := map[string][]byte{"untouched": label}
	for i := range label {
		for _, bit := range []byte{0x01, 0x10, 0x80} {
			m := bytes.Clone(label)
			m[i] ^= bit
			found[fmt.Sprintf("byte %d ^ %02x", i, bit)] = m
		}
	}
	for n := 1; n < len(label); n++ {
		found[fmt.Sprintf("cut to %d", n)] = label[:n]
	}
	found["a zero behind"] = append(bytes.Clone(label), 0)
	for id := range byte(32) {
		m := bytes.Clone(label)
		m[2] = id
		found[fmt.Sprintf("hash %d", id)] = m
	}
	little := bytes.Clone(label)
	little[7], little[8] = little[8], little[7]
	found["size in little endian"] = little
	digest := sha256.Sum256([]byte("no signature"))
	found["a digest only"] = append([]byte{4, 4}, digest[:]...)
	return found
}

// signFile returns the label that imaseal gives content.
func signFile(ctx context.Context, key signingKey, hash sign.Hash, content []byte) ([]byte, error) {
	signer, err := openSigner(ctx, key)
	if err != nil {
		return nil, err
	}
	h := hash.Crypto().New()
	h.Write(content)
	return signer.SignDigest(hash, h.Sum(nil))
}

// openSigner opens a key that the laboratory made.
func openSigner(ctx context.Context, key signingKey) (*sign.Signer, error) {
	k, err := keys.Open(ctx, key.key, keys.OpenOptions{})
	if err != nil {
		return nil, err
	}
	cert, err := readCertificate(key.cert)
	if err != nil {
		return nil, err
	}
	id, err := sign.KeyIDFromCertificate(cert)
	if err != nil {
		return nil, err
	}
	return sign.NewSigner(k.Signer, id)
}
