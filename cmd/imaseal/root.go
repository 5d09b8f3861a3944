package main

import (
	"context"
	"errors"
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
	// A prompt hears of a signal before ctx does.
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		fmt.Fprintln(stderr, "imaseal: interrupted; every package, and every file of a system, is either as it was or finished")
		return exitInterrupted
	}
	code, say := codeOf(err)
	if say {
		fmt.Fprintln(stderr, "imaseal: "+printableLines(err.Error()))
	}
	return code
}

const exitStatusHelp = `
Exit status:
  0    done, and everything is good
  1    a package, or a system, could be read and something in it is not good
  2    something could not be done; no package is half written
  130  interrupted by a signal`

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "imaseal",
		Short: "Sign every file of .deb and RPM packages for the kernel's IMA-appraisal",
		Long: strings.TrimSpace(`
imaseal signs the files inside .deb and RPM packages, so that a Linux kernel with
IMA-appraisal runs them and refuses everything that was changed. It labels the files
of installed systems with these signatures, and tells what was changed there.`) + "\n" + exitStatusHelp,
		Example: examples(
			`imaseal keys init --dir keys --no-passphrase`,
			`imaseal sign --key keys/signing.key --cert keys/signing.crt build/`,
			`imaseal verify --cert keys/signing.crt build/`,
			`imaseal inspect build/hello_2.10-3_amd64.deb`,
			`imaseal unsign build/`),
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,
	}
	root.AddCommand(
		newKeysCommand(),
		newSignCommand(),
		newVerifyCommand(),
		newInspectCommand(),
		newResignCommand(),
		newUnsignCommand(),
		newDigestsCommand(),
		newSignDigestsCommand(),
		newEmbedCommand(),
		newLogCommand(),
		newApplyCommand(),
		newCheckCommand(),
		newClearCommand(),
		newSignFileCommand(),
		newHookCommand(),
		newCacheCommand(),
	)
	root.AddCommand(extraCommands...)
	root.SetHelpCommand(newHelpCommand())
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; %s --help lists the flags", err, cmd.CommandPath())
	})
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.HasSubCommands() {
			cmd.Args, cmd.RunE = cobra.NoArgs, showHelp
		}
	}
	return root
}

// extraCommands are added by builds for a purpose of their own.
var extraCommands []*cobra.Command

// showHelp is what a command does that is there for its subcommands. Having a
// RunE, it takes a word that it does not know for an error.
func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// newHelpCommand makes the help command. Unlike cobra's own it fails when there is
// no such command.
func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show the help of a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			of, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return fmt.Errorf("there is no command %q", strings.Join(args, " "))
			}
			of.InitDefaultHelpFlag()
			return of.Help()
		},
	}
}

// somePackages demands that a verb is told what to work on.
func somePackages(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("name at least one package, .changes file or folder; " + cmd.CommandPath() + " --help has examples")
	}
	return nil
}

// examples formats the example lines of a command's help.
func examples(lines ...string) string { return "  " + strings.Join(lines, "\n  ") }

// completeWith tells shells the words that a flag takes.
func completeWith(cmd *cobra.Command, flag string, words ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveDefault)); err != nil {
		panic(err)
	}
}
