package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// run runs the command line args and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "imaseal: interrupted; every package is either as it was or finished")
		return exitInterrupted
	}
	code, say := codeOf(err)
	if say {
		fmt.Fprintln(stderr, "imaseal: "+err.Error())
	}
	return code
}

const exitStatusHelp = `
Exit status:
  0    done, and everything is good
  1    a package could be read and something in it is not good
  2    something could not be done; no package is half written
  130  interrupted by a signal`

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "imaseal",
		Short: "Sign every file of .deb and RPM packages for the kernel's IMA-appraisal",
		Long: strings.TrimSpace(`
imaseal signs the files inside .deb and RPM packages, so that a Linux kernel with
IMA-appraisal runs them and refuses everything that was changed.

  imaseal keys init --dir keys          a CA and a signing key
  imaseal sign --key keys/signing.key --cert keys/signing.crt build/
  imaseal verify --cert keys/signing.crt build/
  imaseal inspect build/hello_2.10-3_amd64.deb
  imaseal unsign build/`) + "\n" + exitStatusHelp,
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,
	}
	root.AddCommand(
		newKeysCommand(),
		newSignCommand(),
		newVerifyCommand(),
		newInspectCommand(),
		newUnsignCommand(),
	)
	root.AddCommand(extraCommands...)
	return root
}

// extraCommands are added by builds for a purpose of their own.
var extraCommands []*cobra.Command
