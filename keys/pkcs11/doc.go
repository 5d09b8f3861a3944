// Package pkcs11 opens signing keys and certificates that PKCS #11 tokens hold: HSMs,
// smartcards, SoftHSM. What names one is a URI of RFC 7512, [ParseURI]. Start with
// [Open] and [Certificates].
//
// A token is reached through a module, a shared library, so only a build with cgo and
// the tag pkcs11 has tokens. Every build reads URIs, and the others say what is
// missing.
//
// # Where to look
//
//   - uri.go: which attributes a URI may have, and what they mean.
//   - module.go: which library is loaded, once in the life of a process.
//   - token.go: which token a URI names; the one login; what a PIN error means.
//   - session.go: how many sessions there are, and who has one.
//   - object.go: which key or certificate a URI names.
//   - key.go: the signature itself, and what is tried again.
package pkcs11
