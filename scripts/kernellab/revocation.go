package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	judging "github.com/imaseal/imaseal/keys/kernel"
	"github.com/imaseal/imaseal/scripts/kernellab/plan"
)

// The two revocations of case 9 that are there for kernel A only, whose keyrings have a
// path of trust: a key in .ima_blacklist, and the hash of a certificate in .blacklist.

// blacklistKeyOne adds the checks that a key in .ima_blacklist is refused, though .ima
// has it again, and that it stays there.
func (s *scene) blacklistKeyOne(first signingKey) {
	const ring = ".ima_blacklist"
	der := "/" + first.name + ".der"
	s.change(9, "root loads certificate 1 again", plan.Allowed, plan.KeyChange{Keyring: s.kernel.keyring, File: der, Name: certificateName(first.name)})
	s.run(9, "loaded again: a file by key 1 runs", plan.Allowed, "/lab/straggler")
	s.keysCheck("loaded again", 0, "verifies", "lab.crt")
	s.change(9, "a certificate that nobody vouches for does not get into "+ring, plan.Denied, plan.KeyChange{Keyring: ring, File: "/unvouched.der", Name: "stranger"})
	s.change(9, "certificate 1 is put into "+ring, plan.Allowed, plan.KeyChange{Keyring: ring, File: der, Name: "key 1"})
	s.keyOneIsRefused("blacklisted", "straggler-that-ran", "straggler")
	s.everythingElseRuns("blacklisted")
	s.keysCheck("blacklisted", 1, "does not verify", "the key is in .ima_blacklist")
	s.change(9, "it can't be taken back", plan.Denied, plan.KeyChange{Keyring: ring, Name: "key 1", Unlink: true})
}

// blacklistHash adds the checks that a certificate whose hash is in .blacklist does not
// get into a keyring. Where the kernel takes such a hash from root, it wants it signed by
// a key that is built in.
func (s *scene) blacklistHash(first signingKey, hash string) {
	der := "/" + first.name + ".der"
	s.keysCheck("not loaded", 1, "not loaded", "lab.crt")
	s.change(9, "the hash of certificate 1 is put into .blacklist", plan.Allowed, plan.KeyChange{Keyring: ".blacklist", File: hashSignature, Name: hash, Type: "blacklist"})
	for _, ring := range []string{s.kernel.keyring, ".ima_blacklist", "_ima"} {
		s.change(9, "certificate 1 does not get into "+ring+" any more", plan.Denied, plan.KeyChange{Keyring: ring, File: der, Name: certificateName(first.name)})
	}
	s.keysCheck("hash blacklisted", 1, "does not verify", "the hash of the certificate is in .blacklist")
}

// keysCheck adds a check of what imaseal's command says: its exit status, the verdict on
// certificate 1, and something else that it prints. Key 2 verifies always.
func (s *scene) keysCheck(since string, status int, verdict, says string) {
	s.tell(9, since+": imaseal keys check agrees", fmt.Sprintf(`cd /etc/imaseal/certs
imaseal keys check lab.crt key-2.crt >/tmp/keys; test $? = %d &&
grep -q 'configured by /proc/config.gz' /tmp/keys && grep -qF '%s' /tmp/keys && grep -q '^key-2.crt: verifies$' /tmp/keys &&
grep '^lab.crt: %s$' /tmp/keys`, status, says, verdict))
}

// hashSignature is where the initramfs has the CA's signature over what .blacklist calls
// certificate 1.
const hashSignature = "/key-1.p7s"

// signedHash returns what .blacklist calls a certificate, and puts the signature of that
// into the initramfs.
func (s *scene) signedHash(ctx context.Context, key signingKey) (string, error) {
	cert, err := readCertificate(key.cert)
	if err != nil {
		return "", err
	}
	authority, err := s.lab.ca()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "imaseal-lab-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	hash, file, signature := judging.BlacklistName(cert), filepath.Join(dir, "hash"), filepath.Join(dir, "signature")
	if err := os.WriteFile(file, []byte(hash), 0o644); err != nil {
		return "", err
	}
	if err := s.lab.run(ctx, "", nil, "openssl", "smime", "-sign", "-binary", "-noattr", "-nocerts", "-md", "sha256", "-outform", "DER",
		"-signer", authority.file, "-inkey", strings.TrimSuffix(authority.file, ".crt")+".key", "-in", file, "-out", signature); err != nil {
		return "", err
	}
	s.files[hashSignature], err = os.ReadFile(signature)
	return hash, err
}
