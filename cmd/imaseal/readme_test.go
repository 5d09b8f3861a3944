package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadmeOfSigners runs what the README tells maintainers, as it is printed there:
// signing, split signing, and the next key.
func TestReadmeOfSigners(t *testing.T) {
	needTools(t, "dpkg-deb")
	maintainers := readmeCommands(t, "Sign packages (maintainers)")
	split := readmeCommands(t, "Where the key is")
	life := readmeCommands(t, "The life of a key")
	if len(maintainers) != 3 || len(split) != 3 || len(life) != 3 {
		t.Fatalf("the README has these commands: %q, %q, %q", maintainers, split, life)
	}
	dir := t.TempDir()
	const pkg = "build/hello_2.10-3_amd64.deb"
	read := func(name string) []byte {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	runIn(t, dir, exampleScene)
	unsigned := read(pkg)
	runIn(t, dir, strings.Join(maintainers, ""))
	signed := read(pkg)
	if bytes.Equal(signed, unsigned) {
		t.Fatal("nothing was signed")
	}

	runIn(t, dir, "imaseal unsign build/")
	if !bytes.Equal(read(pkg), unsigned) {
		t.Fatal("unsign does not give back the package")
	}
	runIn(t, dir, strings.Join(split, ""))
	if !bytes.Equal(read(pkg), signed) {
		t.Error("split signing does not give the bytes of sign")
	}

	// The machine's part of the last section is TestRollOverPage's.
	runIn(t, dir, "mv build archive\nimaseal keys init --dir next --ca-dir keys --no-passphrase\n"+life[0])
	runIn(t, dir, "imaseal verify --cert next/signing.crt --ca keys/ca.crt archive\nimaseal check --revoked keys/signing.crt archive")
}
