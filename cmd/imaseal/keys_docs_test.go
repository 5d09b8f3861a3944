package main

import (
	"os"
	"strings"
	"testing"
)

// TestKeysDocument runs the commands in those sections of docs/keys.md that look at keys
// and bring certificates to machines.
func TestKeysDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/keys.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	runIn(t, dir, `imaseal keys init --dir keys --no-passphrase
mkdir -p image/etc/imaseal
for o in IMA IMA_APPRAISE INTEGRITY_SIGNATURE INTEGRITY_ASYMMETRIC_KEYS INTEGRITY_TRUSTED_KEYRING CRYPTO_RSA CRYPTO_ECDSA CRYPTO_SHA512; do echo CONFIG_$o=y; done > config-6.12`)
	ran := 0
	for _, title := range []string{"Looking at keys", "Getting certificates to machines"} {
		_, section, ok := strings.Cut(string(text), "\n## "+title+"\n")
		if !ok {
			t.Fatalf("docs/keys.md has no section %q", title)
		}
		section, _, _ = strings.Cut(section, "\n## ")
		for line := range strings.Lines(section) {
			if command, ok := strings.CutPrefix(line, "    imaseal "); ok {
				t.Log(runIn(t, dir, "imaseal "+strings.TrimSpace(command)))
				ran++
			}
		}
	}
	if ran != 6 {
		t.Errorf("%d commands were run, not 6", ran)
	}
	runIn(t, dir, "test -n \"$(ls image/etc/imaseal/certs tree/debian/etc/imaseal/certs tree/fedora/etc/keys/mok)\"")
}
