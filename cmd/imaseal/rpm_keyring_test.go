package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/rpm"
	"github.com/imaseal/imaseal/sign"
)

// TestRPMKeyring: the signature over its header binds a package's names to contents.
func TestRPMKeyring(t *testing.T) {
	const openPGP = "../../keys/openpgp/testdata/"
	r := newRPMRoot(t, "rpm")
	single := func(name string, sign ...string) string {
		return r.build(name, "1", "mkdir -p usr/bin; echo "+name+" >usr/bin/"+name, "/usr/bin/"+name, sign...)
	}
	ed25519, rsa := single("by-ed25519", "--openpgp-key", openPGP+"ed25519.key.asc"), single("by-rsa", "--openpgp-key", openPGP+"rsa.key.asc")
	r.install("--noplugins", ed25519)
	r.system(0, "apply")
	text := r.system(0, "check", "--openpgp-keyring", openPGP+"ed25519.asc")
	r.says(text, "by-ed25519:noarch", "ok")
	if strings.Contains(text, "on trust") {
		t.Errorf("it was verified:\n%s", text)
	}
	r.says(r.system(0, "check"), "on trust")

	// A good signature, but over another header: rpm itself may see it.
	moved := single("moved")
	transplant(t, rsa, moved, false)
	r.install("--noplugins", rsa, moved, single("by-other", "--openpgp-key", openPGP+"other.key.asc"), single("by-none"))
	r.says(r.system(2, "check"), "rpm says: ", "BAD")
	r.tool(r.rpm[0], append(r.rpm[1:len(r.rpm):len(r.rpm)], "-e", "--nodeps", "--nosignature", "moved")...)

	// It does not when the two bytes are right by which it guesses.
	transplant(t, rsa, moved, true)
	r.install("--noplugins", moved)
	text = r.system(1, "apply", "--openpgp-keyring", openPGP+"rsa.asc")
	r.says(text, "moved:noarch: bad statement", "by-other:noarch: bad statement", "by-none:noarch: bad statement",
		"no OpenPGP signature", "OpenPGP signature (RSAHEADER) over its header")
	if labels := r.labels(); labels["/usr/bin/by-rsa"] == "" || len(labels) != 2 {
		t.Errorf("labelled: %q", labels)
	}
	r.system(0, "apply")
	r.says(r.system(0, "check"), "5 signed packages")
	r.says(r.system(1, "check", "--openpgp-keyring", openPGP+"rsa.asc"), "moved:noarch: bad statement", "by-none:noarch: bad statement")
}

// TestRPMFormat6: packages of format 6 keep their OpenPGP signatures in another tag.
func TestRPMFormat6(t *testing.T) {
	const openPGP = "../../keys/openpgp/testdata/"
	r := newRPMRoot(t, rpm6(t))
	r.rpmbuild = []string{filepath.Join(filepath.Dir(r.rpm[0]), "rpmbuild"), "--define", "_rpmformat 6"}
	six := r.build("six", "1", "mkdir -p usr/bin; echo six >usr/bin/six", "/usr/bin/six", "--openpgp-key", openPGP+"rsa.key.asc")
	r.says(r.imaseal(0, "inspect", six), "rpm 6")
	r.install("--noplugins", six)
	r.system(0, "apply", "--openpgp-keyring", openPGP+"rsa.asc")
	r.says(r.system(0, "check", "--openpgp-keyring", openPGP+"rsa.asc"), "six:noarch", "ok")
	r.says(r.system(1, "check", "--openpgp-keyring", openPGP+"other.asc"), "OpenPGP signature (OPENPGP) over its header")
}

// transplant puts the OpenPGP signature of a package by an RSA key into another.
// guess has the bytes be right that tell without the key whether it may hold.
func transplant(t *testing.T, from, into string, guess bool) {
	t.Helper()
	read := func(path string) *rpm.Package {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p, err := rpm.Open(bytes.NewReader(raw), int64(len(raw)), rpm.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	packet := read(from).OpenPGP()[0].Packet
	p := read(into)
	m, err := p.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = p.Write(t.Context(), &out, m, sign.WriteOptions{Force: true, Warn: func(string) {}, OpenPGP: func(_ context.Context, header io.Reader) (sign.NewOpenPGPSignature, error) {
		if guess {
			setGuess(t, packet, header)
		}
		return sign.NewOpenPGPSignature{Packet: packet, RSA: true}, nil
	}})
	if err == nil {
		err = os.WriteFile(into, out.Bytes(), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// setGuess sets the left 16 bits of the digest in a signature packet (RFC 9580, 5.2.3).
func setGuess(t *testing.T, packet []byte, signed io.Reader) {
	t.Helper()
	at := bytes.Index(packet, []byte{4, 0, 1, 8}) // version 4, binary, RSA, SHA-256
	if at < 0 || at > 6 {
		t.Fatalf("not the packet that was expected: %x", packet)
	}
	body := packet[at:]
	hashed := 6 + int(body[4])<<8 + int(body[5])
	h := sha256.New()
	io.Copy(h, signed)
	h.Write(body[:hashed])
	h.Write(binary.BigEndian.AppendUint32([]byte{4, 0xff}, uint32(hashed)))
	unhashed := int(body[hashed])<<8 + int(body[hashed+1])
	copy(body[hashed+2+unhashed:], h.Sum(nil)[:2])
}
