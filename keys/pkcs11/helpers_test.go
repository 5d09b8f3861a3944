//go:build pkcs11 && cgo

package pkcs11

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	p11 "github.com/miekg/pkcs11"
)

// softHSM are the places of SoftHSM's module on Debian and Fedora.
var softHSM = []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm.so"}

// testPIN is the PIN of all tokens here. It is found in no message.
const testPIN = "pin-41-swordfish"

// An hsm is a SoftHSM with tokens of its own, for one test.
type hsm struct {
	t      *testing.T
	dir    string
	module string
	spy    *spy
}

func newHSM(t *testing.T, labels ...string) *hsm {
	t.Helper()
	for _, tool := range []string{"softhsm2-util", "pkcs11-tool", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: scripts/test installs it", tool)
		}
	}
	h := &hsm{t: t, dir: t.TempDir()}
	for _, path := range softHSM {
		if _, err := os.Stat(path); err == nil {
			h.module = path
		}
	}
	if h.module == "" {
		t.Skip("SoftHSM's module is not installed: scripts/test installs it")
	}
	if err := os.Mkdir(h.path("tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", h.path("tokens"))
	if err := os.WriteFile(h.path("softhsm2.conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", h.path("softhsm2.conf")) // read each time that the module is initialized
	for _, label := range labels {
		h.run("softhsm2-util", "--init-token", "--free", "--label", label, "--pin", testPIN, "--so-pin", "so-"+testPIN)
	}
	spies.Lock()
	defer spies.Unlock()
	h.spy = &spy{}
	spies.current = h.spy
	return h
}

func (h *hsm) path(name string) string { return filepath.Join(h.dir, name) }

func (h *hsm) run(name string, args ...string) string {
	h.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// tool runs pkcs11-tool on a token.
func (h *hsm) tool(token string, args ...string) string {
	h.t.Helper()
	return h.run("pkcs11-tool", append([]string{"--module", h.module, "--token-label", token, "--login", "--pin", testPIN}, args...)...)
}

// generate makes a key pair on a token. kind is as pkcs11-tool has it.
func (h *hsm) generate(token, kind, label, id string, more ...string) {
	h.t.Helper()
	h.tool(token, append([]string{"--keypairgen", "--key-type", kind, "--label", label, "--id", id}, more...)...)
}

// put writes an object to a token.
func (h *hsm) put(token, class, file, label, id string) {
	h.t.Helper()
	h.tool(token, "--write-object", file, "--type", class, "--label", label, "--id", id)
}

// certificate makes one of a software key, and returns the files of both.
func (h *hsm) certificate(name string, days int, newkey ...string) (key, cert string) {
	h.t.Helper()
	key, cert = h.path(name+".key"), h.path(name+".der")
	h.run("openssl", append(append([]string{"req", "-x509", "-nodes", "-subj", "/CN=" + name, "-days", fmt.Sprint(days), "-outform", "DER", "-out", cert}, newkey...), "-keyout", key)...)
	return key, cert
}

// uri names the module too.
func (h *hsm) uri(path string) string { return "pkcs11:" + path + "?module-path=" + h.module }

// options give the PIN.
func (h *hsm) options() Options {
	return Options{PIN: func(string) ([]byte, error) { return []byte(testPIN), nil }}
}

// open opens a key, which the end of the test closes.
func (h *hsm) open(path string, o Options) *Key {
	h.t.Helper()
	k, err := Open(context.Background(), h.uri(path), o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := k.Close(); err != nil {
			h.t.Error(err)
		}
	})
	return k
}

// readKey reads a private key in PKCS #8, as openssl wrote it.
func readKey(t *testing.T, file string) any {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s holds no PEM", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// A spy stands between the package and a module: it counts logins and answers in the
// place of the module where a test says so.
type spy struct {
	sync.Mutex
	logins  int
	fail    func(function string, n int) error      // n counts the calls of that function
	answer  func(sig []byte) []byte                 // what Sign returns in the place of sig
	info    func(slot uint, info *p11.TokenInfo)    // changes what GetTokenInfo returns
	value   func(attribute uint, got []byte) []byte // what GetAttributeValue returns
	counted map[string]int
}

func (s *spy) before(function string) error {
	s.Lock()
	defer s.Unlock()
	if s.counted == nil {
		s.counted = map[string]int{}
	}
	s.counted[function]++
	if function == "Login" {
		s.logins++
	}
	if s.fail == nil {
		return nil
	}
	return s.fail(function, s.counted[function])
}

// set changes the spy while it is in use.
func (s *spy) set(change func()) {
	s.Lock()
	defer s.Unlock()
	change()
}

func (s *spy) count(function string) int {
	s.Lock()
	defer s.Unlock()
	return s.counted[function]
}

// spies has the spy of the test that runs.
var spies = struct {
	sync.Mutex
	current *spy
}{current: &spy{}}

func theSpy() *spy {
	spies.Lock()
	defer spies.Unlock()
	return spies.current
}

// calls are under way. SoftHSM crashes when a session is closed while it is used.
var calls sync.RWMutex

// loseSessions closes all sessions of this process with the token of k, as when it is
// pulled out.
func loseSessions(k *Key) {
	s := k.Signer.(*signer)
	calls.Lock()
	defer calls.Unlock()
	s.m.library.(spied).CloseAllSessions(s.token.slot)
}

// A spied is a module with a spy.
type spied struct{ *p11.Ctx }

func TestMain(m *testing.M) {
	loadLibrary = func(path string) library {
		if ctx := p11.New(path); ctx != nil {
			return spied{ctx}
		}
		return nil
	}
	os.Exit(m.Run())
}

func (l spied) GetSlotList(present bool) ([]uint, error) {
	if err := theSpy().before("GetSlotList"); err != nil {
		return nil, err
	}
	return l.Ctx.GetSlotList(present)
}

func (l spied) GetTokenInfo(slot uint) (p11.TokenInfo, error) {
	if err := theSpy().before("GetTokenInfo"); err != nil {
		return p11.TokenInfo{}, err
	}
	info, err := l.Ctx.GetTokenInfo(slot)
	if change := theSpy().info; change != nil {
		change(slot, &info)
	}
	return info, err
}

func (l spied) OpenSession(slot, flags uint) (p11.SessionHandle, error) {
	if err := theSpy().before("OpenSession"); err != nil {
		return 0, err
	}
	return l.Ctx.OpenSession(slot, flags)
}

func (l spied) CloseSession(h p11.SessionHandle) error {
	theSpy().before("CloseSession")
	return l.Ctx.CloseSession(h)
}

func (l spied) Login(h p11.SessionHandle, user uint, pin string) error {
	if err := theSpy().before("Login"); err != nil {
		return err
	}
	return l.Ctx.Login(h, user, pin)
}

func (l spied) GetAttributeValue(s p11.SessionHandle, o p11.ObjectHandle, a []*p11.Attribute) ([]*p11.Attribute, error) {
	got, err := l.Ctx.GetAttributeValue(s, o, a)
	if change := theSpy().value; change != nil && err == nil {
		for _, one := range got {
			one.Value = change(one.Type, one.Value)
		}
	}
	return got, err
}

func (l spied) SignInit(s p11.SessionHandle, m []*p11.Mechanism, o p11.ObjectHandle) error {
	if err := theSpy().before("SignInit"); err != nil {
		return err
	}
	calls.RLock()
	defer calls.RUnlock()
	return l.Ctx.SignInit(s, m, o)
}

func (l spied) Sign(s p11.SessionHandle, message []byte) ([]byte, error) {
	if err := theSpy().before("Sign"); err != nil {
		if hung, ok := err.(hangs); ok {
			<-hung.block
		}
		return nil, err
	}
	calls.RLock()
	sig, err := l.Ctx.Sign(s, message)
	calls.RUnlock()
	if change := theSpy().answer; change != nil && err == nil {
		sig = change(sig)
	}
	return sig, err
}
