package deb

import (
	"bytes"
	"io"
	"strings"

	"github.com/imaseal/imaseal/sign"
)

// Whole-package signatures. debsigs puts a detached OpenPGP signature over the
// contents of debian-binary, control.tar and data.tar, as stored, into a member
// _gpgTYPE; dpkg-sig a clear-signed list of checksums into _gpgbuilder.
const (
	openPGPPrefix = "_gpg"
	originMember  = openPGPPrefix + "origin"

	// maxOpenPGP bounds a signature in bytes: the largest keys make a few KiB.
	maxOpenPGP = 64 << 10
)

func isOpenPGP(name string) bool { return strings.HasPrefix(name, openPGPPrefix) }

func (p *Package) openPGPMembers() []member {
	var found []member
	for _, m := range p.archive.extra {
		if isOpenPGP(m.name) {
			found = append(found, m)
		}
	}
	return found
}

// OpenPGP returns the signatures over the package as it is. One that is too large
// or cannot be read has an empty packet, which nobody takes for a good one.
func (p *Package) OpenPGP() []sign.OpenPGPSignature {
	var sigs []sign.OpenPGPSignature
	for _, m := range p.openPGPMembers() {
		var packet []byte
		if m.size <= maxOpenPGP {
			packet, _ = p.archive.read(&m)
		}
		sigs = append(sigs, sign.OpenPGPSignature{
			Where: m.name, Packet: packet,
			Cleartext: bytes.HasPrefix(packet, []byte("-----BEGIN PGP SIGNED MESSAGE-----")),
			Signed:    func() io.Reader { return p.signedByOpenPGP(p.archive.control.content(p.archive.r)) },
		})
	}
	return sigs
}

// signedByOpenPGP returns the bytes that a debsigs signature is over, with control
// as the content of the control member.
func (p *Package) signedByOpenPGP(control io.Reader) io.Reader {
	return io.MultiReader(p.archive.version.content(p.archive.r), control, p.archive.data.content(p.archive.r))
}
