package azurekms

import (
	"crypto"
	"crypto/elliptic"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/keys/kms/kmstest"
)

func TestMain(m *testing.M) { kmstest.Main(m) }

const ref = "azurekms://" + kmstest.AzureVault + "/release"

func TestSign(t *testing.T) {
	for name, c := range map[string]struct {
		key    crypto.Signer
		hashes []crypto.Hash
	}{
		"RSA":   {kmstest.RSAKey(t, 2048), []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}},
		"P-256": {kmstest.ECKey(t, elliptic.P256()), []crypto.Hash{crypto.SHA256}},
		"P-384": {kmstest.ECKey(t, elliptic.P384()), []crypto.Hash{crypto.SHA384}},
		"P-521": {kmstest.ECKey(t, elliptic.P521()), []crypto.Hash{crypto.SHA512}},
	} {
		t.Run(name, func(t *testing.T) {
			kmstest.NewAzure(t, c.key)
			kmstest.CheckSigns(t, Open, ref, c.key.Public(), c.hashes)
			kmstest.CheckSigns(t, Open, ref+"/"+kmstest.AzureVersion, c.key.Public(), c.hashes)
		})
	}
}

// TestKeptVersion goes on with the version that it began with.
func TestKeptVersion(t *testing.T) {
	key := kmstest.ECKey(t, elliptic.P256())
	azure := kmstest.NewAzure(t, key)
	p, err := Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	var asked string
	azure.SetFault(func(_ http.ResponseWriter, r *http.Request) bool { asked = r.URL.Path; return false })
	if _, err := p.Sign(t.Context(), kmstest.Digest(crypto.SHA256, 1)); err != nil || asked != "/keys/release/"+kmstest.AzureVersion+"/sign" {
		t.Errorf("%s: %v", asked, err)
	}
}

// TestRefused has keys, callers and answers with which no file is signed.
func TestRefused(t *testing.T) {
	set := func(field string, value any) func(*testing.T, *kmstest.Azure) {
		return func(_ *testing.T, a *kmstest.Azure) {
			a.Change = func(answer map[string]any) {
				if answer[field] = value; value == nil {
					delete(answer, field)
				}
			}
		}
	}
	long := base64.RawURLEncoding.EncodeToString(make([]byte, 3000))
	one := base64.RawURLEncoding.EncodeToString([]byte{1})
	rsa, ec := crypto.Signer(kmstest.RSAKey(t, 2048)), crypto.Signer(kmstest.ECKey(t, elliptic.P256()))
	for name, c := range map[string]struct {
		key    crypto.Signer
		change func(t *testing.T, a *kmstest.Azure)
		ref    string
		want   string
	}{
		"an operation is missing": {ec, set("key_ops", []string{"verify"}), ref, "not for signing: allow it the operation sign"},
		"a symmetric key":         {ec, set("kty", "oct-HSM"), ref, "a key of type oct-HSM signs no files"},
		"no type":                 {ec, set("kty", nil), ref, "a key without a type"},
		"a curve of coins":        {ec, set("crv", "P-256K"), ref, "signatures on curve P-256K: make a key on P-256"},
		"no curve":                {ec, set("crv", nil), ref, "an EC key without a curve"},
		"not on the curve":        {ec, set("x", one), ref, "a point that is not on curve P-256"},
		"a long coordinate":       {ec, set("y", base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("y", 33)))), ref, "a point that is not on curve P-256"},
		"no modulus":              {rsa, set("n", nil), ref, "an RSA key that is none"},
		"a long modulus":          {rsa, set("n", long), ref, "an RSA key that is none"},
		"a long exponent":         {rsa, set("e", long), ref, "an RSA key that is none"},
		"no exponent":             {rsa, set("e", ""), ref, "an RSA key that is none"},
		"disabled":                {ec, set("attributes", map[string]any{"enabled": false}), ref, "version " + kmstest.AzureVersion + " of the key is disabled"},
		"no id":                   {ec, set("kid", nil), ref, "did not say which key it is"},
		"an id without a version": {ec, set("kid", "https://team.vault.azure.net/keys/release"), ref, "answered for key \"https://team.vault.azure.net/keys/release\", not for version"},
		"the id of another key":   {ec, set("kid", "https://team.vault.azure.net/keys/other/"+kmstest.AzureVersion), ref, "answered for key \"https://team.vault.azure.net/keys/other/"},
		"no such key":             {ec, nil, ref + "s", "HTTP status 404: KeyNotFound: A key with (name/id)"},
		"no such version":         {ec, nil, ref + "/ffffffffffffffffffffffffffffffff", "(look at the names of vault and key"},
		"no reference":            {ec, nil, "azurekms://team.vault.azure.net", "azurekms://VAULT.vault.azure.net/KEY"},
		"no credentials":          {ec, func(t *testing.T, a *kmstest.Azure) { t.Setenv("AZURE_CLIENT_SECRET", "") }, ref, "credentials"},
		"wrong credentials":       {ec, func(t *testing.T, a *kmstest.Azure) { t.Setenv("AZURE_CLIENT_SECRET", "wrong") }, ref, "AADSTS7000215"},
	} {
		t.Run(name, func(t *testing.T) {
			azure := kmstest.NewAzure(t, c.key)
			if c.change != nil {
				c.change(t, azure)
			}
			kmstest.CheckRefused(t, Open, c.ref, c.want, "secret~")
		})
	}
}

// TestFaults has the service fail in all ways, both before and within the work.
func TestFaults(t *testing.T) {
	kmstest.CheckFaults(t, Open, ref, func(t *testing.T) *kmstest.Service {
		return &kmstest.NewAzure(t, kmstest.ECKey(t, elliptic.P256())).Service
	}, []kmstest.FaultCase{
		{Name: "throttled", Fault: kmstest.AzureError(429, "Throttled", "Request was not processed because too many requests were received.", "Retry-After", "10"), Want: "Azure Key Vault: HTTP status 429: Throttled: Request was not", Temporary: true, RetryAfterMS: 10000},
		{Name: "unavailable", Fault: kmstest.AzureError(503, "ServiceUnavailable", "busy"), Want: "HTTP status 503: ServiceUnavailable: busy", Temporary: true},
		{Name: "denied", Fault: kmstest.AzureError(403, "Forbidden", "Caller is not authorized to perform action on resource."), Want: "HTTP status 403: Forbidden: Caller is not authorized to perform action on resource. (the caller needs the key permissions get and sign"},
		{Name: "expired", Fault: kmstest.AzureError(403, "Forbidden", "Operation sign is not allowed on an expired key."), Want: "not allowed on an expired key."},
	})
}

// TestChallenges has the vault ask for credentials in ways that lead nowhere.
func TestChallenges(t *testing.T) {
	for challenge, want := range map[string]string{
		"": "credentials are of another tenant",
		`Bearer authorization="https://login.microsoftonline.com/x", resource="https://evil.example"`: "doesn't match the requested domain",
		`Bearer authorization="x", resource="https://vault.azure.net"`:                                "sent what its library cannot read",
		`Bearer resource=`: "could not find a valid resource",
	} {
		kmstest.NewAzure(t, kmstest.ECKey(t, elliptic.P256()))
		kmstest.Handle(t, kmstest.AzureVault, kmstest.Fault(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Authorization") != "" {
				t.Error("a token was sent")
			}
			return kmstest.Answer(401, "", "WWW-Authenticate", challenge)(w, r)
		}))
		first, _ := kmstest.Converse(t, Open, ref)
		if !strings.Contains(first.Error, want) || first.Temporary {
			t.Errorf("%q: %+v", challenge, first)
		}
	}
}

// TestWrongSignatures has answers that are no signatures of the key.
func TestWrongSignatures(t *testing.T) {
	b64 := func(n int) string { return base64.RawURLEncoding.EncodeToString(make([]byte, n)) }
	rsa, ec := crypto.Signer(kmstest.RSAKey(t, 2048)), crypto.Signer(kmstest.ECKey(t, elliptic.P256()))
	for name, c := range map[string]struct {
		key          crypto.Signer
		field, value string
		want         string
	}{
		"a short r and s": {ec, "value", b64(63), "a signature of 63 bytes is not the r and s of curve P-256, which have 64"},
		"a long r and s":  {ec, "value", b64(65), "a signature of 65 bytes"},
		"r and s of zero": {ec, "value", b64(64), "not within the order"},
		"no signature":    {ec, "value", "", "a signature of 0 bytes"},
		"no base64":       {ec, "value", "!", "illegal base64"},
		"a short RSA one": {rsa, "value", b64(255), "a signature of 255 bytes, not the 256 of the key"},
		"no key":          {ec, "kid", "", "signed with another key"},
		"another version": {ec, "kid", strings.Replace(kmstest.AzureKeyID, "0123", "3210", 1), "signed with another key, not with https://team"},
		"another vault":   {ec, "kid", strings.Replace(kmstest.AzureKeyID, "team", "other", 1), "signed with another key, not with https://team"},
	} {
		t.Run(name, func(t *testing.T) {
			azure := kmstest.NewAzure(t, c.key)
			azure.Change = func(answer map[string]any) {
				if _, isKey := answer["kty"]; !isKey {
					answer[c.field] = c.value
				}
			}
			_, answers := kmstest.Converse(t, Open, ref, kmstest.Digest(crypto.SHA256, 1))
			if got := answers[0]; !strings.Contains(got.Error, c.want) || got.Temporary || got.Signature != nil {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestWrongHash(t *testing.T) {
	kmstest.NewAzure(t, kmstest.ECKey(t, elliptic.P384()))
	kmstest.CheckWrongHash(t, Open, ref, crypto.SHA256, "a key on curve P-384 signs SHA-384 digests only, not SHA-256: use --hash sha384")
}

// TestHang ends a request when imaseal does not want it any more.
func TestHang(t *testing.T) {
	azure := kmstest.NewAzure(t, kmstest.ECKey(t, elliptic.P256()))
	kmstest.CheckHang(t, Open, ref, &azure.Service)
}
