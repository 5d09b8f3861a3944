// Package dpkg is the side of dpkg that is installed: the database of a system and,
// for the hook that dpkg runs in place of dpkg-deb, what is done while a package is
// unpacked.
//
// # The installer hook
//
// dpkg runs `dpkg-deb` twice for each package: with --control, before any code of the
// package has run, and with --fsys-tarfile for the files, which it unpacks to
// NAME.dpkg-new until it has read everything and dpkg-deb has ended. [RunHook] runs
// dpkg's own dpkg-deb both times, and
//
//   - decides on the package in the first call, by its signatures, the configuration
//     and the certificates ([LoadConfig]), and labels its maintainer scripts;
//   - passes the archive on in the second, but for its end, labels every new file that
//     is the one that the archive made, and only then lets dpkg go on.
//
// "Label" is short for the extended attribute [sign.XattrName] of a file. A call that
// is not dpkg's own becomes one of the real dpkg-deb.
package dpkg
