package keys

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A Key is a signing key that was opened.
type Key struct {
	crypto.Signer
	// Certificate is the one found beside the key in the same file, if any.
	Certificate *x509.Certificate
	// Note is what a user should know about how the key was opened, "" for nothing.
	Note string
	// Jobs is how many calls of Sign are worth making at once: the sessions of a
	// token, what a service takes in flight. 0 means as many as there are cores.
	Jobs int

	close func() error
}

// Close lets go of what the key holds: the sessions of a token, a connection, a
// program. A key of a file holds nothing.
func (k *Key) Close() error {
	if k.close == nil {
		return nil
	}
	return k.close()
}

// OpenOptions say how a key is opened and used.
type OpenOptions struct {
	// Passphrase is asked for the passphrase of an encrypted file and the PIN of a
	// token, at most once. It may be nil where neither is needed.
	Passphrase Passphrase
	// Jobs is how many signatures a token or a service is asked for at once; 0
	// leaves that to the kind of key.
	Jobs int
	// Patience is how long a service may fail, without a signature between, before it
	// is given up; 0 leaves that to the kind of key.
	Patience time.Duration
	// Note, if not nil, is told what a user should know while the key is in use,
	// such as that a service is asked again. It may be called concurrently.
	Note func(string)
}

// An opener opens the key that the part of a reference after its scheme names. The
// key lives no longer than ctx.
type opener func(ctx context.Context, rest string, o OpenOptions) (*Key, error)

// schemes are the key references besides paths. A path never has a scheme: the
// reference decides, not what the disk happens to hold.
var schemes = map[string]opener{
	"file":       openFile,
	"pkcs11":     openPKCS11,
	"hashivault": openHashivault,
	"exec":       openExec,
	"awskms":     openCloud("awskms", "aws"),
	"gcpkms":     openCloud("gcpkms", "gcp"),
	"azurekms":   openCloud("azurekms", "azure"),
}

// scheme matches the beginning of a reference that is not a path.
var scheme = regexp.MustCompile(`^([a-z][a-z0-9+.-]+):`)

// Open opens the key that ref names: a path, or file:PATH. A path that has a colon
// within its first part needs ./ in front. A wrong passphrase gives
// [ErrWrongPassphrase]. The key cannot be used after ctx is done; Close it.
func Open(ctx context.Context, ref string, o OpenOptions) (*Key, error) {
	name, rest := splitRef(ref)
	open, ok := schemes[name]
	if !ok {
		return nil, UnknownScheme(ref, slices.Sorted(maps.Keys(schemes))...)
	}
	return open(ctx, rest, o)
}

// UnknownScheme is the error for a reference of a kind that is not known where it is
// used; known are the schemes that are.
func UnknownScheme(ref string, known ...string) error {
	name, _ := splitRef(ref)
	return fmt.Errorf("key %s:…: this build knows no keys of that kind, but paths and %s:; for a file of that name write ./%s:…",
		name, strings.Join(known, ":, "), name)
}

// splitRef returns the scheme of a reference, "file" for a path, and what follows.
func splitRef(ref string) (name, rest string) {
	if m := scheme.FindStringSubmatch(ref); m != nil {
		return m[1], strings.TrimPrefix(ref, m[0])
	}
	return "file", ref
}

// FileOf returns the path of the file that ref names, false when it names none.
func FileOf(ref string) (path string, ok bool) {
	name, path := splitRef(ref)
	return path, name == "file"
}
