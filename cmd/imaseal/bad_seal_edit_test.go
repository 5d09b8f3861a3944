package main

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

// The names of our control members, in their order.
const (
	scriptSeal    = "./ima-control-signatures"
	statementSeal = "./ima-package"
	fileSeal      = "./ima-signatures"
	originalSeal  = "./unsigned.control.tar.gz"
)

// A sealedDeb is a signed .deb whose control archive is taken apart: what the
// builder made of it, and the members that are ours.
type sealedDeb struct {
	ar      []arMember
	builder []byte // of the tar archive, without an end mark
	seals   []tarEntry
}

// parseSealed takes a signed .deb apart.
func parseSealed(t testing.TB, b []byte) *sealedDeb {
	t.Helper()
	d := &sealedDeb{ar: parseAr(t, b)}
	raw := gunzipped(t, d.ar[theControl].content)
	at := bytes.Index(raw, []byte(scriptSeal+"\x00"))
	if at < 0 {
		t.Fatal("the package is not signed")
	}
	d.builder, d.seals = raw[:at], parseTar(t, raw[at:])
	return d
}

// editSealed changes a signed .deb.
func editSealed(change func(t testing.TB, d *sealedDeb)) edit {
	return func(t testing.TB, good []byte) []byte {
		d := parseSealed(t, good)
		before := slices.Concat(d.builder, formatTar(t, d.seals), formatAr(d.ar))
		change(t, d)
		control := append(slices.Clone(d.builder), formatTar(t, d.seals)...)
		if bytes.Equal(append(control, formatAr(d.ar)...), before) {
			t.Fatal("the edit changed nothing")
		}
		d.ar[theControl].content = gzipped(t, control[:len(control):len(control)])
		return formatAr(d.ar)
	}
}

func (d *sealedDeb) seal(name string) *tarEntry {
	i := slices.IndexFunc(d.seals, func(e tarEntry) bool { return e.Name == name })
	return &d.seals[i]
}

func (d *sealedDeb) put(name, content string) {
	e := d.seal(name)
	e.content, e.Size = content, int64(len(content))
}

// editSeal changes the text of one of our members, as somebody without the key does.
func editSeal(name string, change func(text string) string) edit {
	return editSealed(func(_ testing.TB, d *sealedDeb) { d.put(name, change(d.seal(name).content)) })
}

// editEntriesOf changes the list of signatures in one of our members, and restates
// it, as somebody with the key could, so that nothing but the list is wrong.
func editEntriesOf(name string, change func(t testing.TB, e []sign.Entry) []sign.Entry) edit {
	return editSealed(func(t testing.TB, d *sealedDeb) {
		entries, err := sign.ParseAttributes([]byte(d.seal(name).content))
		if err != nil {
			t.Fatal(err)
		}
		d.put(name, string(sign.FormatAttributes(change(t, entries))))
		d.restate(t, nil)
	})
}

// restate signs the statement anew, with the digests that our members now have,
// after change has had its way.
func (d *sealedDeb) restate(t testing.TB, change func(s *sign.Statement)) {
	t.Helper()
	s, err := sign.ParseStatement([]byte(d.seal(statementSeal).content))
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range s.Members {
		if name := "./" + m.Name; name == scriptSeal || name == fileSeal {
			s.Members[i].SHA256 = sha256.Sum256([]byte(d.seal(name).content))
		}
	}
	if change != nil {
		change(s)
	}
	if err := s.Sign(signerOf(t, "test", nil)); err != nil {
		t.Fatal(err)
	}
	text, err := s.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	d.put(statementSeal, string(text))
}

// resign replaces the statement's signature.
func resign(change func(t testing.TB, value []byte) []byte) edit {
	return editSealed(func(t testing.TB, d *sealedDeb) {
		s, err := sign.ParseStatement([]byte(d.seal(statementSeal).content))
		if err != nil {
			t.Fatal(err)
		}
		body, _, _ := strings.Cut(d.seal(statementSeal).content, "Signature: ")
		d.put(statementSeal, body+"Signature: 0s"+base64.StdEncoding.EncodeToString(change(t, s.Signature))+"\n")
	})
}

// signerOf returns the signer with a key of sharedData, under its own key id, or
// under that of another.
func signerOf(t testing.TB, key string, under *sign.Signer) *sign.Signer {
	t.Helper()
	block, _ := pem.Decode(readShared(t, "keys/"+key+".key"))
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	block, _ = pem.Decode(readShared(t, "keys/"+key+".crt"))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	id, err := sign.KeyIDFromCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	if under != nil {
		id = under.KeyID()
	}
	s, err := sign.NewSigner(private.(crypto.Signer), id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
