package rpm

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/imaseal/imaseal/sign"
)

// OpenPGP signatures of an RPM are detached ones over the main header, whose digests
// cover the payload, or, in the older tags PGP and GPG, over main header and payload.
// The file signatures are in the signature header and are covered by neither.
// Format 4 has one, in RSAHEADER or, for every other kind of key, DSAHEADER; format 6
// any number in OPENPGP, in base64 (rpm's sign/rpmgensig.cc).

// OpenPGP returns the signatures over the package.
func (p *Package) OpenPGP() []sign.OpenPGPSignature {
	overHeader := func() io.Reader { return bytes.NewReader(p.main.raw) }
	overBoth := func() io.Reader {
		return io.MultiReader(overHeader(), io.NewSectionReader(p.r, p.payloadAt, p.size-p.payloadAt))
	}
	var list []sign.OpenPGPSignature
	for _, t := range []struct {
		tag    uint32
		name   string
		signed func() io.Reader
	}{
		{sigRSA, "RSAHEADER", overHeader}, {sigDSA, "DSAHEADER", overHeader},
		{sigPGP, "SIGPGP", overBoth}, {sigGPG, "SIGGPG", overBoth},
	} {
		if e := p.sig.find(t.tag); e != nil {
			list = append(list, sign.OpenPGPSignature{Where: t.name, Packet: bytes.Clone(e.data), Signed: t.signed})
		}
	}
	e := p.sig.find(sigOpenPGP)
	if e == nil {
		return list
	}
	s, err := e.strings()
	if err != nil {
		return append(list, sign.OpenPGPSignature{Where: "OPENPGP", Packet: bytes.Clone(e.data), Signed: overHeader})
	}
	for i := range s.len() {
		packet, err := base64.StdEncoding.AppendDecode(nil, s.at(i))
		if err != nil {
			packet = bytes.Clone(s.at(i))
		}
		list = append(list, sign.OpenPGPSignature{Where: "OPENPGP", Packet: packet, Signed: overHeader})
	}
	return list
}

// checkOpenPGP reports why a new OpenPGP signature cannot be added.
func (p *Package) checkOpenPGP(o sign.WriteOptions) error {
	if o.OpenPGP == nil || o.Force || p.info.FormatVersion != "4" {
		return nil
	}
	if o.Replace && !slices.ContainsFunc(dropMarked(p.sig.entries), func(e entry) bool { return slices.Contains(openPGPTags, e.tag) }) {
		return nil // the one that is there was added with file signatures, and goes with them
	}
	if list := p.OpenPGP(); len(list) > 0 {
		return fmt.Errorf("it has an OpenPGP signature (%s), and format 4 has room for one: --force replaces it, which unsign cannot undo", list[0].Where)
	}
	return nil
}

// addOpenPGP makes a signature over the main header and puts it into entries. In
// format 4 it replaces all others.
func (p *Package) addOpenPGP(ctx context.Context, entries []entry, o sign.WriteOptions) ([]entry, error) {
	s, err := o.OpenPGP(ctx, bytes.NewReader(p.main.raw))
	if err != nil {
		return nil, fmt.Errorf("OpenPGP signature: %w", err)
	}
	if len(s.Packet) == 0 {
		return nil, errors.New("OpenPGP signature: it is empty")
	}
	added := entry{tag: sigDSA, kind: typeBin, count: uint32(len(s.Packet)), data: s.Packet}
	if s.RSA {
		added.tag = sigRSA
	}
	final := false // it takes the place of one that cannot be given back
	if p.info.FormatVersion == "4" {
		entries = dropMarked(entries)
		kept := without(entries, openPGPTags...)
		final = len(kept) < len(entries)
		entries = kept
	} else {
		text := append(base64.StdEncoding.AppendEncode(nil, s.Packet), 0)
		added = entry{tag: sigOpenPGP, kind: typeStringArray, count: 1, data: text}
		if i := slices.IndexFunc(entries, func(e entry) bool { return e.tag == sigOpenPGP }); i >= 0 {
			if entries[i].kind != typeStringArray {
				return nil, fmt.Errorf("signature header: tag %d has type %d, not an array of strings", sigOpenPGP, entries[i].kind)
			}
			added.count += entries[i].count
			added.data = append(bytes.Clone(entries[i].data), text...)
			entries = without(entries, sigOpenPGP)
		}
	}
	entries = append(slices.Clone(entries), added)
	if final {
		o.Warn(fmt.Sprintf("its OpenPGP signature (%s) is replaced, which unsign cannot undo", p.OpenPGP()[0].Where))
		return entries, nil
	}
	if !addMark(entries, markOf(s.Packet)) {
		o.Warn("the package has no reserved space to note the OpenPGP signature in: unsign will leave that signature there")
	}
	return entries, nil
}

// dropOpenPGP takes away the OpenPGP signature that a mark stands for.
func dropOpenPGP(entries []entry, mark []byte) []entry {
	for i, e := range entries {
		switch e.tag {
		case sigRSA, sigDSA:
			if bytes.Equal(markOf(e.data), mark) {
				return slices.Delete(entries, i, i+1)
			}
		case sigOpenPGP:
			kept := entry{tag: e.tag, kind: e.kind}
			s, err := e.strings()
			if err != nil {
				continue
			}
			for k := range s.len() {
				packet, err := base64.StdEncoding.AppendDecode(nil, s.at(k))
				if err != nil || !bytes.Equal(markOf(packet), mark) {
					kept.data = append(append(kept.data, s.at(k)...), 0)
					kept.count++
				}
			}
			if kept.count == 0 {
				return slices.Delete(entries, i, i+1)
			}
			entries[i] = kept
		}
	}
	return entries
}
