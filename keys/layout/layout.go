// Package layout knows where the systems that exist look for certificates when they
// boot, and puts them there: [New] lays out the files, [Layout.Place] writes them below
// a root, [Remove] takes certificates away again.
package layout

import (
	"bytes"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/keys/kernel"
	"github.com/imaseal/imaseal/sign"
)

// Names are the kinds of system that [New] knows.
var Names = []string{"debian", "fedora", "dracut", "initramfs-tools", "mok"}

// The places of certificates in a system, relative to its root.
const (
	// hookFolder is where imaseal, its installer hook and its initramfs script look.
	hookFolder = "etc/imaseal/certs"
	// imaFolder is where dracut's module integrity looks (ima-keys-load.sh), and
	// imaseal as well.
	imaFolder = "etc/keys/ima"
	// mokFolder is nobody's: certificates wait there for mokutil. They must not be in
	// one of the others, whose certificates are those of signing keys.
	mokFolder = "etc/keys/mok"
)

//go:embed initramfs-hook
var initramfsHook string

//go:embed initramfs-script
var initramfsScript string

//go:embed dracut.conf
var dracutConf string

// ownFile is in the second line of every text file of a layout, or the first.
const ownFile = "# Made by imaseal keys."

// A File is one file of a layout.
type File struct {
	// Path is relative to the root of the system.
	Path    string
	Mode    fs.FileMode
	Content []byte
	// About says in a sentence what the file is for.
	About string
	// key is the certificate in the file; nil for a text.
	key *x509.Certificate
	// second says that the certificate is in another file of the layout, too, so that
	// one of another key may stay here: keys overlap when they are rolled over.
	second bool
}

// A Layout is what a system needs to trust certificates from its next boot on.
type Layout struct {
	Files []File
	// Next are the steps that remain to be done on that system, commands among them.
	Next []string
}

// Options say what a [Layout] is for.
type Options struct {
	For string // one of Names
	// Certs are those of signing keys; CAs those that are to vouch for them.
	Certs, CAs []*x509.Certificate
	// Config is that of the kernel, nil when it is not known. One that loads a
	// certificate by itself (IMA_LOAD_X509) gets the first.
	Config *kernel.Config
}

// New returns the files that the certificates go to, named for their key ids.
func New(o Options) (*Layout, error) {
	for _, cert := range o.Certs {
		if cert.IsCA && cert.KeyUsage&x509.KeyUsageCertSign != 0 {
			return nil, fmt.Errorf("the certificate of %q is that of a CA: name it by --ca-cert, and that of the signing key by --cert", cert.Subject)
		}
	}
	l := new(Layout)
	var err error
	if len(o.Certs) == 0 && o.For != "mok" {
		return nil, errors.New("no certificate is named: use --cert")
	}
	switch o.For {
	case "debian":
		err = l.debian(o)
	case "dracut":
		err = l.dracut(o)
	case "fedora":
		err = l.fedora(o)
	case "initramfs-tools":
		err = l.initramfsTools(o)
	case "mok":
		err = l.mok(o)
	default:
		err = fmt.Errorf("unknown kind of system %q: use %s", o.For, strings.Join(Names, ", "))
	}
	if err != nil {
		return nil, err
	}
	return l, l.checkCollisions()
}

func (l *Layout) debian(o Options) error {
	for _, cert := range o.Certs {
		if err := l.addCertificate(hookFolder, cert, "a signing key that imaseal, its installer hook and its initramfs script trust"); err != nil {
			return err
		}
	}
	if _, err := l.addX509(o); err != nil {
		return err
	}
	l.say("with the package imaseal-installer, once there is a policy in /etc/imaseal/ima-policy: echo load=yes >/etc/imaseal/boot.conf")
	l.say("update-initramfs -u -k all")
	return nil
}

func (l *Layout) dracut(o Options) error {
	for _, cert := range o.Certs {
		if err := l.addCertificate(imaFolder, cert, "a signing key that dracut's module integrity loads, and that imaseal trusts"); err != nil {
			return err
		}
	}
	conf := dracutConf
	own, err := l.addX509(o)
	if err != nil {
		return err
	}
	if own != "" {
		conf += fmt.Sprintf("install_items+=\" %s \"\n", own)
	}
	l.add("etc/dracut.conf.d/98-imaseal.conf", 0o644, conf, "puts dracut's module integrity into the initramfs")
	l.say("install evmctl (ima-evm-utils) and keyctl (keyutils), which the module needs")
	l.say("dracut --force --regenerate-all")
	return nil
}

func (l *Layout) fedora(o Options) error {
	if err := l.dracut(o); err != nil {
		return err
	}
	if len(o.CAs) > 0 {
		if err := l.mok(o); err != nil {
			return err
		}
	}
	l.Next[0] = "dnf install ima-evm-utils keyutils rpm-plugin-ima"
	return nil
}

func (l *Layout) initramfsTools(o Options) error {
	for _, cert := range o.Certs {
		if err := l.addCertificate(imaFolder, cert, "a signing key that the script loads, and that imaseal trusts"); err != nil {
			return err
		}
	}
	own, err := l.addX509(o)
	if err != nil {
		return err
	}
	hook := strings.Replace(initramfsHook, " @X509@", strings.TrimRight(" "+own, " "), 1)
	l.add("etc/initramfs-tools/hooks/imaseal-keys", 0o755, hook, "copies the certificates and keyctl into the initramfs")
	l.add("etc/initramfs-tools/scripts/init-bottom/imaseal-keys", 0o755, initramfsScript, "loads the certificates into .ima or _ima; no policy")
	l.say("apt-get install keyutils")
	l.say("update-initramfs -u -k all")
	return nil
}

// mok lays out the CAs for the firmware's list of machine owner keys, which shim
// keeps: nothing but mokutil and a person at the console can put them there.
func (l *Layout) mok(o Options) error {
	if len(o.CAs) == 0 {
		return errors.New("no CA is named for the machine owner keys: use --ca-cert")
	}
	for _, ca := range o.CAs {
		if err := l.addCertificate(mokFolder, ca, "a CA, for mokutil"); err != nil {
			return err
		}
		l.say("mokutil --import /%s", l.Files[len(l.Files)-1].Path)
	}
	l.say("reboot, confirm in MokManager with the password that mokutil asked for, then: imaseal keys check")
	return nil
}

func (l *Layout) say(format string, args ...any) {
	l.Next = append(l.Next, fmt.Sprintf(format, args...))
}

func (l *Layout) add(path string, mode fs.FileMode, text, about string) {
	l.Files = append(l.Files, File{Path: path, Mode: mode, Content: []byte(text), About: about})
}

func (l *Layout) addCertificate(dir string, cert *x509.Certificate, about string) error {
	id, err := sign.KeyIDFromCertificate(cert)
	if err != nil {
		return err
	}
	l.Files = append(l.Files, File{
		Path: path.Join(dir, id.String()+".der"), Mode: 0o644, Content: cert.Raw, key: cert,
		About: fmt.Sprintf("%s: %s", cert.Subject, about),
	})
	return nil
}

var safePath = regexp.MustCompile(`^/[A-Za-z0-9._/+-]+$`)

// addX509 adds the certificate that the kernel loads by itself, where it does, and
// returns its absolute path. It looks for it in the initramfs, where there is one:
// integrity_load_keys runs before the root file system is mounted.
func (l *Layout) addX509(o Options) (string, error) {
	if o.Config == nil || o.Config.X509Path() == "" {
		return "", nil
	}
	own := path.Clean(o.Config.X509Path())
	if !safePath.MatchString(own) {
		return "", fmt.Errorf("the kernel loads a certificate from %q (IMA_X509_PATH), which is no path for a configuration file", own)
	}
	l.Files = append(l.Files, File{
		Path: own[1:], Mode: 0o644, Content: o.Certs[0].Raw, key: o.Certs[0], second: true,
		About: "the certificate that the kernel itself loads when it boots (IMA_LOAD_X509), from the initramfs where there is one",
	})
	return own, nil
}

// checkCollisions refuses two certificates that would have one name, and so one key id.
func (l *Layout) checkCollisions() error {
	seen := map[string]File{}
	unique := l.Files[:0]
	for _, f := range l.Files {
		other, twice := seen[f.Path]
		switch {
		case !twice:
			unique = append(unique, f)
		case bytes.Equal(f.Content, other.Content): // named twice
		case f.key != nil && other.key != nil && keys.Same(f.key.PublicKey, other.key.PublicKey):
			return fmt.Errorf("two certificates of one key: name the one of %q that holds", f.key.Subject)
		default:
			return fmt.Errorf("%q and %q have the same key id: a kernel finds only one of them; make a new key", f.key.Subject, other.key.Subject)
		}
		seen[f.Path] = f
	}
	l.Files = unique
	return nil
}
