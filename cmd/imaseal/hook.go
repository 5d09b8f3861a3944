package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/deb/dpkg"
)

func newHookCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hook",
		Short: "Have dpkg and apt install signed packages with their signatures",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newHookEnableCommand(), newHookDisableCommand(), newHookStatusCommand())
	return cmd
}

type hookOptions struct {
	root, scope string
	quiet       bool
}

func (o *hookOptions) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&o.root, "root", "/", "work on the system below folder `DIR`")
	fl.BoolVarP(&o.quiet, "quiet", "q", false, "print nothing when all went well")
}

func newHookEnableCommand() *cobra.Command {
	var o hookOptions
	cmd := &cobra.Command{
		Use:   "enable",
		Short: "Bring the installer hook into use",
		Long: strings.TrimSpace(`
Has dpkg run /usr/lib/imaseal/dpkg-deb of the package imaseal-installer in front of its
own dpkg-deb, so that each file of a signed package has its signature before it has its
name. With --scope apt it is so for apt and what else uses its library, by the setting
DPkg::Path in /etc/apt/apt.conf.d; with --scope all for every dpkg, by dpkg-divert. It
is safe to run again, with the other scope, and after it was interrupted: dpkg-deb
works at every moment.`) + "\n" + exitStatusHelp,
		Example: examples(`imaseal hook enable`, `imaseal hook enable --scope all`, `imaseal hook enable --scope all --root /srv/image`),
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			scope := dpkg.Scope(o.scope)
			if scope != dpkg.ScopeAPT && scope != dpkg.ScopeAll {
				return fmt.Errorf("--scope %q: it is apt or all", o.scope)
			}
			return runHookSet(cmd, &o, scope)
		},
	}
	o.add(cmd)
	cmd.Flags().StringVar(&o.scope, "scope", string(dpkg.ScopeAPT), "for whom: `apt` or all")
	completeWith(cmd, "scope", string(dpkg.ScopeAPT), string(dpkg.ScopeAll))
	return cmd
}

func newHookDisableCommand() *cobra.Command {
	var o hookOptions
	cmd := &cobra.Command{
		Use:   "disable",
		Short: "Take the installer hook out of use",
		Long: strings.TrimSpace(`
Undoes what enable did, whichever scope it was and however far it came. Files keep
their signatures; imaseal clear removes them.`) + "\n" + exitStatusHelp,
		Example: examples(`imaseal hook disable`),
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runHookSet(cmd, &o, dpkg.ScopeNone)
		},
	}
	o.add(cmd)
	return cmd
}

func runHookSet(cmd *cobra.Command, o *hookOptions, scope dpkg.Scope) error {
	a, err := dpkg.OpenActivation(o.root)
	if err != nil {
		return fmt.Errorf("--root: %w", err)
	}
	defer a.Close()
	// A signal does not stop a change half way: dpkg would go on either way, but what
	// was asked for is a moment's work.
	if err := a.Set(context.WithoutCancel(cmd.Context()), scope); err != nil {
		return err
	}
	_, problems := dpkg.LoadConfig(o.root)
	for _, p := range problems {
		fmt.Fprintf(cmd.ErrOrStderr(), "imaseal: %s\n", printable(p))
	}
	if o.quiet {
		return nil
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), map[dpkg.Scope]string{
		dpkg.ScopeNone: "The hook is out of use.",
		dpkg.ScopeAPT:  "The hook is in use for apt; imaseal hook status proves it.",
		dpkg.ScopeAll:  "The hook is in use for every dpkg; imaseal hook status proves it.",
	}[scope])
	return err
}
