package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/keys/kernel"
	"github.com/imaseal/imaseal/keys/layout"
)

// layoutFlags say which certificates go where.
type layoutFlags struct {
	system     string
	certs, cas []string
}

func (f *layoutFlags) add(cmd *cobra.Command, system string) {
	fl := cmd.Flags()
	fl.StringVar(&f.system, "for", "", system+": "+strings.Join(layout.Names, ", "))
	fl.StringArrayVar(&f.certs, "cert", nil, "certificate `FILE` of a signing key; may be repeated")
	fl.StringArrayVar(&f.cas, "ca-cert", nil, "certificate `FILE` of a CA that is to vouch for them; may be repeated")
	completeWith(cmd, "for", layout.Names...)
}

func (f *layoutFlags) load(ctx context.Context) (certs, cas []*x509.Certificate, err error) {
	if certs, err = loadAll(ctx, f.certs); err == nil {
		cas, err = loadAll(ctx, f.cas)
	}
	return certs, cas, err
}

type keysExportOptions struct {
	layout layoutFlags
	config string
}

// layoutHelp tells what the layouts are, for export and install.
const layoutHelp = `
  debian           /etc/imaseal/certs, for imaseal, its installer hook and its
                   initramfs script (package imaseal-installer)
  dracut           /etc/keys/ima, for dracut's module integrity, and the file in
                   /etc/dracut.conf.d that switches it on
  fedora           the same, and with --ca-cert /etc/keys/mok for mokutil
  initramfs-tools  /etc/keys/ima, and a hook and a script that load it, for a Debian
                   without imaseal-installer
  mok              /etc/keys/mok: CAs for mokutil, which --ca-cert names

Certificates are in DER and named for their key ids. A kernel that loads one by itself
(IMA_LOAD_X509) gets it where its configuration says.`

func newKeysExportCommand() *cobra.Command {
	var o keysExportOptions
	cmd := &cobra.Command{
		Use:   "export --for SYSTEM --cert FILE DIR",
		Short: "Write certificates as a kind of system wants them, into a folder",
		Long: strings.TrimSpace(`
Writes a tree below the folder DIR that is to be copied over the root of a machine, or
into a package or an image, and tells what each file is and what to do there. Files
that are there already are not overwritten.
` + layoutHelp + "\n" + exitStatusHelp),
		Example: examples(
			`imaseal keys export --for debian --cert keys/signing.crt debian`,
			`imaseal keys export --for fedora --cert keys/signing.crt --ca-cert keys/ca.crt fedora`),
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runKeysExport(cmd, &o, args)
		},
	}
	o.layout.add(cmd, "kind of `SYSTEM` (required)")
	cmd.Flags().StringVar(&o.config, "config", "", "configuration `FILE` of the kernel that is to take them")
	if err := cmd.MarkFlagRequired("for"); err != nil {
		panic(err)
	}
	return cmd
}

func runKeysExport(cmd *cobra.Command, o *keysExportOptions, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("name one folder for the files; imaseal keys export --help has examples")
	}
	certs, cas, err := o.layout.load(cmd.Context())
	if err != nil {
		return err
	}
	options := layout.Options{For: o.layout.system, Certs: certs, CAs: cas}
	target := kernel.Target{Root: o.layout.system == "debian" || o.layout.system == "initramfs-tools"}
	if o.config != "" {
		if options.Config, err = kernel.ReadConfigFile(o.config); err != nil {
			return err
		}
		target = kernel.TargetOf(options.Config)
	}
	l, err := layout.New(options)
	if err != nil {
		return err
	}
	out := (&outputFlags{}).open(cmd)
	for _, p := range refusals(options, target) {
		out.warn("%s", printable(p))
	}
	if err := makeTop(args[0]); err != nil {
		return err
	}
	root, err := os.OpenRoot(args[0])
	if err != nil {
		return err
	}
	defer root.Close()
	placed, err := l.Place(cmd.Context(), root, layout.PlaceOptions{})
	if err != nil {
		return err
	}
	return printPlaced(cmd.OutOrStdout(), args[0], placed, l.Next)
}

// makeTop makes the folder of an export, where it is not there: mode 0755 whatever the
// umask, as cp -a gives its mode to the root of the machine.
func makeTop(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o755))
}

// refusals returns a sentence for each certificate that a kernel refuses, or that is
// of no use to it.
func refusals(o layout.Options, target kernel.Target) []string {
	var sentences []string
	tell := func(cert *x509.Certificate, problems []kernel.Problem) (told bool) {
		for _, p := range problems {
			if p.Severity != kernel.Notice {
				sentences = append(sentences, fmt.Sprintf("%s: %s: %s", cert.Subject, p.Severity, p.Detail))
				told = true
			}
		}
		return told
	}
	for _, cert := range o.Certs {
		if tell(cert, kernel.Judge(cert, target)) || len(o.CAs) == 0 || !target.Trusted() {
			continue
		}
		if err := keys.ChainsTo(cert, o.CAs); err != nil {
			sentences = append(sentences, fmt.Sprintf("%s: %s: %v", cert.Subject, kernel.Refused, err))
		}
	}
	if o.For == "mok" || o.For == "fedora" {
		for _, ca := range o.CAs {
			tell(ca, kernel.JudgeCA(ca, target))
		}
	}
	return sentences
}

func printPlaced(w io.Writer, root string, placed []layout.PlacedFile, next []string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range placed {
		fmt.Fprintf(t, "%s\t/%s\t%s\n", f.Action, printable(f.Path), printable(f.About))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "below %s.\n\nNext, on that machine:\n", printable(root))
	for _, step := range next {
		if _, err := fmt.Fprintf(w, "- %s\n", step); err != nil {
			return err
		}
	}
	return nil
}
