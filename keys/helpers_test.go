package keys

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The passphrase of every encrypted key in testdata.
const testPassphrase = "correct horse battery"

// testTime is a time that certificates begin at.
var testTime = time.Date(2022, 5, 6, 7, 8, 9, 0, time.UTC)

func need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
}

// run runs a stock tool, which must succeed, and returns its output.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	need(t, name)
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func runOpenSSL(t testing.TB, args ...string) string {
	t.Helper()
	return run(t, "openssl", args...)
}

func readTestdata(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// seed gives every file of folders in testdata to a fuzz target.
func seed(f *testing.F, folders ...string) {
	f.Helper()
	for _, folder := range folders {
		files, err := os.ReadDir(filepath.Join("testdata", folder))
		if err != nil || len(files) < 5 {
			f.Fatalf("%s: %d files, %v", folder, len(files), err)
		}
		for _, file := range files {
			f.Add(readTestdata(f, filepath.Join(folder, file.Name())))
		}
	}
}

func writeFile(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// answer is a Passphrase that counts how often it is asked.
func answer(passphrase string, asked *int) Passphrase {
	return func(string) ([]byte, error) {
		if asked != nil {
			*asked++
		}
		return []byte(passphrase), nil
	}
}

// publicKey reads a public key as openssl pkey -pubout writes it.
func publicKey(t testing.TB, name string) interface{ Equal(crypto.PublicKey) bool } {
	t.Helper()
	block, _ := pem.Decode(readTestdata(t, name))
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return pub.(interface{ Equal(crypto.PublicKey) bool })
}

func loadCertificate(t testing.TB, path string) *x509.Certificate {
	t.Helper()
	certs, err := LoadCertificates(path)
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

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

func certificates(t testing.TB, path string) []*x509.Certificate {
	t.Helper()
	certs, err := LoadCertificates(path)
	if err != nil {
		t.Fatal(err)
	}
	return certs
}
