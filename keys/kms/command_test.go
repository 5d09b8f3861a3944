package kms_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imaseal/imaseal/keys/kms/kmstest"
)

// outside is the environment before the clouds of the test were put into it.
var outside = os.Environ()

func TestMain(m *testing.M) { kmstest.Main(m) }

// build builds imaseal and the three programs into one folder, where it finds them.
func build(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	for dir, packages := range map[string]string{".": "./cmd/...", "../..": "./cmd/imaseal"} {
		cmd := exec.Command("go", "build", "-o", bin, packages)
		cmd.Dir, cmd.Env = dir, outside
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go build %s: %v: %s", packages, err, out)
		}
	}
	return bin
}

// buildDeb makes a small package with a program and its script.
func buildDeb(t *testing.T, dir string) string {
	t.Helper()
	for name, content := range map[string]string{
		"tree/DEBIAN/control":  "Package: hello\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a test\n",
		"tree/DEBIAN/postinst": "#!/bin/sh\nexit 0\n",
		"tree/usr/bin/hello":   "#!/bin/sh\necho hello\n",
		"tree/usr/share/hello": "text\n",
		"tree/usr/share/again": "text\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(content, "#!") {
			mode = 0o755
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "hello.deb")
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "--build", filepath.Join(dir, "tree"), path).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v: %s", err, out)
	}
	return path
}

// writeKey writes key and a certificate of it into dir.
func writeKey(t *testing.T, dir string, key crypto.Signer) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "release"}, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), SubjectKeyId: []byte("20 bytes of key id.."),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCommand has imaseal sign a package with a key of each cloud, through the program
// that it starts, and verify it.
func TestCommand(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("dpkg-deb is not installed: scripts/test installs it")
	}
	bin := build(t)
	clouds := map[string]struct {
		ref   string
		begin func(*testing.T, crypto.Signer) *kmstest.Service
	}{
		"aws":   {"awskms:///" + kmstest.AWSAlias, func(t *testing.T, k crypto.Signer) *kmstest.Service { return &kmstest.NewAWS(t, k).Service }},
		"gcp":   {"gcpkms://" + kmstest.GCPKeyVersion, func(t *testing.T, k crypto.Signer) *kmstest.Service { return &kmstest.NewGCP(t, k).Service }},
		"azure": {"azurekms://" + kmstest.AzureVault + "/release", func(t *testing.T, k crypto.Signer) *kmstest.Service { return &kmstest.NewAzure(t, k).Service }},
	}
	keys := map[string]crypto.Signer{"RSA": kmstest.RSAKey(t, 2048), "EC": kmstest.ECKey(t, elliptic.P256())}
	imaseal := func(t *testing.T, dir string, args ...string) (string, error) {
		t.Helper()
		cmd := exec.Command(filepath.Join(bin, "imaseal"), args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		for _, secret := range []string{"wJalrXUtnFEMI", "secret~", "PRIVATE KEY", "token.of-a-test", "ya29"} {
			if bytes.Contains(out, []byte(secret)) {
				t.Errorf("imaseal %v showed %s", args, secret)
			}
		}
		return string(out), err
	}
	for cloud, c := range clouds {
		for kind, key := range keys {
			t.Run(cloud+" "+kind, func(t *testing.T) {
				dir := t.TempDir()
				writeKey(t, dir, key)
				deb := buildDeb(t, dir)
				original, err := os.ReadFile(deb)
				if err != nil {
					t.Fatal(err)
				}
				service := c.begin(t, key)

				// A failure in the middle leaves the package whole.
				var asked atomic.Int32
				service.SetFault(kmstest.OnSign(func(w http.ResponseWriter, r *http.Request) bool {
					return asked.Add(1) > 1 && kmstest.Answer(http.StatusForbidden, `{"error":{"message":"no"}}`, "Content-Type", "application/json")(w, r)
				}))
				out, err := imaseal(t, dir, "sign", "--key", c.ref, "--cert", "cert.pem", "hello.deb")
				if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 2 || !strings.Contains(out, "hello.deb") {
					t.Errorf("denied in the middle: %v: %s", err, out)
				}
				if now, err := os.ReadFile(deb); err != nil || !bytes.Equal(now, original) {
					t.Errorf("the package changed though it was not signed: %v", err)
				}

				// What passes is tried again.
				asked.Store(0)
				service.SetFault(kmstest.OnSign(func(w http.ResponseWriter, r *http.Request) bool {
					return asked.Add(1) <= 2 && kmstest.Answer(http.StatusServiceUnavailable, "")(w, r)
				}))
				if out, err := imaseal(t, dir, "sign", "--key", c.ref, "--cert", "cert.pem", "hello.deb"); err != nil {
					t.Fatalf("imaseal sign: %v: %s", err, out)
				}
				// The script, the program, the text twice, the statement: four digests differ.
				if n := asked.Load(); n != 6 {
					t.Errorf("%d requests, not 4 and 2 again", n)
				}
				if out, err := imaseal(t, dir, "verify", "--cert", "cert.pem", "hello.deb"); err != nil || !strings.Contains(out, "ok") {
					t.Errorf("imaseal verify: %v: %s", err, out)
				}
				if kind != "RSA" {
					return
				}
				signed, err := os.ReadFile(deb)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(deb, original, 0o644); err != nil {
					t.Fatal(err)
				}
				if out, err := imaseal(t, dir, "sign", "--key", "key.pem", "--cert", "cert.pem", "hello.deb"); err != nil {
					t.Fatalf("imaseal sign: %v: %s", err, out)
				}
				if fromFile, err := os.ReadFile(deb); err != nil || !bytes.Equal(fromFile, signed) {
					t.Errorf("the key in a file gives another package than the one in the cloud: %v", err)
				}
			})
		}
	}

	text, err := os.ReadFile("../../docs/services.md")
	if err != nil {
		t.Fatal(err)
	}
	for cloud, heading := range map[string]string{"aws": "\n### AWS KMS\n", "gcp": "\n### Google Cloud KMS\n", "azure": "\n### Azure Key Vault"} {
		t.Run(cloud+" as documented", func(t *testing.T) {
			_, section, _ := strings.Cut(string(text), heading)
			section, _, _ = strings.Cut(section, "\n### ")
			section, _, _ = strings.Cut(section, "\n## ")
			script := strings.Join(regexp.MustCompile(`(?m)^    (key=.*|imaseal .*)$`).FindAllString(section, -1), "\n")
			if strings.Count(script, "\n") != 5 {
				t.Fatalf("the commands of the section are %q", script)
			}
			dir := t.TempDir()
			if err := os.Rename(buildDeb(t, dir), filepath.Join(dir, "hello_1.0_all.deb")); err != nil {
				t.Fatal(err)
			}
			clouds[cloud].begin(t, keys["EC"])
			cmd := exec.Command("sh", "-e", "-c", script)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "ok") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}

	t.Run("a key that signs SHA-512 only", func(t *testing.T) {
		dir := t.TempDir()
		buildDeb(t, dir)
		gcp := kmstest.NewGCP(t, keys["RSA"])
		gcp.Algorithm = "RSA_SIGN_PKCS1_4096_SHA512"
		ref := "gcpkms://" + kmstest.GCPKeyVersion
		for _, args := range [][]string{
			{"keys", "init", "--dir", "keys", "--no-passphrase"},
			{"keys", "issue", "--ca-key", "keys/ca.key", "--ca-cert", "keys/ca.crt", "--name", "Example release", "--out", "signing.crt", ref},
			{"sign", "--hash", "sha512", "--key", ref, "--cert", "signing.crt", "hello.deb"},
			{"verify", "--cert", "signing.crt", "--ca", "keys/ca.crt", "hello.deb"},
		} {
			if out, err := imaseal(t, dir, args...); err != nil {
				t.Fatalf("imaseal %v: %v: %s", args, err, out)
			}
		}
		out, err := imaseal(t, dir, "sign", "--force", "--key", ref, "--cert", "signing.crt", "hello.deb")
		if err == nil || !strings.Contains(out, "signs SHA-512 digests only, not SHA-256: use --hash sha512") {
			t.Errorf("by SHA-256: %v: %s", err, out)
		}
	})
	t.Run("AWS_ENDPOINT_URL_KMS", func(t *testing.T) {
		dir := t.TempDir()
		writeKey(t, dir, keys["EC"])
		buildDeb(t, dir)
		server := httptest.NewServer(kmstest.NewAWS(t, keys["EC"]))
		defer server.Close()
		kmstest.Handle(t, "kms.eu-central-1.amazonaws.com", nil)
		t.Setenv("AWS_ENDPOINT_URL_KMS", server.URL)
		if out, err := imaseal(t, dir, "sign", "--key", "awskms:///"+kmstest.AWSKeyARN, "--cert", "cert.pem", "hello.deb"); err != nil {
			t.Fatalf("imaseal sign: %v: %s", err, out)
		}
		if out, err := imaseal(t, dir, "verify", "--cert", "cert.pem", "hello.deb"); err != nil || !strings.Contains(out, "ok") {
			t.Errorf("imaseal verify: %v: %s", err, out)
		}
	})
	t.Run("what is said of a key that is not there", func(t *testing.T) {
		dir := t.TempDir()
		writeKey(t, dir, keys["EC"])
		buildDeb(t, dir)
		kmstest.NewAWS(t, keys["EC"])
		out, err := imaseal(t, dir, "sign", "--key", "awskms:///alias/other", "--cert", "cert.pem", "hello.deb")
		if err == nil || strings.Count(out, "NotFoundException") != 1 || !strings.Contains(out, "awskms:///alias/other") {
			t.Errorf("%v: %s", err, out)
		}
	})
}
