package sign_test

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

// testKey reads a key of testdata, which are for tests only.
func testKey(t testing.TB, name string) crypto.Signer {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	var key crypto.Signer
	if block.Type == "RSA PRIVATE KEY" {
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	} else {
		key, err = x509.ParseECPrivateKey(block.Bytes)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func testSigner(t testing.TB, name string) *sign.Signer {
	t.Helper()
	return signtest.SignerOf(testKey(t, name))
}

func digestOf(h sign.Hash, content string) []byte {
	state := h.Crypto().New()
	state.Write([]byte(content))
	return state.Sum(nil)
}

// A vector is an attribute that evmctl made; testdata/make-evmctl says how.
type vector struct {
	key, content string
	hash         sign.Hash
	value        []byte
}

func vectors(t testing.TB) []vector {
	t.Helper()
	f, err := os.Open("testdata/evmctl.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []vector
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		w := strings.Fields(lines.Text())
		v := vector{key: w[0], content: map[string]string{"test": "test\n", "empty": ""}[w[2]]}
		if v.hash, err = sign.ParseHash(w[1]); err != nil {
			t.Fatal(err)
		}
		if v.value, err = hex.DecodeString(w[3]); err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	if len(all) != 30 {
		t.Fatalf("%d vectors", len(all))
	}
	return all
}

func TestSignaturesOfEvmctlVerify(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(fmt.Sprintf("%s %s %q", v.key, v.hash, v.content), func(t *testing.T) {
			s := testSigner(t, v.key)
			sig, err := sign.ParseSignature(v.value)
			if err != nil {
				t.Fatal(err)
			}
			if sig.Version != 2 || sig.Hash != v.hash || sig.KeyID != s.KeyID() {
				t.Errorf("parsed as %+v", sig)
			}
			keys := signtest.Trust(s)
			if err := keys.VerifyDigest(sig, digestOf(v.hash, v.content)); err != nil {
				t.Error(err)
			}
			if err := keys.VerifyDigest(sig, digestOf(v.hash, "other")); !errors.Is(err, sign.ErrBadSignature) {
				t.Errorf("over other content: %v", err)
			}
			again, err := sig.MarshalBinary()
			if err != nil || !bytes.Equal(again, v.value) {
				t.Errorf("written again: %x, %v", again, err)
			}
		})
	}
}

func TestRSASignaturesEqualThoseOfEvmctl(t *testing.T) {
	s := testSigner(t, "rsa2048")
	n := 0
	for _, v := range vectors(t) {
		if v.key != "rsa2048" {
			continue
		}
		value, err := s.SignDigest(v.hash, digestOf(v.hash, v.content))
		if !v.hash.Strong() {
			if err == nil {
				t.Errorf("signs %s", v.hash)
			}
			continue
		}
		if n++; err != nil || !bytes.Equal(value, v.value) {
			t.Errorf("%s: got %x, %v; evmctl made %x", v.hash, value, err, v.value)
		}
	}
	if n != 6 {
		t.Errorf("%d signatures compared", n)
	}
}

func TestEvmctlVerifiesOurs(t *testing.T) {
	if _, err := exec.LookPath("evmctl"); err != nil {
		t.Skip("evmctl is not installed")
	}
	for _, name := range []string{"rsa2048", "p256", "p384"} {
		for _, h := range []sign.Hash{sign.SHA256, sign.SHA384, sign.SHA512} {
			dir := t.TempDir()
			s := testSigner(t, name)
			template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
			der, err := x509.CreateCertificate(rand.Reader, template, template, s.Public(), testKey(t, name))
			if err != nil {
				t.Fatal(err)
			}
			value, err := s.SignDigest(h, digestOf(h, "hello\n"))
			if err != nil {
				t.Fatal(err)
			}
			for file, content := range map[string][]byte{
				"f": []byte("hello\n"), "f.sig": value,
				"cert.der": der,
			} {
				if err := os.WriteFile(filepath.Join(dir, file), content, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			verify := func() (string, error) {
				cmd := exec.Command("evmctl", "ima_verify", "--sigfile", "--key", "cert.der", "f")
				cmd.Dir = dir
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			if out, err := verify(); err != nil {
				t.Errorf("%s %s: %v: %s", name, h, err, out)
			}
			if err := os.WriteFile(filepath.Join(dir, "f"), []byte("other\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := verify(); err == nil {
				t.Errorf("%s %s: evmctl verifies other content: %s", name, h, out)
			}
		}
	}
}

// The digests of struct ima_file_id of type 3 that Linux 7.1 signs, computed by
// hand: sha256 of 03 04 and the digest.
func TestVersion3SignsTheFileID(t *testing.T) {
	digest, _ := hex.DecodeString("f2ca1bb6c7e907d06dafe4687e579fce76b37e4e93b7605022da52e6ccc26fd2")
	if !bytes.Equal(digest, digestOf(sign.SHA256, "test\n")) {
		t.Fatal("not the digest of test")
	}
	signed, _ := hex.DecodeString("56737fcf370e7bfffccd5addd5382fd76964d46e9ce305fcd2261b4a4cc2a159")
	for _, name := range []string{"rsa2048", "p256"} {
		s := testSigner(t, name)
		raw, err := testKey(t, name).Sign(rand.Reader, signed, crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		sig := sign.Signature{Version: 3, Hash: sign.SHA256, KeyID: s.KeyID(), Sig: raw}
		value, err := sig.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if sig, err = sign.ParseSignature(value); err != nil || sig.Version != 3 {
			t.Fatalf("%+v, %v", sig, err)
		}
		keys := signtest.Trust(s)
		if err := keys.VerifyDigest(sig, digest); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		sig.Version = 2
		if err := keys.VerifyDigest(sig, digest); !errors.Is(err, sign.ErrBadSignature) {
			t.Errorf("%s: as version 2: %v", name, err)
		}
		if err := keys.VerifyDigest(sig, signed); err != nil {
			t.Errorf("%s: version 2 over the file id's digest: %v", name, err)
		}
	}
}

func TestParseSignatureRefuses(t *testing.T) {
	good := vectors(t)[4].value // RSA
	change := func(offset int, b ...byte) []byte {
		v := bytes.Clone(good)
		copy(v[offset:], b)
		return v
	}
	for name, test := range map[string]struct {
		value []byte
		want  string
	}{
		"nothing":            {nil, "0 bytes are too short"},
		"8 bytes":            {good[:8], "too short"},
		"no signature":       {append(bytes.Clone(good[:7]), 0, 0), "offset 7 is 0"},
		"all zeros":          {make([]byte, 265), "all zeros"},
		"type of a hash":     {change(0, 4), "offset 0 is 0x04"},
		"version 1":          {change(1, 1), "version at offset 1 is 1"},
		"version 4":          {change(1, 4), "version at offset 1 is 4"},
		"unknown hash":       {change(2, 17), "offset 2 is 17"},
		"hash md4":           {change(2, 0), "offset 2 is 0"},
		"size too small":     {change(7, 0, 255), "offset 7"},
		"size too large":     {change(7, 1, 1), "offset 7"},
		"cut off":            {good[:len(good)-1], "offset 7"},
		"trailing byte":      {append(bytes.Clone(good), 0), "offset 7"},
		"longer than ML-DSA": {append(append(bytes.Clone(good[:7]), 0x12, 0x14), make([]byte, 0x1214)...), "4628"},
	} {
		if s, err := sign.ParseSignature(test.value); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %+v, error %v does not say %q", name, s, err, test.want)
		}
	}
	// 72 is 0x0048, in the wrong order 0x4800.
	ec := append([]byte{3, 2, 4, 1, 2, 3, 4, 72, 0}, make([]byte, 72)...)
	if _, err := sign.ParseSignature(ec); !errors.Is(err, sign.ErrWrongByteOrder) {
		t.Errorf("little endian: %v", err)
	}
	if _, err := sign.ParseSignature(make([]byte, 80)); !errors.Is(err, sign.ErrZeroSignature) {
		t.Errorf("zeros: %v", err)
	}
	for _, n := range []int{0, 4628} {
		if v, err := (sign.Signature{Version: 2, Hash: sign.SHA256, Sig: make([]byte, n)}).MarshalBinary(); err == nil {
			t.Errorf("%d bytes are written as %x", n, v)
		}
	}
}

func TestAlgorithmNamesTheKey(t *testing.T) {
	want := map[string]string{"rsa2048": "RSA-2048", "p256": "ECDSA P-256", "p384": "ECDSA P-384"}
	for _, v := range vectors(t) {
		sig, err := sign.ParseSignature(v.value)
		if err != nil {
			t.Fatal(err)
		}
		if got := sig.Algorithm(); got != want[v.key] {
			t.Errorf("%s is taken for %s", v.key, got)
		}
	}
	for name, sig := range map[string][]byte{"none": nil, "short": {1}, "long DER": append([]byte{0x30}, make([]byte, 200)...)} {
		if got := (sign.Signature{Sig: sig}).Algorithm(); got != "unknown" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestVerifyDigestDoesNotPanicOnOddValues(t *testing.T) {
	s := testSigner(t, "p256")
	keys := signtest.Trust(s)
	for _, sig := range []sign.Signature{
		{}, {KeyID: s.KeyID()}, {KeyID: s.KeyID(), Version: 3}, {KeyID: s.KeyID(), Version: 3, Hash: 99}, {KeyID: s.KeyID(), Version: 2, Hash: sign.SHA256},
	} {
		for _, digest := range [][]byte{nil, make([]byte, 32)} {
			if err := keys.VerifyDigest(sig, digest); err == nil {
				t.Errorf("%+v verifies", sig)
			}
		}
	}
	var none sign.TrustedKeys
	if err := none.VerifyDigest(sign.Signature{KeyID: 1}, nil); !errors.Is(err, sign.ErrUnknownKey) {
		t.Error(err)
	}
	if err := none.Add(1, "no key"); err == nil {
		t.Error("a string is taken for a key")
	}
}

// Two keys may share a key id, which has 32 bits only.
func TestVerifyDigestTriesEveryKeyOfAnID(t *testing.T) {
	ec, rsaKey := testKey(t, "p256"), testKey(t, "rsa2048")
	var keys sign.TrustedKeys
	for _, pub := range []crypto.PublicKey{ec.Public(), rsaKey.Public()} {
		if err := keys.Add(7, pub); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []crypto.Signer{ec, rsaKey} {
		s, err := sign.NewSigner(key, 7)
		if err != nil {
			t.Fatal(err)
		}
		digest := digestOf(sign.SHA384, "x")
		value, err := s.SignDigest(sign.SHA384, digest)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := sign.ParseSignature(value)
		if err != nil {
			t.Fatal(err)
		}
		if err := keys.VerifyDigest(sig, digest); err != nil {
			t.Errorf("%T: %v", key, err)
		}
	}
}

func FuzzParseSignature(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.value)
	}
	f.Add(make([]byte, 80))
	keys := signtest.Trust(testSigner(f, "rsa2048"), testSigner(f, "p256"))
	f.Fuzz(func(t *testing.T, value []byte) {
		sig, err := sign.ParseSignature(value)
		if err != nil {
			return
		}
		again, err := sig.MarshalBinary()
		if err != nil || !bytes.Equal(again, value) {
			t.Fatalf("accepted %x is written as %x, %v", value, again, err)
		}
		sig.Algorithm()
		if keys.VerifyDigest(sig, digestOf(sig.Hash, "not signed")) == nil {
			t.Fatalf("%x verifies over what nobody signed", value)
		}
	})
}
