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
)

// A Key is a signing key that was opened.
type Key struct {
	crypto.Signer
	// Certificate is the one found beside the key in the same file, if any.
	Certificate *x509.Certificate
	// Note is what a user should know about how the key was opened, "" for nothing.
	Note string
}

// Close lets go of what the key holds. A key of a file holds nothing.
func (k *Key) Close() error { return nil }

// An opener opens the key that the part of a reference after its scheme names.
type opener func(ctx context.Context, rest string, p Passphrase) (*Key, error)

// schemes are the key references besides paths. A path never has a scheme: the
// reference decides, not what the disk happens to hold.
var schemes = map[string]opener{
	"file": openFile,
}

// scheme matches the beginning of a reference that is not a path.
var scheme = regexp.MustCompile(`^([a-z][a-z0-9+.-]+):`)

// Open opens the key that ref names: a path, or file:PATH. A path that has a colon
// within its first part needs ./ in front. p is asked only when the key is
// encrypted; a wrong passphrase gives [ErrWrongPassphrase].
func Open(ctx context.Context, ref string, p Passphrase) (*Key, error) {
	name, rest := splitRef(ref)
	open, ok := schemes[name]
	if !ok {
		return nil, unknownScheme(name, slices.Sorted(maps.Keys(schemes)))
	}
	return open(ctx, rest, p)
}

func unknownScheme(name string, known []string) error {
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
