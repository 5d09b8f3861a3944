package deb

import (
	"archive/tar"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

// A toolKey is a key that evmctl and openssl can use.
type toolKey struct {
	signer             *sign.Signer
	private, cert, pub string
}

func newToolKey(t testing.TB, key crypto.Signer) toolKey {
	t.Helper()
	k := toolKey{signer: signtest.SignerOf(key)}
	dir := t.TempDir()
	put := func(name, kind string, der []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	k.private = put("key.pem", "PRIVATE KEY", der, err)
	der, err = x509.MarshalPKIXPublicKey(key.Public())
	k.pub = put("pub.pem", "PUBLIC KEY", der, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err = x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	k.cert = store(t, "cert.der", der) // evmctl reads no PEM
	return k
}

// TestEvmctlAndAttr: setfattr reads the manifest, getfattr prints it, and evmctl and
// openssl take the signatures for their own.
func TestEvmctlAndAttr(t *testing.T) {
	need(t, "dpkg-deb", "setfattr", "getfattr", "evmctl", "openssl")
	raw := dpkgDeb(t, tree(t), "-Zxz")
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key  toolKey
		hash sign.Hash
	}{
		"RSA sha256":   {newToolKey(t, rsaKey), sign.SHA256},
		"RSA sha512":   {newToolKey(t, rsaKey), sign.SHA512},
		"P-256 sha256": {newToolKey(t, p256), sign.SHA256},
		"P-384 sha384": {newToolKey(t, p384), sign.SHA384},
	} {
		k, hash := c.key, c.hash.String()
		t.Run(name, func(t *testing.T) {
			p := open(t, raw)
			m, err := sign.Sign(t.Context(), p, k.signer, sign.Options{Hash: c.hash})
			if err != nil {
				t.Fatal(err)
			}
			s := store(t, "signed.deb", write(t, p, m, sign.WriteOptions{}))
			dir, control := t.TempDir(), t.TempDir()
			run(t, "", true, "dpkg-deb", "-x", s, dir)
			run(t, "", true, "dpkg-deb", "-e", s, control)
			for _, c := range []struct {
				dir, text string
				entries   []sign.Entry
			}{{dir, "ima-signatures", m.Files}, {control, "ima-control-signatures", m.Control}} {
				text := filepath.Join(control, c.text)
				if out, err := exec.Command("setfattr", "-n", sign.XattrName, "-v", "0x030204", text).CombinedOutput(); err != nil {
					t.Skipf("security.ima cannot be set here, which takes a capability: %s", out)
				}
				run(t, c.dir, true, "setfattr", "--restore="+text)
				args := []string{"getfattr", "--dump", "--encoding=base64", "--match=^security\\.ima$", "--"}
				for _, e := range c.entries {
					args = append(args, e.Path)
				}
				want, err := os.ReadFile(text)
				if err != nil {
					t.Fatal(err)
				}
				if got := run(t, c.dir, true, args...); got != string(want) {
					t.Errorf("getfattr prints\n%s, %s is\n%s", got, c.text, want)
				}
				for _, e := range c.entries {
					path := filepath.Join(c.dir, e.Path)
					run(t, "", false, "evmctl", "ima_verify", "-a", hash, "-k", k.cert, path)
					parsed, err := sign.ParseSignature(e.Value)
					if err != nil {
						t.Fatal(err)
					}
					run(t, "", true, "openssl", "dgst", "-"+hash, "-verify", k.pub, "-signature", store(t, "sig", parsed.Sig), path)
				}
			}
			// The other way round: what evmctl makes.
			evmctl := func(e sign.Entry, path string) []byte {
				run(t, "", false, "evmctl", "ima_sign", "-a", hash, "-k", k.private, path)
				made := []byte(run(t, "", true, "getfattr", "--absolute-names", "--only-values", "-n", sign.XattrName, "--", path))
				if strings.HasPrefix(name, "RSA") && !bytes.Equal(made, e.Value) {
					t.Errorf("%q: evmctl makes %x, we %x", e.Path, made, e.Value)
				}
				return made
			}
			for i, e := range m.Files {
				m.Files[i].Value = evmctl(e, filepath.Join(dir, e.Path))
			}
			for i, e := range m.Control {
				m.Control[i].Value = evmctl(e, filepath.Join(control, e.Path))
			}
			selection := m.Statement.Selection
			if m.Statement, err = p.Statement(t.Context()); err != nil {
				t.Fatal(err)
			}
			m.Statement.AddSignatures(m)
			m.Statement.Selection, m.Statement.Hash = selection, c.hash
			if err := m.Statement.Sign(k.signer); err != nil {
				t.Fatal(err)
			}
			q := open(t, write(t, p, m, sign.WriteOptions{}))
			r, err := sign.Verify(t.Context(), q, signtest.Trust(k.signer), sign.Options{})
			if err != nil || !r.OK() {
				t.Errorf("Verify of evmctl's signatures: %+v, %v", r, err)
			}
		})
	}
}

// TestSetfattrRestoresOddNames unpacks names that dpkg-deb does not pack, labels the
// files with the signed package's own list, and compares what getfattr prints.
func TestSetfattrRestoresOddNames(t *testing.T) {
	need(t, "dpkg-deb", "setfattr", "getfattr")
	data := append(slices.Clone(treeFiles), file("usr/line\nbreak", 0o644, "a"), file("usr/\nfirst", 0o644, "b"), file("usr/last\n", 0o644, ""),
		file("usr/\\134", 0o644, "c"), link(tar.TypeLink, "usr/\r\n", "usr/last\n"))
	s := store(t, "p.deb", signed(t, build{data: data, dataSuffix: ".gz"}.bytes(t), noOptions))
	dir := t.TempDir()
	run(t, "", true, "dpkg-deb", "-x", s, dir)
	text := filepath.Join(t.TempDir(), "list")
	list := run(t, "", true, "dpkg-deb", "-I", s, "ima-signatures")
	if err := os.WriteFile(text, []byte(list), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("setfattr", "-n", sign.XattrName, "-v", "0x030204", text).CombinedOutput(); err != nil {
		t.Skipf("security.ima cannot be set here, which takes a capability: %s", out)
	}
	run(t, dir, true, "setfattr", "--restore="+text)
	args := []string{"getfattr", "--dump", "--encoding=base64", "--match=^security\\.ima$", "--"}
	for _, e := range slices.SortedFunc(slices.Values(data), func(a, b entry) int { return strings.Compare(a.Name, b.Name) }) {
		if e.Typeflag != tar.TypeSymlink {
			args = append(args, e.Name)
		}
	}
	if got := run(t, dir, true, args...); got != list {
		t.Errorf("getfattr prints\n%s, ima-signatures is\n%s", got, list)
	}
}
