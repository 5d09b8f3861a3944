// Package keystest is what the tests of keys, and of the rooms that stand on it, share:
// stock tools, errors and files that are looked at, and keys that openssl makes.
package keystest

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Passphrase is that of every encrypted key in the folders testdata.
const Passphrase = "correct horse battery"

// Need skips the test where a tool is not installed.
func Need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
}

// Run runs a stock tool, which must succeed, and returns its output.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	Need(t, name)
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// OpenSSL runs openssl, as Run does.
func OpenSSL(t testing.TB, args ...string) string {
	t.Helper()
	return Run(t, "openssl", args...)
}

// WriteFile writes a file for the owner only and returns its path.
func WriteFile(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// ReadTestdata reads a file of the folder testdata.
func ReadTestdata(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Seed gives every file of folders in testdata to a fuzz target.
func Seed(f *testing.F, folders ...string) {
	f.Helper()
	for _, folder := range folders {
		files, err := os.ReadDir(filepath.Join("testdata", folder))
		if err != nil || len(files) < 5 {
			f.Fatalf("%s: %d files, %v", folder, len(files), err)
		}
		for _, file := range files {
			f.Add(ReadTestdata(f, filepath.Join(folder, file.Name())))
		}
	}
}

// PublicKey reads a public key as openssl pkey -pubout writes it.
func PublicKey(t testing.TB, name string) interface{ Equal(crypto.PublicKey) bool } {
	t.Helper()
	block, _ := pem.Decode(ReadTestdata(t, name))
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return pub.(interface{ Equal(crypto.PublicKey) bool })
}

// Tree returns the files below dir, path to mode and content; folders end in "/".
func Tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, dir+"/")
		switch {
		case d.IsDir():
			files[name+"/"] = fmt.Sprintf("%04o", info.Mode().Perm())
		case d.Type().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			files[name] = fmt.Sprintf("%04o %s", info.Mode().Perm(), content)
		default:
			files[name] = info.Mode().String()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Answer gives a passphrase and counts how often it is asked.
func Answer(passphrase string, asked *int) func(prompt string) ([]byte, error) {
	return func(string) ([]byte, error) {
		if asked != nil {
			*asked++
		}
		return []byte(passphrase), nil
	}
}

// Refuse stands for a person who gives no passphrase.
func Refuse(string) ([]byte, error) { return nil, errors.New("no passphrase") }

// CheckError wants an error that says all of want, on one line.
func CheckError(t testing.TB, err error, want ...string) {
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

// HoldsSecret reports whether text has eight bytes of the file's base64 lines in
// it, or the passphrase.
func HoldsSecret(text string, file []byte) bool {
	if strings.Contains(text, Passphrase) || strings.Contains(text, "horse") {
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
