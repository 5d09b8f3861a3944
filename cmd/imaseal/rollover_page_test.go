package main

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestRollOverPage runs the commands of docs/keys.md that roll a key over as they are
// printed, on a Debian that installs through the hook, and looks at what came of it.
func TestRollOverPage(t *testing.T) {
	m := newMachine(t, "trixie")
	dir := filepath.Join(m.base, "upper", work)
	m.signedHello()
	runIn(t, dir, `
rm signing.crt
imaseal keys init --dir keys --no-passphrase
imaseal unsign --quiet hello_2.10-3_all.deb
imaseal sign --quiet --key keys/signing.key --cert keys/signing.crt --output signed hello_2.10-3_all.deb
rm hello_2.10-3_all.deb
`)
	m.run("dpkg -i imaseal_*.deb imaseal-installer_*.deb && imaseal keys install --root / --cert keys/signing.crt && imaseal hook enable --scope all && dpkg -i signed/hello_*.deb")
	keyID := func(cert string) string {
		return strings.TrimSpace(m.run("imaseal keys show --json " + cert + ` | sed 's/.*"key_id":"\([0-9a-f]*\)".*/\1/'`))
	}
	old := keyID("keys/signing.crt")
	labels := func() string {
		return m.onHost(`getfattr --absolute-names -e hex -n security.ima "$system"/usr/bin/hello "$system"/etc/init.d/hello "$system"/usr/share/doc/hello/README "$system"/var/lib/dpkg/info/hello.postinst | grep -o 'ima=0x0302..[0-9a-f]\{8\}'`)
	}
	if n := strings.Count(labels(), old); n != 4 {
		t.Fatalf("%d of 4 files are labelled by the old key before:\n%s", n, labels())
	}

	commands := strings.Split(strings.TrimSpace(commandsOf(t, "keys.md", "Rolling a key over")), "\n")
	if len(commands) != 9 {
		t.Fatalf("%d commands, not 9: %q", len(commands), commands)
	}
	if out, err := m.try("imaseal check --revoked keys/signing.crt signed"); err == nil || !strings.Contains(out, "1 of 1 package") {
		t.Errorf("the archive is not signed by the old key before (%v):\n%s", err, out)
	}
	example := regexp.MustCompile(`\bd4fdaf7d\b`)
	for _, command := range commands {
		out := m.run(example.ReplaceAllString(command, old))
		t.Logf("%s\n%s", command, out)
		if strings.Contains(command, "--from-cert") && !strings.Contains(out, "1 package resigned by key") {
			t.Error("nothing was rolled over")
		}
		// At no time between is anything wrong.
		if out, err := m.try("imaseal check"); err != nil {
			t.Errorf("after %s: %v\n%s", command, err, out)
		}
	}
	next := keyID("next/signing.crt")
	if n := strings.Count(labels(), next); n != 4 {
		t.Errorf("%d of 4 files are labelled by the new key:\n%s", n, labels())
	}
	// The hook goes on: the new key's package is labelled, the old one's is unknown.
	m.run("dpkg -i rolled/hello_*.deb && imaseal check hello && imaseal check --revoked " + old)
	if out := m.run("dpkg -i signed/hello_*.deb 2>&1"); !strings.Contains(out, old) {
		t.Errorf("the hook does not tell of a package by the old key:\n%s", out)
	}
}
