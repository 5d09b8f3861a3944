package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/xattr"
)

// The outcomes of a proof.
const (
	proofLabelled    = "labelled"     // the file got its signature
	proofNotLabelled = "not labelled" // it was installed without
	proofRefused     = "refused"      // the package was not installed
	proofNone        = "not proven"   // it could not be tried
)

// A proof is what became of a tiny signed package.
type proof struct {
	Outcome string
	Detail  string // why, where there is a reason
}

// proofFile is the one file of the tiny package. It is at no place that a
// configuration of dpkg would exclude.
const proofFile = "usr/lib/imaseal-proof/file"

// A prover installs a tiny package that is signed by a key of the moment into scratch
// roots of its own. It must be closed, after which nothing of it is left.
type prover struct {
	root    string // of the system whose dpkg is tried
	scratch string // a private folder, below root
	label   []byte // what the file must get
}

func newProver(ctx context.Context, root string) (*prover, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("only root can install packages")
	}
	scratch, err := os.MkdirTemp(filepath.Join(root, "var/tmp"), "imaseal-proof-")
	if err != nil {
		return nil, err
	}
	p := &prover{root: root, scratch: scratch}
	if err := p.makePackage(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *prover) Close() error { return os.RemoveAll(p.scratch) }

func (p *prover) deb() string { return filepath.Join(p.scratch, "proof.deb") }

// makePackage makes the package and signs it.
func (p *prover) makePackage(ctx context.Context) error {
	tree := filepath.Join(p.scratch, "tree")
	for name, text := range map[string]string{
		"DEBIAN/control": "Package: imaseal-proof\nVersion: 1\nArchitecture: all\nMaintainer: imaseal <imaseal@localhost>\nDescription: proves that the installer hook is in use\n",
		proofFile:        "This file belongs to a test that should have removed it.\n",
	} {
		name = filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	unsigned := filepath.Join(p.scratch, "unsigned.deb")
	if out, err := exec.CommandContext(ctx, "dpkg-deb", "--root-owner-group", "--build", tree, unsigned).CombinedOutput(); err != nil {
		return fmt.Errorf("dpkg-deb: %w: %s", err, bytes.TrimSpace(out))
	}
	f, err := openRegular(unsigned)
	if err != nil {
		return err
	}
	defer f.Close()
	pkg, err := openPackage(f, openOptions{jobs: 1})
	if err != nil {
		return err
	}
	signer, err := p.makeKey()
	if err != nil {
		return err
	}
	manifest, err := sign.Sign(ctx, pkg, signer, sign.Options{Jobs: 1})
	if err != nil {
		return err
	}
	if len(manifest.Files) != 1 {
		return fmt.Errorf("the package for the proof has %d signatures, not 1", len(manifest.Files))
	}
	p.label = manifest.Files[0].Value
	w, err := os.OpenFile(p.deb(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(pkg.Write(ctx, w, manifest, sign.WriteOptions{}), w.Close())
}

// makeKey makes a key that nobody keeps, and its certificate.
func (p *prover) makeKey() (*sign.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	skid, err := sign.SubjectKeyID(key.Public())
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "imaseal hook status"}, SubjectKeyId: skid,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	for _, folder := range []string{"certs", "log"} {
		if err := os.Mkdir(filepath.Join(p.scratch, folder), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(p.scratch, "certs/proof.der"), der, 0o644); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(p.scratch, "socket"), nil, 0o644); err != nil {
		return nil, err
	}
	id, err := sign.KeyIDFromPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return sign.NewSigner(key, id)
}

// try installs the package as a dpkg with the given PATH does.
func (p *prover) try(ctx context.Context, path string) proof {
	none := func(err error) proof { return proof{proofNone, err.Error()} }
	dir, err := os.MkdirTemp(p.scratch, "root-")
	if err != nil {
		return none(err)
	}
	for _, folder := range []string{"info", "updates"} {
		if err := os.MkdirAll(filepath.Join(dir, "var/lib/dpkg", folder), 0o755); err != nil {
			return none(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "var/lib/dpkg/status"), nil, 0o644); err != nil {
		return none(err)
	}
	scratch, err := xattr.OpenRoot(dir)
	if err != nil {
		return none(err)
	}
	defer scratch.Close()
	if err := p.takesLabels(scratch); err != nil {
		return none(err)
	}
	out, err := p.dpkg(ctx, path, dir)
	if os.Remove(filepath.Join(p.scratch, "started")) != nil {
		return none(fmt.Errorf("no mounts can be made that only one command sees: %s", lastLines(out)))
	}
	installed, openErr := scratch.Open(proofFile)
	if openErr != nil {
		if err == nil {
			return none(openErr)
		}
		return proof{proofRefused, lastLines(out)}
	}
	defer installed.Close()
	label, err := installed.Get(sign.XattrName)
	if err != nil {
		return none(err)
	}
	switch {
	case bytes.Equal(label, p.label):
		return proof{Outcome: proofLabelled}
	case label != nil:
		return proof{proofNotLabelled, "its attribute " + sign.XattrName + " is none that the package carries"}
	}
	return proof{proofNotLabelled, lastLines(out)}
}

// takesLabels reports why a label could not be set there by anybody.
func (p *prover) takesLabels(scratch *xattr.Root) error {
	const name = "label"
	if err := os.WriteFile(filepath.Join(scratch.Dir(), name), nil, 0o644); err != nil {
		return err
	}
	f, err := scratch.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Set(sign.XattrName, p.label)
}

// privately runs a command in the root $1 with mounts that only it sees: the
// certificate of the proof in place of the system's, and what the hook logs goes to
// $2 instead of the system's logs.
const privately = `set -e
root=$1 scratch=$2
shift 2
for folder in "$root/etc/imaseal/certs" "$root/etc/keys/ima"; do
	[ ! -d "$folder" ] || mount --bind "$scratch/certs" "$folder"
done
[ ! -d "$root/var/log/imaseal" ] || mount --bind "$scratch/log" "$root/var/log/imaseal"
[ ! -e "$root/dev/log" ] || mount --bind "$scratch/socket" "$root/dev/log"
[ -e "$root/proc/self" ] || [ ! -d "$root/proc" ] || mount -t proc proc "$root/proc"
touch "$scratch/started"
exec chroot "$root" "$@"
`

// dpkg installs the package into the root dir by the dpkg of the system, and returns
// what it said.
func (p *prover) dpkg(ctx context.Context, path, dir string) ([]byte, error) {
	inside := func(name string) string { return "/" + strings.TrimPrefix(strings.TrimPrefix(name, p.root), "/") }
	// env finds dpkg in the PATH that it sets, and drops what the caller's environment
	// says of dpkg.
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "sh", "-c", privately, "sh", p.root, p.scratch,
		"/usr/bin/env", "-i", "PATH="+path, "HOME=/root", "LC_ALL=C.UTF-8",
		"dpkg", "--root="+inside(dir), "--log="+inside(filepath.Join(dir, "log")), "--force-bad-path", "--no-triggers", "--install", inside(p.deb()))
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + plainPath, "LC_ALL=C.UTF-8"}
	return cmd.CombinedOutput()
}

// lastLines returns what is worth telling of dpkg's output: what the hook said, the
// last line where it said nothing.
func lastLines(out []byte) string {
	var said []string
	last := ""
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		last = line
		if strings.HasPrefix(line, "imaseal") {
			said = append(said, line)
		}
	}
	if len(said) > 0 {
		return strings.Join(said, "; ")
	}
	if strings.HasPrefix(last, "Setting up") || strings.HasPrefix(last, "Processing") {
		return ""
	}
	return last
}
