package hashivault

import (
	"crypto/elliptic"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imaseal/imaseal/keys/hashivault/vaulttest"
)

// TestRedirects has the server send its caller away.
func TestRedirects(t *testing.T) {
	var elsewhere []string
	other := vaulttest.New(t, newECDSA(t, elliptic.P256()))
	other.Disturb = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		elsewhere = append(elsewhere, r.Header.Get("X-Vault-Token"))
		return false
	}
	server := vaulttest.New(t, newECDSA(t, elliptic.P256()))
	to := func(status int, url string) {
		server.SetDisturb(func(n int, w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, "/v1/transit/sign") && r.URL.RawQuery == "" {
				w.Header().Set("Location", strings.ReplaceAll(url, "PATH", r.URL.Path))
				w.WriteHeader(status)
				return true
			}
			return false
		})
	}
	to(307, server.URL+"PATH?again")
	if err := firstError(signAll(mustOpen(t, ref, Options{}), 10)); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		status    int
		url, want string
	}{
		"another host":   {307, other.URL + "PATH?", "it redirects to https://127.0.0.1:"},
		"no TLS":         {307, strings.Replace(server.URL, "https:", "http:", 1) + "PATH?", "it redirects to http://127.0.0.1:"},
		"another method": {302, server.URL + "PATH?again", "in a way that a Vault server does not"},
		"in a circle":    {307, server.URL + "PATH", "in a way that a Vault server does not"},
	} {
		to(c.status, c.url)
		err := firstError(signAll(mustOpen(t, ref, Options{}), 1))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(elsewhere) > 0 {
		t.Errorf("the other host was asked: %q", elsewhere)
	}
}

func TestTLS(t *testing.T) {
	server := vaulttest.New(t, newECDSA(t, elliptic.P256()))
	folder := filepath.Dir(os.Getenv("VAULT_CACERT"))
	other := filepath.Join(t.TempDir(), "other.pem")
	for name, c := range map[string]struct {
		env  map[string]string
		want string // "" for success
	}{
		"folder":    {map[string]string{"VAULT_CACERT": "", "VAULT_CAPATH": folder}, ""},
		"system":    {map[string]string{"VAULT_CACERT": ""}, "its certificate is by no trusted authority"},
		"name":      {map[string]string{"VAULT_TLS_SERVER_NAME": "vault.example.org"}, "its certificate is for another name"},
		"good name": {map[string]string{"VAULT_TLS_SERVER_NAME": "example.com"}, ""},
		"no TLS":    {map[string]string{"VAULT_ADDR": strings.Replace(server.URL, "https", "http", 1)}, "400 Bad Request"},
		"no file":   {map[string]string{"VAULT_CACERT": other}, "VAULT_CACERT: open " + other},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			start := time.Now()
			s, err := Open(t.Context(), ref, Options{})
			if err == nil {
				s.Close()
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, not %q", err, c.want)
			}
			if time.Since(start) > 30*time.Second { // patience is minutes
				t.Errorf("it took %s", time.Since(start))
			}
		})
	}
}

func TestOpenRefusesKeys(t *testing.T) {
	for name, c := range map[string]struct {
		kind, want string
	}{
		"symmetric":    {"aes256-gcm96", "the key is of type aes256-gcm96, whose signatures kernels do not verify"},
		"Ed25519":      {"ed25519", "the key is of type ed25519"},
		"another size": {"ecdsa-p384", "version 1 of the key is said to be ecdsa-p384, and is not"},
		"another kind": {"rsa-2048", "version 1 of the key is said to be rsa-2048, and is not"},
	} {
		server := vaulttest.New(t, newECDSA(t, elliptic.P256()))
		server.Type = c.kind
		if _, err := Open(t.Context(), ref, Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	vaulttest.New(t, newECDSA(t, elliptic.P256()))
	if _, err := Open(t.Context(), "//other", Options{}); err == nil || !strings.Contains(err.Error(), "404 Not Found: there is no key other in transit") {
		t.Error(err)
	}
}
