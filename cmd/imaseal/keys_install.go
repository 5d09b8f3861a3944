package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/keys/kernel"
	"github.com/imaseal/imaseal/keys/layout"
	"github.com/imaseal/imaseal/sign"
)

type keysInstallOptions struct {
	layout        layoutFlags
	root          string
	remove        []string
	dryRun, force bool
}

func newKeysInstallCommand() *cobra.Command {
	var o keysInstallOptions
	cmd := &cobra.Command{
		Use:   "install --root DIR --cert FILE",
		Short: "Put certificates into a system or an image",
		Long: strings.TrimSpace(`
Puts certificates where the system below the folder DIR loads them from when it boots,
as imaseal keys export does, and tells what to do there. What the system is it finds
out, unless --for says it:
`+layoutHelp+`

Certificates that one of the kernels in the system (boot/config-*) would refuse, or
would never verify by, are not put there; nor is anything over a file that is not
imaseal's, unless --force is given. A certificate is replaced by a newer one of the same
key. The one that a kernel loads by itself stays when it is of another key: add --remove
with that key's id when it is to go. Run again it changes nothing. Links never lead out
of DIR.

--remove takes certificates away again, by the key id: of a key that was lost, or after
a roll-over. A running kernel keeps a key that it has.`) + "\n" + exitStatusHelp,
		Example: examples(
			`imaseal keys install --root image --cert keys/signing.crt`,
			`imaseal keys install --root image --for fedora --cert keys/signing.crt --ca-cert keys/ca.crt --dry-run`,
			`imaseal keys install --root image --remove d4fdaf7d`),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runKeysInstall(cmd, &o)
		},
	}
	o.layout.add(cmd, "kind of `SYSTEM` (default what it looks like)")
	fl := cmd.Flags()
	fl.StringVar(&o.root, "root", "", "folder `DIR` where the root of the system is mounted, / for this one (required)")
	fl.StringArrayVar(&o.remove, "remove", nil, "remove the certificates with key id `KEYID`; may be repeated")
	fl.BoolVar(&o.dryRun, "dry-run", false, "only tell what would be done")
	fl.BoolVar(&o.force, "force", false, "put them there though a kernel refuses them, or over other files")
	if err := cmd.MarkFlagRequired("root"); err != nil {
		panic(err)
	}
	return cmd
}

func runKeysInstall(cmd *cobra.Command, o *keysInstallOptions) error {
	certs, cas, err := o.layout.load(cmd.Context())
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(o.root)
	if err != nil {
		return err
	}
	defer root.Close()
	out := (&outputFlags{}).open(cmd)
	if len(certs)+len(cas) == 0 && len(o.remove) == 0 {
		return errors.New("nothing to do: name certificates by --cert, or key ids by --remove")
	}
	// What is refused is refused before the first key goes: a machine must not be left
	// without one.
	var l *layout.Layout
	if len(certs)+len(cas) > 0 {
		if l, err = o.plan(out, root, layout.Options{For: o.layout.system, Certs: certs, CAs: cas}); err != nil {
			return err
		}
	}
	removed, err := o.removeKeys(cmd, root)
	if err != nil || l == nil {
		return err
	}
	placed, err := l.Place(cmd.Context(), root, layout.PlaceOptions{Update: true, Force: o.force, DryRun: o.dryRun})
	if err != nil {
		return err
	}
	if o.dryRun {
		for i := range placed {
			if slices.Contains(removed, placed[i].Path) {
				placed[i].Action = layout.Placed // by then the old one is gone
			}
			if a := placed[i].Action; a != layout.Unchanged && a != layout.Kept {
				placed[i].Action = "would be " + placed[i].Action
			}
		}
	}
	return printPlaced(cmd.OutOrStdout(), o.root, placed, l.Next)
}

// plan makes the layout of the system, where its kernels have nothing against it.
func (o *keysInstallOptions) plan(out *output, root *os.Root, options layout.Options) (*layout.Layout, error) {
	if options.For == "" {
		var err error
		if options.For, err = systemOf(root); err != nil {
			return nil, err
		}
	}
	if err := o.judge(out, root, &options); err != nil {
		return nil, err
	}
	return layout.New(options)
}

// judge asks every kernel of the system, and remembers one that loads a certificate by
// itself.
func (o *keysInstallOptions) judge(out *output, root *os.Root, options *layout.Options) error {
	configs, err := kernel.FindConfigs(root)
	if err != nil {
		return err
	}
	if len(configs) == 0 {
		out.note("there is no configuration of a kernel below %s: whether one takes the certificates was not checked", o.root)
	}
	var refused []string
	for _, c := range configs {
		if c.X509Path() != "" {
			options.Config = c
		}
		for _, sentence := range refusals(*options, kernel.TargetOf(c)) {
			refused = append(refused, c.Release+": "+sentence)
		}
	}
	for _, sentence := range refused {
		out.warn("%s", printable(sentence))
	}
	if len(refused) > 0 && !o.force {
		return errors.New("a kernel of that system has something against the certificates, and nothing was changed: --force puts them there all the same")
	}
	return nil
}

// removeKeys returns the names of the files that it removed, or would remove.
func (o *keysInstallOptions) removeKeys(cmd *cobra.Command, root *os.Root) (removed []string, err error) {
	if len(o.remove) == 0 {
		return nil, nil
	}
	var ids []sign.KeyID
	for _, text := range o.remove {
		id, err := sign.ParseKeyID(text)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	configs, err := kernel.FindConfigs(root)
	if err != nil {
		return nil, err
	}
	var own []string
	for _, c := range configs {
		if name := strings.TrimPrefix(c.X509Path(), "/"); name != "" && !slices.Contains(own, name) {
			own = append(own, name)
		}
	}
	for _, id := range ids {
		names, err := layout.Remove(root, id, own, o.dryRun)
		removed = append(removed, names...)
		action := layout.Removed
		if o.dryRun {
			action = "would be " + action
		}
		for _, name := range names {
			fmt.Fprintf(cmd.OutOrStdout(), "%s  /%s\n", action, printable(name))
		}
		if err != nil {
			return nil, err
		}
		if len(names) == 0 {
			fmt.Fprintf(cmd.OutOrStdout(), "There is no certificate with key id %s below %s.\n", id, printable(o.root))
			continue
		}
		fmt.Fprintf(cmd.OutOrStdout(), "\nNext, on that machine:\n- make the initramfs again, and reboot: the running kernel keeps key %s\n- imaseal check --revoked %s finds what is still signed by it\n", id, id)
	}
	return removed, nil
}

// systemOf finds out which layout the system below a root wants.
func systemOf(root *os.Root) (string, error) {
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool {
			_, err := root.Lstat(name)
			return err == nil
		})
	}
	switch {
	case has("etc/fedora-release", "etc/redhat-release"):
		return "fedora", nil
	case has("usr/lib/dracut/modules.d"):
		return "dracut", nil
	case has("usr/lib/imaseal/dpkg-deb", "etc/imaseal"), has("etc/debian_version") && !has("usr/share/initramfs-tools"):
		return "debian", nil
	case has("usr/share/initramfs-tools"):
		return "initramfs-tools", nil
	}
	return "", fmt.Errorf("%s: what kind of system this is cannot be seen: use --for %s", root.Name(), strings.Join(layout.Names, ", "))
}
