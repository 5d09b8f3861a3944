package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/sign/installed"
)

type clearOptions struct {
	system systemFlags
	out    outputFlags
	dryRun bool
}

func newClearCommand() *cobra.Command {
	var o clearOptions
	cmd := &cobra.Command{
		Use:   "clear [PACKAGE...]",
		Short: "Remove the labels that imaseal set on installed files",
		Long: strings.TrimSpace(`
Removes the attribute security.ima from the files of the installed PACKAGEs, of all
when none is named, where it is just the signature that the package manager's
database has for the file. Every other label stays, such as those of imaseal
sign-file, and nothing else is changed.`) + "\n" + exitStatusHelp,
		Example: examples(
			`imaseal clear --dry-run`,
			`imaseal clear hello`,
			`imaseal clear --root /srv/image`),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runClear(cmd.Context(), o.out.open(cmd), &o, args)
		},
	}
	o.system.add(cmd)
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "do everything but remove labels")
	o.system.addOutput(cmd, &o.out)
	return cmd
}

func runClear(ctx context.Context, out *output, o *clearOptions, args []string) error {
	s, err := o.system.open(ctx)
	if err != nil {
		return err
	}
	defer s.Root.Close()
	finish := systemProgress(out, s)
	result, err := s.Clear(ctx, args, installed.ClearOptions{DryRun: o.dryRun})
	finish()
	if err != nil {
		return err
	}
	action, column := "cleared", "CLEARED"
	if o.dryRun {
		action, column = "would clear", "WOULD CLEAR"
	}
	return out.printSystem(newSystemResult(action, s, result), column)
}
