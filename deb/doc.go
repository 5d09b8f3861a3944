// Package deb reads and writes .deb files with file signatures.
//
// A .deb is an ar archive of debian-binary, control.tar and data.tar. In a signed
// one the control archive has, behind its original entries, the members
//
//   - ima-control-signatures and ima-signatures: the file signatures of the
//     maintainer scripts and of the payload,
//   - ima-package: the statement that binds them to this package,
//   - unsigned.control.tar.xz, or whatever it was called: the original control
//     archive, byte for byte, and unsigned.tail: what followed data.tar.
//
// data.tar is never touched. docs/format.md has every detail, [Open] is the start.
//
// # What is refused
//
// dpkg, GNU tar and Go do not read every archive alike, and where they differ a
// verifier would judge other files than those that are installed. So what is read
// here is narrower than what dpkg takes: ar.go says which archive members there may
// be, tar.go which entries, control.go and data.go what these may be called.
//
// # Memory
//
// The payload is streamed. The control archive is held in memory while it is read
// and written, up to 48 MiB of it; between the two only the scripts and the
// signatures are.
package deb
