package kms

// This file holds what the three commands are made of.

import (
	"context"
	"fmt"
	"io"

	"github.com/imaseal/imaseal/keys/program"
)

// Run is a signing program: it answers imaseal on out until in ends, and returns the
// exit status. It has no options and takes no arguments.
func Run(name string, args []string, in io.Reader, out, errs io.Writer, open func(ctx context.Context, ref string) (*program.Provider, error)) int {
	if len(args) > 0 {
		fmt.Fprintf(errs, "%s is started by imaseal and takes no arguments: give imaseal a --key that it serves\n", name)
		return 2
	}
	var declined error // imaseal has it as the answer
	err := program.Serve(context.Background(), in, out, func(ctx context.Context, ref string) (*program.Provider, error) {
		var p *program.Provider
		p, declined = open(ctx, ref)
		return p, declined
	})
	if err == nil {
		return 0
	}
	if declined == nil {
		fmt.Fprintf(errs, "%s: %v\n", name, err)
	}
	return 1
}
