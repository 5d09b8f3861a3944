package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

const softHSMModule = "/usr/lib/softhsm/libsofthsm2.so"

// tokenPIN is the PIN of the tokens here. Nobody but the command may see it.
const tokenPIN = "pin-90817263-marlin"

// tokenBuild builds the command with PKCS #11, beside the one without.
var tokenBuild = sync.OnceValues(func() (string, error) {
	plain, err := buildOnce()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(filepath.Dir(plain), "pkcs11")
	command := filepath.Join(dir, "imaseal")
	cmd := exec.Command("go", "build", "-tags", "pkcs11", "-o", command, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return command, nil
})

// A tokenScene is a scene with a command that has PKCS #11, a SoftHSM of its own with
// the token "release", and keys for it.
type tokenScene struct {
	*scene
	pin string // a file with the PIN
}

// newTokenScene puts an RSA key onto the token that is in rsa/signing.key too.
func newTokenScene(t *testing.T, format string, n int) *tokenScene {
	t.Helper()
	needTools(t, "softhsm2-util", "pkcs11-tool", "gcc", "dpkg-deb")
	if _, err := os.Stat(softHSMModule); err != nil {
		t.Skip("SoftHSM's module is not installed: scripts/test installs it")
	}
	command, err := tokenBuild()
	if err != nil {
		t.Fatal(err)
	}
	s := &tokenScene{scene: newScene(t, format, n)}
	s.command = command
	s.pin = s.path("pin")
	if err := os.WriteFile(s.pin, []byte(tokenPIN+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.path("hsm"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.write(s.path("softhsm2.conf"), []byte("directories.tokendir = "+s.path("hsm")+"\nlog.level = ERROR\n"))
	t.Setenv("SOFTHSM2_CONF", s.path("softhsm2.conf"))
	s.must(exec.Command("softhsm2-util", "--init-token", "--free", "--label", "release", "--so-pin", "so-"+tokenPIN, "--pin", tokenPIN))
	s.must(exec.Command(command, "keys", "init", "--dir", s.path("rsa"), "--type", "rsa2048", "--no-passphrase"))
	s.must(exec.Command("softhsm2-util", "--import", s.path("rsa/signing.key"), "--token", "release", "--label", "rsa", "--id", "01", "--pin", tokenPIN))
	return s
}

// tool runs pkcs11-tool on the token.
func (s *tokenScene) tool(args ...string) {
	s.t.Helper()
	s.must(exec.Command("pkcs11-tool", append([]string{"--module", softHSMModule, "--token-label", "release", "--login", "--pin", tokenPIN}, args...)...))
}

// key is the reference of a key; more attributes go behind its question mark.
func (s *tokenScene) key(object string, more ...string) string {
	return "pkcs11:token=release;object=" + object + "?" + strings.Join(append([]string{"module-path=" + softHSMModule}, more...), "&")
}

// signToken signs the package with a key on the token, and the PIN from its file.
func (s *tokenScene) signToken(object string, more ...string) *exec.Cmd {
	args := []string{"sign", "--key", s.key(object, "pin-source="+s.pin)}
	return exec.Command(s.command, append(append(args, more...), s.pkg)...)
}

func (s *tokenScene) read() []byte {
	s.t.Helper()
	content, err := os.ReadFile(s.pkg)
	if err != nil {
		s.t.Fatal(err)
	}
	return content
}

// TestTokenAndFile: signed by a token, a package is to the byte what it is signed by
// the same RSA key in a file; signed by EC keys it verifies.
func TestTokenAndFile(t *testing.T) {
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			s := newTokenScene(t, format, 60)
			s.must(exec.Command(s.command, "sign", "--key", s.path("rsa/signing.key"), "--cert", s.path("rsa/signing.crt"), s.pkg))
			byFile := s.read()
			s.write(s.pkg, s.content)
			s.must(s.signToken("rsa", "--cert", s.path("rsa/signing.crt"), "--sign-jobs", "3"))
			if !bytes.Equal(s.read(), byFile) {
				t.Error("the token and the file give different packages")
			}
			for _, curve := range []string{"prime256v1", "secp384r1"} {
				id := map[string]string{"prime256v1": "02", "secp384r1": "03"}[curve]
				s.tool("--keypairgen", "--key-type", "EC:"+curve, "--label", curve, "--id", id)
				request, cert := s.path(curve+".csr"), s.path(curve+".crt")
				s.must(exec.Command(s.command, "keys", "request", "--key", s.key(curve), "--passphrase-file", s.pin, "--out", request))
				s.must(exec.Command(s.command, "keys", "issue", "--ca-key", s.path("rsa/ca.key"), "--ca-cert", s.path("rsa/ca.crt"), "--out", cert, request))
				s.write(s.pkg, s.content)
				s.must(s.signToken(curve, "--cert", cert))
				s.must(exec.Command(s.command, "verify", "--cert", cert, "--ca", s.path("rsa/ca.crt"), "--require", "all", s.pkg))
			}
		})
	}
}

// TestTokenPIN: the PIN comes from a pin-source, a file, a descriptor or a terminal.
func TestTokenPIN(t *testing.T) {
	s := newTokenScene(t, "deb", 5)
	s.tool("--write-object", s.path("rsa/signing.der"), "--type", "cert", "--label", "rsa", "--id", "01")
	verified := func() {
		t.Helper()
		// The certificate from the token, which needs no PIN.
		s.must(exec.Command(s.command, "verify", "--cert", s.key("rsa"), "--require", "all", s.pkg))
		s.write(s.pkg, s.content)
	}
	if out := s.must(s.signToken("rsa")); strings.Contains(out, "other users") {
		t.Errorf("the file with the PIN is the owner's alone: %s", out)
	}
	verified()
	if err := os.Chmod(s.pin, 0o644); err != nil {
		t.Fatal(err)
	}
	if out := s.must(s.signToken("rsa")); !strings.Contains(out, s.pin+": other users can read or write this PIN (mode 0644)") {
		t.Errorf("others can read the PIN: %s", out)
	}
	verified()
	s.must(exec.Command(s.command, "sign", "--key", s.key("rsa"), "--passphrase-file", s.pin, s.pkg))
	verified()
	pin, err := os.Open(s.pin)
	if err != nil {
		t.Fatal(err)
	}
	defer pin.Close()
	byDescriptor := exec.Command(s.command, "sign", "--key", s.key("rsa"), "--cert", s.key("rsa"), "--passphrase-fd", "3", s.pkg)
	byDescriptor.ExtraFiles = []*os.File{pin}
	s.must(byDescriptor)
	verified()

	term := openTerminal(t)
	cmd := exec.Command(s.command, "sign", "--key", s.key("rsa"), s.pkg)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	term.start(cmd)
	term.wait(`PIN for token "release": `, 1)
	term.typeLine(tokenPIN)
	if shown, code := term.end(cmd); code != exitOK || strings.Contains(shown+output.String(), tokenPIN) {
		t.Errorf("exit code %d: %q %s", code, shown, &output)
	}
	verified()

	s.fails(exec.Command(s.command, "sign", "--key", s.key("rsa", "pin-source="+s.path("missing")), s.pkg), `token "release"`, "no such file")
	s.fails(exec.Command(s.command, "sign", "--key", s.key("rsa", "pin-value="+tokenPIN), s.pkg), "pin-source", "--passphrase-file")
}

// TestTokenCA: the key of the CA may be on the token, its certificate beside it.
func TestTokenCA(t *testing.T) {
	s := newTokenScene(t, "deb", 5)
	s.must(exec.Command("softhsm2-util", "--import", s.path("rsa/ca.key"), "--token", "release", "--label", "ca", "--id", "0a", "--pin", tokenPIN))
	s.must(exec.Command("openssl", "x509", "-in", s.path("rsa/ca.crt"), "-outform", "DER", "-out", s.path("ca.der")))
	s.tool("--write-object", s.path("ca.der"), "--type", "cert", "--label", "ca", "--id", "0a")
	request, cert := s.path("new.csr"), s.path("new.crt")
	s.must(exec.Command(s.command, "keys", "request", "--key", s.key("rsa", "pin-source="+s.pin), "--out", request))
	s.must(exec.Command(s.command, "keys", "issue", "--ca-key", s.key("ca", "pin-source="+s.pin), "--out", cert, request))
	s.must(s.signToken("rsa", "--cert", cert))
	s.must(exec.Command(s.command, "verify", "--cert", cert, "--ca", s.key("ca"), "--require", "all", s.pkg))
}

// TestTokenWrongPIN counts with OpenSC's spy what the module is asked: one login.
func TestTokenWrongPIN(t *testing.T) {
	spies, _ := filepath.Glob("/usr/lib/*-linux-gnu/pkcs11/pkcs11-spy.so")
	if len(spies) == 0 {
		t.Skip("OpenSC's pkcs11-spy.so is not installed: scripts/test installs it")
	}
	s := newTokenScene(t, "deb", 5)
	log := s.path("spy.log")
	t.Setenv("PKCS11SPY", softHSMModule)
	t.Setenv("PKCS11SPY_OUTPUT", log)
	key := "pkcs11:token=release;object=rsa?module-path=" + spies[0]
	logins := func() int {
		t.Helper()
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		os.Remove(log)
		return len(regexp.MustCompile(`(?m)^\d+: C_Login`).FindAll(text, -1))
	}
	const wrong = "wrong-pin-3141"
	s.write(s.path("wrong"), []byte(wrong+"\n"))
	cmd := exec.Command(s.command, "sign", "--key", key, "--passphrase-file", s.path("wrong"), s.pkg)
	s.fails(cmd, `token "release"`, "wrong PIN", "CKR_PIN_INCORRECT")
	if n := logins(); n != 1 {
		t.Errorf("a wrong PIN was tried %d times", n)
	}
	s.must(exec.Command(s.command, "sign", "--key", key, "--passphrase-file", s.pin, s.pkg))
	if n := logins(); n != 1 {
		t.Errorf("there were %d logins for one key", n)
	}
}

// TestTokenMistakes: what is said of references that are not quite right.
func TestTokenMistakes(t *testing.T) {
	s := newTokenScene(t, "deb", 5)
	s.must(exec.Command("softhsm2-util", "--init-token", "--free", "--label", "other", "--so-pin", tokenPIN, "--pin", tokenPIN))
	at := "?module-path=" + softHSMModule + "&pin-source=" + s.pin
	for key, texts := range map[string][]string{
		"pkcs11:object=rsa" + at:                   {"more than one token matches", "token=release", "token=other"},
		"pkcs11:token=nobody" + at:                 {"no token matches", "token=release", "token=other"},
		"pkcs11:token=release;object=x" + at:       {"has no private key", "id=%01;object=rsa;type=private"},
		"pkcs11:token=release;objct=rsa" + at:      {"attribute objct"},
		"pkcs11:token=%zz" + at:                    {"attribute token", "two hexadecimal digits"},
		"pkcs11:token=release?module-path=/no.so":  {"/no.so", "no such file"},
		"pkcs11:token=release?module-name=nowhere": {"nowhere", "module-path"},
	} {
		s.fails(exec.Command(s.command, "sign", "--key", key, s.pkg), texts...)
	}
	// A certificate that is another key's, and a kind of reference that holds none.
	s.fails(s.signToken("rsa", "--cert", s.path("keys/test.crt")), "is not for this key")
	s.fails(s.signToken("rsa", "--cert", "gpg:0123"), "certificate gpg:")

	// The build without says which one can.
	plain, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	s.fails(exec.Command(plain, "sign", "--key", s.key("rsa"), s.pkg), "-tags pkcs11", "packages have it")
	s.fails(exec.Command(plain, "sign", "--key", s.path("keys/test.key"), "--cert", s.key("rsa"), s.pkg), "-tags pkcs11")
	s.fails(exec.Command(plain, "sign", "--key", "pkcs11:token=a?pin-value="+tokenPIN, s.pkg), "pin-source")
}

// TestTokenSecrets watches everything that others could see for the PIN.
func TestTokenSecrets(t *testing.T) {
	s := newTokenScene(t, "deb", 40)
	s.tool("--write-object", s.path("rsa/signing.der"), "--type", "cert", "--label", "rsa", "--id", "01")
	secrets := []secret{{"the PIN", []byte(tokenPIN)}}
	l := newLookout(s.scene, secrets, s.pin)
	if out := l.watch(s.scene, s.signToken("rsa", "--verbose")); !strings.Contains(out, "signed") {
		t.Fatalf("the package was not signed: %s", out)
	}
	s.write(s.pkg, s.content)
	if out := l.watch(s.scene, exec.Command(s.command, "sign", "--json", "--key", s.key("rsa"), "--passphrase-file", s.pin, s.pkg)); !strings.Contains(out, `"verdict":"ok"`) {
		t.Fatalf("the package was not signed: %s", out)
	}
	s.write(s.pkg, s.content)
	pin, err := os.Open(s.pin)
	if err != nil {
		t.Fatal(err)
	}
	defer pin.Close()
	byDescriptor := exec.Command(s.command, "sign", "--key", s.key("rsa"), "--passphrase-fd", "3", s.pkg)
	byDescriptor.ExtraFiles = []*os.File{pin}
	if out := l.watch(s.scene, byDescriptor); !strings.Contains(out, "signed") {
		t.Fatalf("the package was not signed: %s", out)
	}
	// Wrong use: a PIN where another thing belongs.
	s.write(s.path("two"), []byte("x"+tokenPIN+"x\n"))
	l.may = append(l.may, s.path("two"))
	for _, args := range [][]string{
		{"sign", "--key", s.key("rsa"), "--passphrase-file", s.path("two"), s.pkg},
		{"sign", "--key", s.key("missing", "pin-source="+s.pin), s.pkg},
		{"sign", "--key", s.key("rsa", "pin-source="+s.pin), "--cert", s.pin, s.pkg},
		{"sign", "--key", s.key("rsa", "module-name="+s.pin), s.pkg},
		{"sign", "--key", "pkcs11:token=release?module-path=" + s.pin, s.pkg},
		{"verify", "--cert", s.key("missing", "pin-source="+s.pin), s.pkg},
	} {
		if out := l.watch(s.scene, exec.Command(s.command, args...)); !strings.Contains(out, "imaseal: ") {
			t.Errorf("imaseal %s was no wrong use: %s", strings.Join(args, " "), out)
		}
	}
	for found := range l.found {
		t.Errorf("others could see %s", found)
	}
	for _, where := range []string{"cmdline", "environ", "open file", "file", "output"} {
		if l.seen[where] == 0 {
			t.Errorf("no %s was ever seen: the test shows nothing", where)
		}
	}
}

// TestTokensDocument runs the walk-through of docs/tokens.md as it is printed.
func TestTokensDocument(t *testing.T) {
	s := newTokenScene(t, "deb", 1)
	text, err := os.ReadFile("../../docs/tokens.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## With SoftHSM, step by step\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var script []string
	for line := range strings.Lines(section) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			script = append(script, command)
		}
	}
	if len(script) < 15 {
		t.Fatalf("only %d lines were found", len(script))
	}
	dir := t.TempDir()
	runIn(t, dir, exampleScene)
	out := runIn(t, dir, strings.Join(script, ""), "PATH="+filepath.Dir(s.command)+":"+os.Getenv("PATH"))
	if n := strings.Count(out, "  ok\n"); n != 2 || !strings.Contains(out, "  signed\n") {
		t.Errorf("%d were verified: %s", n, out)
	}
}
