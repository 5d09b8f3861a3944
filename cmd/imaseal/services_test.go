package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/imaseal/imaseal/keys/hashivault/vaulttest"
	"github.com/imaseal/imaseal/sign"
)

const vaultKey = "hashivault://" + vaulttest.Name

// A service is a scene with a server that holds a key, and the same key in a file.
type service struct {
	*scene
	vault     *vaulttest.Server
	key, cert string // files
}

func newService(t *testing.T, key crypto.Signer, format string, content []byte) *service {
	t.Helper()
	command, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &service{scene: &scene{t: t, dir: dir, command: command, pkg: filepath.Join(dir, "hello."+format), content: content}}
	s.write(s.pkg, content)
	s.key, s.cert = s.path("keys/file.key"), s.path("keys/file.crt")
	s.keepKey(key)
	s.vault = vaulttest.New(t, key)
	return s
}

// keepKey writes the key and a certificate of it.
func (s *service) keepKey(key crypto.Signer) {
	s.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	id, err := sign.SubjectKeyID(key.Public())
	if err != nil {
		s.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, SubjectKeyId: id, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(s.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err := os.Chmod(s.key, 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.write(s.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
}

// by returns a command that signs with the key that ref names.
func (s *service) by(ref string, more ...string) *exec.Cmd {
	return exec.Command(s.command, append([]string{"sign", "--key", ref, "--cert", s.cert}, more...)...)
}

// byFile returns the package as the key in the file signs it.
func (s *service) byFile() []byte {
	s.t.Helper()
	out := s.path("by-file")
	s.must(s.by(s.key, "--output", out, s.pkg))
	content, err := os.ReadFile(filepath.Join(out, filepath.Base(s.pkg)))
	if err != nil {
		s.t.Fatal(err)
	}
	return content
}

// mustBeSigned fails unless the package is the one that the key in the file makes.
func (s *service) mustBeSigned(want []byte) {
	s.t.Helper()
	if !s.whole(want) {
		s.t.Error("the package was not signed")
	}
	s.must(exec.Command(s.command, "verify", "--cert", s.cert, s.pkg))
}

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func p256Key(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// realPackages are packages that dpkg-deb and rpmbuild made.
var realPackages = map[string]string{"deb": helloDeb, "rpm": v4RPM}

// TestVaultSignsAsAFileDoes holds the golden rule: an RSA key gives the same package,
// wherever it is.
func TestVaultSignsAsAFileDoes(t *testing.T) {
	for format, name := range realPackages {
		t.Run(format, func(t *testing.T) {
			s := newService(t, rsaKey(t), format, readShared(t, name))
			want := s.byFile()
			out := s.must(s.by(vaultKey, s.pkg))
			s.mustBeSigned(want)
			if strings.Count(out, "imaseal: ") != 1 { // that it was signed
				t.Errorf("there is something to say: %s", out)
			}
			requests, _, _ := s.vault.Counts()
			s.must(s.by(vaultKey, s.pkg))
			s.mustBeSigned(want)
			if again, _, _ := s.vault.Counts(); again != requests+1 {
				t.Errorf("a signed package cost %d requests", again-requests)
			}
			if len(s.vault.Wrong) > 0 {
				t.Error(s.vault.Wrong)
			}
		})
	}
}

// manyFiles is a .deb of n small files, half of which are equal in pairs.
func manyFiles(t *testing.T, n int) []byte {
	t.Helper()
	return appendEntries(theData, func() []tarEntry {
		entries := make([]tarEntry, n)
		for i := range entries {
			content := fmt.Sprint(i)
			if i < n/2 {
				content = fmt.Sprint(i / 2)
			}
			entries[i] = tarFile(fmt.Sprintf("./usr/share/many/%d", i), "content "+content)
		}
		return entries
	}()...)(t, readShared(t, helloDeb))
}

// TestVaultTenThousandFiles loses the connection again and again in the middle of them.
func TestVaultTenThousandFiles(t *testing.T) {
	const n = 10000
	s := newService(t, p256Key(t), "deb", manyFiles(t, n))
	want := s.byFile()
	s.must(s.by(vaultKey, s.pkg))
	s.mustBeSigned(want)
	requests, batches, digests := s.vault.Counts()
	if requests > n/20 { // a busy machine sends smaller ones
		t.Errorf("%d requests for %d files: %v", requests, n, batches)
	}
	for digest, times := range s.vault.Digests {
		if times != 1 {
			t.Errorf("%x was signed %d times", digest, times)
		}
	}
	if least := n * 3 / 4; digests < least || digests > least+100 {
		t.Errorf("%d digests, not some more than %d", digests, least)
	}

	s.write(s.pkg, s.content)
	s.vault.SetDisturb(func(i int, _ http.ResponseWriter, r *http.Request) bool {
		if i -= requests; r.Method == http.MethodPost && (i == 5 || i == 20 || i == 21) {
			panic(http.ErrAbortHandler)
		}
		return false
	})
	out := s.must(s.by(vaultKey, "--sign-jobs", "800", s.pkg))
	s.mustBeSigned(want)
	if !strings.Contains(out, "the connection broke") || strings.Count(out, "imaseal: ") > 4 {
		t.Errorf("said: %s", out)
	}
}

// TestVaultFaults has the server go wrong in the middle of a package, which then is
// what it was.
func TestVaultFaults(t *testing.T) {
	serve := func(status int, body string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); io.WriteString(w, body) }
	}
	result := func(name string, value any) func([]map[string]any) []map[string]any {
		return func(results []map[string]any) []map[string]any { results[0][name] = value; return results }
	}
	server := "hashivault://release at https://127.0.0.1:"
	for name, c := range map[string]struct {
		disturb func(http.ResponseWriter, *http.Request)
		edit    func([]map[string]any) []map[string]any
		env     string
		want    []string
	}{
		"500":   {disturb: serve(500, `{"errors":["1 error occurred"]}`), want: []string{server, "500 Internal Server Error: 1 error occurred (asked ", "then given up"}},
		"429":   {disturb: serve(429, ""), want: []string{server, "429 Too Many Requests (asked ", "then given up"}},
		"hangs": {disturb: func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); <-r.Context().Done() }, env: "VAULT_CLIENT_TIMEOUT=1s", want: []string{server, "no answer within 1s (asked "}},
		"drops": {disturb: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, want: []string{server, "the connection broke", "then given up"}},
		"half a body": {disturb: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "99")
			io.WriteString(w, `{"data"`)
		}, want: []string{server, "the connection broke"}},
		"garbage":           {disturb: serve(200, "<html>\x1b[2J"), want: []string{server, "the answer is not one of a transit engine"}},
		"too large":         {disturb: serve(200, strings.Repeat("x", 5<<20)), want: []string{server, "its answer has more than 4194304 bytes"}},
		"403":               {disturb: serve(403, `{"errors":["permission denied"]}`), want: []string{server, "403 Forbidden: permission denied: the token is not valid or has expired"}},
		"wrong signature":   {edit: result("signature", "vault:v1:AAAA"), want: []string{"made a signature that does not verify"}},
		"wrong order":       {edit: result("reference", "77"), want: []string{server, "in another order"}},
		"one fails":         {edit: result("error", "no entropy"), want: []string{server, ": no entropy"}},
		"unknown authority": {env: "VAULT_CACERT=", want: []string{server, "by no trusted authority"}},
		"wrong token":       {env: "VAULT_TOKEN=wrong", want: []string{server, "403 Forbidden"}},
	} {
		for format, pkg := range realPackages {
			t.Run(name+" "+format, func(t *testing.T) {
				s := newService(t, p256Key(t), format, readShared(t, pkg))
				if name, value, ok := strings.Cut(c.env, "="); ok {
					t.Setenv(name, value)
				}
				s.vault.Edit = c.edit
				if c.disturb != nil {
					s.vault.Disturb = func(_ int, w http.ResponseWriter, r *http.Request) bool {
						if r.Method == http.MethodPost {
							c.disturb(w, r)
						}
						return r.Method == http.MethodPost
					}
				}
				s.fails(s.by(vaultKey, "--quiet", "--sign-patience", "1s", s.pkg), c.want...)
				if requests, _, _ := s.vault.Counts(); strings.Contains(name, "403") && requests != 2 {
					t.Errorf("%d requests: a permanent error is asked for once", requests)
				}
			})
		}
	}
}

// TestVaultIsInterrupted ends a run by a signal while the server hangs.
func TestVaultIsInterrupted(t *testing.T) {
	s := newService(t, p256Key(t), "deb", readShared(t, helloDeb))
	var hangs atomic.Bool
	asked := make(chan struct{}, 10)
	s.vault.Disturb = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost && hangs.Load() {
			io.Copy(io.Discard, r.Body)
			asked <- struct{}{}
			<-r.Context().Done()
			return true
		}
		return false
	}
	hangs.Store(true)
	r := s.start(s.by(vaultKey, s.pkg))
	<-asked
	r.send(syscall.SIGINT)
	if code := r.code(); code != exitInterrupted {
		t.Errorf("exit code %d: %s", code, r.output.String())
	}
	if s.whole(nil) || len(s.leftovers()) > 0 {
		t.Error("the package was touched")
	}
	hangs.Store(false)
	s.must(s.by(vaultKey, s.pkg))
	s.mustBeSigned(s.resigned())
}

// resigned returns what the key in the file makes of the original package.
func (s *service) resigned() []byte {
	s.t.Helper()
	signed, err := os.ReadFile(s.pkg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(s.pkg, s.content)
	want := s.byFile()
	s.write(s.pkg, signed)
	return want
}

// TestVaultSecrets watches what others could see of runs that read a token from a file.
func TestVaultSecrets(t *testing.T) {
	s := newService(t, p256Key(t), "deb", readShared(t, helloDeb))
	token := s.path("home/.vault-token")
	s.write(token, []byte(vaulttest.Token+"\n"))
	t.Setenv("HOME", s.path("home"))
	t.Setenv("VAULT_TOKEN", "")
	l := newLookout(s.scene, []secret{{"the token", []byte(vaulttest.Token)}}, token)
	run := func(name string, disturb func(http.ResponseWriter, *http.Request), want string, env ...string) {
		s.write(s.pkg, s.content)
		s.vault.SetDisturb(func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost && disturb != nil {
				disturb(w, r)
				return true
			}
			return false
		})
		if out := l.watch(s.scene, s.by(vaultKey, "--verbose", "--sign-patience", "1s", s.pkg)); !strings.Contains(out, want) {
			t.Errorf("%s: %s", name, out)
		}
	}
	run("good", nil, "signed")
	run("repeated by the server", func(w http.ResponseWriter, r *http.Request) {
		vaulttest.Fail(w, 400, "bad token "+r.Header.Get("X-Vault-Token"))
	}, "bad token [token]")
	run("denied", func(w http.ResponseWriter, _ *http.Request) { vaulttest.Fail(w, 403, "permission denied") }, "403 Forbidden")
	run("failing", func(w http.ResponseWriter, r *http.Request) {
		vaulttest.Fail(w, 503, "Vault is sealed for "+r.Header.Get("X-Vault-Token"))
	}, "503 Service Unavailable")
	run("redirected", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://other.example/"+r.Header.Get("X-Vault-Token"), http.StatusTemporaryRedirect)
	}, "it redirects to https://other.example")
	for found := range l.found {
		t.Errorf("others could see %s", found)
	}
	for _, where := range []string{"cmdline", "environ", "output"} {
		if l.seen[where] == 0 {
			t.Errorf("no %s was ever seen: the test shows nothing", where)
		}
	}
	if content, _ := os.ReadFile(token); !bytes.Contains(content, []byte(vaulttest.Token)) {
		t.Error("the token was not where it was looked for")
	}
}

// TestVaultFolderIsResumed has the token expire in the middle of a folder. Nobody asks
// again; the next run signs what is left.
func TestVaultFolderIsResumed(t *testing.T) {
	const n = 12
	s := newService(t, p256Key(t), "deb", readShared(t, helloDeb))
	want := s.byFile()
	folder := s.path("folder")
	for i := range n {
		// Each has a file of its own, or one request would do for all.
		s.write(filepath.Join(folder, fmt.Sprintf("%02d.deb", i)), appendEntries(theData, tarFile("./usr/share/own", fmt.Sprint(i)))(t, s.content))
	}
	var denied atomic.Int32
	s.vault.Disturb = func(i int, w http.ResponseWriter, _ *http.Request) bool {
		if i > 9 {
			denied.Add(1)
			vaulttest.Fail(w, http.StatusForbidden, "permission denied")
		}
		return i > 9
	}
	out, err := s.by(vaultKey, "--jobs", "1", folder).CombinedOutput()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != exitError {
		t.Errorf("%v: %s", err, out)
	}
	signed := strings.Count(string(out), ".deb: signed")
	// What is the same for all that are left is said once.
	left := fmt.Sprintf("transit/sign/release/*: %d packages left unsigned\n", n-signed)
	if signed == 0 || n-signed < 2 || strings.Count(string(out), "signing with key") != 1 || !strings.Contains(string(out), left) {
		t.Errorf("%d were signed: %s", signed, out)
	}
	if denied.Load() != 1 {
		t.Errorf("it was asked %d times after the token had expired", denied.Load())
	}
	s.vault.SetDisturb(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			vaulttest.Fail(w, http.StatusForbidden, "permission denied")
		}
		return r.Method == http.MethodPost
	})
	out, err = s.by(vaultKey, "--json", folder).Output()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != exitError || strings.Count(string(out), `"error":"signing with key`) != n-signed {
		t.Errorf("%v: %s", err, out)
	}
	s.vault.SetDisturb(nil)
	if out := s.must(s.by(vaultKey, folder)); strings.Count(out, ".deb: already signed") != signed {
		t.Errorf("not %d were signed already: %s", signed, out)
	}
	s.must(exec.Command(s.command, "verify", "--cert", s.cert, folder))
	s.must(s.by(vaultKey, s.pkg))
	s.mustBeSigned(want)
}
