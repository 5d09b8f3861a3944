// Package split signs packages on a host that does not see them. The build host makes
// a request, [Builder]: of each package its identity, the lines of its statement, and
// the path and digest of every file to sign. The signing host checks it, [Check],
// builds manifests and statements from it and signs them, [Sign]. The build host puts
// what comes back into its packages, [Response].
//
// Requests and responses are text, described in docs/format.md. A reader takes what a
// writer writes and nothing else, whoever wrote it, in memory that does not depend on
// how long it is.
//
// The package knows no package format, and the signing host needs no code that does.
package split
