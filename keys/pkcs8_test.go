package keys

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"
)

func marshal(t testing.TB, v any) asn1.RawValue {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return asn1.RawValue{FullBytes: der}
}

// An encryption is the parameters of an encrypted key; edits of a good one make
// the bad ones.
type encryption struct {
	scheme, kdf, cipher asn1.ObjectIdentifier
	params              any // of the kdf
	iv, data            []byte
}

func (e encryption) der(t testing.TB) []byte {
	return marshal(t, encryptedKey{
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: e.scheme, Parameters: marshal(t, pbes2Params{
			KDF:        pkix.AlgorithmIdentifier{Algorithm: e.kdf, Parameters: marshal(t, e.params)},
			Encryption: pkix.AlgorithmIdentifier{Algorithm: e.cipher, Parameters: marshal(t, e.iv)},
		})},
		Data: e.data,
	}).FullBytes
}

func withScrypt(n, r, p int) func(*encryption) {
	return func(e *encryption) {
		e.kdf, e.params = oidScrypt, scryptParams{Salt: []byte("salt"), N: n, R: r, P: p}
	}
}

func withPBKDF2(p pbkdf2Params) func(*encryption) {
	return func(e *encryption) { e.params = p }
}

type encryptionCase struct {
	name string
	edit func(*encryption)
	want string // "" where the passphrase is asked for
}

var encryptionCases = []encryptionCase{
	{"PBKDF2 with one iteration", func(*encryption) {}, ""},
	{"PBKDF2 with a key length", withPBKDF2(pbkdf2Params{Iterations: 1, KeyLength: 16}), ""},
	{"PBKDF2 with another key length", withPBKDF2(pbkdf2Params{Iterations: 1, KeyLength: 17}), "a key of 17 bytes"},
	{"PBKDF2 with no iteration", withPBKDF2(pbkdf2Params{}), "0 iterations"},
	{"PBKDF2 with a negative number", withPBKDF2(pbkdf2Params{Iterations: -1}), "-1 iterations"},
	{"PBKDF2 that takes minutes", withPBKDF2(pbkdf2Params{Iterations: maxIterations + 1}), "10000001 iterations"},
	{"PBKDF2 with MD5", withPBKDF2(pbkdf2Params{Iterations: 1, PRF: pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 5}}}), "pseudo-random function"},
	{"PBKDF2 with no parameters", func(e *encryption) { e.params = 1 }, "parameters of PBKDF2"},
	{"scrypt with no parameters", func(e *encryption) { e.kdf, e.params = oidScrypt, 1 }, "parameters of scrypt"},
	{"scrypt as openssl has it", withScrypt(16384, 8, 1), ""},
	{"scrypt with 64 MiB less a block", withScrypt(1<<18, 1, 64), ""},
	{"scrypt with more than 64 MiB", withScrypt(1<<19, 1, 1), "asks for too much"},
	{"scrypt with 2 GiB of blocks", withScrypt(2, 1<<18, 64), "asks for too much"},
	{"scrypt that runs long", withScrypt(16384, 8, 65), "asks for too much"},
	{"scrypt with the largest numbers", withScrypt(math.MaxInt, math.MaxInt, math.MaxInt), "asks for too much"},
	{"scrypt with N 3", withScrypt(3, 8, 1), "not allowed"},
	{"scrypt with N 0", withScrypt(0, 8, 1), "not allowed"},
	{"scrypt with r 0", withScrypt(2, 0, 1), "not allowed"},
	{"scrypt with p negative", withScrypt(2, 8, -1), "not allowed"},
	{"another derivation", func(e *encryption) { e.kdf = oidPBES2 }, "neither PBKDF2 nor scrypt"},
	{"another scheme", func(e *encryption) { e.scheme = oidPBKDF2 }, "is not PBES2"},
	{"another cipher", func(e *encryption) { e.cipher = oidPBES2 }, "neither AES nor triple DES"},
	{"a short initialization vector", func(e *encryption) { e.iv = e.iv[1:] }, "vector of 16 bytes"},
	{"AES with the vector of DES", func(e *encryption) { e.iv = e.iv[8:] }, "vector of 16 bytes"},
	{"DES with the vector of AES", func(e *encryption) { e.cipher = oidDESEDE3CBC }, "vector of 8 bytes"},
	{"no data", func(e *encryption) { e.data = nil }, "0 encrypted bytes"},
	{"half a block", func(e *encryption) { e.data = e.data[8:] }, "no whole number of blocks"},
}

func (c encryptionCase) der(t testing.TB) []byte {
	e := encryption{scheme: oidPBES2, kdf: oidPBKDF2, cipher: oidAES128CBC, params: pbkdf2Params{Iterations: 1}, iv: make([]byte, 16), data: make([]byte, 32)}
	c.edit(&e)
	return e.der(t)
}

func TestEncryptionIsJudgedBeforeThePassphraseIsAskedFor(t *testing.T) {
	for _, tt := range encryptionCases {
		t.Run(tt.name, func(t *testing.T) {
			asked := 0
			reached := errors.New("asked")
			_, err := parsePrivateKey(tt.der(t), "test.key", func(string) ([]byte, error) { asked++; return nil, reached })
			if tt.want == "" {
				if !errors.Is(err, reached) || asked != 1 {
					t.Fatalf("asked %d times, %v", asked, err)
				}
				return
			}
			if asked != 0 {
				t.Error("the passphrase was asked for")
			}
			checkError(t, err, tt.want)
		})
	}
}

func TestANewEncryptedKeyIsOpenedByOpenSSL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	der := readTestdata(t, "private/p256-pkcs8.der")
	made := map[string]bool{}
	for _, passphrase := range []string{"naïve — ключ", strings.Repeat("long", 200)} {
		encrypted, err := encryptKey(der, []byte(passphrase))
		if err != nil {
			t.Fatal(err)
		}
		var k encryptedKey
		if err := unmarshalAll(encrypted, &k); err != nil {
			t.Fatal(err)
		}
		made[string(k.Algorithm.Parameters.FullBytes)] = true
		file := writeFile(t, filepath.Join(dir, "key"), pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: encrypted}))
		pass := writeFile(t, filepath.Join(dir, "pass"), []byte(passphrase+"\n"))
		if got, want := runOpenSSL(t, "pkey", "-in", file, "-passin", "file:"+pass, "-pubout"), string(readTestdata(t, "private/p256.pub")); got != want {
			t.Errorf("openssl finds another key: %s", got)
		}
		shown := runOpenSSL(t, "asn1parse", "-in", file)
		for _, want := range []string{"PBES2", "PBKDF2", "INTEGER           :0927C0", "hmacWithSHA256", "aes-256-cbc"} {
			if !strings.Contains(shown, want) {
				t.Errorf("no %q in %s", want, shown)
			}
		}
	}
	if len(made) != 2 {
		t.Error("salt and vector are not random")
	}
}

func TestAKeyOfWholeBlocksIsPadded(t *testing.T) {
	want := append([]byte{0x30, 14}, make([]byte, 14)...)
	der, err := encryptKey(want, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := decryptKey(der, "test.key", answer("x", nil))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, %v", got, err)
	}
}
