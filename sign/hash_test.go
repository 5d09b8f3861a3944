package sign_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

var knownHashes = map[sign.Hash]struct {
	name            string
	openpgp, verity int // RFC 9580 9.5; fsverity.h
	strong          bool
}{
	1: {"md5", 1, 0, false}, 2: {"sha1", 2, 0, false}, 4: {"sha256", 8, 1, true},
	5: {"sha384", 9, 0, true}, 6: {"sha512", 10, 2, true}, 7: {"sha224", 11, 0, false},
}

func TestHashTable(t *testing.T) {
	for n := range 256 {
		h := sign.Hash(n)
		want, known := knownHashes[h]
		if h.Known() != known || h.Strong() != want.strong || h.OpenPGP() != want.openpgp || h.Verity() != want.verity {
			t.Errorf("%d: known %v, strong %v, OpenPGP %d, fs-verity %d", n, h.Known(), h.Strong(), h.OpenPGP(), h.Verity())
		}
		if !known {
			if h.Size() != 0 || h.Crypto() != 0 || h.String() != fmt.Sprintf("hash algorithm %d", n) {
				t.Errorf("%d: %q of %d bytes", n, h, h.Size())
			}
			continue
		}
		for _, name := range []string{want.name, strings.ToUpper(want.name)} {
			if parsed, err := sign.ParseHash(name); err != nil || parsed != h {
				t.Errorf("%s: %v, %v", name, parsed, err)
			}
		}
		if back, err := sign.HashFromOpenPGP(want.openpgp); err != nil || back != h {
			t.Errorf("OpenPGP %d: %v, %v", want.openpgp, back, err)
		}
		if h.String() != want.name || h.Size() != h.Crypto().Size() {
			t.Errorf("%d: %q of %d bytes", n, h, h.Size())
		}
	}
	for _, id := range []int{-1, 0, 3, 7, 12, 14, 256 + 8} {
		if h, err := sign.HashFromOpenPGP(id); err == nil {
			t.Errorf("OpenPGP %d is taken for %s", id, h)
		}
	}
	for _, name := range []string{"", "sha", "sha-256", "sha3-256", "sha256 "} {
		if h, err := sign.ParseHash(name); err == nil {
			t.Errorf("%q is taken for %s", name, h)
		}
	}
}

// The numbers are the places in the kernel's enum, the digests those of openssl.
func TestHashesAreThoseOfLinuxAndOpenSSL(t *testing.T) {
	const header = "/usr/include/linux/hash_info.h"
	if text, err := os.ReadFile(header); err != nil {
		t.Logf("not compared with %s: %v", header, err)
	} else {
		_, list, _ := strings.Cut(string(text), "enum hash_algo {")
		for n, name := range strings.Split(list, ",") {
			name = strings.ToLower(strings.TrimPrefix(strings.TrimSpace(name), "HASH_ALGO_"))
			if h, err := sign.ParseHash(name); err == nil && int(h) != n {
				t.Errorf("%s is %d, Linux says %d", name, h, n)
			} else if _, known := knownHashes[sign.Hash(n)]; known && err != nil {
				t.Errorf("Linux's %d is %s", n, name)
			}
		}
	}
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	for h, want := range knownHashes {
		cmd := exec.Command("openssl", "dgst", "-r", "-"+want.name)
		cmd.Stdin = strings.NewReader("test\n")
		out, err := cmd.Output()
		if err != nil {
			t.Logf("openssl has no %s: %v", want.name, err)
			continue
		}
		if got := fmt.Sprintf("%x ", digestOf(h, "test\n")); !strings.HasPrefix(string(out), got) {
			t.Errorf("%s: %s, openssl says %s", want.name, got, out)
		}
	}
}
