package rpm

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

// gpgSigner makes OpenPGP signatures by gpg with the key of a kind.
func gpgSigner(env []string, kind string) func(context.Context, io.Reader) (sign.NewOpenPGPSignature, error) {
	return func(ctx context.Context, r io.Reader) (sign.NewOpenPGPSignature, error) {
		cmd := exec.CommandContext(ctx, "gpg", "--batch", "--quiet", "--local-user", "="+kind, "--digest-algo", "SHA256", "--detach-sign")
		cmd.Env = append(os.Environ(), env...)
		cmd.Stdin = r
		packet, err := cmd.Output()
		return sign.NewOpenPGPSignature{Packet: packet, RSA: strings.HasPrefix(kind, "rsa")}, err
	}
}

// signedWith signs the files of raw, and the whole as o says.
func signedWith(t *testing.T, raw []byte, o sign.WriteOptions) []byte {
	t.Helper()
	p := open(t, raw, Options{})
	m, err := sign.Sign(t.Context(), p, testKey(), sign.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return write(t, p, m, o)
}

func unsigned(t *testing.T, raw []byte) []byte {
	t.Helper()
	return write(t, open(t, raw, Options{}), nil, sign.WriteOptions{})
}

// TestOpenPGPKeys has rpm accept the signatures that we add to a package of format 4,
// in the tag for the kind of key, and those that it had before. Debian 12's rpm knows
// no ECDSA: TestOpenPGPKeysVersion6 has that.
func TestOpenPGPKeys(t *testing.T) {
	system(t)
	need(t, "rpmsign")
	env, public := gpgHome(t, "rsa2048", "ed25519")
	db := t.TempDir()
	run(t, nil, "rpmkeys", "--dbpath", db, "--import", public)
	path := filepath.Join(t.TempDir(), "x.rpm")
	judged := func(raw []byte, want string) {
		t.Helper()
		got := run(t, nil, "rpmkeys", "--dbpath", db, "--define", "_pkgverify_level all", "-Kv", save(t, path, raw))
		if strings.Count(got, "Signature") != 1 || !strings.Contains(got, want) {
			t.Errorf("rpmkeys does not say %q:\n%s", want, got)
		}
	}
	raw := spec{install: someFiles, files: someList}.build(t, "")
	for kind, want := range map[string]struct {
		tag uint32
		say string
	}{
		"rsa2048": {sigRSA, "Header V4 RSA/SHA256 Signature, key ID"},
		"ed25519": {sigDSA, "Header V4 EdDSA/SHA256 Signature, key ID"},
	} {
		out := signedWith(t, raw, sign.WriteOptions{OpenPGP: gpgSigner(env, kind)})
		if p := open(t, out, Options{}); len(p.OpenPGP()) != 1 || p.sig.find(want.tag) == nil {
			t.Errorf("%s: the signature is not in tag %d", kind, want.tag)
		}
		judged(out, want.say)
		if !bytes.Equal(unsigned(t, out), raw) {
			t.Errorf("%s: unsign does not give the original", kind)
		}
	}

	// One of rpmsign's stays, and is replaced by force only.
	run(t, env, "rpmsign", "-D", "__gpg /usr/bin/gpg", "-D", "_gpg_name rsa2048", "--addsign", save(t, path, raw))
	theirs := load(t, path)
	kept := judge(t, theirs, "rpm")
	judged(kept, "Header V4 RSA/SHA")
	o := sign.WriteOptions{OpenPGP: gpgSigner(env, "ed25519")}
	p := open(t, theirs, Options{})
	err := p.CanWrite(new(sign.Manifest), o)
	if err == nil || !strings.Contains(err.Error(), "RSAHEADER") || !strings.Contains(err.Error(), "unsign cannot undo") {
		t.Errorf("replacing without force: %v", err)
	}
	warned := ""
	o.Force, o.Warn = true, func(s string) { warned += s }
	judged(signedWith(t, theirs, o), "Header V4 EdDSA/SHA256 Signature, key ID")
	if !strings.Contains(warned, "RSAHEADER") || !strings.Contains(warned, "unsign cannot undo") {
		t.Errorf("replacing by force warns %q", warned)
	}
}

// TestOpenPGPKeysVersion6 has rpm 6 accept those of a package of format 6, of which
// each is added to the others, and the one of a package of format 4.
func TestOpenPGPKeysVersion6(t *testing.T) {
	root := forky(t)
	kinds := []string{"rsa2048", "nistp256", "ed25519"}
	env, public := gpgHome(t, kinds...)
	dir, inside := below(t, root)
	save(t, dir+"/public.asc", load(t, public))
	rpmkeys := func(args ...string) string {
		return run(t, nil, "chroot", append([]string{root, "rpmkeys", "--dbpath", inside + "/db"}, args...)...)
	}
	rpmkeys("--import", inside+"/public.asc")
	for _, format := range []string{"4", "6"} {
		raw := spec{install: someFiles, files: someList, defines: []string{"_rpmformat " + format}}.build(t, root)
		out := raw
		for i, kind := range kinds {
			tag, n := uint32(sigOpenPGP), i+1
			if format == "4" {
				tag, n, out = sigDSA, 1, raw
				if kind == "rsa2048" {
					tag = sigRSA
				}
			}
			out = signedWith(t, out, sign.WriteOptions{Force: true, OpenPGP: gpgSigner(env, kind)})
			save(t, dir+"/x.rpm", out)
			got := rpmkeys("--define", "_pkgverify_level all", "-Kv", inside+"/x.rpm")
			if strings.Count(got, "signature, key") != n || strings.Contains(got, "NOTTRUSTED") || strings.Contains(got, "BAD") {
				t.Errorf("format %s, %s: rpmkeys says\n%s", format, kind, got)
			}
			p := open(t, out, Options{})
			if e := p.sig.find(tag); e == nil || format == "6" && int(e.count) != n || len(p.OpenPGP()) != n {
				t.Errorf("format %s, %s: %d signatures, not %d in tag %d", format, kind, len(p.OpenPGP()), n, tag)
			}
			if !bytes.Equal(unsigned(t, out), raw) {
				t.Errorf("format %s, %s: unsign does not give the original", format, kind)
			}
		}
	}
}
