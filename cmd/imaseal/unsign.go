package main

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imaseal/imaseal/sign"
)

type unsignOptions struct {
	targets targetFlags
	out     outputFlags
}

func newUnsignCommand() *cobra.Command {
	var o unsignOptions
	cmd := &cobra.Command{
		Use:   "unsign PKG...",
		Short: "Give packages back as they were before they were signed",
		Long: strings.TrimSpace(`
Takes the file signatures off each PKG (a package, a .changes file or a folder) and
gives back the very bytes that the builder made. An unsigned package is left as it
is.`) + "\n" + exitStatusHelp,
		Example: examples(
			`imaseal unsign hello_2.10-3_amd64.deb`,
			`imaseal unsign --output original build/`),
		Args: somePackages,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runUnsign(cmd.Context(), o.out.open(cmd), &o, args)
		},
	}
	o.targets.addOutput(cmd)
	o.targets.addJobs(cmd)
	o.out.add(cmd)
	return cmd
}

func runUnsign(ctx context.Context, out *output, o *unsignOptions, args []string) error {
	list, err := o.targets.expand(out, args)
	if err != nil {
		return err
	}
	list.checkChanges(ctx, nil)
	list.dropBroken()
	if err := list.makeFolders(); err != nil {
		return err
	}
	results := o.targets.each(ctx, out, list.targets, func(ctx context.Context, t *target, jobs int, p *packageProgress) *result {
		return unsignOne(ctx, t)
	})
	return out.print(list.finishChanges(ctx, out, results, changesOptions{}))
}

func unsignOne(ctx context.Context, t *target) *result {
	r := newResult(t.path)
	f, pkg, err := t.open(openOptions{jobs: 1})
	if err != nil {
		return r.fail(err)
	}
	if pkg == nil {
		return nil
	}
	defer f.Close()
	r.describe(pkg.Info())
	m, malformed := pkg.Manifest()
	if m == nil && malformed == nil {
		r.Action = "not signed"
		if t.dest != t.path {
			r.Output = t.dest
			err = t.copy(ctx, f)
		}
	} else {
		r.Action = "unsigned"
		if m != nil {
			r.Files = len(m.Files) + len(m.Control)
		}
		err = t.replace(ctx, f, func(w io.Writer) error { return pkg.Write(ctx, w, nil, sign.WriteOptions{}) })
	}
	if err != nil {
		return r.fail(err)
	}
	if t.dest != t.path {
		r.Output = t.dest
	}
	return r
}
