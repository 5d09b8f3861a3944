package deb

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

func fakeOpenPGP(_ context.Context, r io.Reader) (sign.NewOpenPGPSignature, error) {
	h := sha256.New()
	_, err := io.Copy(h, r)
	return sign.NewOpenPGPSignature{Packet: h.Sum(nil)}, err
}

// A gpgKey is an OpenPGP key in a home of its own.
type gpgKey struct{ home, fingerprint string }

func newGPGKey(t testing.TB) gpgKey {
	t.Helper()
	need(t, "gpg")
	home, err := os.MkdirTemp("", "gpg") // short: the agent's socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		os.RemoveAll(home)
	})
	k := gpgKey{home: home}
	k.gpg(t, nil, "--passphrase", "", "--quick-generate-key", "Test <test@example.org>", "rsa3072", "sign", "0")
	for line := range strings.Lines(string(k.gpg(t, nil, "--with-colons", "--list-keys"))) {
		if f := strings.Split(line, ":"); f[0] == "fpr" && k.fingerprint == "" {
			k.fingerprint = f[9]
		}
	}
	return k
}

func (k gpgKey) gpg(t testing.TB, stdin io.Reader, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("gpg", append([]string{"--homedir", k.home, "--batch", "--quiet", "--pinentry-mode", "loopback"}, args...)...)
	cmd.Stdin = stdin
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gpg %q: %v", args, err)
	}
	return out
}

func (k gpgKey) detach(t testing.TB) func(context.Context, io.Reader) (sign.NewOpenPGPSignature, error) {
	return func(_ context.Context, r io.Reader) (sign.NewOpenPGPSignature, error) {
		return sign.NewOpenPGPSignature{Packet: k.gpg(t, r, "--digest-algo", "SHA256", "--detach-sign")}, nil
	}
}

// debsigVerify returns the exit status of debsig-verify under a policy that takes
// signatures of k only.
func (k gpgKey) debsigVerify(t testing.TB, raw []byte) int {
	t.Helper()
	need(t, "debsig-verify")
	dir, id := t.TempDir(), k.fingerprint[len(k.fingerprint)-16:]
	for _, kind := range []string{"policies", "keyrings"} {
		if err := os.MkdirAll(filepath.Join(dir, kind, id), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	policy := fmt.Sprintf(`<?xml version="1.0"?>
<!DOCTYPE Policy SYSTEM "https://www.debian.org/debsig/1.0/policy.dtd">
<Policy xmlns="https://www.debian.org/debsig/1.0/">
  <Origin Name="Test" id="%s" Description="Test"/>
  <Selection><Required Type="origin" File="test.gpg" id="%[1]s"/></Selection>
  <Verification MinOptional="0"><Required Type="origin" File="test.gpg" id="%[1]s"/></Verification>
</Policy>
`, id)
	if err := os.WriteFile(filepath.Join(dir, "policies", id, "test.pol"), []byte(policy), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "keyrings", id, "test.gpg"), k.gpg(t, nil, "--export"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("debsig-verify", "--policies-dir", filepath.Join(dir, "policies"), "--keyrings-dir", filepath.Join(dir, "keyrings"), store(t, "p.deb", raw))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Logf("debsig-verify: %v: %s", err, out)
	}
	return cmd.ProcessState.ExitCode()
}

func TestDebsigVerify(t *testing.T) {
	need(t, "debsig-verify", "dpkg-deb")
	k := newGPGKey(t)
	o := sign.WriteOptions{OpenPGP: k.detach(t)}
	for _, z := range []string{"-Znone", "-Zgzip", "-Zxz", "-Zzstd"} {
		raw := dpkgDeb(t, tree(t), z)
		s := signed(t, raw, o)
		if status := k.debsigVerify(t, s); status != 0 {
			t.Errorf("%s: debsig-verify exits %d", z, status)
		}
		if status := k.debsigVerify(t, signed(t, raw, sign.WriteOptions{})); status != 10 {
			t.Errorf("%s: no signature: debsig-verify exits %d, not 10", z, status)
		}
		bad := bytes.Clone(s)
		bad[open(t, s).archive.data.start()+40] ^= 1
		if status := k.debsigVerify(t, bad); status == 0 {
			t.Errorf("%s: tampered: debsig-verify exits 0", z)
		}
		// Ours reads the same bytes as debsig-verify.
		sigs := open(t, s).OpenPGP()
		if len(sigs) != 1 || sigs[0].Where != "_gpgorigin" || sigs[0].Cleartext {
			t.Fatalf("%+v", sigs)
		}
		sig := store(t, "sig", sigs[0].Packet)
		k.gpg(t, sigs[0].Signed(), "--verify", sig, "-")
		// Unsigning, and signing a package that debsigs signed.
		if !bytes.Equal(write(t, open(t, s), nil, sign.WriteOptions{}), raw) {
			t.Errorf("%s: unsign gives other bytes", z)
		}
		debsigs := append(bytes.Clone(raw), arOf(arMember{name: "_gpgorigin", content: k.gpg(t, open(t, raw).signedByOpenPGP(open(t, raw).archive.control.content(bytes.NewReader(raw))), "--digest-algo", "SHA256", "--detach-sign")})[8:]...)
		if status := k.debsigVerify(t, debsigs); status != 0 {
			t.Fatalf("%s: the signature made by hand: debsig-verify exits %d", z, status)
		}
		if err := open(t, debsigs).CanWrite(new(sign.Manifest), sign.WriteOptions{}); err == nil || !strings.Contains(err.Error(), "_gpgorigin") {
			t.Errorf("%s: CanWrite: %v", z, err)
		}
		resigned := signed(t, debsigs, o)
		if status := k.debsigVerify(t, resigned); status != 0 {
			t.Errorf("%s: signed anew: debsig-verify exits %d", z, status)
		}
		if back := write(t, open(t, resigned), nil, sign.WriteOptions{}); !bytes.Equal(back, debsigs) {
			t.Errorf("%s: unsign does not give back the first signature", z)
		}
	}
}

// TestDpkgSig: the clear-signed list is shown as such, replaced and given back.
func TestDpkgSig(t *testing.T) {
	text := "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nVersion: 4\nSigner: x\nRole: builder\nFiles:\n\tmd5 sha1 4 debian-binary\n"
	raw := build{tail: []arMember{{name: "_gpgbuilder", content: []byte(text)}}}.bytes(t)
	sigs := open(t, raw).OpenPGP()
	if len(sigs) != 1 || !sigs[0].Cleartext || sigs[0].Where != "_gpgbuilder" || string(sigs[0].Packet) != text {
		t.Errorf("%+v", sigs)
	}
	for name, o := range map[string]sign.WriteOptions{"dropped": {DropOpenPGP: true}, "replaced": {OpenPGP: fakeOpenPGP}} {
		s := signed(t, raw, o)
		if bytes.Contains(s[open(t, s).archive.data.stop():], []byte("_gpgbuilder")) {
			t.Errorf("%s: the stale signature is still there", name)
		}
		if !bytes.Equal(write(t, open(t, s), nil, sign.WriteOptions{}), raw) {
			t.Errorf("%s: unsign gives other bytes", name)
		}
	}
}

// TestSignatureMadeLater: what debsigs adds to a package that is signed already does
// not touch the file signatures, and goes when the original is put back.
func TestSignatureMadeLater(t *testing.T) {
	for name, raw := range map[string][]byte{
		"nothing before":     build{}.bytes(t),
		"a signature before": build{tail: []arMember{{name: "_gpgorigin", content: []byte("stale")}}}.bytes(t),
	} {
		s := signed(t, raw, sign.WriteOptions{DropOpenPGP: true})
		s = append(s, arOf(arMember{name: "_gpgmaint", content: []byte("later")})[8:]...)
		if r := verify(t, s); !r.OK() {
			t.Errorf("%s: Verify: %+v", name, r)
		}
		if err := open(t, s).CanWrite(new(sign.Manifest), sign.WriteOptions{}); err == nil || !strings.Contains(err.Error(), "_gpgmaint") {
			t.Errorf("%s: CanWrite: %v", name, err)
		}
		if !bytes.Equal(write(t, open(t, s), nil, sign.WriteOptions{}), raw) {
			t.Errorf("%s: unsign gives other bytes", name)
		}
	}
}
