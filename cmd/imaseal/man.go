//go:build man

package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// The man pages are made by a build of their own, so that the command does not
// carry the generator. Their date is SOURCE_DATE_EPOCH.
func init() {
	extraCommands = append(extraCommands, &cobra.Command{
		Use:    "man DIR",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.InitDefaultCompletionCmd()
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "imaseal", Manual: "imaseal"}, args[0])
		},
	})
}
