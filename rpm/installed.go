package rpm

import (
	"bytes"
	"fmt"
	"io"

	"github.com/imaseal/imaseal/sign"
)

// maxInstalled is the longest main header that is read: a million files have less.
const maxInstalled = indexSize*maxMainIndex + maxMainStore

// An Installed is the main header of a package, as rpm's database keeps it. All of
// it is what the header's digests and OpenPGP signatures are over.
type Installed struct {
	main  *header
	files *fileList
	info  sign.Info
}

// An InstalledFile is a file as a main header describes it.
type InstalledFile struct {
	// Path is where the package has it, relative to the root.
	Path string
	// Regular says that it is a regular file.
	Regular bool
	// Executable says that somebody may execute it.
	Executable bool
	// Config, Ghost and MissingOK are what the packager marked it with: %config,
	// %ghost and %config(missingok).
	Config, Ghost, MissingOK bool
	// Digest is the recorded digest of its content, by Hash; nil when there is none.
	Digest []byte
	Hash   sign.Hash
}

// ReadInstalled reads the value of rpm's tag HEADERIMMUTABLE: a main header without
// the eight bytes that it begins with in a file.
func ReadInstalled(region []byte) (*Installed, error) {
	if len(region) > maxInstalled {
		return nil, fmt.Errorf("main header: %d bytes, more than %d", len(region), maxInstalled)
	}
	raw := append([]byte(headerMagic), region...)
	h, err := readHeader(bytes.NewReader(raw), 0, int64(len(raw)), mainHeader)
	if err != nil {
		return nil, err
	}
	if len(h.raw) != len(raw) || h.outside > 0 {
		return nil, fmt.Errorf("main header: %d bytes and %d tags are outside the region", len(raw)-len(h.raw), h.outside)
	}
	p := &Installed{main: h}
	if p.info, err = readInfo(h); err != nil {
		return nil, fmt.Errorf("main header: %w", err)
	}
	if p.files, err = readFileList(h); err != nil {
		return nil, err
	}
	if p.files.n > 0 {
		p.info.FileHash = p.files.hash
	}
	return p, nil
}

// Info returns what the header says of the package.
func (p *Installed) Info() sign.Info { return p.info }

// Signed returns the bytes that the header's OpenPGP signatures are over.
func (p *Installed) Signed() io.Reader { return bytes.NewReader(p.main.raw) }

// Len returns how many files the package has, those that are no regular ones
// included. The arrays of rpm's database have as many values.
func (p *Installed) Len() int { return p.files.n }

// File returns file i.
func (p *Installed) File(i int) (InstalledFile, error) {
	l := p.files
	mode, flags := l.modes.at(i), uint64(0)
	if l.flags.width > 0 {
		flags = l.flags.at(i)
	}
	f := InstalledFile{
		Path:       l.path(i),
		Regular:    mode&modeType == modeRegular,
		Executable: mode&0o111 != 0,
		Config:     flags&fileConfig != 0,
		Ghost:      flags&fileGhost != 0,
		MissingOK:  flags&fileMissingOK != 0,
	}
	digest, err := l.digest(i)
	if err != nil {
		return f, err
	}
	if digest != nil {
		f.Digest, f.Hash = digest, l.hash
	}
	return f, nil
}
