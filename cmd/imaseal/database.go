package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/deb/dpkg"
	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/installed"
	"github.com/imaseal/imaseal/sign/xattr"
)

// openDatabase is the one place that tells dpkg's systems from rpm's. Where both
// have a database, dpkg's is taken unless a flag says otherwise: an rpm on Debian is
// a tool, not the package manager.
func openDatabase(ctx context.Context, root *xattr.Root, f *rpmFlags) (installed.Database, error) {
	if !f.wanted() && dpkg.Installed(root) {
		return dpkg.OpenDatabase(root)
	}
	db, err := f.open(ctx, root)
	if err != nil && !f.wanted() {
		return nil, fmt.Errorf("%s: there is no database of dpkg (%s), and of rpm: %w", root.Dir(), root.Name(dpkg.StatusFile), err)
	}
	return db, err
}

// systemMemoryTarget is [memoryTarget] for installed systems: half a KiB for each of a
// million files, and as much again before it is collected.
const systemMemoryTarget = 1 << 30

// systemFlags are the flags of every verb that works on an installed system.
type systemFlags struct {
	root  string
	rpm   rpmFlags
	certs []string
	cas   []string
	jobs  int
}

func (f *systemFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.root, "root", "/", "work on the system below folder `DIR`")
	f.rpm.add(cmd)
	fl.IntVarP(&f.jobs, "jobs", "j", runtime.NumCPU(), "`N` files are worked on at once (default all cores)")
	fl.Lookup("jobs").DefValue = "0" // the help must not depend on the machine
}

// addOutput adds the flags for output, in the words of a system.
func (f *systemFlags) addOutput(cmd *cobra.Command, out *outputFlags) {
	out.add(cmd)
	fl := cmd.Flags()
	fl.Lookup("json").Usage = "print one JSON object"
	fl.Lookup("verbose").Usage = "show every package and every finding"
	cmd.ValidArgsFunction = f.complete
}

// complete tells shells the names of installed packages.
func (f *systemFlags) complete(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	root, err := xattr.OpenRoot(f.root)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer root.Close()
	if f.rpm.wanted() || !dpkg.Installed(root) {
		return nil, cobra.ShellCompDirectiveNoFileComp // asking rpm takes seconds
	}
	database, err := dpkg.OpenDatabase(root)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return database.Names(), cobra.ShellCompDirectiveNoFileComp
}

func (f *systemFlags) addCerts(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringArrayVar(&f.certs, "cert", nil, "trust the keys of the certificates in `FILE`, PEM or DER; may be repeated (default those in /etc/imaseal/certs and /etc/keys/ima)")
	fl.StringArrayVar(&f.cas, "ca", nil, "each certificate must be issued by one in `FILE`; may be repeated")
}

// open opens the system. The caller closes its root.
func (f *systemFlags) open(ctx context.Context) (*installed.System, error) {
	if f.jobs < 1 {
		return nil, fmt.Errorf("--jobs %d: at least 1 is needed", f.jobs)
	}
	// What is known of all files of a system is live, unlike what is read of packages.
	debug.SetMemoryLimit(systemMemoryTarget)
	root, err := xattr.OpenRoot(f.root)
	if err != nil {
		return nil, fmt.Errorf("--root: %w", err)
	}
	database, err := openDatabase(ctx, root, &f.rpm)
	if err != nil {
		root.Close()
		return nil, err
	}
	return &installed.System{Root: root, Database: database, Jobs: f.jobs}, nil
}

// errNoCertificate says that there is nothing to verify signatures with.
var errNoCertificate = errors.New("no certificate to verify with: give --cert FILE, or put one into /etc/imaseal/certs")

// trusted returns the keys of the certificates that are named, of those that the
// system keeps when none is. It is errNoCertificate when there are none at all.
func (f *systemFlags) trusted(ctx context.Context, out *output) (*sign.TrustedKeys, error) {
	certs := f.certs
	if len(certs) == 0 {
		var err error
		if certs, err = f.keptCertificates(); err != nil {
			return nil, err
		}
	}
	if len(certs) == 0 {
		return nil, errNoCertificate
	}
	if len(f.certs) == 0 && filepath.Clean(f.root) != "/" {
		out.note("the certificates that %s itself keeps are trusted; --cert trusts others", printable(f.root))
	}
	return loadTrusted(ctx, out, certs, f.cas)
}

// keptCertificates returns the certificates that the system keeps, as the installer
// hook takes them.
func (f *systemFlags) keptCertificates() (files []string, err error) {
	for _, folder := range dpkg.CertificateFolders {
		found, err := os.ReadDir(filepath.Join(f.root, folder))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range found {
			if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
				files = append(files, filepath.Join(f.root, folder, e.Name()))
			}
		}
	}
	return files, nil
}

// config returns the configuration of the installer hook, whose rules hold for labels
// that are set later, too.
func (f *systemFlags) config(out *output) dpkg.Config {
	config, problems := dpkg.LoadConfig(f.root)
	for _, p := range problems {
		out.warn("%s", p)
	}
	return config
}

// conffiles returns the rule for configuration files: that of the installer hook, or
// that of rpm's plugin.
func (f *systemFlags) conffiles(out *output, s *installed.System) installed.Conffiles {
	if db, ok := s.Database.(interface{ Conffiles() installed.Conffiles }); ok {
		return db.Conffiles()
	}
	return f.config(out).LabelConffiles
}
