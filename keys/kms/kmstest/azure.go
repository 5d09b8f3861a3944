package kmstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
)

// AzureVault is the host of the vault that an Azure service is, AzureVersion the
// current version of the key release in it.
const (
	AzureVault   = "team.vault.azure.net"
	AzureVersion = "0123456789abcdef0123456789abcdef"
	AzureKeyID   = "https://" + AzureVault + "/keys/release/" + AzureVersion
)

const (
	azureToken  = "eyJ0.token.of-a-test"
	azureTenant = "72f988bf-86f1-41af-91ab-2d7cd011db47"
	azureSecret = "secret~of.an.app-registration"
)

// Azure is a fake of Azure Key Vault: https://learn.microsoft.com/rest/api/keyvault/keys.
type Azure struct {
	Service
	// Change, if not nil, changes the key, or the result of a signature, before it is
	// sent.
	Change func(answer map[string]any)
}

// NewAzure puts a fake of a vault and of Entra ID in reach, with the credentials of an
// application.
func NewAzure(t *testing.T, key crypto.Signer) *Azure {
	a := &Azure{Service: Service{Key: key, t: t}}
	t.Setenv("AZURE_TENANT_ID", azureTenant)
	t.Setenv("AZURE_CLIENT_ID", "fad7d5b3-69d6-4b48-9259-8d12124e1cf1")
	t.Setenv("AZURE_CLIENT_SECRET", azureSecret)
	Handle(t, "login.microsoftonline.com", http.HandlerFunc(azureTokens))
	Handle(t, AzureVault, a)
	return a
}

// azureTokens gives out tokens for client credentials:
// https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow.
func azureTokens(w http.ResponseWriter, r *http.Request) {
	authority := "https://login.microsoftonline.com/" + azureTenant
	switch r.URL.Path {
	case "/common/discovery/instance":
		reply(w, "application/json", map[string]any{
			"tenant_discovery_endpoint": authority + "/v2.0/.well-known/openid-configuration",
			"metadata": []map[string]any{{
				"preferred_network": "login.microsoftonline.com", "preferred_cache": "login.windows.net",
				"aliases": []string{"login.microsoftonline.com", "login.windows.net"},
			}},
		})
	case "/" + azureTenant + "/v2.0/.well-known/openid-configuration":
		reply(w, "application/json", map[string]any{
			"issuer": authority + "/v2.0", "authorization_endpoint": authority + "/oauth2/v2.0/authorize", "token_endpoint": authority + "/oauth2/v2.0/token",
		})
	case "/" + azureTenant + "/oauth2/v2.0/token":
		if scope := r.PostFormValue("scope"); r.PostFormValue("client_secret") != azureSecret || !strings.HasPrefix(scope, "https://vault.azure.net/.default") {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided."}`)
			return
		}
		reply(w, "application/json", map[string]any{"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": azureToken})
	default:
		http.NotFound(w, r)
	}
}

// AzureError is the Fault of an error of the service.
func AzureError(status int, code, message string, headers ...string) Fault {
	return Answer(status, fmt.Sprintf(`{"error":{"code":%q,"message":%q,"innererror":null}}`, code, message),
		append(headers, "Content-Type", "application/json")...)
}

func (a *Azure) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// The library asks without a token first, to be told where to get one.
	if r.Header.Get("Authorization") != "Bearer "+azureToken {
		AzureError(http.StatusUnauthorized, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token.",
			"WWW-Authenticate", `Bearer authorization="https://login.microsoftonline.com/`+azureTenant+`", resource="https://vault.azure.net"`)(w, r)
		return
	}
	if a.failed(w, r) {
		return
	}
	if r.URL.Query().Get("api-version") == "" {
		a.wrong(w, "no api-version in %s", r.URL)
		return
	}
	switch r.Method + " " + strings.TrimSuffix(r.URL.Path, "/") {
	case "GET /keys/release", "GET /keys/release/" + AzureVersion:
		a.reply(w, map[string]any{
			"kid": AzureKeyID, "key_ops": []string{"sign", "verify"}, "attributes": map[string]any{"enabled": true, "created": 1700000000, "updated": 1700000000},
		})
	case "POST /keys/release/" + AzureVersion + "/sign":
		a.signDigest(w, r)
	default:
		AzureError(http.StatusNotFound, "KeyNotFound", "A key with (name/id) "+r.URL.Path+" was not found in this key vault.")(w, r)
	}
}

// reply sends the key, whose fields are in one object here and in two there.
func (a *Azure) reply(w http.ResponseWriter, key map[string]any) {
	b64 := base64.RawURLEncoding.EncodeToString
	switch public := a.Key.Public().(type) {
	case *rsa.PublicKey:
		key["kty"], key["n"], key["e"] = "RSA", b64(public.N.Bytes()), b64(big.NewInt(int64(public.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := public.Bytes()
		if err != nil {
			a.t.Errorf("public key: %v", err)
			return
		}
		size := len(point) / 2
		key["kty"], key["crv"], key["x"], key["y"] = "EC-HSM", public.Curve.Params().Name, b64(point[1:1+size]), b64(point[1+size:])
	}
	if a.Change != nil {
		a.Change(key)
	}
	attributes := key["attributes"]
	delete(key, "attributes")
	reply(w, "application/json; charset=utf-8", map[string]any{"key": key, "attributes": attributes})
}

func (a *Azure) signDigest(w http.ResponseWriter, r *http.Request) {
	var in struct{ Alg, Value string }
	if err := read(r, &in); err != nil {
		a.wrong(w, "sign: %v", err)
		return
	}
	digest, err := base64.RawURLEncoding.DecodeString(in.Value)
	ec, isEC := a.Key.Public().(*ecdsa.PublicKey)
	h := map[string]crypto.Hash{"RS256": crypto.SHA256, "RS384": crypto.SHA384, "RS512": crypto.SHA512}[in.Alg]
	if isEC {
		h = map[string]crypto.Hash{"ES256/P-256": crypto.SHA256, "ES384/P-384": crypto.SHA384, "ES512/P-521": crypto.SHA512}[in.Alg+"/"+ec.Curve.Params().Name]
	}
	if err != nil || h == 0 || len(digest) != h.Size() {
		a.wrong(w, "sign: %+v", in)
		return
	}
	sig := a.sign(h, digest)
	if isEC { // RFC 7518 3.4
		var der struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(sig, &der); err != nil {
			a.t.Errorf("signature: %v", err)
			return
		}
		size := (ec.Curve.Params().BitSize + 7) / 8
		sig = append(der.R.FillBytes(make([]byte, size)), der.S.FillBytes(make([]byte, size))...)
	}
	answer := map[string]any{"kid": AzureKeyID, "value": base64.RawURLEncoding.EncodeToString(sig)}
	if a.Change != nil {
		a.Change(answer)
	}
	reply(w, "application/json; charset=utf-8", answer)
}
