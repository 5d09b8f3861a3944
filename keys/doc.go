// Package keys opens what signs files and judges what is trusted: private keys and
// certificates. It hands out [crypto.Signer]s and certificates, and knows no package
// format. Start with [Open] and [LoadCertificates]; [LookAt] shows what a file or a
// reference is.
//
// Three packages stand on this one: ca makes keys and certificates, layout puts
// certificates where systems look for them, openpgp signs whole packages. This one calls
// the providers of keys, pkcs11, hashivault, program, remote and kmsref, which do not
// know it; nor do kernel and cache.
//
// # Key references
//
// A key is named by a reference. What stands before its first colon decides how
// it is opened, never what happens to be on the disk:
//
//	keys/signing.key        a file
//	file:odd:name.key       a file, whatever its name is
//	./odd:name.key          the same: a slash before the colon ends the doubt
//	pkcs11:token=A;object=B a key on a token, RFC 7512; a certificate too
//	hashivault://NAME       a key of Vault's or OpenBao's transit engine
//	awskms:///KEY           a key in a cloud: awskms, gcpkms and azurekms, as kmsref has it
//	exec:PROGRAM?KEY        a key in another program, by the protocol of package program
//	gpg:0123…CDEF           an OpenPGP key in GnuPG's keyring, agent or card
//
// The last names an OpenPGP key only, for package openpgp, files either kind, the
// others keys that sign files. The table is in ref.go.
//
// # Secrets
//
// Passphrases come by callback, [Passphrase], never as an argument of a command,
// and are overwritten after use as far as Go's libraries let us. No error holds
// part of one, or of a key.
package keys
