package hashivault

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imaseal/imaseal/keys/hashivault/vaulttest"
)

func TestParseReference(t *testing.T) {
	for rest, want := range map[string]struct {
		key     string
		version int
	}{
		"//release": {"release", 0}, "//r": {"r", 0}, "//team_a.2026-01": {"team_a.2026-01", 0}, "//release?version=12": {"release", 12},
	} {
		if key, version, err := parseReference(rest); err != nil || key != want.key || version != want.version {
			t.Errorf("%s: %s, %d, %v", rest, key, version, err)
		}
	}
	for _, rest := range []string{
		"", "//", "release", "/release", "///release", "//a/b", "//../x", "//.x", "//x.", "//x?", "//x?version=", "//x?version=0", "//x?version=-1",
		"//x?version=1&y=2", "//x?mount=y", "//x#1", "//x\n", "//x%2f", "//user:password@host/x", "//" + strings.Repeat("x", 129), "//x?version=9999999999",
	} {
		if key, version, err := parseReference(rest); err == nil {
			t.Errorf("%q was taken for %q, %d", rest, key, version)
		}
	}
}

func FuzzReference(f *testing.F) {
	f.Add("//release?version=3")
	f.Fuzz(func(t *testing.T, rest string) {
		key, version, err := parseReference(rest)
		if err == nil && (key == "" || version < 0 || strings.ContainsAny(key, "/?#%& \n\x00") || strings.HasPrefix(key, ".")) {
			t.Errorf("%q was taken for %q, %d", rest, key, version)
		}
	})
}

// TestEnvironment opens a key as variables have it.
func TestEnvironment(t *testing.T) {
	home := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(home, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write(tokenFile, vaulttest.Token+"\n")
	empty := t.TempDir()
	for name, c := range map[string]struct {
		env   map[string]string
		serve func(*vaulttest.Server)
		want  string // "" for success
	}{
		"a token in a file":    {env: map[string]string{"VAULT_TOKEN": "", "HOME": home}},
		"OpenBao's":            {env: map[string]string{"BAO_ADDR": "ADDR", "BAO_TOKEN": vaulttest.Token, "VAULT_ADDR": "", "VAULT_TOKEN": "wrong"}},
		"OpenBao's, in part":   {env: map[string]string{"BAO_ADDR": "ADDR", "VAULT_ADDR": ""}},
		"Vault's token stays":  {env: map[string]string{"BAO_TOKEN": "wrong"}},
		"a path before v1":     {env: map[string]string{"VAULT_ADDR": "ADDR/"}},
		"an engine elsewhere":  {env: map[string]string{"TRANSIT_SECRET_ENGINE_PATH": "/team/keys/"}, serve: func(s *vaulttest.Server) { s.Mount = "team/keys" }},
		"a namespace":          {env: map[string]string{"VAULT_NAMESPACE": "team/a/"}, serve: func(s *vaulttest.Server) { s.Namespace = "team/a/" }},
		"skip no verification": {env: map[string]string{"VAULT_SKIP_VERIFY": "false"}},
		"seconds":              {env: map[string]string{"VAULT_CLIENT_TIMEOUT": "7"}},

		"no address":        {env: map[string]string{"VAULT_ADDR": ""}, want: "VAULT_ADDR is not set"},
		"two addresses":     {env: map[string]string{"BAO_ADDR": "https://other"}, want: "name two servers"},
		"no scheme":         {env: map[string]string{"VAULT_ADDR": "vault:8200"}, want: "VAULT_ADDR is no address"},
		"another scheme":    {env: map[string]string{"VAULT_ADDR": "unix:///run/vault"}, want: "VAULT_ADDR is no address"},
		"a password":        {env: map[string]string{"VAULT_ADDR": "https://u:hunter2@vault"}, want: "without user, password or query"},
		"a query":           {env: map[string]string{"VAULT_ADDR": "https://vault?x"}, want: "without user, password or query"},
		"no token":          {env: map[string]string{"VAULT_TOKEN": "", "HOME": empty}, want: "there is no token: set VAULT_TOKEN"},
		"a token of lines":  {env: map[string]string{"VAULT_TOKEN": "hunter2\nX-Evil: 1"}, want: "what VAULT_TOKEN holds is no token"},
		"a wrong token":     {env: map[string]string{"VAULT_TOKEN": "hunter2"}, want: "403 Forbidden: permission denied"},
		"no such engine":    {env: map[string]string{"TRANSIT_SECRET_ENGINE_PATH": "elsewhere"}, want: "or no transit engine there"},
		"an odd engine":     {env: map[string]string{"TRANSIT_SECRET_ENGINE_PATH": "../sys"}, want: "is no path of an engine"},
		"an odd namespace":  {env: map[string]string{"VAULT_NAMESPACE": "a\r\nb"}, want: "VAULT_NAMESPACE holds a character"},
		"an odd time":       {env: map[string]string{"VAULT_CLIENT_TIMEOUT": "soon"}, want: "VAULT_CLIENT_TIMEOUT"},
		"no time":           {env: map[string]string{"VAULT_CLIENT_TIMEOUT": "0"}, want: "VAULT_CLIENT_TIMEOUT"},
		"skip verification": {env: map[string]string{"VAULT_SKIP_VERIFY": "1"}, want: "VAULT_SKIP_VERIFY is set"},
		"skip, perhaps":     {env: map[string]string{"VAULT_SKIP_VERIFY": "maybe"}, want: "VAULT_SKIP_VERIFY is set"},
		"no certificates":   {env: map[string]string{"VAULT_CACERT": write("x", "x")}, want: "no certificate in PEM form"},
		"an empty folder":   {env: map[string]string{"VAULT_CACERT": "", "VAULT_CAPATH": empty}, want: "no file with a certificate"},
		"half a pair":       {env: map[string]string{"VAULT_CLIENT_CERT": "x"}, want: "go together"},
		"no such pair":      {env: map[string]string{"VAULT_CLIENT_CERT": "/no/x", "VAULT_CLIENT_KEY": "/no/x"}, want: "VAULT_CLIENT_KEY: open /no/x"},
	} {
		t.Run(name, func(t *testing.T) {
			server := vaulttest.New(t, newECDSA(t, elliptic.P256()))
			if c.serve != nil {
				c.serve(server)
			}
			for k, v := range c.env {
				t.Setenv(k, strings.Replace(v, "ADDR", server.URL, 1))
			}
			s, err := Open(t.Context(), ref, Options{})
			if err == nil {
				defer s.Close()
				err = firstError(signAll(s, 2))
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, not %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a secret is in it: %v", err)
			}
		})
	}
}

// TestTokenIsReadAnew has an agent renew the token while the key is in use.
func TestTokenIsReadAnew(t *testing.T) {
	server := vaulttest.New(t, newECDSA(t, elliptic.P256()))
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("VAULT_TOKEN", "")
	renew := func(token string) {
		if err := os.WriteFile(filepath.Join(home, tokenFile), []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	renew("first")
	var seen []string
	server.Disturb = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		seen = append(seen, r.Header.Get("X-Vault-Token"))
		r.Header.Set("X-Vault-Token", vaulttest.Token)
		return false
	}
	s := mustOpen(t, ref, Options{})
	renew("second")
	if err := firstError(signAll(s, 1)); err != nil {
		t.Fatal(err)
	}
	if strings.Join(seen, " ") != "first second" {
		t.Errorf("tokens: %q", seen)
	}
}

func TestPlainHTTPIsSaid(t *testing.T) {
	for address, said := range map[string]bool{
		"http://127.0.0.1:8200": false, "http://localhost:8200": false, "http://[::1]:8200": false, "https://vault.example:8200": false,
		"http://vault.example:8200": true, "http://10.0.0.1": true,
	} {
		for _, name := range []string{"BAO_ADDR", "VAULT_SKIP_VERIFY", "VAULT_CACERT", "VAULT_CAPATH"} {
			t.Setenv(name, "")
		}
		t.Setenv("VAULT_ADDR", address)
		c, err := newConfig(ref)
		if err != nil || strings.Contains(c.note, "can read the token") != said {
			t.Errorf("%s: %+v, %v", address, c, err)
		}
	}
}

func TestTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "1m30s": 90 * time.Second} {
		t.Setenv("VAULT_CLIENT_TIMEOUT", text)
		if d, err := new(config).readTimeout(); err != nil || d != want {
			t.Errorf("%q: %s, %v", text, d, err)
		}
	}
}

// TestClientCertificate shows the server a certificate that it asks for.
func TestClientCertificate(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	server := vaulttest.New(t, key)
	cert, keyFile := writePair(t, key)
	t.Setenv("VAULT_CLIENT_CERT", cert)
	t.Setenv("VAULT_CLIENT_KEY", keyFile)
	shown := false
	server.TLS.ClientAuth = 1 // request it
	server.Disturb = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		shown = len(r.TLS.PeerCertificates) == 1 && key.PublicKey.Equal(r.TLS.PeerCertificates[0].PublicKey.(*ecdsa.PublicKey))
		return false
	}
	mustOpen(t, ref, Options{})
	if !shown {
		t.Error("no certificate was shown")
	}
}

// TestPipes has a pipe in the place of a file: what is written to it is read, and nobody
// waits for a writer that never comes.
func TestPipes(t *testing.T) {
	server := vaulttest.New(t, newECDSA(t, elliptic.P256()))
	ca, err := os.ReadFile(os.Getenv("VAULT_CACERT"))
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	silent := filepath.Join(folder, "pipe")
	if err := syscall.Mkfifo(silent, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "ca.pem"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("in a folder", func(t *testing.T) {
		t.Setenv("VAULT_CACERT", "")
		t.Setenv("VAULT_CAPATH", folder)
		mustOpen(t, ref, Options{})
	})
	t.Run("nobody writes", func(t *testing.T) {
		t.Setenv("VAULT_CACERT", silent)
		if _, err := Open(t.Context(), ref, Options{}); err == nil || !strings.Contains(err.Error(), "no certificate in PEM form") {
			t.Error(err)
		}
	})
	t.Run("somebody writes", func(t *testing.T) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		go func() {
			w.Write(ca)
			w.Close()
		}()
		t.Setenv("VAULT_CACERT", fmt.Sprintf("/proc/self/fd/%d", r.Fd()))
		mustOpen(t, ref, Options{})
	})
	if len(server.Wrong) > 0 {
		t.Error(server.Wrong)
	}
}
