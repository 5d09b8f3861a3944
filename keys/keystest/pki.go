package keystest

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

// A PKI is a folder in which openssl issues certificates.
type PKI struct{ Dir string }

// Path is that of a file in the folder.
func (p PKI) Path(name string) string { return filepath.Join(p.Dir, name) }

// Key has openssl make a key, NAME.key, where there is none.
func (p PKI) Key(t testing.TB, name string) {
	t.Helper()
	if _, err := os.Stat(p.Path(name + ".key")); err != nil {
		OpenSSL(t, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", p.Path(name+".key"))
	}
}

// Issue has openssl make a certificate for a key of that name, with extensions as
// its configuration files have them, by issuer: itself if that is the same name.
func (p PKI) Issue(t testing.TB, name, subject, issuer string, extensions string, more ...string) *x509.Certificate {
	t.Helper()
	p.Key(t, name)
	ext := WriteFile(t, p.Path(name+".ext"), []byte(extensions))
	args := []string{"x509", "-req", "-in", p.Path(name + ".csr"), "-extfile", ext, "-days", "3650", "-out", p.Path(name + ".crt")}
	if name == issuer {
		args = append(args, "-signkey", p.Path(name+".key"))
	} else {
		args = append(args, "-CA", p.Path(issuer+".crt"), "-CAkey", p.Path(issuer+".key"), "-CAcreateserial")
	}
	OpenSSL(t, "req", "-new", "-key", p.Path(name+".key"), "-subj", subject, "-out", p.Path(name+".csr"))
	OpenSSL(t, append(args, more...)...)
	content, err := os.ReadFile(p.Path(name + ".crt"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(content)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// Extensions of certificates as kernels want them, in the words of openssl.
const (
	CAExtensions   = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n"
	LeafExtensions = "keyUsage=critical,digitalSignature\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
)

// EvmctlKeyID signs a file by evmctl and returns the key id in the signature.
func EvmctlKeyID(t testing.TB, args ...string) sign.KeyID {
	t.Helper()
	Need(t, "evmctl")
	file := WriteFile(t, filepath.Join(t.TempDir(), "file"), []byte("content"))
	args = append([]string{"ima_sign", "--sigfile", "-a", "sha256"}, append(args, file)...)
	if out, err := exec.Command("evmctl", args...).CombinedOutput(); err != nil {
		t.Fatalf("evmctl %q: %v\n%s", args, err, out)
	}
	raw, err := os.ReadFile(file + ".sig")
	if err != nil {
		t.Fatal(err)
	}
	sig, err := sign.ParseSignature(raw)
	if err != nil {
		t.Fatal(err)
	}
	return sig.KeyID
}
