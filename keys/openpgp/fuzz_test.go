package openpgp

import (
	"bytes"
	"os"
	"slices"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

// seed gives every file of testdata to a fuzz target.
func seed(f *testing.F) {
	f.Helper()
	files, err := os.ReadDir("testdata")
	if err != nil || len(files) < 50 {
		f.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		if !file.IsDir() {
			f.Add(readTestdata(f, file.Name()))
		}
	}
}

// FuzzDescribe looks for signature packets that do harm. A verifier accepts
// none that is not described.
func FuzzDescribe(f *testing.F) {
	seed(f)
	for _, tt := range describedPackets {
		f.Add(append([]byte{0xc2, byte(len(tt.body))}, tt.body...))
	}
	data := readTestdata(f, "data")
	k, err := LoadKeyring("testdata/all.gpg")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		infos, err := Describe(raw)
		if (len(infos) == 0) == (err == nil) || len(infos) > maxPackets {
			t.Fatalf("%d signatures, %v", len(infos), err)
		}
		info, verifyErr := k.Verify(detachedOver(raw, data))
		if verifyErr == nil && (info.KeyID == "" || !slices.Contains([]string{"SHA256", "SHA384", "SHA512", "SHA3-256", "SHA3-512"}, info.Hash)) {
			t.Errorf("accepted: %+v, %v", info, err)
		}
	})
}

// FuzzKeyring looks for keyrings and secret keys that do harm. Nothing that does
// not hold one of our keys accepts its signature.
func FuzzKeyring(f *testing.F) {
	seed(f)
	data := readTestdata(f, "data")
	sig := readTestdata(f, "ed25519.sig")
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 1<<14 {
			return
		}
		if k, err := parseKeyring(raw); err == nil {
			k.Verify(detachedOver(sig, data))
		}
		key, err := parseKey(raw, "test.key", refuse, testTime)
		if err != nil {
			return
		}
		made, err := key.Detach(t.Context(), bytes.NewReader(data))
		if err != nil {
			return
		}
		if !key.Signed([]sign.OpenPGPSignature{detachedOver(made.Packet, data)}) {
			t.Error("a key that signs does not know its own signature")
		}
	})
}

// FuzzClearSigned looks for clear-signed texts that do harm, or that are read in
// another way than they were verified.
func FuzzClearSigned(f *testing.F) {
	for _, c := range clearSignedCases(f) {
		if len(c.text) < 64<<10 {
			f.Add([]byte(c.text))
		}
	}
	f.Add(readTestdata(f, "rsa-sha1.clear"))
	k, err := LoadKeyring("testdata/all.gpg")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		inner, signed, err := UnwrapClearSigned(raw)
		if err != nil && inner != nil {
			t.Error("an error comes with text")
		}
		if err == nil && !signed && !bytes.Equal(inner, raw) {
			t.Error("a text that is not signed was changed")
		}
		verified, _, verifyErr := k.VerifyClearSigned(raw)
		if verifyErr == nil && (err != nil || !signed || !bytes.Equal(verified, inner)) {
			t.Errorf("verified is %q, unwrapped %q, %v", verified, inner, err)
		}
	})
}
