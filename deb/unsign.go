package deb

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/imaseal/imaseal/deb/dpkgtar"
	"github.com/imaseal/imaseal/internal/atomicfile"
	"github.com/imaseal/imaseal/internal/compression"
	"github.com/imaseal/imaseal/sign"
)

// An original is what of a package, signed or not, is as the builder made it.
type original struct {
	name    string // of the control member
	member  []byte // its content, compressed
	entries []byte // the same decompressed, up to its end mark
	control *controlMember
	tail    []byte // what follows data.tar
}

// readOriginal returns the builder's part of the control archive visible and of what
// follows data.tar.
func (p *Package) readOriginal(visible *control) (*original, error) {
	o := &original{name: p.archive.control.name, entries: visible.raw[:visible.end], control: visible.member("control")}
	var err error
	if p.signed {
		first, unsigned, tail, err := seals(visible)
		if err != nil {
			return nil, err
		}
		o.name = strings.TrimPrefix(unsigned.name, dpkgtar.UnsignedPrefix)
		o.member, o.entries = unsigned.content, visible.raw[:first]
		if tail != nil {
			o.tail = tail.content
		}
		return o, nil
	}
	if o.member, err = p.archive.read(&p.archive.control); err != nil {
		return nil, err
	}
	o.tail = make([]byte, p.archive.size-p.archive.data.stop())
	n, err := p.archive.r.ReadAt(o.tail, p.archive.data.stop())
	if n < len(o.tail) {
		return nil, noEOF(err)
	}
	return o, nil
}

// seals finds the members that imaseal added to c: where they begin, and those two
// that hold the original. None of them may be missing or stand among the others.
func seals(c *control) (first int, unsigned, tail *controlMember, err error) {
	found := 0
	for i := range c.members {
		m := &c.members[i]
		switch {
		case !dpkgtar.Ours(m.name):
			if found > 0 {
				return 0, nil, nil, fmt.Errorf("control member %s stands behind %s, where none of the builder's can be", m.name, c.members[i-1].name)
			}
			continue
		case m.name == unsignedTail:
			tail = m
		case strings.HasPrefix(m.name, dpkgtar.UnsignedPrefix):
			if unsigned != nil {
				return 0, nil, nil, fmt.Errorf("control members %s and %s: a package has one original", unsigned.name, m.name)
			}
			unsigned = m
		}
		if found++; found == 1 {
			first = m.header
		}
	}
	var missing []string
	for _, name := range []string{dpkgtar.ControlSignatures, dpkgtar.StatementName, dpkgtar.PayloadSignatures} {
		if c.member(name) == nil {
			missing = append(missing, name)
		}
	}
	if unsigned == nil {
		missing = append(missing, dpkgtar.UnsignedPrefix+"control.tar")
	}
	if len(missing) > 0 {
		return 0, nil, nil, fmt.Errorf("control members of a signed package are there, but not %s", strings.Join(missing, ", "))
	}
	return first, unsigned, tail, nil
}

// readSigned checks that the visible control archive of a signed package is, to the
// byte, what signing the embedded original makes of it, and returns the manifest.
func (p *Package) readSigned(visible *control) (*sign.Manifest, error) {
	o, err := p.readOriginal(visible)
	if err != nil {
		return nil, err
	}
	if p.archive.control.name != signedControl {
		return nil, fmt.Errorf("the control archive of a signed package is %s, not %s", signedControl, p.archive.control.name)
	}
	if err := o.checkEntries(); err != nil {
		return nil, fmt.Errorf("control member %s%s: %w", dpkgtar.UnsignedPrefix, o.name, err)
	}
	if err := p.checkTail(o.tail, visible.member(unsignedTail) != nil); err != nil {
		return nil, fmt.Errorf("control member %s: %w", unsignedTail, err)
	}
	contents := map[string][]byte{}
	for _, name := range []string{dpkgtar.ControlSignatures, dpkgtar.StatementName, dpkgtar.PayloadSignatures} {
		contents[name] = visible.member(name).content
	}
	rest := &comparer{want: visible.raw[len(o.entries):]}
	if err := o.writeSeals(rest, contents); err != nil || len(rest.want) > 0 {
		at := len(visible.raw) - len(rest.want)
		return nil, fmt.Errorf("%s: tar archive at offset %d: not laid out as that of a signed package: members have other headers or another order", signedControl, at)
	}
	m := new(sign.Manifest)
	if m.Files, err = parseSignatures(dpkgtar.PayloadSignatures, contents); err != nil {
		return nil, err
	}
	if m.Control, err = parseSignatures(dpkgtar.ControlSignatures, contents); err != nil {
		return nil, err
	}
	if m.Statement, err = sign.ParseStatement(contents[dpkgtar.StatementName]); err != nil {
		return nil, fmt.Errorf("control member %s: %w", dpkgtar.StatementName, err)
	}
	return m, nil
}

func parseSignatures(name string, contents map[string][]byte) ([]sign.Entry, error) {
	if n := bytes.Count(contents[name], []byte("# file: ")); n > maxSignatures {
		return nil, fmt.Errorf("control member %s has %d entries, at most %d are taken", name, n, maxSignatures)
	}
	entries, err := sign.ParseAttributes(contents[name])
	if err != nil {
		return nil, fmt.Errorf("control member %s: %w", name, err)
	}
	size := 0
	for _, e := range entries {
		size += len(e.Path)
	}
	if size > dpkgtar.MaxNameBytes {
		return nil, fmt.Errorf("control member %s has names of %d bytes, more than a package may have", name, size)
	}
	return entries, nil
}

// checkEntries decompresses the embedded original: it must have the visible entries
// and an end.
func (o *original) checkEntries() error {
	if !strings.HasPrefix(o.name+".", "control.tar.") {
		return errors.New("the name is not that of a control archive")
	}
	content := io.NewSectionReader(bytes.NewReader(o.member), 0, int64(len(o.member)))
	if err := oneControlStream(o.name, content); err != nil {
		return err
	}
	body, err := decompress(o.name, content)
	if err != nil {
		return err
	}
	defer body.Close()
	in := compression.Limit(body, maxControl, o.name)
	differs := errors.New("it does not have the entries that the package shows")
	visible := &comparer{want: o.entries}
	if _, err := io.CopyN(visible, in, int64(len(o.entries))); errors.Is(err, errDiffers) || err == io.EOF {
		return differs
	} else if err != nil {
		return err
	}
	const most = dpkgtar.MaxPadding + 2*dpkgtar.BlockSize // the end mark and what may follow it
	padding, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return err
	}
	if len(padding) < dpkgtar.BlockSize || len(padding) > most || bytes.Count(padding, []byte{0}) != len(padding) {
		return differs
	}
	return nil
}

// checkTail checks the original tail, and that what follows data.tar is the same
// but for OpenPGP signatures.
func (p *Package) checkTail(tail []byte, there bool) error {
	if there && (len(tail) == 0 || len(tail) > maxTail) {
		return fmt.Errorf("it has %d bytes", len(tail))
	}
	r := bytes.NewReader(tail)
	before, err := scanTail(r, r.Size(), 0)
	if err != nil {
		return err
	}
	var want, have []member
	for _, m := range before {
		if !isOpenPGP(m.name) {
			want = append(want, m)
		}
	}
	for _, m := range p.archive.extra {
		if !isOpenPGP(m.name) {
			have = append(have, m)
		}
	}
	if len(want) != len(have) {
		return fmt.Errorf("%d ar members other than OpenPGP signatures follow data.tar, once there were %d", len(have), len(want))
	}
	for i, m := range have {
		same := &comparer{want: tail[want[i].offset:want[i].stop()]}
		if err := atomicfile.CopyRange(same, p.archive.r, m.offset, m.stop()-m.offset); err != nil || len(same.want) > 0 {
			return fmt.Errorf("offset %d: ar member %q is not what it once was", m.offset, m.name)
		}
	}
	return nil
}

// writeSeals writes the members that imaseal adds behind the entries of the
// original, and the end mark. contents are those of the members with signatures.
func (o *original) writeSeals(w io.Writer, contents map[string][]byte) error {
	t := tar.NewWriter(w)
	for _, a := range []struct {
		name    string
		content []byte
	}{
		{dpkgtar.ControlSignatures, contents[dpkgtar.ControlSignatures]},
		{dpkgtar.StatementName, contents[dpkgtar.StatementName]},
		{dpkgtar.PayloadSignatures, contents[dpkgtar.PayloadSignatures]},
		{dpkgtar.UnsignedPrefix + o.name, o.member},
		{unsignedTail, o.tail},
	} {
		if a.name == unsignedTail && len(a.content) == 0 {
			continue
		}
		err := t.WriteHeader(&tar.Header{
			Name: "./" + a.name, Mode: 0o644, Size: int64(len(a.content)),
			ModTime: o.control.mtime, Format: tar.FormatGNU,
		})
		if err != nil {
			return err
		}
		if _, err := t.Write(a.content); err != nil {
			return err
		}
	}
	return t.Close()
}

var errDiffers = errors.New("not the same")

// A comparer takes what it wants, and nothing else.
type comparer struct{ want []byte }

func (c *comparer) Write(p []byte) (int, error) {
	rest, same := bytes.CutPrefix(c.want, p)
	if !same {
		return 0, errDiffers
	}
	c.want = rest
	return len(p), nil
}
