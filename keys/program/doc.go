// Package program is both ends of the protocol by which imaseal lets another program
// sign: one process that lives as long as the key is used, JSON lines on its standard
// input and output, many digests in flight, answers in any order. docs/services.md
// describes it for a second implementation; protocol.go holds its messages.
//
// A signing program written in Go calls [Serve] with its standard input and output.
// [Open] starts a program and makes a crypto.Signer of it.
package program
