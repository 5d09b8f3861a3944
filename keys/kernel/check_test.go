package kernel

import (
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// rings makes what a kernel holds: a line for each keyring, its name and the lines of
// the keys in it.
func rings(t *testing.T, listed bool, content map[string][]string) *Keyrings {
	t.Helper()
	var text strings.Builder
	members := map[int32][]int32{}
	serial := int32(0)
	line := func(kind, description string) int32 {
		serial++
		fmt.Fprintf(&text, "%08x I------     1 perm 1f0b0000     0     0 %-9.9s %s\n", serial, kind, description)
		return serial
	}
	line("keyring", ".builtin_regdb_keys: empty")
	for name, keys := range content {
		ring := line("keyring", fmt.Sprintf("%s: %d", name, len(keys)))
		for _, key := range keys {
			kind := "asymmetric"
			if strings.HasPrefix(key, "tbs:") {
				kind = "blacklist"
			}
			members[ring] = append(members[ring], line(kind, key))
		}
	}
	keys, err := parseKeys(strings.NewReader(text.String()))
	if err != nil || len(keys) != int(serial) {
		t.Fatalf("%d keys of %d: %v", len(keys), serial, err)
	}
	if !listed {
		return gather(keys, nil)
	}
	return gather(keys, &asker{
		members: func(serial int32) ([]int32, error) { return members[serial], nil },
		describe: func(serial int32) (string, error) {
			i := slices.IndexFunc(keys, func(k Key) bool { return k.Serial == serial })
			if i < 0 {
				return "", unix.ENOKEY
			}
			return keys[i].Type + ";0;0;0;" + keys[i].Description, nil
		},
	})
}

// keyLine is how /proc/keys shows a key with an identifier.
func keyLine(skid []byte) string {
	return fmt.Sprintf("somebody: %x: X509.rsa %x []", skid, skid[len(skid)-4:])
}

func TestCheck(t *testing.T) {
	caKey := rsaKey(t, 2048)
	ca := &issuer{caKey, issue(t, nil, caKey, asCA)}
	cert := issue(t, ca, ecKey(t, elliptic.P256()), nil)
	noUsage := issue(t, ca, caKey, nil)
	noUsage.KeyUsage = 0
	key, issuerKey := keyLine(cert.SubjectKeyId), keyLine(ca.cert.SubjectKeyId)
	twin := keyLine(append(make([]byte, 16), cert.SubjectKeyId[16:]...)) // of another key with its key id
	named := fmt.Sprintf("revoked: X509.ecdsa-nist-p256 %x []", cert.SubjectKeyId[16:])
	hash := fmt.Sprintf("tbs:%x", sha256.Sum256(cert.RawTBSCertificate))
	trusted := TargetOf(parsed(t, trustedConfig))
	builtinOnly := TargetOf(parsed(t, strings.Replace(trustedConfig, "CONFIG_IMA_KEYRINGS_PERMIT_SIGNED_BY_BUILTIN_OR_SECONDARY=y\n", "", 1)))
	debian := TargetOf(parsed(t, strings.Replace(debian12, "# CONFIG_CRYPTO_ECDSA is not set", "CONFIG_CRYPTO_ECDSA=y", 1)))
	in := func(ring string, keys ...string) map[string][]string {
		return map[string][]string{".ima": nil, ".blacklist": nil, ringBuiltin: nil, ring: keys}
	}

	for _, test := range []struct {
		name     string
		target   Target
		keyrings *Keyrings
		chain    error
		want     Verdict
		problem  string // part of the worst problem's detail
	}{
		{"only a configuration", trusted, nil, nil, Fits, ""},
		{"another CA", trusted, nil, errors.New("issued by a stranger"), Not, "stranger"},
		{"another CA where none is asked for", debian, nil, errors.New("issued by a stranger"), Fits, "is a module"},
		{"in a container", trusted, gather(nil, nil), nil, Fits, ""},
		{"loaded", trusted, rings(t, true, in(".ima", key)), nil, Verifies, ""},
		{"its CA is built in", trusted, rings(t, true, in(ringBuiltin, issuerKey)), nil, NotLoaded, ""},
		{"its CA is a machine owner's", trusted, rings(t, true, in(ringMachine, issuerKey)), nil, NotLoaded, ""},
		{"that of a machine owner does not count", builtinOnly, rings(t, true, in(ringMachine, issuerKey)), nil, Not, "it is in .machine, whose word does not count"},
		{"its CA went to .platform", trusted, rings(t, true, in(ringPlatform, issuerKey)), nil, Not, "it is in .platform, whose word does not count"},
		{"no CA", trusted, rings(t, true, in(".ima")), nil, Not, "is in none of .builtin_trusted_keys, .secondary_trusted_keys and .machine"},
		{"a copy of /proc/keys without it", trusted, rings(t, false, in(ringBuiltin, issuerKey)), nil, NotLoaded, ""},
		{"a copy of /proc/keys with it", trusted, rings(t, false, in(".ima", key, issuerKey)), nil, Fits, ""},
		{"a copy of /proc/keys with no CA", trusted, rings(t, false, in(".ima")), nil, Not, "is in none of"},
		{"Debian, loaded", debian, rings(t, true, in("_ima", key)), nil, Verifies, "is a module"},
		{"Debian, in another keyring", debian, rings(t, true, in(".evm", key)), nil, NotLoaded, "is a module"},
		{"blacklisted for IMA", trusted, rings(t, true, map[string][]string{".ima": {key}, ".ima_blacklist": {key}}), nil, Not, ".ima_blacklist"},
		{"another key of its id is blacklisted for IMA", trusted, rings(t, true, map[string][]string{".ima": {key}, ".ima_blacklist": {twin}}), nil, Not, "another key with the same key id is in .ima_blacklist"},
		{"by a name of its own", trusted, rings(t, true, map[string][]string{".ima": {key}, ".ima_blacklist": {named}}), nil, Not, "the key is in .ima_blacklist"},
		{"another key is blacklisted for IMA", trusted, rings(t, true, map[string][]string{".ima": {key}, ".ima_blacklist": {issuerKey}}), nil, Verifies, ""},
		{"beside another key of its id", trusted, rings(t, true, map[string][]string{".ima": {twin, key}}), nil, Not, "another key with the same key id is in .ima, \"somebody: 00"},
		{"after another key of its id", trusted, rings(t, true, map[string][]string{".ima": {twin}, ringBuiltin: {issuerKey}}), nil, Not, "another key with the same key id is in .ima"},
		{"its hash is blacklisted", trusted, rings(t, true, map[string][]string{".ima": nil, ".blacklist": {hash}, ringBuiltin: {issuerKey}}), nil, Not, "not let into a keyring any more"},
		{"its hash is blacklisted, too late", trusted, rings(t, true, map[string][]string{".ima": {key}, ".blacklist": {hash}}), nil, Verifies, "not let into a keyring any more"},
		{"revoked for modules", trusted, rings(t, true, map[string][]string{".ima": {key}, ".blacklist": {key}}), nil, Verifies, "signatures of files are not"},
		{"no configuration, with .ima", Target{}, rings(t, true, in(".ima", key)), nil, Verifies, ""},
		{"no configuration, with _ima", Target{Root: true}, rings(t, true, map[string][]string{"_ima": {key}, ".blacklist": nil}), nil, Verifies, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := Machine{test.target, test.keyrings}.Check(cert, test.chain)
			if got.Verdict != test.want {
				t.Errorf("%s, not %s: %v", got.Verdict, test.want, got.Problems)
			}
			worst := ""
			if len(got.Problems) > 0 {
				worst = got.Problems[0].Detail
			}
			if !strings.Contains(worst, test.problem) || test.problem == "" && worst != "" {
				t.Errorf("%q does not say %q", worst, test.problem)
			}
		})
	}

	// What the keyring asks for does not matter to what is in it.
	got := Machine{trusted, rings(t, true, in(".ima", keyLine(noUsage.SubjectKeyId)))}.Check(noUsage, nil)
	if got.Verdict != Verifies {
		t.Errorf("a loaded certificate without usage: %+v", got)
	}
	got = Machine{trusted, rings(t, true, map[string][]string{".ima": {key}, ".evm": {key}, ringSecondary: {issuerKey}})}.Check(cert, nil)
	if !slices.Equal(got.In, []string{".ima", ".evm"}) || !slices.Equal(got.IssuerIn, []string{ringSecondary}) || !got.Listed {
		t.Errorf("found in %q, its issuer in %q", got.In, got.IssuerIn)
	}
}
