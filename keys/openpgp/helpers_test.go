package openpgp

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/sign"
)

// testTime is the time that signatures are made to state.
var testTime = time.Date(2022, 5, 6, 7, 8, 9, 0, time.UTC)

// The passphrase of every encrypted key in testdata.
const testPassphrase = "correct horse battery"

func readTestdata(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(testFile(name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeFile(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// answer is a Passphrase that counts how often it is asked.
func answer(passphrase string, asked *int) keys.Passphrase {
	return func(string) ([]byte, error) {
		if asked != nil {
			*asked++
		}
		return []byte(passphrase), nil
	}
}

// refuse stands for a person who gives no passphrase.
func refuse(string) ([]byte, error) { return nil, errors.New("no passphrase") }

// checkError wants an error that says all of want, on one line.
func checkError(t testing.TB, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that says %q", want)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error is %q, want %q in it", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "%!") {
		t.Errorf("the error is no line that can be shown: %q", err)
	}
}

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
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Skip("gpg is not installed")
	}
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

// holdsSecret reports whether text has eight bytes of the file's base64 lines in
// it, or the passphrase.
func holdsSecret(text string, file []byte) bool {
	if strings.Contains(text, testPassphrase) || strings.Contains(text, "horse") {
		return true
	}
	for line := range bytes.Lines(file) {
		line = bytes.TrimSpace(line)
		for i := 0; len(line) == 64 && i+12 <= len(line); i += 4 {
			if strings.Contains(text, string(line[i:i+12])) {
				return true
			}
		}
	}
	return false
}

func detachedOver(packet, data []byte) sign.OpenPGPSignature {
	return sign.OpenPGPSignature{Packet: packet, Signed: func() io.Reader { return bytes.NewReader(data) }}
}
