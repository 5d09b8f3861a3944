// Package kms is what the programs imaseal-kms-aws, imaseal-kms-gcp and
// imaseal-kms-azure have in common. It is a module of its own, so that the vendors'
// libraries, hundreds of packages, are no part of imaseal itself.
//
// Each program is a provider (awskms, gcpkms, azurekms: read one, start with its
// Open) behind keys/program.Serve, which speaks imaseal's protocol. imaseal starts
// the program once for a key and asks again for what failed for the moment, so the
// vendors' own retries are off. Credentials are looked for by the vendors' libraries
// where those always look; nothing here reads one.
package kms
