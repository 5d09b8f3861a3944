// Package rpm reads .rpm files of format 4 and 6 and writes them with file
// signatures. Start with [Open].
//
// An RPM file is a lead of 96 bytes, a signature header padded to eight bytes, the
// main header, and a compressed cpio archive (rpm's docs/manual/format_v4.md and
// format_v6.md). File signatures stand in the signature header, as rpmsign
// --signfiles puts them: tag FILESIGNATURES (274), a string of hexadecimal digits
// for each file of the main header in its order, empty for what has none, and tag
// FILESIGNATURELENGTH (275), the length in bytes of the longest. The lead, the main
// header and the payload are copied as they are, so every digest and OpenPGP
// signature over them goes on to hold.
//
// The numbers of tags and types are rpm's own, of its include/rpm/rpmtag.h.
package rpm
