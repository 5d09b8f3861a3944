package dpkg

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

// certificates writes files into the folder of certificates of a new system.
func certificates(t *testing.T, folder string, files map[string][]byte) (system string) {
	t.Helper()
	system = t.TempDir()
	for name, body := range files {
		name = filepath.Join(system, folder, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return system
}

func TestLoadCertificates(t *testing.T) {
	key, other := newTestKey(t), newTestKey(t)
	asPEM := func(ders ...[]byte) (text []byte) {
		text = []byte("a comment\n")
		for _, der := range ders {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
		return text
	}
	trusts := func(keys *sign.TrustedKeys, k *testKey) bool {
		s, err := sign.ParseSignature(k.value(t, "x"))
		if err != nil {
			t.Fatal(err)
		}
		return keys != nil && verifyContent(keys, k.value(t, "x"), []byte("x")) == nil && s.Version == 2
	}
	for name, c := range map[string]struct {
		folder   string
		files    map[string][]byte
		both     bool
		problems int
	}{
		"DER":                  {"/etc/imaseal/certs", map[string][]byte{"a.der": key.der}, false, 0},
		"PEM":                  {"/etc/imaseal/certs", map[string][]byte{"a.pem": asPEM(key.der)}, false, 0},
		"two in one PEM":       {"/etc/imaseal/certs", map[string][]byte{"a.pem": asPEM(other.der, key.der)}, true, 0},
		"the kernel's folder":  {"/etc/keys/ima", map[string][]byte{"x509_ima.der": key.der, "b.der": other.der}, true, 0},
		"one of two is broken": {"/etc/imaseal/certs", map[string][]byte{"a.der": key.der, "b.der": []byte("junk")}, false, 1},
		"one is huge":          {"/etc/imaseal/certs", map[string][]byte{"a.der": key.der, "b.der": make([]byte, 1<<20)}, false, 1},
	} {
		keys, problems := loadCertificates(certificates(t, c.folder, c.files))
		if !trusts(keys, key) || trusts(keys, other) != c.both || len(problems) != c.problems {
			t.Errorf("%s: %v, %v, %q", name, trusts(keys, key), trusts(keys, other), problems)
		}
	}
	if keys, problems := loadCertificates(t.TempDir()); keys != nil || problems != nil {
		t.Errorf("of no folder: %v, %q", keys, problems)
	}
	if keys, _ := loadCertificates(certificates(t, "/etc/imaseal/certs", map[string][]byte{".keep": nil})); keys != nil {
		t.Error("an empty folder counts")
	}
	// A folder of broken certificates must not mean that nobody has to be verified.
	keys, problems := loadCertificates(certificates(t, "/etc/imaseal/certs", map[string][]byte{"a.der": []byte("junk")}))
	if keys == nil || trusts(keys, key) || len(problems) != 1 || !strings.Contains(problems[0], "a.der: no certificate in DER or PEM") {
		t.Errorf("of a broken one: %v, %q", keys, problems)
	}
}
