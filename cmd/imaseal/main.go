// Command imaseal gives every file of .deb and RPM packages a signature that the
// kernel's IMA-appraisal accepts, proves it, shows it and takes it off again.
//
// Each verb has a file of its own. What a package format or a signature is, the
// packages deb, rpm, keys and sign know; here are flags, tables, progress and
// exit codes.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// memoryTarget makes the garbage collector work harder before the process grows
// past it. What is live is bounded by buffers, far below it.
const memoryTarget = 96 << 20

func main() {
	debug.SetMemoryLimit(memoryTarget)
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	// A second signal ends the process at once: the first may not be heard, such as by a
	// read of a named pipe that nobody writes to. What is half written then has no name
	// that anybody looks at.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
