package main

import (
	"strings"
	"testing"
)

// TestMakingKeysPage runs the commands of docs/keys.md that make keys as they are
// printed, and looks at what the page says of them.
func TestMakingKeysPage(t *testing.T) {
	needTools(t, "openssl")
	commands := commandsOf(t, "keys.md", "Making keys")
	if n := strings.Count(commands, "\n"); n < 7 {
		t.Fatalf("only %d commands found:\n%s", n, commands)
	}
	dir := t.TempDir()
	runIn(t, dir, "echo one >passphrase; echo another >ca-passphrase")
	runIn(t, dir, commands)
	for claim, check := range map[string]string{
		"the files are there":                  `ls offline/ca.key offline/ca.crt keys/trixie.key keys/trixie.crt keys/trixie.der keys/forky.key issued/trixie.crt issued/trixie.der`,
		"two secrets":                          `openssl pkey -in offline/ca.key -passin file:ca-passphrase -noout && openssl pkey -in keys/forky.key -passin file:passphrase -noout`,
		"the CA issued them":                   `openssl verify -CAfile offline/ca.crt keys/*.crt issued/trixie.crt && openssl verify -CAfile root.crt team-b/signing.crt`,
		"renewed it is the same key":           `test "$(openssl x509 -in keys/trixie.crt -noout -pubkey)" = "$(openssl x509 -in keys/trixie-2.crt -noout -pubkey)" && ! test -e keys/trixie-2.key`,
		"a new key is another":                 `openssl pkey -in keys/trixie-3.key -passin file:passphrase -noout -text | grep -q '2048 bit'`,
		"the key usages are those of the page": `openssl x509 -in offline/ca.crt -noout -ext keyUsage | grep -qx ' *Certificate Sign' && openssl x509 -in issued/trixie.crt -noout -ext keyUsage | grep -qx ' *Digital Signature'`,
	} {
		t.Run(strings.ReplaceAll(claim, " ", "_"), func(t *testing.T) { runIn(t, dir, check) })
	}
}
