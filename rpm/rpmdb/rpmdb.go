// Package rpmdb reads the database of installed packages that rpm keeps, and knows
// what rpm's own plugin for file signatures does. Start with [PluginState].
//
// The database is read by the stock program rpm: its formats (sqlite, ndb) are rpm's
// own affair.
package rpmdb

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
)

// command returns a call of rpm whose messages do not depend on the language.
func command(ctx context.Context, rpm string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, rpm, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "LANGUAGE=")
	return cmd
}

// said returns what a program that failed wrote to stderr, for the end of a message.
func said(err error) string {
	var exit *exec.ExitError
	if !errors.As(err, &exit) || len(bytes.TrimSpace(exit.Stderr)) == 0 {
		return ""
	}
	return ": " + string(bytes.TrimSpace(exit.Stderr))
}
