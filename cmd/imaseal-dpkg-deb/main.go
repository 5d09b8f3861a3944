// Imaseal-dpkg-deb is installed as /usr/lib/imaseal/dpkg-deb and run by dpkg in place
// of its own dpkg-deb. It lets dpkg's own one do the work, and gives the files of a
// package their signatures before they have their names; package
// [github.com/imaseal/imaseal/deb/dpkg] says how. For everybody but dpkg it becomes
// dpkg's own one.
package main

import (
	"os"

	"github.com/imaseal/imaseal/deb/dpkg"
)

// system is the root of the system whose configuration counts and whose log is
// written. Tests build the program with another.
var system = "/"

func main() { os.Exit(dpkg.RunHook(system)) }
