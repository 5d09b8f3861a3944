package kernel

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// procKeys was read on a kernel with a trusted keyring, as root; the numbers were
// made round.
const procKeys = `00000001 I------     1 perm 1f0b0000     0     0 keyring   .builtin_trusted_keys: 1
00000002 I------     1 perm 1f0f0000     0     0 keyring   .secondary_trusted_keys: 1
00000003 I------     1 perm 1f0f0000     0     0 keyring   .ima: 3
00000004 I------     1 perm 0f0b0000     0     0 keyring   .blacklist: 2
00000005 I------     1 perm 1f030000     0     0 asymmetri Example CA: 0011223344556677889900112233445566778899: X509.rsa 66778899 []
00000006 I--Q---     1 perm 39010000     0     0 asymmetri Example Org: Release: 3471da9bf75729d2f254ee4f648934b36cf43c30: X509.rsa 6cf43c30 []
00000007 I--Q---     1 perm 39010000     0     0 asymmetri named by an administrator: X509.ecdsa-nist-p256 d4fdaf7d []
00000008 I--Q---     1 perm 39010000     0     0 asymmetri no identifier: 6c1f: X509.ecdsa-nist-p384 []
00000009 I------     1 perm 09090000     0     0 blacklist tbs:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
0000000a I------     1 perm 09090000     0     0 blacklist bin:ffff
0000000b I--Q---     1 perm 1f3f0000     0 65534 keyring   _uid.0: empty
0000000c IR-Q---     1 expd 39010000     0     0 asymmetri gone: 3471da9bf75729d2f254ee4f648934b3aaaaaaaa: X509.rsa aaaaaaaa []
0000000d I--Q---    12   2w 3f010000  1000    -1 keyring   _ima: 1
0000000e I--Q---     1  59s 3f010000     0     0 user      a name: 12
0000000f I------     1 perm 1f030000     0     0 asymmetri before Linux 4.3: 00112233445566778899001122334455bbbbbbbb: X509.RSA bbbbbbbb []
`

func TestParseKeys(t *testing.T) {
	keys, err := parseKeys(strings.NewReader(procKeys))
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Count(procKeys, "\n"); len(keys) != want {
		t.Fatalf("%d keys of %d lines", len(keys), want)
	}
	describe := func(k Key) string {
		return fmt.Sprintf("%x %s uid=%d dead=%t %q alg=%s id=%x skid=%x", k.Serial, k.Type, k.UID, k.Dead, k.Description, k.Algorithm, k.KeyID, k.SKID)
	}
	for i, want := range map[int]string{
		0:  `1 keyring uid=0 dead=false ".builtin_trusted_keys" alg= id= skid=`,
		5:  `6 asymmetric uid=0 dead=false "Example Org: Release: 3471da9bf75729d2f254ee4f648934b36cf43c30" alg=X509.rsa id=6cf43c30 skid=3471da9bf75729d2f254ee4f648934b36cf43c30`,
		6:  `7 asymmetric uid=0 dead=false "named by an administrator" alg=X509.ecdsa-nist-p256 id=d4fdaf7d skid=`,
		7:  `8 asymmetric uid=0 dead=false "no identifier: 6c1f" alg=X509.ecdsa-nist-p384 id= skid=`,
		8:  `9 blacklist uid=0 dead=false "tbs:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff" alg= id= skid=`,
		11: `c asymmetric uid=0 dead=true "gone: 3471da9bf75729d2f254ee4f648934b3aaaaaaaa" alg=X509.rsa id=aaaaaaaa skid=3471da9bf75729d2f254ee4f648934b3aaaaaaaa`,
		12: `d keyring uid=1000 dead=false "_ima" alg= id= skid=`,
		13: `e user uid=0 dead=false "a name: 12" alg= id= skid=`,
		14: `f asymmetric uid=0 dead=false "before Linux 4.3: 00112233445566778899001122334455bbbbbbbb" alg=X509.RSA id=bbbbbbbb skid=00112233445566778899001122334455bbbbbbbb`,
	} {
		if got := describe(keys[i]); got != want {
			t.Errorf("line %d:\n got %s\nwant %s", i+1, got, want)
		}
	}
}

func TestParseKeysRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"another file": "root:x:0:0:root:/root:/bin/bash\n",
		"a long line":  strings.Repeat("x", maxProcLine+1),
		"too much":     strings.Repeat("\n", maxProcKeys+1),
	} {
		if _, err := parseKeys(strings.NewReader(text)); err == nil {
			t.Errorf("%s is read as /proc/keys", name)
		}
	}
	if keys, err := parseKeys(strings.NewReader("")); err != nil || len(keys) != 0 {
		t.Errorf("what a container sees: %v, %v", keys, err)
	}
}

// A user may put newlines into the name of a key, and let root see it.
func TestMadeUpLines(t *testing.T) {
	spoofed := procKeys +
		"00000122 I--Q---     1 perm 3f010000  1000  1000 user      a\n" +
		"00000003 I------     1 perm 1f0f0000     0     0 keyring   .ima: 1\n" + // a number that exists
		"00000123 I------     1 perm 1f0f0000     0     0 keyring   .machine: 1: 4\n" + // one that does not
		"00000124 I------     1 perm 1f0f0000     0     0 keyring   .platform: 1: 4\n" // one of another key, which root does not see
	keys, err := parseKeys(strings.NewReader(spoofed))
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(keys, func(k Key) bool { return k.Serial == 3 }) {
		t.Error("a number that occurs twice is believed")
	}
	rings := gather(keys, &asker{
		members: func(int32) ([]int32, error) { return nil, nil },
		describe: func(serial int32) (string, error) {
			switch serial {
			case 0x123:
				return "", unix.ENOKEY
			case 0x124:
				return "keyring;1000;1000;3f010000;mine", nil
			}
			for _, k := range keys {
				if k.Serial == serial {
					return "keyring;0;0;1f0b0000;" + k.Description, nil
				}
			}
			return "", unix.ENOKEY
		},
	})
	if len(rings.Named(ringMachine)) != 0 || len(rings.Named(ringPlatform)) != 0 || len(rings.Named(ringBuiltin)) != 1 {
		t.Errorf("keyrings that the kernel does not know: %+v", rings.Rings)
	}
}

func TestMembersOfKeyrings(t *testing.T) {
	keys, err := parseKeys(strings.NewReader(procKeys))
	if err != nil {
		t.Fatal(err)
	}
	skid := func(text string) []byte { b, _ := hex.DecodeString(text); return b }
	release, ca := skid("3471da9bf75729d2f254ee4f648934b36cf43c30"), skid("0011223344556677889900112233445566778899")
	members := map[int32][]int32{1: {5}, 2: {1}, 3: {6, 7, 12}, 4: {9, 10}}
	ask := &asker{
		members: func(serial int32) ([]int32, error) { return members[serial], nil },
		describe: func(serial int32) (string, error) {
			for _, k := range keys {
				if k.Serial == serial {
					return fmt.Sprintf("%s;%d;0;1;%s", k.Type, k.UID, k.Description), nil
				}
			}
			return "", unix.ENOKEY
		},
	}
	check := func(rings *Keyrings, ring string, id []byte, wantHas, wantCertain bool) {
		t.Helper()
		if has, certain := rings.Has(ring, id); has != wantHas || certain != wantCertain {
			t.Errorf("%x in %s: %t, certain %t", id, ring, has, certain)
		}
	}
	rings := gather(keys, ask)
	if !rings.Visible || len(rings.Named("_ima")) != 0 {
		t.Error("another user's _ima is none that counts, and the rest is to be seen")
	}
	check(rings, ".ima", release, true, true)
	check(rings, ".ima", ca, false, true)
	check(rings, ringBuiltin, ca, true, true)
	check(rings, ".ima", skid("ffffffffffffffffffffffffffffffffd4fdaf7d"), true, true)  // by its end, as it has a name of its own
	check(rings, ".ima", skid("3471da9bf75729d2f254ee4f648934b3aaaaaaaa"), false, true) // revoked
	check(rings, ".ima", nil, false, true)                                              // a certificate without identifier
	check(rings, ringMachine, release, false, true)                                     // there is none

	members[3] = []int32{7, 99}
	check(gather(keys, ask), ".ima", release, false, false) // one cannot be seen

	ask.members = func(int32) ([]int32, error) { return nil, errors.New("no") }
	check(gather(keys, ask), ".ima", release, false, false)
	// A container that may not ask the kernel, but sees /proc/keys.
	ask.describe = func(int32) (string, error) { return "", unix.EPERM }
	if forbidden := gather(keys, ask); !forbidden.Visible {
		t.Error("what is seen is not believed where nothing may be asked")
	}
	check(gather(keys, ask), ".ima", release, false, false)
	fromFile := gather(keys, nil)
	check(fromFile, ".ima", release, false, false)
	if !fromFile.Seen(release) || fromFile.Seen(skid("00")) {
		t.Error("a copy of /proc/keys tells that a key is somewhere")
	}
	check(gather(nil, ask), ".ima", release, false, false) // a container
}

// TestReadKeyrings asks the real kernel, in a session keyring that ends with the test.
func TestReadKeyrings(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root's keyrings count")
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	identifiers, err := Identifiers(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "keyring test"}, SubjectKeyId: identifiers.SHA1,
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	// A process keyring is one of the threads that were there when it was made.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ring, err := unix.AddKey("keyring", "_ima", nil, unix.KEY_SPEC_PROCESS_KEYRING)
	if err != nil {
		t.Skipf("this process may make no keyring: %v", err)
	}
	defer unix.KeyctlInt(unix.KEYCTL_UNLINK, ring, unix.KEY_SPEC_PROCESS_KEYRING, 0, 0)
	if _, err := unix.AddKey("asymmetric", "", der, ring); err != nil {
		t.Skipf("this kernel takes no certificates: %v", err)
	}
	// What keys show calls a collision: the end of the issuer's name is found as well.
	for id, want := range map[string]bool{hex.EncodeToString(identifiers.SHA1[16:]): true, hex.EncodeToString([]byte("test")): true, "00000000": false} {
		if _, err := unix.KeyctlSearch(ring, "asymmetric", "id:"+id, 0); (err == nil) != want {
			t.Errorf("key id %s is found: %v", id, err)
		}
	}
	rings, err := ReadKeyrings()
	if err != nil {
		t.Fatal(err)
	}
	mine := slices.IndexFunc(rings.Rings, func(r Keyring) bool { return r.Serial == int32(ring) })
	if mine < 0 {
		t.Fatalf("keyring %08x is not among %+v", ring, rings.Rings)
	}
	got := rings.Rings[mine]
	if !got.Listed || len(got.Keys) != 1 || !bytes.Equal(got.Keys[0].SKID, identifiers.SHA1) {
		t.Errorf("in the keyring: %+v, not the certificate with %x", got, identifiers.SHA1)
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(procKeys))
	for _, line := range strings.SplitAfter(procKeys, "\n") {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseKeys(bytes.NewReader(data))
		if err != nil {
			return
		}
		seen := map[int32]bool{}
		for _, k := range keys {
			if k.Serial <= 0 || seen[k.Serial] {
				t.Errorf("serial %d", k.Serial)
			}
			seen[k.Serial] = true
			if len(k.KeyID) > 4 || len(k.SKID) > 0 && !bytes.HasSuffix(k.SKID, k.KeyID) {
				t.Errorf("%+v", k)
			}
		}
		gather(keys, nil).Has(".ima", []byte{1, 2, 3, 4})
	})
}
