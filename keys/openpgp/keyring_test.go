package openpgp

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/imaseal/imaseal/sign"
)

func loadKeyring(t testing.TB, files ...string) *Keyring {
	t.Helper()
	var all []byte
	for _, file := range files {
		all = append(all, readTestdata(t, file)...)
	}
	k, err := LoadKeyring(writeFile(t, filepath.Join(t.TempDir(), "keyring"), all))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeyringVerify(t *testing.T) {
	t.Parallel()
	data := readTestdata(t, "data")
	tampered := bytes.Clone(data)
	tampered[3] ^= 1
	for _, tt := range []struct {
		name, keyring, sig string
		data               []byte
		want               string // of the error
		warning            string
		unknown            bool
	}{
		{name: "RSA", keyring: "rsa.asc", sig: "rsa.sig"},
		{name: "armored signature", keyring: "rsa.asc", sig: "rsa.sig.asc"},
		{name: "Ed25519", keyring: "ed25519.asc", sig: "ed25519.sig"},
		{name: "P-256", keyring: "p256.asc", sig: "p256.sig"},
		{name: "P-384", keyring: "p384.asc", sig: "p384.sig"},
		{name: "P-521", keyring: "p521.asc", sig: "p521.sig"},
		{name: "signing subkey", keyring: "subkey.asc", sig: "subkey.sig"},
		{name: "one of many keys, binary", keyring: "all.gpg", sig: "p384.sig"},
		{name: "one of several armored blocks", keyring: "other.asc rsa.asc", sig: "rsa.sig"},
		{name: "a secret key serves too", keyring: "rsa.key.asc", sig: "rsa.sig"},
		{name: "two signatures, one of a strange key", keyring: "rsa.asc", sig: "other-and-rsa.sig"},
		{name: "the key has expired since", keyring: "expired.asc", sig: "expired-before.sig", warning: "has expired since it signed"},

		{name: "tampered data", keyring: "rsa.asc", sig: "rsa.sig", data: tampered, want: "by key "},
		{name: "cut data", keyring: "ed25519.asc", sig: "ed25519.sig", data: data[:len(data)-1], want: "by key "},
		{name: "longer data", keyring: "p256.asc", sig: "p256.sig", data: append(bytes.Clone(data), 0), want: "by key "},
		{name: "another key", keyring: "other.asc", sig: "rsa.sig", want: "unknown OpenPGP key ", unknown: true},
		{name: "the second tampered, the first strange", keyring: "rsa.asc", sig: "other-and-rsa.sig", data: tampered, want: "by key "},
		{name: "SHA-1", keyring: "rsa.asc", sig: "rsa-sha1.sig", want: "over SHA1, which proves nothing"},
		{name: "SHA-224", keyring: "rsa.asc", sig: "rsa-sha224.sig", want: "over SHA224, which proves nothing"},
		{name: "over text", keyring: "rsa.asc", sig: "rsa-text.sig", want: "of type 0x01"},
		{name: "RSA of 1024 bits", keyring: "rsa1024.asc", sig: "rsa1024.sig", want: "RSA of 1024 bits"},
		{name: "DSA", keyring: "dsa.asc", sig: "dsa.sig", want: "DSA key"},
		{name: "the key had expired before", keyring: "expired.asc", sig: "expired-after.sig", want: "expired"},
		{name: "the key is revoked", keyring: "revoked.asc", sig: "revoked.sig", want: "revoked"},
		{name: "the signature has expired", keyring: "rsa.asc", sig: "short-lived.sig", want: "expired"},
		{name: "a key is no signature", keyring: "rsa.asc", sig: "rsa.key.gpg", want: "packet 1 is no signature but of type 5"},
		{name: "nothing", keyring: "rsa.asc", sig: "", want: "no OpenPGP signature in it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := loadKeyring(t, strings.Fields(tt.keyring)...)
			var sig []byte
			if tt.sig != "" {
				sig = readTestdata(t, tt.sig)
			}
			if tt.data == nil {
				tt.data = data
			}
			info, err := k.Verify(detachedOver(sig, tt.data))
			if tt.want != "" {
				checkError(t, err, tt.want)
				if errors.Is(err, ErrUnknownKey) != tt.unknown {
					t.Errorf("ErrUnknownOpenPGPKey: %v", !tt.unknown)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(info.Warning, tt.warning) || tt.warning == "" && info.Warning != "" {
				t.Errorf("the warning is %q", info.Warning)
			}
			if info.KeyID == "" || !strings.HasSuffix(info.Fingerprint, info.KeyID) {
				t.Errorf("it does not say who signed: %+v", info)
			}
		})
	}
}

// Every bit of the data and of a signature counts.
func TestKeyringVerifySeesEveryByte(t *testing.T) {
	data := readTestdata(t, "data")
	k := loadKeyring(t, "ed25519.asc")
	sig := detach(t, openKey(t, "ed25519.key.asc", testTime), data).Packet
	if _, err := k.Verify(detachedOver(sig, data)); err != nil {
		t.Fatal(err)
	}
	for i := range data {
		for _, changed := range [][]byte{append(bytes.Clone(data[:i]), data[i+1:]...), append(append(bytes.Clone(data[:i]), data[i]^0x80), data[i+1:]...)} {
			if _, err := k.Verify(detachedOver(sig, changed)); err == nil {
				t.Errorf("byte %d may be changed", i)
			}
		}
	}
	// But for the area that is not hashed, which holds the key id only, and the
	// length in bits of the two numbers, which says nothing.
	refused := 0
	for i := range sig {
		changed := bytes.Clone(sig)
		changed[i] ^= 0x55
		if _, err := k.Verify(detachedOver(changed, data)); err != nil {
			refused++
		}
	}
	if refused < len(sig)-8 {
		t.Errorf("only %d of %d bytes count", refused, len(sig))
	}
}

func TestKeyringVerifySaysWhyASignatureCannotBeChecked(t *testing.T) {
	k := loadKeyring(t, "rsa.asc")
	// Version 4 with RSA and SHA-256, without any subpacket: nobody's.
	nobody := []byte{0xc2, 13, 4, 0, 1, 8, 0, 0, 0, 0, 0, 0, 0, 1, 1}
	_, err := k.Verify(detachedOver(nobody, nil))
	checkError(t, err, "cannot be checked", "version 4, RSA, SHA256")
	// Version 3 is of another age.
	old := append([]byte{0xc2, 22, 3, 5, 0}, make([]byte, 12)...)
	old = append(old, 1, 8, 0, 0, 0)
	_, err = k.Verify(detachedOver(old, nil))
	checkError(t, err, "OpenPGP")
	_, err = k.Verify(sign.OpenPGPSignature{Cleartext: true, Packet: readTestdata(t, "rsa.clear")})
	checkError(t, err, "dpkg-sig", "proves nothing")
}

func TestLoadKeyring(t *testing.T) {
	rsa := string(readTestdata(t, "rsa.asc"))
	for _, tt := range []struct {
		name, text string
		want       string // of the error, else
		keys       int
	}{
		{name: "armored", text: rsa, keys: 1},
		{name: "text before the armor", text: "a comment\n\n" + rsa, keys: 1},
		{name: "several blocks", text: rsa + string(readTestdata(t, "subkey.asc")) + "\n", keys: 2},
		{name: "binary", text: string(readTestdata(t, "all.gpg")), keys: 18},
		{name: "two binary ones", text: string(readTestdata(t, "rsa.key.gpg")) + string(readTestdata(t, "all.gpg")), keys: 19},
		{name: "nothing", want: "no OpenPGP key"},
		{name: "a certificate", text: string(readTestdata(t, "../../testdata/certificates/one.crt")), want: "no OpenPGP key"},
		{name: "a signature", text: string(readTestdata(t, "rsa.sig.asc")), want: `this is a "PGP SIGNATURE"`},
		{name: "a binary signature", text: string(readTestdata(t, "rsa.sig")), want: "no OpenPGP key"},
		{name: "the second block is cut", text: rsa + rsa[:len(rsa)/2], want: "malformed OpenPGP"},
		{name: "GnuPG's keybox", text: "\x00\x00\x00\x20\x01\x01\x00\x02KBXf\x00\x00\x00\x00\x5f\xee\x65\x00", want: "gpg --export"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := writeFile(t, filepath.Join(t.TempDir(), "ring"), []byte(tt.text))
			k, err := LoadKeyring(path)
			if tt.want != "" {
				checkError(t, err, path, tt.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(k.keys) != tt.keys {
				t.Errorf("%d keys, want %d", len(k.keys), tt.keys)
			}
		})
	}
	_, err := LoadKeyring(filepath.Join(t.TempDir(), "missing"))
	checkError(t, err, "missing")
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	year := func(y int) time.Time { return time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC) }
	for _, tt := range []struct {
		sig, algorithm, hash string
		created              time.Time
		key                  string // and the index of its fingerprint
		index                int
	}{
		{"rsa.sig", "RSA", "SHA256", year(2022), "rsa.asc", 0},
		{"rsa.sig.asc", "RSA", "SHA256", year(2022), "rsa.asc", 0},
		{"rsa-sha1.sig", "RSA", "SHA1", year(2022), "rsa.asc", 0},
		{"rsa-sha224.sig", "RSA", "SHA224", year(2022), "rsa.asc", 0},
		{"rsa.clear", "RSA", "SHA256", year(2022), "rsa.asc", 0},
		{"p521.sig", "ECDSA", "SHA512", year(2022), "p521.asc", 0},
		{"ed25519.sig", "EdDSA", "SHA512", year(2022), "ed25519.asc", 0},
		{"dsa.sig", "DSA", "SHA256", year(2022), "dsa.asc", 0},
		{"subkey.sig", "ECDSA", "SHA256", year(2022), "subkey.asc", 1},
		{"expired-after.sig", "EdDSA", "SHA256", year(2023), "expired.asc", 0},
	} {
		t.Run(tt.sig, func(t *testing.T) {
			fpr := gpgFingerprints(t, testFile(tt.key))[tt.index]
			infos, err := Describe(readTestdata(t, tt.sig))
			if err != nil || len(infos) != 1 {
				t.Fatalf("%d, %v", len(infos), err)
			}
			got := infos[0]
			if got.Version != 4 || got.Algorithm != tt.algorithm || got.Hash != tt.hash || !got.Created.Equal(tt.created) ||
				got.Fingerprint != fpr || got.KeyID != fpr[24:] || got.Warning != "" {
				t.Errorf("%+v", got)
			}
		})
	}
	infos, err := Describe(readTestdata(t, "other-and-rsa.sig"))
	if err != nil || len(infos) != 2 || infos[0].KeyID == infos[1].KeyID {
		t.Errorf("two signatures are described as %+v, %v", infos, err)
	}
}

// describedPackets are signature packets by hand, from RFC 4880 5.2 and RFC 9580
// 5.2; "" stands for a good one.
var describedPackets = []struct {
	name string
	body []byte
	want string
}{
	{"version 3", append(append([]byte{3, 5, 0, 0, 0, 0, 1}, 1, 2, 3, 4, 5, 6, 7, 8), 17, 2), ""},
	{"version 3 that is short", []byte{3, 5, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 17}, "cut short"},
	{"version 3 that hashes more", []byte{3, 6, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 17, 2}, "hash 6 bytes"},
	{"version 4", []byte{4, 0, 1, 8, 0, 6, 5, 2, 0, 0, 0, 1, 0, 10, 9, 16, 1, 2, 3, 4, 5, 6, 7, 8}, ""},
	{"version 6", append(append([]byte{6, 0, 27, 8, 0, 0, 0, 6, 5, 2, 0, 0, 0, 1, 0, 0, 0, 35, 34, 33, 6}, 1, 2, 3, 4, 5, 6, 7, 8), make([]byte, 24)...), ""},
	{"a subpacket with a length of two bytes", append([]byte{4, 0, 1, 8, 0, 6, 5, 2, 0, 0, 0, 1, 0, 204, 192, 0, 20}, append(make([]byte, 191), 9, 16, 1, 2, 3, 4, 5, 6, 7, 8)...), ""},
	{"a subpacket with a length of five bytes", []byte{4, 0, 1, 8, 0, 6, 5, 2, 0, 0, 0, 1, 0, 14, 255, 0, 0, 0, 9, 16, 1, 2, 3, 4, 5, 6, 7, 8}, ""},
	{"what is hashed goes first", []byte{4, 0, 1, 8, 0, 16, 5, 2, 0, 0, 0, 1, 9, 16, 1, 2, 3, 4, 5, 6, 7, 8, 0, 10, 9, 16, 9, 9, 9, 9, 9, 9, 9, 9}, ""},
	{"a critical subpacket", []byte{4, 0, 1, 8, 0, 6, 5, 0x82, 0, 0, 0, 1, 0, 10, 9, 0x90, 1, 2, 3, 4, 5, 6, 7, 8}, ""},
	{"version 4 without its areas", []byte{4, 0, 1, 8}, "cut short"},
	{"an area past the end", []byte{4, 0, 1, 8, 0, 7, 5, 2, 0, 0, 0, 1}, "cut short"},
	{"an area of version 6 past the end", []byte{6, 0, 1, 8, 255, 255, 255, 255, 0}, "cut short"},
	{"a subpacket past its area", []byte{4, 0, 1, 8, 0, 6, 6, 2, 0, 0, 0, 1, 0, 0}, "cut short"},
	{"a subpacket of no length", []byte{4, 0, 1, 8, 0, 1, 0, 0, 0}, "cut short"},
	{"a long length that is cut", []byte{4, 0, 1, 8, 0, 2, 255, 0, 0, 0}, "cut short"},
	{"a middle length that is cut", []byte{4, 0, 1, 8, 0, 1, 200, 0, 0}, "cut short"},
	{"a length of 4 GiB", []byte{4, 0, 1, 8, 0, 6, 255, 255, 255, 255, 255, 2, 0, 0}, "cut short"},
	{"an unknown version", []byte{9, 0}, "unknown version 9"},
	{"nothing", nil, "cut short"},
}

func TestDescribeReadsAnyVersion(t *testing.T) {
	for _, tt := range describedPackets {
		t.Run(tt.name, func(t *testing.T) {
			info, err := describe(tt.body)
			if tt.want != "" {
				checkError(t, err, tt.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if info.KeyID != "0102030405060708" || info.Created.Unix() != 1 || info.Version != int(tt.body[0]) {
				t.Errorf("%+v", info)
			}
		})
	}
}

func TestDescribeRefuses(t *testing.T) {
	rsa := readTestdata(t, "rsa.sig")
	armored := readTestdata(t, "rsa.sig.asc")
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"nothing", nil, "no OpenPGP signature"},
		{"text", []byte("text"), "malformed OpenPGP packet 1"},
		{"a packet that is cut", rsa[:len(rsa)-1], "malformed OpenPGP packet 1"},
		{"bytes after it", append(bytes.Clone(rsa), 0), "malformed OpenPGP packet 2"},
		{"a key", readTestdata(t, "all.gpg"), "packet 1 is no signature but of type 6"},
		{"an armored key", readTestdata(t, "rsa.asc"), "PGP PUBLIC KEY BLOCK"},
		{"armor that is cut", armored[:100], "OpenPGP"},
		{"too many", bytes.Repeat(rsa, maxPackets+1), "more than 256"},
		{"too large", make([]byte, maxSignatures+1), "too large"},
		{"a length of 4 GiB", []byte{0xc2, 255, 255, 255, 255, 255, 4}, "malformed OpenPGP packet 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Describe(tt.data)
			checkError(t, err, tt.want)
		})
	}
	if _, err := Describe(bytes.Repeat(rsa, maxPackets)); err != nil {
		t.Errorf("so many are allowed: %v", err)
	}
}

func TestUnknownNumbersAreShown(t *testing.T) {
	info := Info{}
	info.setAlgorithms(99, 98)
	if info.Algorithm != "algorithm 99" || info.Hash != "hash 98" || info.rsa() {
		t.Errorf("%+v", info)
	}
	for _, a := range []packet.PublicKeyAlgorithm{packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly} {
		if info.setAlgorithms(byte(a), 8); !info.rsa() {
			t.Errorf("%d is not RSA", a)
		}
	}
}
