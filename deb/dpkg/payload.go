package dpkg

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"

	"github.com/imaseal/imaseal/deb/dpkgtar"
	"github.com/imaseal/imaseal/sign"
)

// A payload is what a package's archive is seen to hold while it passes by.
type payload struct {
	scanner dpkgtar.Scanner
	seal    *seal
	// shared are the paths that another instance of the package has on the system:
	// dpkg only compares them, so their content is hashed here. So is that of conffiles,
	// of which dpkg may keep the installed one.
	shared map[string]bool

	entries dpkgtar.Entries
	targets []target
	carrier map[string]int // of targets by path, made when the first hard link is met
	met     int            // signatures whose file was met

	current *hashed    // the shared file or conffile that is passing by
	unsure  *sign.File // the file that is passing by and has no signature
	err     error      // why the content is not as the package says
}

// A target is a regular file that dpkg extracts, an inode that is to be labelled.
type target struct {
	path  string
	value []byte   // nil of a file without a signature
	links []string // further names of the inode
	// What dpkg makes of it, before overrides. Owner, mode and time are those of the
	// last name, as dpkg sets them for a hard link once more.
	size, mode, modTime int64
	uid, gid            int64
	user, group         string
	digest              *hashed // of a shared file and of a conffile
}

// A hashed is the SHA-256 of a file that passes by.
type hashed struct {
	hash hash.Hash
	sum  []byte
}

// newPayload returns a payload for the package of s.
func newPayload(s *seal, shared map[string]bool) *payload {
	p := &payload{seal: s, shared: shared}
	p.scanner.Entry = p.enter
	p.scanner.Content = p.content
	return p
}

// enter takes an entry of the archive.
func (p *payload) enter(path string, h *dpkgtar.Header) error {
	if err := p.finish(); err != nil {
		return err
	}
	var value []byte
	i, signed := find(p.seal.files, path)
	if signed {
		value = p.seal.files[i].Value
		path = p.seal.files[i].Path // the same, so that its memory is there once
		p.met++
	}
	carrier, err := p.entries.Add(path, h.Kind, h.Link)
	if err != nil {
		return err
	}
	if signed && h.Kind != tar.TypeReg && h.Kind != tar.TypeLink {
		return fmt.Errorf("%q has a signature and is no regular file", path)
	}
	switch h.Kind {
	case tar.TypeReg:
		t := target{path: path, value: value, size: h.Size}
		t.take(h)
		if p.shared[path] || p.seal.conffiles[path] {
			t.digest = &hashed{hash: sha256.New()}
			p.current = t.digest
		}
		if value == nil {
			p.unsure = &sign.File{Path: path, Mode: fs.FileMode(h.Mode & 0o777), Size: h.Size}
		}
		if p.carrier != nil {
			p.carrier[path] = len(p.targets)
		}
		p.targets = append(p.targets, t)
	case tar.TypeLink:
		return p.link(path, carrier, value, h)
	}
	return nil
}

// link adds a further name to a target.
func (p *payload) link(path, carrier string, value []byte, h *dpkgtar.Header) error {
	if p.carrier == nil {
		p.carrier = map[string]int{}
		for i, t := range p.targets {
			p.carrier[t.path] = i
		}
	}
	t := &p.targets[p.carrier[carrier]]
	t.links = append(t.links, path)
	t.take(h)
	if value == nil {
		return nil
	}
	if t.value != nil && !bytes.Equal(t.value, value) {
		return fmt.Errorf("%q and %q are one file and have two signatures", carrier, path)
	}
	t.value = value
	return nil
}

// take takes from an entry what dpkg sets for its name.
func (t *target) take(h *dpkgtar.Header) {
	t.mode, t.modTime = h.Mode&0o7777, h.ModTime
	t.uid, t.gid, t.user, t.group = h.UID, h.GID, h.User, h.Group
}

// last returns the name of which dpkg set owner and mode last.
func (t *target) last() string {
	if len(t.links) > 0 {
		return t.links[len(t.links)-1]
	}
	return t.path
}

// content takes the next piece of the current file.
func (p *payload) content(piece []byte) {
	if p.current != nil {
		p.current.hash.Write(piece)
	}
	if p.unsure != nil {
		p.judge(piece)
	}
}

// judge decides by the first bytes of a file without a signature whether the package
// has to have one.
func (p *payload) judge(head []byte) {
	if p.seal.statement.Selection.Match(p.unsure, head) && p.err == nil {
		p.err = fmt.Errorf("%s has no signature, but the package says that it is signed", shown(p.unsure.Path))
	}
	p.unsure = nil
}

// finish ends the current file.
func (p *payload) finish() error {
	if p.current != nil {
		p.current.sum = p.current.hash.Sum(nil)
		p.current.hash, p.current = nil, nil
	}
	if p.unsure != nil {
		p.judge([]byte{})
	}
	return p.err
}

// end is called when the whole archive has gone by, whose digest is sum. It reports
// whether the archive is the one that was signed.
func (p *payload) end(sum []byte) error {
	if !p.scanner.Ended() {
		return errors.New("the archive has no end mark")
	}
	if err := p.finish(); err != nil {
		return err
	}
	if !bytes.Equal(sum, p.seal.data[:]) {
		return fmt.Errorf("the content is not what was signed: the SHA-256 of %s is %x, but the statement says %x", dpkgtar.PayloadDigest, sum, p.seal.data)
	}
	if p.met < len(p.seal.files) {
		for _, e := range p.seal.files {
			if !p.entries.Has(e.Path) {
				return fmt.Errorf("there is a signature of %s, but no such file", shown(e.Path))
			}
		}
	}
	return nil
}
