package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys/openpgp"
	"github.com/imaseal/imaseal/rpm/rpmdb"
	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/installed"
	"github.com/imaseal/imaseal/sign/xattr"
)

// rpmFlags are the flags of a system whose packages are RPMs. Each of them says that
// it is one.
type rpmFlags struct {
	want      bool
	folder    string
	keyring   string
	filesFrom string
	stdin     io.Reader
}

func (f *rpmFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.BoolVar(&f.want, "rpm", false, "take rpm's database, though there is one of dpkg, too")
	fl.StringVar(&f.folder, "rpm-db", "", "take rpm's database in folder `DIR` below the root (default where rpm is configured to have it, or a usual place)")
}

func (f *rpmFlags) addKeyring(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.keyring, "openpgp-keyring", "", "demand of each RPM a signature by a key in `FILE` over its header, which binds names to contents")
}

func (f *rpmFlags) addFilesFrom(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.filesFrom, "files-from", "", "take the RPMs that have a file listed in `FILE`, a path a line, as rpm gives to a file trigger; - is standard input")
}

func (f *rpmFlags) wanted() bool {
	return f.want || f.folder != "" || f.keyring != "" || f.filesFrom != ""
}

// unbound reports whether nothing that is verified binds the names of s to contents.
func (f *rpmFlags) unbound(s *installed.System) bool {
	_, isRPM := s.Database.(*rpmdb.DB)
	return isRPM && f.keyring == ""
}

// open opens rpm's database below root.
func (f *rpmFlags) open(ctx context.Context, root *xattr.Root) (installed.Database, error) {
	o := rpmdb.Options{Folder: f.folder}
	if f.keyring != "" {
		keyring, err := openpgp.LoadKeyring(f.keyring)
		if err != nil {
			return nil, err
		}
		o.OpenPGP = func(s sign.OpenPGPSignature) error {
			_, err := keyring.Verify(s)
			return err
		}
	}
	db, err := rpmdb.Open(ctx, root, o)
	if err != nil {
		return nil, err
	}
	if f.filesFrom == "" {
		return db, nil
	}
	in := f.stdin
	if f.filesFrom != "-" {
		file, err := os.Open(f.filesFrom)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	}
	paths, err := rpmdb.ReadPaths(in)
	if err != nil {
		return nil, fmt.Errorf("--files-from %s: %w", f.filesFrom, err)
	}
	return db.Owning(paths), nil
}
