package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestCAOnAToken: a CA whose key never leaves its token gets a certificate, and issues
// and renews those of keys in files and on the token.
func TestCAOnAToken(t *testing.T) {
	s := newTokenScene(t, "deb", 3)
	s.tool("--keypairgen", "--key-type", "EC:secp384r1", "--label", "root", "--id", "07")
	s.tool("--keypairgen", "--key-type", "EC:prime256v1", "--label", "signing", "--id", "08")
	s.write(s.path("passphrase"), []byte(passphrase+"\n"))
	keysCommand := func(args ...string) *exec.Cmd {
		return exec.Command(s.command, append([]string{"keys"}, args...)...)
	}
	root := []string{"--ca-key", s.key("root"), "--ca-cert", s.path("root.crt"), "--ca-passphrase-file", s.pin}
	with := func(args ...string) []string { return append(args, root...) }

	out := s.must(keysCommand(with("init", "--dir", s.path("made"), "--name", "Token", "--passphrase-file", s.path("passphrase"))...))
	if !strings.Contains(out, "Made a certificate for the CA's key ("+s.key("root")+", "+s.path("root.crt")+")") || strings.Contains(out, "offline") {
		t.Errorf("it says %s", out)
	}
	s.must(keysCommand(with("issue", "--name", "On token", "--passphrase-file", s.pin, "--out", s.path("token"), s.key("signing"))...))
	s.must(keysCommand(with("renew", s.path("made/signing.crt"))...))
	s.must(exec.Command("openssl", "verify", "-x509_strict", "-check_ss_sig", "-CAfile", s.path("root.crt"),
		s.path("made/signing.crt"), s.path("made/signing-2.crt"), s.path("token.crt")))
	s.must(s.signToken("signing", "--cert", s.path("token.crt")))
	s.must(exec.Command(s.command, "verify", "--cert", s.path("token.crt"), "--ca", s.path("root.crt"), s.pkg))
	s.write(s.pkg, s.content)

	// Now its certificate is on the token, and need not be named.
	s.must(exec.Command("openssl", "x509", "-in", s.path("root.crt"), "-outform", "DER", "-out", s.path("root.der")))
	s.tool("--write-object", s.path("root.der"), "--type", "cert", "--label", "root", "--id", "07")
	out = s.must(keysCommand("init", "--dir", s.path("second"), "--no-passphrase", "--ca-key", s.key("root"), "--ca-passphrase-file", s.pin))
	if !strings.Contains(out, "Used the CA that was there ("+s.key("root")+")") {
		t.Errorf("it says %s", out)
	}
	s.must(exec.Command("openssl", "verify", "-CAfile", s.path("root.crt"), s.path("second/signing.crt")))
	s.must(keysCommand("renew", "--ca-key", s.key("root", "pin-source="+s.pin), "--ca-cert", s.key("root"), "--out", s.path("third"), s.path("second/signing.crt")))

	// The new keys' passphrase is never tried as a PIN.
	noTerminal := keysCommand("init", "--dir", s.path("wrong"), "--passphrase-file", s.path("passphrase"), "--ca-key", s.key("root"), "--ca-cert", s.path("root.crt"))
	noTerminal.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	s.fails(noTerminal, "the CA's key", "no terminal to ask on", "--ca-passphrase-file")
	s.fails(keysCommand("init", "--dir", s.path("wrong"), "--no-passphrase", "--ca-key", s.key("root"), "--ca-passphrase-file", s.path("passphrase")), "the CA's key", "PIN")
	s.fails(keysCommand(with("init", "--dir", s.path("wrong"), "--no-passphrase", "--signing-key", "a", "--ca-dir", s.path("x"))...), "ca-dir ca-key")
	s.fails(keysCommand("init", "--dir", s.path("wrong"), "--no-passphrase", "--ca-key", s.key("none"), "--ca-passphrase-file", s.pin), "has no private key")
	if out, err := exec.Command("sh", "-c", "ls "+s.path("wrong")).CombinedOutput(); err == nil {
		t.Errorf("a failure left %s", out)
	}
}

// TestCAInAProgram: what signs for a CA is any key reference; one that lies is found out
// before a file is written.
func TestCAInAProgram(t *testing.T) {
	needTools(t, "openssl")
	dir := t.TempDir()
	signer := filepath.Join(dir, "signer")
	buildSigner(t, signer)
	runIn(t, dir, `openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out root.key
		imaseal keys init --dir keys --no-passphrase --ca-key "exec:$PWD/signer?good,$PWD/root.key" --ca-cert root.crt
		imaseal keys request --key "exec:$PWD/signer?good,$PWD/root.key" --out root.csr
		openssl verify -x509_strict -check_ss_sig -CAfile root.crt keys/signing.crt
		openssl req -in root.csr -noout -verify`)
	lies := `--ca-key "exec:$PWD/signer?lies,$PWD/root.key" --ca-cert `
	for _, line := range []string{
		"keys init --dir lies --no-passphrase " + lies + "lies.crt",
		"keys issue --name x --out lies.crt " + lies + "root.crt keys/signing.key",
		"keys renew --out lies " + lies + "root.crt keys/signing.crt",
	} {
		out := runIn(t, dir, "! imaseal "+line+"; ! ls lies* 2>/dev/null")
		if !strings.Contains(out, "signature returned by signer is invalid") {
			t.Errorf("%s: %s", line, out)
		}
	}
}
