package openpgp

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	pgp "github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/ProtonMail/go-crypto/openpgp/s2k"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/sign"
)

func testFile(name string) string { return filepath.Join("testdata", name) }

func openKey(t testing.TB, name string, now time.Time) *Key {
	t.Helper()
	key, err := Open(t.Context(), testFile(name), answer(testPassphrase, nil), now)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func detach(t testing.TB, key *Key, data []byte) sign.NewOpenPGPSignature {
	t.Helper()
	sig, err := key.Detach(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// clearSignedLines are lines that a clear-signed message must escape or keep.
const clearSignedLines = "Format: 1.8\n\n-----BEGIN PGP SIGNATURE-----\n- a dash\nFrom here\nDescription: naïve\n\n"

func TestOpenPGPSignaturesOfAFileAreJudgedByGPG(t *testing.T) {
	t.Parallel()
	home := gpgHome(t)
	data := readTestdata(t, "data")
	const sha256, sha384, sha512 = "8", "9", "10" // in OpenPGP
	for _, tt := range []struct {
		file   string
		signer int // 0 the primary key, 1 the first subkey
		hash   string
		rsa    bool
		random bool
	}{
		{file: "rsa.key.asc", hash: sha256, rsa: true},
		{file: "rsa.key.gpg", hash: sha256, rsa: true},
		{file: "ed25519.key.asc", hash: sha256},
		{file: "p256.key.asc", hash: sha256},
		{file: "p384.key.asc", hash: sha384},
		{file: "p521.key.asc", hash: sha512},
		{file: "brainpool.key.asc", hash: sha256, random: true},
		{file: "encrypted.key.asc", hash: sha256},
		{file: "encrypted-rsa.key.asc", hash: sha256, rsa: true},
		{file: "subkey.key.asc", signer: 1, hash: sha256},
		{file: "stub.key.asc", signer: 1, hash: sha256},
		{file: "newest.key.asc", signer: 2, hash: sha256, rsa: true},
	} {
		t.Run(tt.file, func(t *testing.T) {
			key := openKey(t, tt.file, testTime)
			fprs := gpgFingerprints(t, testFile(tt.file))
			sig := detach(t, key, data)
			if sig.RSA != tt.rsa {
				t.Errorf("RSA: %v", sig.RSA)
			}
			want := validSig{fprs[tt.signer], fprs[0], tt.hash, "00", strconv.FormatInt(testTime.Unix(), 10)}
			if got := gpgVerify(t, home, sig.Packet, data); got != want {
				t.Errorf("gpg says %+v, want %+v", got, want)
			}
			infos, err := Describe(sig.Packet)
			if err != nil || len(infos) != 1 {
				t.Fatalf("%d, %v", len(infos), err)
			}
			if info := infos[0]; info.Fingerprint != want.fingerprint || info.KeyID != want.fingerprint[24:] || !info.Created.Equal(testTime) || info.Version != 4 {
				t.Errorf("it describes itself as %+v", info)
			}
			if !key.Signed([]sign.OpenPGPSignature{detachedOver([]byte("junk"), data), detachedOver(sig.Packet, data)}) {
				t.Error("the key does not know its own signature")
			}
			if key.Signed([]sign.OpenPGPSignature{detachedOver(sig.Packet, data[1:]), detachedOver(readTestdata(t, "other.sig"), data)}) {
				t.Error("the key takes a signature for its own that is not")
			}

			clear, err := key.ClearSign(t.Context(), []byte(clearSignedLines))
			if err != nil {
				t.Fatal(err)
			}
			want.class = "01"
			if got := gpgVerify(t, home, clear, nil); got != want {
				t.Errorf("of the clear-signed text gpg says %+v, want %+v", got, want)
			}
			if got := runGPGIn(t, home, bytes.NewReader(clear), "--decrypt"); got != clearSignedLines {
				t.Errorf("gpg finds the text %q", got)
			}
			if got, signed, err := UnwrapClearSigned(clear); err != nil || !signed || string(got) != clearSignedLines {
				t.Errorf("unwrapped it is %q, %v, %v", got, signed, err)
			}

			again := openKey(t, tt.file, testTime)
			if same := bytes.Equal(detach(t, again, data).Packet, sig.Packet); same == tt.random {
				t.Errorf("the same bytes again: %v", same)
			}
			clearAgain, err := again.ClearSign(t.Context(), []byte(clearSignedLines))
			if err != nil || bytes.Equal(clearAgain, clear) == tt.random {
				t.Errorf("the same clear-signed text again: %v, %v", bytes.Equal(clearAgain, clear), err)
			}
		})
	}
}

// gpg takes the end of an armored block for data when neither padding nor checksum
// stand before it.
func TestClearSignedSignaturesOfAnyLengthAreReadByGPG(t *testing.T) {
	home := gpgHome(t)
	seen := map[int]bool{}
	for _, name := range []string{"rsa.key.asc", "ed25519.key.asc", "p521.key.asc"} {
		clear, err := openKey(t, name, testTime).ClearSign(t.Context(), []byte("a\n"))
		if err != nil {
			t.Fatal(err)
		}
		gpgVerify(t, home, clear, nil)
		packets, err := signaturePackets(clear)
		if err != nil {
			t.Fatal(err)
		}
		var packet bytes.Buffer
		if err := packets[0].Serialize(&packet); err != nil {
			t.Fatal(err)
		}
		seen[packet.Len()%3] = true
	}
	if len(seen) != 3 {
		t.Errorf("lengths modulo 3: %v, want all", seen)
	}
}

// Before the key was made, its first second is stated: gpg takes nothing earlier.
func TestOpenPGPSignaturesAreNotOlderThanTheirKey(t *testing.T) {
	home := gpgHome(t)
	data := readTestdata(t, "data")
	key := openKey(t, "ed25519.key.asc", time.Unix(1, 0))
	got := gpgVerify(t, home, detach(t, key, data).Packet, data)
	if want := strconv.FormatInt(time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC).Unix(), 10); got.created != want {
		t.Errorf("it states %s, want %s", got.created, want)
	}
}

func TestOpenAsksForThePassphraseOnce(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int{"encrypted.key.asc": 1, "encrypted-rsa.key.asc": 1, "rsa.key.asc": 0, "subkey.key.asc": 0} {
		asked := 0
		if _, err := Open(t.Context(), testFile(name), answer(testPassphrase, &asked), testTime); err != nil {
			t.Fatal(err)
		}
		if asked != want {
			t.Errorf("%s: asked %d times, want %d", name, asked, want)
		}
	}
	for _, name := range []string{"encrypted.key.asc", "encrypted-rsa.key.asc"} {
		path := testFile(name)
		_, err := Open(t.Context(), path, answer("another horse", nil), testTime)
		if !errors.Is(err, keys.ErrWrongPassphrase) {
			t.Errorf("%v is not ErrWrongPassphrase", err)
		}
		checkError(t, err, path, "wrong passphrase: give")
		if holdsSecret(err.Error(), readTestdata(t, name)) {
			t.Errorf("the error tells a secret: %v", err)
		}
		_, err = Open(t.Context(), path, nil, testTime)
		checkError(t, err, path, "encrypted", "passphrase")
		refused := errors.New("no")
		if _, err = Open(t.Context(), path, func(string) ([]byte, error) { return nil, refused }, testTime); !errors.Is(err, refused) {
			t.Errorf("the callback's error is lost: %v", err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	key := readTestdata(t, "rsa.key.asc")
	binary := readTestdata(t, "rsa.key.gpg")
	for _, tt := range []struct {
		name string
		file string // in testdata; its content if text is empty
		text []byte
		want []string
	}{
		{name: "an expired key", file: "expired.key.asc", want: []string{"has expired"}},
		{name: "a revoked key", file: "revoked.key.asc", want: []string{"is revoked"}},
		{name: "an expired subkey", file: "subkey-expired.key.asc", want: []string{"no valid signing key", "expired"}},
		{name: "a revoked subkey", file: "subkey-revoked.key.asc", want: []string{"no valid signing key", "revoked"}},
		{name: "a key that only certifies", file: "certify.key.asc", want: []string{"no valid signing key"}},
		{name: "RSA of 1024 bits", file: "rsa1024.key.asc", want: []string{"1024 bits", "2048"}},
		{name: "DSA", file: "dsa.key.asc", want: []string{"DSA", "make an RSA"}},
		{name: "several keys", file: "several.key.asc", want: []string{"several secret OpenPGP keys"}},
		{name: "a public key", file: "rsa.asc", want: []string{"no secret OpenPGP key", "gpg --export-secret-keys"}},
		{name: "a signature", file: "rsa.sig.asc", want: []string{"PGP SIGNATURE"}},
		{name: "a key for files", file: "../../testdata/private/p256-pkcs8.pem", want: []string{"no OpenPGP key"}},
		{name: "nothing", text: []byte("\n"), want: []string{"no OpenPGP key"}},
		{name: "armor that is cut", text: key[:len(key)/2], want: []string{"malformed OpenPGP"}},
		{name: "packets that are cut", text: binary[:len(binary)/4], want: []string{"OpenPGP"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join("testdata", tt.file)
			if tt.text != nil {
				path = writeFile(t, filepath.Join(t.TempDir(), "key"), tt.text)
			}
			_, err := Open(t.Context(), path, answer(testPassphrase, nil), testTime)
			checkError(t, err, append(tt.want, path)...)
		})
	}
	_, err := Open(t.Context(), "missing", nil, testTime)
	checkError(t, err, "missing")
	_, err = Open(t.Context(), "pkcs11:token", nil, testTime)
	checkError(t, err, "key pkcs11:…", "paths and file:, gpg:")
}

// A key whose own expiry has passed is not brought back by an older time.
func TestSOURCE_DATE_EPOCHBringsNoExpiredKeyBack(t *testing.T) {
	_, err := Open(t.Context(), testFile("expired.key.asc"), nil, time.Date(2021, 6, 1, 0, 0, 0, 0, time.UTC))
	checkError(t, err, "has expired")
}

func TestOpenRefusesArgon2InMuchMemory(t *testing.T) {
	config := &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, AEADConfig: &packet.AEADConfig{},
		S2KConfig: &s2k.Config{S2KMode: s2k.Argon2S2K, Argon2Config: &s2k.Argon2Config{NumberOfPasses: 1, DegreeOfParallelism: 1, Memory: 10}},
	}
	entity, err := pgp.NewEntity("test", "", "test@example.org", config)
	if err != nil {
		t.Fatal(err)
	}
	if err := entity.EncryptPrivateKeys([]byte(testPassphrase), config); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := entity.SerializePrivateWithoutSigning(&b, config); err != nil {
		t.Fatal(err)
	}
	raw := b.Bytes()
	const cipherAES128, modeOCB = 7, 2
	at := bytes.Index(raw, []byte{253, cipherAES128, modeOCB, 4})
	if at < 0 {
		t.Fatalf("no Argon2 in %x", raw)
	}
	memory := &raw[at+22]
	if _, err := parseKey(raw, "test.key", answer(testPassphrase, nil), time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, exponent := range []byte{maxArgon2Memory + 1, 31} {
		*memory = exponent
		asked := 0
		_, err = parseKey(raw, "test.key", answer(testPassphrase, &asked), time.Now())
		checkError(t, err, "Argon2", strconv.Itoa(int(exponent)))
		if asked > 0 {
			t.Error("the passphrase was asked for")
		}
	}
}

func TestOpenSaysWhenOthersCanReadTheKey(t *testing.T) {
	path := writeFile(t, filepath.Join(t.TempDir(), "key"), readTestdata(t, "rsa.key.asc"))
	for mode, told := range map[os.FileMode]bool{0o600: false, 0o644: true} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		key, err := Open(t.Context(), path, nil, testTime)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(key.Note, "chmod 600") != told {
			t.Errorf("mode %o: the note is %q", mode, key.Note)
		}
	}
}

func TestDetachStopsWhereTheReaderDoes(t *testing.T) {
	key := openKey(t, "ed25519.key.asc", testTime)
	broken := errors.New("broken")
	if _, err := key.Detach(t.Context(), iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := key.Detach(ctx, strings.NewReader("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	data := readTestdata(t, "data")
	one, err := key.Detach(t.Context(), iotest.OneByteReader(bytes.NewReader(data)))
	if err != nil || !bytes.Equal(one.Packet, detach(t, key, data).Packet) {
		t.Errorf("read byte by byte it is another signature, %v", err)
	}
}

func TestAnOpenPGPKeySignsManyAtOnce(t *testing.T) {
	data := readTestdata(t, "data")
	for _, name := range []string{"rsa.key.asc", "p256.key.asc", "ed25519.key.asc"} {
		key := openKey(t, name, testTime)
		want := detach(t, key, data).Packet
		wantClear, err := key.ClearSign(t.Context(), data)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				got, err := key.Detach(context.Background(), bytes.NewReader(data))
				if err != nil || !bytes.Equal(got.Packet, want) {
					t.Errorf("%s: another signature, %v", name, err)
				}
				gotClear, err := key.ClearSign(context.Background(), data)
				if err != nil || !bytes.Equal(gotClear, wantClear) {
					t.Errorf("%s: another clear-signed text, %v", name, err)
				}
				if !key.Signed([]sign.OpenPGPSignature{detachedOver(got.Packet, data)}) {
					t.Errorf("%s: not its own", name)
				}
			})
		}
		wg.Wait()
	}
}
