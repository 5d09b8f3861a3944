package rpmdb

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/imaseal/imaseal/rpm"
	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/installed"
)

// States of a file, rpmfileState of rpm's rpmfiles.h.
const (
	stateNormal       = 0
	stateReplaced     = 1 // another package has put its own there
	stateNotInstalled = 2 // documentation or a language that was not asked for
	stateNetShared    = 3 // in a folder that another machine looks after
	stateWrongColor   = 4 // the same name of another architecture is there
)

// convert returns the package that rec describes, or which one is in error.
func (db *DB) convert(rec *record) (*installed.Package, error) {
	p := &installed.Package{Format: "rpm", Name: rec.name, Version: rec.version + "-" + rec.release, Arch: rec.arch}
	fail := func(err error) (*installed.Package, error) {
		return p, fmt.Errorf("%s-%s.%s in rpm's database: %w", p.Name, p.Version, p.Arch, err)
	}
	if len(rec.region) == 0 {
		return fail(errors.New("it has no immutable header, as packages of format 3 (rpm before 4.0): nothing covers its names"))
	}
	h, err := rpm.ReadInstalled(rec.region)
	if err != nil {
		return fail(err)
	}
	info := h.Info()
	if info.Name != rec.name {
		return fail(fmt.Errorf("its header is that of %q", info.Name))
	}
	p.Version, p.Arch = info.Version, info.Arch
	if h.Len() > 0 && len(rec.states) != h.Len() {
		return fail(fmt.Errorf("%d file states (FILESTATES) for %d files", len(rec.states), h.Len()))
	}
	if len(rec.relocated) > 0 && len(rec.relocated) != h.Len() {
		return fail(fmt.Errorf("it was relocated, and has %d names for %d files", len(rec.relocated), h.Len()))
	}
	var values [][]byte
	if values, p.Malformed = decodeSignatures(rec.signatures, h); p.Malformed == nil {
		p.Signed = len(rec.signatures) > 0
	}
	for i := range h.Len() {
		f, err := h.File(i)
		if err != nil {
			return fail(err)
		}
		file, ok, err := fileOf(f, rec.states[i])
		if err != nil {
			return fail(err)
		}
		if !ok {
			continue
		}
		if len(rec.relocated) > 0 {
			file.Shipped, file.Path = f.Path, strings.TrimPrefix(rec.relocated[i], "/")
			if err := sign.CheckPath(file.Path); err != nil {
				return fail(fmt.Errorf("relocated file: %w", err))
			}
		}
		if values != nil && file.Digest != nil {
			file.Value = values[i]
		}
		p.Files = append(p.Files, file)
	}
	if db.verify != nil {
		verdict := db.verifyHeader(rec, h)
		p.Verify = func(*sign.TrustedKeys) error { return verdict }
	}
	return p, nil
}

// fileOf returns what is to be known of the file f; ok is false where its name has
// another owner, or no label.
func fileOf(f rpm.InstalledFile, state int64) (file installed.File, ok bool, err error) {
	if !f.Regular {
		return file, false, nil
	}
	file = installed.File{Path: f.Path, Config: f.Config, Optional: f.Ghost || f.MissingOK}
	switch state {
	case stateNormal:
	case stateNotInstalled:
		file.Optional = true
	case stateNetShared:
		// rpm does not look at it either; the name is the package's all the same.
		file.Optional = true
		return file, true, nil
	case stateReplaced, stateWrongColor:
		return file, false, nil
	default:
		return file, false, fmt.Errorf("%q is in state %d, which is not known", f.Path, state)
	}
	// The content of a ghost is not the package's.
	if !f.Ghost {
		file.Digest, file.Hash = f.Digest, f.Hash
	}
	return file, true, nil
}

// decodeSignatures returns the values of security.ima in the order of the header's
// files, nil where there is none. As rpm does it takes none of the package where one
// of them cannot be read, or their number is wrong (its lib/rpmfi.cc), and none that
// is too short or filled with zeros (its plugins/ima.c).
func decodeSignatures(text []string, h *rpm.Installed) ([][]byte, error) {
	if len(text) == 0 {
		return nil, nil
	}
	if len(text) != h.Len() {
		return nil, fmt.Errorf("%d file signatures (FILESIGNATURES) for %d files", len(text), h.Len())
	}
	values := make([][]byte, len(text))
	for i, s := range text {
		value, err := hex.DecodeString(s)
		if err != nil {
			return nil, fmt.Errorf("file signature %d (FILESIGNATURES): %w", i, err)
		}
		if len(value) >= signatureHead && slices.Max(value[:signatureHead]) > 0 {
			values[i] = value
		}
	}
	return values, nil
}

// signatureHead is the length of what stands in front of the signature proper.
const signatureHead = 9

// verifyHeader reports whether a trusted key signed the main header h, which names
// the files and their digests.
func (db *DB) verifyHeader(rec *record, h *rpm.Installed) error {
	var list []sign.OpenPGPSignature
	add := func(where string, packet []byte) {
		if len(packet) > 0 {
			list = append(list, sign.OpenPGPSignature{Where: where, Packet: packet, Signed: h.Signed})
		}
	}
	add("RSAHEADER", rec.rsa)
	add("DSAHEADER", rec.dsa)
	for _, text := range rec.openPGP {
		packet, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return fmt.Errorf("OpenPGP signature (OPENPGP): %w", err)
		}
		add("OPENPGP", packet)
	}
	if len(list) == 0 {
		return errors.New("its header has no OpenPGP signature, so that nothing binds its names to their contents")
	}
	var first error
	for _, s := range list {
		err := db.verify(s)
		if err == nil {
			return nil
		}
		if first == nil {
			first = fmt.Errorf("OpenPGP signature (%s) over its header: %w", s.Where, err)
		}
	}
	return first
}
