package sign

import (
	"context"
	"crypto/sha256"
	"io"
	"io/fs"
	"iter"
)

// A Package is an immutable view of a package file, a .deb or an RPM. Opening
// one checks its structure; the payload is read on demand. Its methods must not
// be called concurrently.
type Package interface {
	// Info returns what the package says of itself.
	Info() Info

	// Files walks the regular files that the package installs, hard links among
	// them, in payload order, and then the control files that the package manager
	// executes. A file and its Content are valid until the next step. A walk that
	// ends without an error has read and checked the whole payload, its checksums
	// and its end included. After an error the walk ends.
	Files(ctx context.Context) iter.Seq2[*File, error]

	// Manifest returns the file signatures that the package carries, nil when it
	// carries none. The error says what is malformed about them.
	Manifest() (*Manifest, error)

	// Anomalies returns what is odd about the package though it can be read, such
	// as signatures at a place where package managers do not look.
	Anomalies() []Finding

	// OpenPGP returns the signatures over the package as a whole.
	OpenPGP() []OpenPGPSignature

	// Details returns facts for a person: compression, sizes, reserve.
	Details() []Detail

	// CanWrite reports why Write would refuse o for this package, so that a
	// caller learns it before the work is done.
	CanWrite(m *Manifest, o WriteOptions) error

	// Write writes a copy of the package that carries m in place of any manifest
	// that it has; with a nil m the package as it was before it was signed, byte
	// for byte. What was written is worthless when Write fails.
	Write(ctx context.Context, w io.Writer, m *Manifest, o WriteOptions) error
}

// Stated is implemented by packages of a format that carries a [Statement].
type Stated interface {
	// Statement states what the package holds but for file signatures, the payload
	// last: see [Statement.AddSignatures]. Select, Exclude, Hash and Signature are left
	// for the caller. It reads the payload unless a walk of Files has already come to
	// its end.
	Statement(ctx context.Context) (*Statement, error)
}

// Headed is implemented by packages with a header that states the digests of all
// files, as an RPM's does.
type Headed interface {
	// HeaderSHA256 returns the SHA-256 of that header, which is the same whether the
	// package is signed or not.
	HeaderSHA256() [sha256.Size]byte
}

// Checked is implemented by packages that record digests of their own parts, as
// an RPM does of its header and its payload.
type Checked interface {
	// CheckDigests returns a finding for each recorded digest that does not hold.
	// An error means that the package could not be read.
	CheckDigests(ctx context.Context) ([]Finding, error)
}

// Info is what a package says of itself.
type Info struct {
	Format        string // "deb" or "rpm"
	FormatVersion string // "2.0" of a .deb, "4" or "6" of an RPM
	Name          string
	Version       string
	Arch          string
	// InstalledSize is how many bytes the payload is said to have, for a progress
	// bar; 0 when the package does not say.
	InstalledSize int64
	// FileHash is the hash that file signatures of the package must use, 0 where
	// any will do. In an RPM it is that of the header's file digests.
	FileHash Hash
}

// A Detail is a fact for a person.
type Detail struct{ Name, Value string }

// A File is a regular file that a package installs or, when Control is set, a
// control file that the package manager executes.
type File struct {
	// Path is where the file is installed, relative to the root, without a
	// leading slash: "usr/bin/hello". Of a control file it is the name.
	Path    string
	Control bool
	// Mode holds the permission bits, set-user-id and set-group-id included.
	Mode fs.FileMode
	Size int64
	// Link is, of a hard link without content of its own, the Path of the file
	// that carries it. That one came earlier in the walk.
	Link string
	// Recorded is the digest that the package itself states, by RecordedHash;
	// nil when it states none.
	Recorded     []byte
	RecordedHash Hash
	// Class is what the package itself states about the kind of content. It counts
	// only where Content is nil.
	Class Class
	// Content reads the file. It is nil for a hard link, and where the package was
	// opened to be trusted on its Recorded digests.
	Content io.Reader
}

// Class is a kind of content, as far as a [Selection] cares.
type Class uint8

const (
	ClassOther Class = iota
	ClassELF
	ClassScript
)

// An OpenPGPSignature is a signature over a package as a whole.
type OpenPGPSignature struct {
	// Where is the ar member or RPM tag that holds it: "_gpgorigin", "RSAHEADER".
	Where string
	// Packet is the signature, binary or armored. Where Cleartext is set it is a
	// clear-signed text, as dpkg-sig makes.
	Packet    []byte
	Cleartext bool
	// Signed returns the bytes that a detached signature is over.
	Signed func() io.Reader
}

// WriteOptions say how a copy of a package is written. The zero value keeps
// what OpenPGP signatures still hold and refuses a package of which one would
// not.
type WriteOptions struct {
	// OpenPGP, if not nil, makes a detached OpenPGP signature over what it reads,
	// for the package as a whole.
	OpenPGP func(context.Context, io.Reader) (NewOpenPGPSignature, error)
	// DropOpenPGP lets signatures go that would no longer hold.
	DropOpenPGP bool
	// Replace lets file signatures be replaced that the package carries, and an
	// OpenPGP signature that was added with them. Writing the package with a nil
	// manifest later still gives the original.
	Replace bool
	// Force is Replace, and lets things be replaced that can't be given back by
	// writing the package with a nil manifest later.
	Force bool
	// Warn, if not nil, is told what a user should know about the copy.
	Warn func(string)
}

// A NewOpenPGPSignature is a detached signature that has just been made.
type NewOpenPGPSignature struct {
	// Packet is the binary signature packet.
	Packet []byte
	// RSA says that the key is an RSA key; RPM keeps such signatures apart.
	RSA bool
}
