package deb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/imaseal/imaseal/sign"
)

// CanWrite reports whether Write would take m and o.
func (p *Package) CanWrite(m *sign.Manifest, o sign.WriteOptions) error {
	if p.malformed != nil {
		return fmt.Errorf("it is neither unsigned nor well signed (%w), so its original can't be given back: start from the builder's package", p.malformed)
	}
	if m == nil {
		return nil
	}
	h := p.archive.control.header
	there, err := h.rename("control.tar.gz", 0)
	if err != nil {
		return err
	}
	if back, err := there.rename(p.archive.control.name, p.archive.control.size); err != nil || back != h {
		return fmt.Errorf("offset %d: the ar header of %s is written in an odd way, so signing could not be undone: build the package with dpkg-deb", p.archive.control.offset, p.archive.control.name)
	}
	if len(p.openPGPMembers()) > 0 && o.OpenPGP == nil && !o.DropOpenPGP {
		return errors.New("it carries an OpenPGP signature, which would no longer hold: give --openpgp-key to make a new one, or --drop-openpgp-signature")
	}
	return nil
}

// Write writes the package with the manifest m, or as it was before it was signed.
func (p *Package) Write(ctx context.Context, w io.Writer, m *sign.Manifest, o sign.WriteOptions) error {
	if err := p.CanWrite(m, o); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if m == nil {
		return p.writeOriginal(w)
	}
	original, tail, err := p.originalParts()
	if err != nil {
		return err
	}
	raw, err := p.original.sealed(m, p.originalName, original, tail)
	if err != nil {
		return err
	}
	content, err := compressControl(raw)
	if err != nil {
		return err
	}
	if err := p.writeFront(w, "control.tar.gz", content); err != nil {
		return err
	}
	if err := p.writeTail(w); err != nil {
		return err
	}
	if o.OpenPGP == nil {
		return nil
	}
	return p.writeOpenPGP(ctx, w, content, o)
}

// originalParts returns the original control member and what followed data.tar.
func (p *Package) originalParts() (member, tail []byte, err error) {
	if p.signed {
		return p.originalMember, p.originalTail, nil
	}
	if n := p.archive.control.size; n > maxControl {
		return nil, nil, fmt.Errorf("%s has %d bytes, more than the %d that imaseal takes", p.archive.control.name, n, maxControl)
	}
	if member, err = io.ReadAll(p.archive.control.content(p.archive.r)); err != nil {
		return nil, nil, err
	}
	if n := p.archive.tail().Size(); n > maxTail {
		return nil, nil, fmt.Errorf("%d bytes follow data.tar, more than the %d that imaseal takes", n, maxTail)
	}
	tail, err = io.ReadAll(p.archive.tail())
	return member, tail, err
}

// maxTail bounds what may follow data.tar in a package that is signed.
const maxTail = 1 << 20

// writeOriginal gives back what the builder made.
func (p *Package) writeOriginal(w io.Writer) error {
	if !p.signed {
		return p.archive.copyTo(w, 0, p.archive.size)
	}
	if err := p.writeFront(w, p.originalName, p.originalMember); err != nil {
		return err
	}
	_, err := w.Write(p.originalTail)
	return err
}

// writeFront writes everything up to the end of data.tar, with the control member
// replaced.
func (p *Package) writeFront(w io.Writer, name string, content []byte) error {
	if err := p.archive.copyTo(w, 0, p.archive.control.offset); err != nil {
		return err
	}
	h, err := p.archive.control.header.rename(name, int64(len(content)))
	if err != nil {
		return err
	}
	if err := writeMember(w, h, content); err != nil {
		return err
	}
	return p.archive.copyTo(w, p.archive.data.offset, p.archive.data.stop())
}

// writeTail keeps the members behind data.tar but those that are OpenPGP
// signatures, which no longer hold.
func (p *Package) writeTail(w io.Writer) error {
	for _, m := range p.archive.extra {
		if isOpenPGP(m.name) {
			continue
		}
		if err := p.archive.copyTo(w, m.offset, m.stop()); err != nil {
			return err
		}
	}
	return nil
}

// writeOpenPGP signs the package as debsigs does and adds the signature.
func (p *Package) writeOpenPGP(ctx context.Context, w io.Writer, control []byte, o sign.WriteOptions) error {
	sig, err := o.OpenPGP(ctx, p.signedByOpenPGP(bytes.NewReader(control)))
	if err != nil {
		return err
	}
	return writeNewMember(w, originMember, p.mtime(), sig.Packet)
}

// mtime is the time that the control member states, so that no clock enters.
func (p *Package) mtime() time.Time {
	seconds, err := arNumber(p.archive.control.header.mtime(), 10)
	if err != nil {
		seconds = 0
	}
	return time.Unix(seconds, 0)
}
