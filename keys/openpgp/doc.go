// Package openpgp signs and verifies whole packages, and the files that list them, with
// OpenPGP keys, RFC 9580. It reads and makes signatures and keeps none: packages do.
// Start with [Open], which opens the key that signs, and [LoadKeyring], which loads
// those that are trusted; [Describe] says what a signature says of itself.
//
// Keys are in a file or in GnuPG, which is asked with gpg. What Go's library would
// refuse, accept or panic at in another way than gpg and rpm do is settled here.
package openpgp
