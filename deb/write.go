package deb

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/imaseal/imaseal/deb/dpkgtar"
	"github.com/imaseal/imaseal/sign"
)

// signedControl is what the control archive of a signed package is called: every
// dpkg reads gzip, beside any data.tar.
const signedControl = "control.tar.gz"

// maxSignatures bounds the entries of a list of signatures: one takes more memory
// than its text. The largest package of Debian has 60,000 files.
const maxSignatures = 1 << 17

// maxTail bounds in bytes what may follow data.tar in a package that is signed.
const maxTail = 1 << 20

// CanWrite reports why Write would refuse m, nil or not, and o.
func (p *Package) CanWrite(m *sign.Manifest, o sign.WriteOptions) error {
	if p.malformed != nil {
		return fmt.Errorf("it is neither unsigned nor well signed, so its original can't be given back: start from the builder's package (%w)", p.malformed)
	}
	if m == nil {
		return nil
	}
	h := p.archive.control.header
	there, err := h.rename(signedControl, 0)
	if err != nil {
		return err
	}
	if back, err := there.rename(p.archive.control.name, p.archive.control.size); err != nil || back != h {
		return fmt.Errorf("offset %d: the ar header of %s is written in an odd way, so signing could not be undone: build the package with dpkg-deb", p.archive.control.offset, p.archive.control.name)
	}
	if n := p.archive.size - p.archive.data.stop(); n > maxTail {
		return fmt.Errorf("offset %d: %d bytes follow data.tar, at most %d are taken", p.archive.data.stop(), n, maxTail)
	}
	if found := p.openPGPMembers(); len(found) > 0 && o.OpenPGP == nil && !o.DropOpenPGP {
		return fmt.Errorf("its OpenPGP signature %s would no longer hold: give --openpgp-key to make a new one, or --drop-openpgp-signature", found[0].name)
	}
	return nil
}

// Write writes the package with the manifest m, or as it was before it was signed.
func (p *Package) Write(ctx context.Context, w io.Writer, m *sign.Manifest, o sign.WriteOptions) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.CanWrite(m, o); err != nil {
		return err
	}
	if m == nil && !p.signed {
		return p.archive.copyTo(ctx, w, 0, p.archive.size)
	}
	visible, err := p.visible()
	if err != nil {
		return err
	}
	builder, err := p.readOriginal(visible)
	if err != nil {
		return err
	}
	if m == nil {
		if err := p.writeFront(ctx, w, builder.name, builder.member); err != nil {
			return err
		}
		_, err := w.Write(builder.tail)
		return err
	}
	content, err := builder.sealed(m)
	if err != nil {
		return err
	}
	if err := p.writeFront(ctx, w, signedControl, content); err != nil {
		return err
	}
	for _, extra := range p.archive.extra {
		if isOpenPGP(extra.name) {
			continue // it no longer holds
		}
		if err := p.archive.copyTo(ctx, w, extra.offset, extra.stop()); err != nil {
			return err
		}
	}
	if o.OpenPGP == nil {
		return nil
	}
	return p.writeOpenPGP(ctx, w, content, o)
}

// gzipWriters keeps compressors, each of which has a MiB of tables to clear, for the
// next package. The signatures hardly compress, so the fastest level is as good as
// another.
var gzipWriters = sync.Pool{New: func() any {
	z, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is one that there is
	}
	return z
}}

// sealed returns the control archive with the manifest m, compressed.
func (o *original) sealed(m *sign.Manifest) ([]byte, error) {
	if m.Statement == nil {
		return nil, errors.New("the manifest has no package statement")
	}
	statement, err := m.Statement.MarshalText()
	if err != nil {
		return nil, err
	}
	contents := map[string][]byte{dpkgtar.StatementName: statement}
	for name, entries := range map[string][]sign.Entry{dpkgtar.PayloadSignatures: m.Files, dpkgtar.ControlSignatures: m.Control} {
		if len(entries) > maxSignatures {
			return nil, fmt.Errorf("%d signatures are more than the %d that are read: sign fewer files with --select exec", len(entries), maxSignatures)
		}
		for i, e := range entries {
			if err := sign.CheckPath(e.Path); err != nil {
				return nil, err
			}
			if i > 0 && entries[i-1].Path >= e.Path {
				return nil, fmt.Errorf("the manifest has %q after %q", e.Path, entries[i-1].Path)
			}
		}
		contents[name] = sign.FormatAttributes(entries)
	}
	var b bytes.Buffer
	z := gzipWriters.Get().(*gzip.Writer)
	z.Reset(&b)
	defer func() {
		z.Reset(io.Discard) // lets go of the archive
		gzipWriters.Put(z)
	}()
	n := &counter{w: z}
	if _, err := n.Write(o.entries); err != nil {
		return nil, err
	}
	if err := o.writeSeals(n, contents); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	if max(n.n, int64(b.Len())) > maxControl {
		return nil, fmt.Errorf("the control archive would have %d bytes, more than the %d that are read: sign fewer files with --select exec", n.n, maxControl)
	}
	return b.Bytes(), nil
}

// A counter counts what is written through it.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// writeFront writes everything up to the end of data.tar, with the control member
// replaced.
func (p *Package) writeFront(ctx context.Context, w io.Writer, name string, content []byte) error {
	a := p.archive
	if err := a.copyTo(ctx, w, 0, a.control.offset); err != nil {
		return err
	}
	h, err := a.control.header.rename(name, int64(len(content)))
	if err != nil {
		return err
	}
	if err := writeMember(w, h, content); err != nil {
		return err
	}
	return a.copyTo(ctx, w, a.data.offset, a.data.stop())
}

// writeOpenPGP signs the package as debsigs does and adds the signature.
func (p *Package) writeOpenPGP(ctx context.Context, w io.Writer, control []byte, o sign.WriteOptions) error {
	sig, err := o.OpenPGP(ctx, p.signedByOpenPGP(bytes.NewReader(control)))
	if err != nil {
		return err
	}
	if n := len(sig.Packet); n == 0 || n > maxOpenPGP {
		return fmt.Errorf("the OpenPGP signature has %d bytes", n)
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
