package keys

import (
	"context"

	"github.com/imaseal/imaseal/keys/hashivault"
)

// openHashivault opens a key of the transit engine of Vault or OpenBao.
func openHashivault(ctx context.Context, rest string, o OpenOptions) (*Key, error) {
	s, err := hashivault.Open(ctx, rest, hashivault.Options{Jobs: o.Jobs, Patience: o.Patience, Note: o.Note})
	if err != nil {
		return nil, err
	}
	return &Key{Signer: s, Note: s.Note, Jobs: s.Jobs(), close: s.Close}, nil
}
