package kmstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash/crc32"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// GCPKey names the key that a GCP service holds, version 3 of it.
const (
	GCPKey        = "projects/my-project/locations/europe-west3/keyRings/ring/cryptoKeys/release"
	GCPKeyVersion = GCPKey + "/cryptoKeyVersions/3"
)

// GCP is a fake of Google Cloud KMS: https://cloud.google.com/kms/docs/reference/rest.
type GCP struct {
	Service
	// Algorithm is that of the version; found from the key where it is empty.
	Algorithm string
	// Enabled are the versions that are listed as enabled, two on a page.
	Enabled []int
	// Change, if not nil, changes an answer before it is sent.
	Change func(answer map[string]any)
}

const gcpToken = "ya29.token-of-a-test"

// NewGCP puts a fake of Google Cloud KMS in reach, with the credentials of a service
// account for it.
func NewGCP(t *testing.T, key crypto.Signer) *GCP {
	g := &GCP{Service: Service{Key: key, t: t}, Enabled: []int{1, 2, 3}}
	der, err := x509.MarshalPKCS8PrivateKey(accountKey())
	if err != nil {
		t.Fatal(err)
	}
	account, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "my-project", "private_key_id": "1",
		"private_key":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"client_email": "signer@my-project.iam.gserviceaccount.com", "client_id": "1",
		"token_uri": "https://oauth2.googleapis.com/token",
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "account.json")
	if err := os.WriteFile(path, account, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", path)
	Handle(t, "oauth2.googleapis.com", http.HandlerFunc(gcpTokens))
	Handle(t, "cloudkms.googleapis.com", g)
	return g
}

// gcpTokens gives out tokens: RFC 7523, as Google's documentation on service accounts
// has it.
func gcpTokens(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.URL.Path != "/token" || r.PostFormValue("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		http.Error(w, `{"error":"invalid_request"}`, http.StatusBadRequest)
		return
	}
	parts := strings.Split(r.PostFormValue("assertion"), ".")
	sig, err := base64.RawURLEncoding.DecodeString(parts[len(parts)-1])
	h := crypto.SHA256.New()
	h.Write([]byte(strings.Join(parts[:len(parts)-1], ".")))
	if err != nil || rsa.VerifyPKCS1v15(&accountKey().PublicKey, crypto.SHA256, h.Sum(nil), sig) != nil {
		w.WriteHeader(http.StatusBadRequest)
		reply(w, "application/json", map[string]string{"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
		return
	}
	reply(w, "application/json", map[string]any{"access_token": gcpToken, "token_type": "Bearer", "expires_in": 3599})
}

// GCPError is the Fault of an error of the service.
func GCPError(status int, code, message string, headers ...string) Fault {
	return Answer(status, fmt.Sprintf(`{"error":{"code":%d,"message":%q,"status":%q}}`, status, message, code),
		append(headers, "Content-Type", "application/json")...)
}

func (g *GCP) algorithm() string {
	if g.Algorithm != "" {
		return g.Algorithm
	}
	switch public := g.Key.Public().(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA_SIGN_PKCS1_%d_SHA256", public.N.BitLen())
	case *ecdsa.PublicKey:
		bits := public.Curve.Params().BitSize
		return fmt.Sprintf("EC_SIGN_P%d_SHA%d", bits, bits)
	}
	return ""
}

func (g *GCP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.failed(w, r) {
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+gcpToken {
		GCPError(http.StatusUnauthorized, "UNAUTHENTICATED", "Request had invalid authentication credentials.")(w, r)
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /v1/" + GCPKey + "/cryptoKeyVersions":
		g.list(w, r)
	case "GET /v1/" + GCPKeyVersion + "/publicKey":
		text := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: g.spki()}))
		g.reply(w, map[string]any{"pem": text, "pemCrc32c": crc([]byte(text)), "algorithm": g.algorithm(), "name": GCPKeyVersion, "protectionLevel": "HSM"})
	case "POST /v1/" + GCPKeyVersion + ":asymmetricSign":
		g.asymmetricSign(w, r)
	default:
		GCPError(http.StatusNotFound, "NOT_FOUND", "CryptoKeyVersion "+strings.TrimPrefix(r.URL.Path, "/v1/")+" not found.")(w, r)
	}
}

func (g *GCP) list(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("filter") != "state=ENABLED" {
		g.wrong(w, "versions listed by %q", r.URL.Query().Get("filter"))
		return
	}
	var start int
	fmt.Sscanf(r.URL.Query().Get("pageToken"), "from-%d", &start)
	var versions []map[string]string
	answer := map[string]any{"totalSize": len(g.Enabled)}
	for i := start; i < len(g.Enabled); i++ {
		if i == start+2 {
			answer["nextPageToken"] = fmt.Sprintf("from-%d", i)
			break
		}
		versions = append(versions, map[string]string{"name": fmt.Sprintf("%s/cryptoKeyVersions/%d", GCPKey, g.Enabled[i]), "state": "ENABLED"})
	}
	if versions != nil {
		answer["cryptoKeyVersions"] = versions
	}
	g.reply(w, answer)
}

func (g *GCP) asymmetricSign(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Digest       struct{ Sha256, Sha384, Sha512 []byte }
		DigestCrc32c string
	}
	if err := read(r, &in); err != nil {
		g.wrong(w, "asymmetricSign: %v", err)
		return
	}
	var h crypto.Hash
	var digest []byte
	switch {
	case strings.HasSuffix(g.algorithm(), "SHA256"):
		h, digest = crypto.SHA256, in.Digest.Sha256
	case strings.HasSuffix(g.algorithm(), "SHA384"):
		h, digest = crypto.SHA384, in.Digest.Sha384
	case strings.HasSuffix(g.algorithm(), "SHA512"):
		h, digest = crypto.SHA512, in.Digest.Sha512
	}
	if len(digest) != h.Size() || in.DigestCrc32c != crc(digest) || len(in.Digest.Sha256)+len(in.Digest.Sha384)+len(in.Digest.Sha512) != h.Size() {
		g.wrong(w, "asymmetricSign: %+v for algorithm %s", in, g.algorithm())
		return
	}
	sig := g.sign(h, digest)
	g.reply(w, map[string]any{"signature": sig, "signatureCrc32c": crc(sig), "verifiedDigestCrc32c": true, "name": GCPKeyVersion, "protectionLevel": "HSM"})
}

func (g *GCP) reply(w http.ResponseWriter, answer map[string]any) {
	if g.Change != nil {
		g.Change(answer)
	}
	reply(w, "application/json; charset=UTF-8", answer)
}

// crc is a checksum as the API has it: 64-bit numbers are strings in its JSON.
func crc(b []byte) string {
	return fmt.Sprint(crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}
