package openpgp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/imaseal/imaseal/sign"
)

// secretGPGHome is the home that gpg finds in the environment, with the secret
// keys of testdata. Nobody can be asked for a passphrase.
func secretGPGHome(t *testing.T) string {
	t.Helper()
	home := emptyGPGHome(t)
	writeFile(t, filepath.Join(home, "gpg-agent.conf"), []byte("pinentry-program /bin/false\n"))
	secret, err := filepath.Glob("testdata/*.key.asc")
	if err != nil || len(secret) < 15 {
		t.Fatalf("%d keys, %v", len(secret), err)
	}
	for _, path := range secret {
		if !strings.Contains(path, "stub") && !strings.Contains(path, "several") {
			runGPGIn(t, home, nil, "--import", path)
		}
	}
	t.Setenv("GNUPGHOME", home)
	return home
}

func TestOpenPGPSignaturesByGPG(t *testing.T) {
	home := secretGPGHome(t)
	data := readTestdata(t, "data")
	const sha256, sha384, sha512 = "8", "9", "10"
	for _, tt := range []struct {
		file          string
		named, signer int // index of the fingerprint
		ref           func(fpr string) string
		hash          string
		rsa           bool
	}{
		{file: "rsa.asc", hash: sha256, rsa: true},
		{file: "ed25519.asc", hash: sha256},
		{file: "p256.asc", hash: sha256},
		{file: "p384.asc", hash: sha384},
		{file: "p521.asc", hash: sha512},
		{file: "rsa.asc", hash: sha256, rsa: true, ref: strings.ToUpper},
		{file: "rsa.asc", hash: sha256, rsa: true, ref: func(fpr string) string { return "0x" + fpr[24:] }},
		{file: "rsa.asc", hash: sha256, rsa: true, ref: func(fpr string) string { return fpr[:4] + " " + fpr[4:20] + "  " + fpr[20:] }},
		{file: "subkey.asc", signer: 1, hash: sha256},
		{file: "subkey.asc", named: 1, signer: 1, hash: sha256},
		{file: "newest.asc", signer: 2, hash: sha256, rsa: true},
		{file: "newest.asc", named: 1, signer: 1, hash: sha256},
		{file: "newest.asc", named: 2, signer: 2, hash: sha256, rsa: true},
	} {
		t.Run(fmt.Sprintf("%s %d", tt.file, tt.named), func(t *testing.T) {
			fprs := gpgFingerprints(t, testFile(tt.file))
			ref := fprs[tt.named]
			if tt.ref != nil {
				ref = tt.ref(ref)
			}
			key, err := Open(t.Context(), "gpg:"+ref, nil, testTime)
			if err != nil {
				t.Fatal(err)
			}
			if key.Note != "" {
				t.Errorf("the note is %q", key.Note)
			}
			sig := detach(t, key, data)
			if sig.RSA != tt.rsa {
				t.Errorf("RSA: %v", sig.RSA)
			}
			want := validSig{fprs[tt.signer], fprs[0], tt.hash, "00", strconv.FormatInt(testTime.Unix(), 10)}
			if got := gpgVerify(t, home, sig.Packet, data); got != want {
				t.Errorf("gpg says %+v, want %+v", got, want)
			}
			clear, err := key.ClearSign(t.Context(), []byte(clearSignedLines))
			if err != nil {
				t.Fatal(err)
			}
			want.class = "01"
			if got := gpgVerify(t, home, clear, nil); got != want {
				t.Errorf("of the clear-signed text gpg says %+v, want %+v", got, want)
			}
			if got, signed, err := UnwrapClearSigned(clear); err != nil || !signed || string(got) != clearSignedLines {
				t.Errorf("unwrapped it is %q, %v, %v", got, signed, err)
			}
			if again := detach(t, key, data); !bytes.Equal(again.Packet, sig.Packet) {
				t.Error("another signature the second time")
			}
			if !key.Signed([]sign.OpenPGPSignature{detachedOver(sig.Packet, data)}) || key.Signed([]sign.OpenPGPSignature{detachedOver(sig.Packet, data[1:])}) {
				t.Error("the key does not know its own signature")
			}
		})
	}
}

func TestOpenRefusesKeysOfGPG(t *testing.T) {
	secretGPGHome(t)
	of := func(file string, i int) string { return gpgFingerprints(t, testFile(file))[i] }
	for _, tt := range []struct{ name, ref, want string }{
		{"an expired key", of("expired.asc", 0), "is expired"},
		{"a revoked key", of("revoked.asc", 0), "is revoked"},
		{"a key that only certifies", of("certify.asc", 0), "cannot sign"},
		{"a key whose subkey has expired", of("subkey-expired.asc", 0), "cannot sign"},
		{"a subkey that has expired", of("newest.asc", 3), "is expired"},
		{"a subkey that is revoked", of("subkey-revoked.asc", 1), "cannot sign"},
		{"a key whose passphrase nobody gives", of("encrypted.asc", 0), "gpg failed"},
		{"a key that is not there", strings.Repeat("0123456789", 4), "No secret key"},
		{"a short id", "01234567", "name the key by its fingerprint"},
		{"a name", "test@example.org", "name the key by its fingerprint"},
		{"nothing", "", "name the key by its fingerprint"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Open(t.Context(), "gpg:"+tt.ref, nil, testTime)
			checkError(t, err, "gpg:"+tt.ref, tt.want)
		})
	}
}

// The primary key's secret half stays at home, as release teams have it.
func TestGPGSignsWithASubkeyWhosePrimaryKeyIsAStub(t *testing.T) {
	home := emptyGPGHome(t)
	runGPGIn(t, home, nil, "--import", testFile("stub.key.asc"))
	t.Setenv("GNUPGHOME", home)
	fprs := gpgFingerprints(t, testFile("subkey.asc"))
	data := readTestdata(t, "data")
	key, err := Open(t.Context(), "gpg:"+fprs[0], nil, testTime)
	if err != nil {
		t.Fatal(err)
	}
	if got := gpgVerify(t, home, detach(t, key, data).Packet, data); got.fingerprint != fprs[1] {
		t.Errorf("signed by %s, want %s", got.fingerprint, fprs[1])
	}
}

// Before the key was made, its first second is stated.
func TestGPGSignaturesAreNotOlderThanTheirKey(t *testing.T) {
	home := secretGPGHome(t)
	data := readTestdata(t, "data")
	key, err := Open(t.Context(), "gpg:"+gpgFingerprints(t, testFile("ed25519.asc"))[0], nil, time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	got := gpgVerify(t, home, detach(t, key, data).Packet, data)
	if want := strconv.FormatInt(time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC).Unix(), 10); got.created != want {
		t.Errorf("it states %s, want %s", got.created, want)
	}
}

// A script that stands for gpg shows what is done about one that does not do its
// part.
func TestAGPGThatMisbehaves(t *testing.T) {
	fpr := strings.Repeat("0123456789", 4)
	list := "case \"$*\" in *--list-secret-keys*) echo 'sec:u:255:22::1::::::scS:::::ed25519:'; echo 'fpr:::::::::" + fpr + ":';; "
	for _, tt := range []struct{ name, script, want string }{
		{"it says nothing", "exit 0", "no such secret key"},
		{"it lists a record that is cut", "echo sec; echo fpr", "made at \"\""},
		{"it fails without a word", "exit 2", "exit status 2"},
		{"its last word is the reason", "echo 'gpg: first' >&2; echo 'gpg: the reason' >&2; exit 2", "gpg failed: the reason"},
		{"it writes without end", "head -c 40000000 /dev/zero", "gpg wrote more than"},
		{"it does not say that it signed", list + "esac", "did not say that it made a signature"},
		{"it signs by another key", list + "*--detach-sign*) echo '[GNUPG:] SIG_CREATED D 22 8 00 1 FFFF' >&3;; esac", "key FFFF, which is not the one"},
		{"it makes something else", list + "*--detach-sign*) echo '[GNUPG:] SIG_CREATED D 22 8 00 1 " + fpr + "' >&3; echo hello;; esac", "malformed OpenPGP packet"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stubGPG(t, tt.script)
			_, err := Open(t.Context(), "gpg:"+fpr, nil, testTime)
			checkError(t, err, "gpg:"+fpr, tt.want)
		})
	}
	t.Run("it is not there", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		_, err := Open(t.Context(), "gpg:"+fpr, nil, testTime)
		checkError(t, err, "running gpg", "not found")
	})
	t.Run("it hangs", func(t *testing.T) {
		started := filepath.Join(t.TempDir(), "started")
		stubGPG(t, "echo >"+started+"; exec sleep 60")
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for _, err := os.Stat(started); err != nil; _, err = os.Stat(started) {
			}
			cancel()
		}()
		if _, err := Open(ctx, "gpg:"+fpr, nil, testTime); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}

func stubGPG(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "gpg"), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestBoundedBufferKeepsWhatFits(t *testing.T) {
	for length, full := range map[int]bool{9: false, 10: false, 11: true, 100000: true} {
		b := &boundedBuffer{room: 10}
		// As package exec does.
		n, err := io.Copy(b, struct{ io.Reader }{strings.NewReader(strings.Repeat("x", length))})
		if err != nil || n != int64(length) {
			t.Errorf("%d, %v", n, err)
		}
		if b.kept.Len() != min(length, 10) || b.full != full {
			t.Errorf("of %d bytes it kept %d, full: %v", length, b.kept.Len(), b.full)
		}
	}
}
