// Package sign is the domain of imaseal: what a file signature, a key id, a
// manifest, a package statement and a package are, how packages are signed and
// how they are verified. It knows no package format; deb and rpm implement
// [Package].
//
// # Glossary
//
//   - File signature: the value of the extended attribute security.ima, a
//     [Signature] over the digest of a file's content.
//   - Key id: the four bytes by which the kernel finds the public key, [KeyID].
//   - Payload: the files that a package installs. A control file is a
//     maintainer script, which the package manager runs.
//   - Manifest: which path carries which signature, [Manifest].
//   - Statement: what binds a manifest to one package, [Statement]. IMA signs
//     content only; without it signatures could be dropped, moved or renamed.
//   - Selection: which files have to be signed, [Selection].
//
// # Data flow
//
// Data flows one way: package bytes, files, digests, signatures, manifest, new
// package bytes. Start with [Sign], which makes a manifest, and [Verify], which
// judges one.
//
// The package imports nothing but the standard library: the installer hook,
// which runs in place of dpkg-deb, is built from it.
package sign
