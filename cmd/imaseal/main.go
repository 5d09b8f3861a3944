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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
