package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign/signtest"
)

// TestRpmsignTakesKeysMadeHere has rpmsign sign the files of packages by keys of keys
// init, and renewed ones, and checks them by their certificates.
func TestRpmsignTakesKeysMadeHere(t *testing.T) {
	needTools(t, "gpg")
	for name, tt := range map[string]struct{ pattern, script, pkg string }{
		"rpmsign 4.18": {"rpm418-*-????????/bin/rpmsign", "scripts/peers rpm418", "v4-gzip.rpm"},
		"rpmsign 6.1":  {"rpm61-*-????????/bin/rpmsign", "scripts/peers rpm61", "v6-zstd.rpm"},
	} {
		t.Run(name, func(t *testing.T) {
			rpmsign := signtest.Cached(t, tt.pattern, tt.script)
			content, err := os.ReadFile(filepath.Join("../../testdata/packages", tt.pkg))
			if err != nil {
				t.Fatal(err)
			}
			home, err := os.MkdirTemp("", "gpg")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(home) })
			t.Setenv("GNUPGHOME", home)
			t.Cleanup(func() { exec.Command("gpgconf", "--kill", "all").Run() })
			dir := t.TempDir()
			runIn(t, dir, `gpg --batch --quiet --passphrase "" --quick-gen-key peer rsa2048 sign never
				imaseal keys init --dir rsa --type rsa2048 --no-passphrase
				imaseal keys init --dir ec --no-passphrase
				imaseal keys renew --new-key --type p384 --no-passphrase --ca-key ec/ca.key --ca-cert ec/ca.crt ec/signing.crt`)
			for _, key := range []string{"rsa/signing", "ec/signing", "ec/signing-2"} {
				if err := os.WriteFile(filepath.Join(dir, "x.rpm"), content, 0o644); err != nil {
					t.Fatal(err)
				}
				// Of the names one version each takes notice.
				runIn(t, dir, rpmsign+` -D "_gpg_name peer" -D "_openpgp_sign gpg" -D "_openpgp_sign_id peer" --signfiles --fskpath=`+key+`.key --addsign x.rpm
					imaseal verify --cert `+key+`.crt --ca `+filepath.Dir(key)+`/ca.crt x.rpm >report`)
				report, err := os.ReadFile(filepath.Join(dir, "report"))
				if err != nil || !strings.Contains(string(report), "ok") {
					t.Errorf("%s: %v\n%s", key, err, report)
				}
			}
		})
	}
}
