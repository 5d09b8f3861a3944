package openpgp

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imaseal/imaseal/keys/keystest"
	"github.com/imaseal/imaseal/sign"
)

// testTime is the time that signatures are made to state.
var testTime = time.Date(2022, 5, 6, 7, 8, 9, 0, time.UTC)

var (
	readTestdata = keystest.ReadTestdata
	need         = keystest.Need
	writeFile    = keystest.WriteFile
	answer       = keystest.Answer
	refuse       = keystest.Refuse
	checkError   = keystest.CheckError
	holdsSecret  = keystest.HoldsSecret
)

const testPassphrase = keystest.Passphrase

// gpgHome is a home of gpg, with the public keys of testdata in it.
func gpgHome(t testing.TB) string {
	t.Helper()
	home := emptyGPGHome(t)
	public, err := filepath.Glob("testdata/*.asc")
	if err != nil || len(public) < 20 {
		t.Fatalf("%d keys, %v", len(public), err)
	}
	for _, path := range public {
		if !strings.Contains(path, ".key.") && !strings.Contains(path, ".sig.") {
			runGPGIn(t, home, nil, "--import", path)
		}
	}
	return home
}

func emptyGPGHome(t testing.TB) string {
	t.Helper()
	need(t, "gpg")
	home, err := os.MkdirTemp("", "gpg") // short: the agent's socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		os.RemoveAll(home)
	})
	return home
}

func runGPGIn(t testing.TB, home string, stdin io.Reader, args ...string) string {
	t.Helper()
	cmd := exec.Command("gpg", append([]string{"--homedir", home, "--batch", "--quiet", "--no-permission-warning", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)...)
	cmd.Stdin = stdin
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gpg %q: %v\n%s", args, err, stderr.Bytes())
	}
	return string(out)
}

// validSig is what gpg says of a good signature.
type validSig struct {
	fingerprint, primary, hash, class string
	created                           string
}

// gpgVerify has gpg verify a signature, detached where data is not nil.
func gpgVerify(t testing.TB, home string, sig, data []byte) validSig {
	t.Helper()
	dir := t.TempDir()
	args := []string{"--status-fd", "1", "--verify", writeFile(t, filepath.Join(dir, "sig"), sig)}
	if data != nil {
		args = append(args, writeFile(t, filepath.Join(dir, "data"), data))
	}
	status := runGPGIn(t, home, nil, args...)
	for line := range strings.Lines(status) {
		// VALIDSIG fingerprint date time expires version - key hash class primary
		if f := strings.Fields(line); len(f) == 12 && f[1] == "VALIDSIG" {
			return validSig{fingerprint: strings.ToLower(f[2]), created: f[4], hash: f[9], class: f[10], primary: strings.ToLower(f[11])}
		}
	}
	t.Fatalf("gpg does not say that it is valid: %s", status)
	return validSig{}
}

// gpgFingerprints are those of a key file, the primary key's first.
func gpgFingerprints(t testing.TB, path string) []string {
	t.Helper()
	var fprs []string
	for line := range strings.Lines(runGPGIn(t, emptyGPGHome(t), nil, "--with-colons", "--show-keys", path)) {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			fprs = append(fprs, strings.ToLower(f[9]))
		}
	}
	return fprs
}

func detachedOver(packet, data []byte) sign.OpenPGPSignature {
	return sign.OpenPGPSignature{Packet: packet, Signed: func() io.Reader { return bytes.NewReader(data) }}
}
