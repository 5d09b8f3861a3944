// Package vaulttest is a server for tests that answers as the transit engine of Vault
// does, as far as signing goes. It was written from the documentation of Vault's HTTP
// API (api-docs/secret/transit: Read key, Sign data; api-docs: Error response, HTTP
// status codes) and shares no code with the client that it tests.
package vaulttest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Token is the one that the server takes.
const Token = "hvs.test-token-5d1f0c93-never-to-be-seen"

// Name is that of the key.
const Name = "release"

// A Server has one key, of several versions. What tests change is guarded by Mu.
type Server struct {
	*httptest.Server

	Mu sync.Mutex
	// Versions are those of the key; the last is the latest.
	Versions []crypto.Signer
	// Type is what the server calls the type of the key, "" for the right one.
	Type string
	// Mount is where the engine is mounted; Namespace the one that it is in.
	Mount, Namespace string
	// Disturb, if not nil, is called for each request, from 1, before it is answered.
	// It reports whether it has answered itself.
	Disturb func(n int, w http.ResponseWriter, r *http.Request) bool
	// Edit, if not nil, changes the results of a batch.
	Edit func(results []map[string]any) []map[string]any

	// Requests counts requests; Batches are the sizes of those that were signed.
	Requests int
	Batches  []int
	// Digests counts how often each digest was signed.
	Digests map[string]int
	// Wrong is what a real server would not have liked.
	Wrong []string
}

// New starts a server over TLS whose key is key, and points VAULT_ADDR, VAULT_CACERT
// and VAULT_TOKEN to it.
func New(t testing.TB, key ...crypto.Signer) *Server {
	t.Helper()
	s := &Server{Versions: key, Mount: "transit", Digests: map[string]int{}}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"VAULT_ADDR": s.URL, "VAULT_CACERT": file, "VAULT_TOKEN": Token, "VAULT_NAMESPACE": "",
		"VAULT_CAPATH": "", "VAULT_SKIP_VERIFY": "", "VAULT_CLIENT_TIMEOUT": "", "VAULT_TLS_SERVER_NAME": "",
		"TRANSIT_SECRET_ENGINE_PATH": "", "BAO_ADDR": "", "BAO_TOKEN": "",
	} {
		t.Setenv(name, value)
	}
	return s
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.Mu.Lock()
	s.Requests++
	n, disturb := s.Requests, s.Disturb
	s.Mu.Unlock()
	if disturb != nil && disturb(n, w, r) {
		return
	}
	if r.Header.Get("X-Vault-Token") != Token {
		Fail(w, http.StatusForbidden, "permission denied")
		return
	}
	s.Mu.Lock()
	mount, namespace := s.Mount, s.Namespace
	s.Mu.Unlock()
	if r.Header.Get("X-Vault-Namespace") != namespace {
		Fail(w, http.StatusNotFound, fmt.Sprintf("no handler for route %q", r.URL.Path))
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v1/"+mount+"/")
	switch {
	case !ok:
		Fail(w, http.StatusNotFound, fmt.Sprintf("no handler for route %q. route entry not found.", r.URL.Path))
	case r.Method == http.MethodGet && path == "keys/"+Name:
		s.key(w)
	case r.Method == http.MethodGet && strings.HasPrefix(path, "keys/"):
		Fail(w, http.StatusNotFound)
	case r.Method == http.MethodPost && strings.HasPrefix(path, "sign/"+Name+"/"):
		s.sign(w, r, strings.TrimPrefix(path, "sign/"+Name+"/"))
	case r.Method == http.MethodPost && strings.HasPrefix(path, "sign/"):
		Fail(w, http.StatusBadRequest, "signing key not found")
	default:
		Fail(w, http.StatusMethodNotAllowed, "unsupported operation")
	}
}

// Fail answers with an error as Vault does.
func Fail(w http.ResponseWriter, status int, errors ...string) {
	if errors == nil {
		errors = []string{}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"errors": errors})
}

func answer(w http.ResponseWriter, data any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{
		"request_id": "4f3a", "lease_id": "", "renewable": false, "lease_duration": 0,
		"data": data, "wrap_info": nil, "warnings": nil, "auth": nil, "mount_type": "transit",
	})
}

// keyType is the engine's name of the type of a key.
func keyType(key crypto.Signer) string {
	switch pub := key.Public().(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("rsa-%d", pub.N.BitLen())
	case *ecdsa.PublicKey:
		return fmt.Sprintf("ecdsa-p%d", pub.Curve.Params().BitSize)
	}
	return "ed25519"
}

func (s *Server) key(w http.ResponseWriter) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	kind := s.Type
	if kind == "" {
		kind = keyType(s.Versions[0])
	}
	versions := map[string]any{}
	for i, v := range s.Versions {
		der, err := x509.MarshalPKIXPublicKey(v.Public())
		if err != nil {
			panic(err)
		}
		versions[fmt.Sprint(i+1)] = map[string]any{
			"creation_time": "2026-01-02T03:04:05.678901234Z", "name": strings.ToUpper(kind[:1]) + kind[1:],
			"public_key": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		}
		if strings.HasPrefix(kind, "aes") {
			versions[fmt.Sprint(i+1)] = 1700000000
		}
	}
	answer(w, map[string]any{
		"name": Name, "type": kind, "keys": versions, "latest_version": len(s.Versions),
		"min_available_version": 0, "min_decryption_version": 1, "min_encryption_version": 0,
		"deletion_allowed": false, "derived": false, "exportable": false, "supports_signing": true,
	})
}

func (s *Server) sign(w http.ResponseWriter, r *http.Request, hash string) {
	var body struct {
		BatchInput []map[string]string `json:"batch_input"`
		KeyVersion int                 `json:"key_version"`
		Prehashed  bool                `json:"prehashed"`
		Algorithm  string              `json:"signature_algorithm"`
		Marshaling string              `json:"marshaling_algorithm"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		Fail(w, http.StatusBadRequest, "failed to parse JSON input: "+err.Error())
		return
	}
	h, ok := map[string]crypto.Hash{"sha2-256": crypto.SHA256, "sha2-384": crypto.SHA384, "sha2-512": crypto.SHA512}[hash]
	if !ok {
		Fail(w, http.StatusBadRequest, fmt.Sprintf("invalid hash algorithm %q", hash))
		return
	}
	if len(body.BatchInput) == 0 {
		Fail(w, http.StatusBadRequest, "missing batch input to process")
		return
	}
	s.Mu.Lock()
	defer s.Mu.Unlock()
	version := body.KeyVersion
	if version == 0 {
		version = len(s.Versions)
	}
	if version > len(s.Versions) {
		Fail(w, http.StatusBadRequest, "requested version for signing is higher than the latest key version")
		return
	}
	key := s.Versions[version-1]
	if !body.Prehashed || body.Marshaling != "asn1" {
		s.Wrong = append(s.Wrong, fmt.Sprintf("prehashed is %v, marshaling %q", body.Prehashed, body.Marshaling))
	}
	if _, ok := key.Public().(*rsa.PublicKey); ok && body.Algorithm != "pkcs1v15" {
		s.Wrong = append(s.Wrong, "an RSA key makes PSS signatures")
	}
	s.Batches = append(s.Batches, len(body.BatchInput))
	var results []map[string]any
	for _, item := range body.BatchInput {
		result := map[string]any{"key_version": version}
		if item["reference"] != "" {
			result["reference"] = item["reference"]
		}
		digest, err := base64.StdEncoding.DecodeString(item["input"])
		var sig []byte
		if err == nil {
			s.Digests[string(digest)]++
			sig, err = key.Sign(nil, digest, h) // the same each time, so that packages can be compared
		}
		if err != nil {
			result["error"] = err.Error()
		} else {
			result["signature"] = fmt.Sprintf("vault:v%d:%s", version, base64.StdEncoding.EncodeToString(sig))
		}
		results = append(results, result)
	}
	if s.Edit != nil {
		results = s.Edit(results)
	}
	answer(w, map[string]any{"batch_results": results})
}

// Counts returns how many requests were made, the sizes of the batches, and how many
// different digests were signed.
func (s *Server) Counts() (requests int, batches []int, digests int) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	return s.Requests, append([]int(nil), s.Batches...), len(s.Digests)
}

// SetDisturb changes Disturb while the server runs.
func (s *Server) SetDisturb(f func(n int, w http.ResponseWriter, r *http.Request) bool) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.Disturb = f
}
