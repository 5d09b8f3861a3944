package main

import (
	"errors"
	"fmt"
)

// The exit codes, for the whole command. Over several packages all are tried, and
// the worst code wins: 2 beats 1 beats 0.
const (
	exitOK          = 0   // done, and everything is good
	exitFailed      = 1   // a package, or a system, could be read and something in it is not good
	exitError       = 2   // something could not be done; no package is half written
	exitInterrupted = 130 // a signal ended the work
)

// An exitCode ends the command with its number. What there was to say has been
// said.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit status %d", int(c)) }

// codeOf returns the exit code that err stands for, and whether err still has to
// be printed.
func codeOf(err error) (code int, say bool) {
	var known exitCode
	switch {
	case err == nil:
		return exitOK, false
	case errors.As(err, &known):
		return int(known), false
	default:
		return exitError, true
	}
}
