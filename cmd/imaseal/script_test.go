package main

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(tidy{m}, map[string]func(){"imaseal": main})
}

// A tidy runs the tests and removes what they share.
type tidy struct{ m *testing.M }

func (t tidy) Run() int {
	defer func() { os.RemoveAll(buildFolder) }()
	return t.m.Run()
}

// TestScript runs the command as its users do, one topic a script.
//
// Besides testscript's own, the scripts have these commands:
//
//	mkdeb TREE FILE [dpkg-deb OPTION...]  builds a .deb from the folder TREE
//	mkcert KEY FILE FROM TO               a self-signed certificate of KEY, valid between two days, 0 being now
//	sign ARG...                           imaseal sign with the key in keys/
//	verify ARG...                         imaseal verify with its certificate
//	code N COMMAND...                     COMMAND ends with exit code N
//	flip FILE OFFSET                      changes one byte; from the end if negative
//	same FILE FILE                        the files are equal, byte for byte
//	sum FILE                              remembers FILE's bytes
//	unchanged FILE                        they are still what sum saw
//	clean DIR                             no temporary file is left in DIR
//	mixed OLD NEW OUT                     OUT is package OLD with one file signature of NEW
func TestScript(t *testing.T) {
	for _, tool := range []string{"dpkg-deb", "rpmbuild", "openssl", "gpg", "debsig-verify"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: scripts/test installs it", tool)
		}
	}
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(scripts) < 5 {
		t.Fatalf("only %d scripts found: %v", len(scripts), err)
	}
	testscript.Run(t, testscript.Params{
		Dir:   "testdata",
		Setup: scriptSetup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"mkdeb":     mkdeb,
			"mkcert":    mkcert,
			"sign":      imasealWith("sign", "--key", "keys/signing.key", "--cert", "keys/signing.crt"),
			"verify":    imasealWith("verify", "--cert", "keys/signing.crt"),
			"code":      code,
			"flip":      flip,
			"same":      same,
			"sum":       sumCommand,
			"unchanged": unchanged,
			"clean":     clean,
			"mixed":     mixed,
		},
	})
}

// scriptSetup gives each script a GnuPG of its own. Its path is short, as sockets
// want.
func scriptSetup(e *testscript.Env) error {
	home, err := os.MkdirTemp("", "gpg")
	if err != nil {
		return err
	}
	e.Setenv("GNUPGHOME", home)
	e.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	e.Setenv("LC_ALL", "C.UTF-8")
	e.Defer(func() {
		stop := exec.Command("gpgconf", "--kill", "all")
		stop.Env = append(os.Environ(), "GNUPGHOME="+home)
		stop.Run() // there may be none
		os.RemoveAll(home)
	})
	return nil
}

func mkdeb(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: mkdeb TREE FILE [OPTION...]")
	}
	tree, file := ts.MkAbs(args[0]), ts.MkAbs(args[1])
	ts.Check(filepath.Walk(filepath.Join(tree, "DEBIAN"), func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		switch info.Name() {
		case "preinst", "postinst", "prerm", "postrm", "config":
			return os.Chmod(path, 0o755)
		}
		return os.Chmod(path, 0o644)
	}))
	options := append([]string{"--root-owner-group"}, args[2:]...)
	ts.Check(ts.Exec("dpkg-deb", append(options, "--build", tree, file)...))
}

func mkcert(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: mkcert KEY FILE FROM TO")
	}
	day := func(text string) time.Time {
		days, err := strconv.Atoi(text)
		ts.Check(err)
		return time.Now().AddDate(0, 0, days)
	}
	block, _ := pem.Decode([]byte(ts.ReadFile(args[0])))
	if block == nil {
		ts.Fatalf("%s holds no PEM", args[0])
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	ts.Check(err)
	der, err := selfSigned(key, day(args[2]), day(args[3]))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644))
}

func selfSigned(key any, from, to time.Time) ([]byte, error) {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign", key)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "test"},
		NotBefore:    from, NotAfter: to,
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	return x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
}

// imasealWith makes a command of a verb with some arguments, to which a script
// adds its own.
func imasealWith(first ...string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		err := ts.Exec("imaseal", append(first, args...)...)
		if (err != nil) != neg {
			ts.Fatalf("imaseal %s: %v", first[0], err)
		}
	}
}

func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exited, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exited.ExitCode()
	}
	if want, err := strconv.Atoi(args[0]); err != nil || got != want {
		ts.Fatalf("exit code %d, not %s", got, args[0])
	}
}

func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	path := ts.MkAbs(args[0])
	content, err := os.ReadFile(path)
	ts.Check(err)
	offset, err := strconv.Atoi(args[1])
	ts.Check(err)
	if offset < 0 {
		offset += len(content)
	}
	content[offset] ^= 1
	ts.Check(os.WriteFile(path, content, 0o644))
}

func same(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: same FILE FILE")
	}
	a, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	b, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	if bytes.Equal(a, b) == neg {
		ts.Fatalf("%s and %s: equal is %v", args[0], args[1], neg)
	}
}

func sumCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: sum FILE...")
	}
	for _, name := range args {
		ts.Setenv("SUM_"+filepath.Base(name), sumOf(ts, name))
	}
}

func unchanged(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: unchanged FILE...")
	}
	for _, name := range args {
		before := ts.Getenv("SUM_" + filepath.Base(name))
		if before == "" {
			ts.Fatalf("sum %s was not called", name)
		}
		if (before == sumOf(ts, name)) == neg {
			ts.Fatalf("%s: unchanged is %v", name, neg)
		}
	}
}

func sumOf(ts *testscript.TestScript, name string) string {
	content, err := os.ReadFile(ts.MkAbs(name))
	ts.Check(err)
	return fmt.Sprintf("%x", sha256.Sum256(content))
}

func clean(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: clean DIR")
	}
	left, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), ".*.tmp"))
	ts.Check(err)
	if len(left) > 0 {
		ts.Fatalf("temporary files are left: %v", left)
	}
}
