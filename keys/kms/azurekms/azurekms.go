// Package azurekms signs with keys in Azure Key Vault and Managed HSM, by their
// operations get key and sign: https://learn.microsoft.com/rest/api/keyvault/keys.
// Start with Open; publickey.go reads the keys.
package azurekms

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/imaseal/imaseal/keys/kms"
	"github.com/imaseal/imaseal/keys/kmsref"
	"github.com/imaseal/imaseal/keys/program"
	"github.com/imaseal/imaseal/keys/remote"
)

const service = "Azure Key Vault"

// rsaAlgorithms and ecAlgorithms are what RFC 7518 calls the signatures that kernels
// verify. A curve has but one.
var (
	rsaAlgorithms = map[crypto.Hash]azkeys.SignatureAlgorithm{
		crypto.SHA256: azkeys.SignatureAlgorithmRS256,
		crypto.SHA384: azkeys.SignatureAlgorithmRS384,
		crypto.SHA512: azkeys.SignatureAlgorithmRS512,
	}
	ecAlgorithms = map[crypto.Hash]azkeys.SignatureAlgorithm{
		crypto.SHA256: azkeys.SignatureAlgorithmES256,
		crypto.SHA384: azkeys.SignatureAlgorithmES384,
		crypto.SHA512: azkeys.SignatureAlgorithmES512,
	}
)

// A key is one version of a key, whose public key was fetched.
type key struct {
	client        *azkeys.Client
	name, version string
	id            string // both, with the vault
	public        crypto.PublicKey
}

// Open reaches the key that an azurekms reference names, by the credentials that
// Azure's default chain finds: environment, workload and managed identity, tools.
// Where it names no version, the current one is taken, and kept.
func Open(ctx context.Context, ref string) (*program.Provider, error) {
	parsed, err := kmsref.ParseAzure(ref)
	if err != nil {
		return nil, err
	}
	credential, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return nil, fmt.Errorf("credentials of Azure: %w", err)
	}
	client, err := azkeys.NewClient(parsed.URL(), credential, &azkeys.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport: kms.Client(),
		Retry:     policy.RetryOptions{MaxRetries: -1}, // none: imaseal tries again
	}})
	if err != nil {
		return nil, fmt.Errorf("vault %s: %w", parsed.Host, err)
	}
	k := &key{client: client, name: parsed.Name, version: parsed.Version}
	if err := k.fetch(ctx); err != nil {
		return nil, err
	}
	return &program.Provider{Public: k.public, Sign: k.sign, InFlight: kms.InFlight}, nil
}

// fetch gets the public key, and the version where there is none yet.
func (k *key) fetch(ctx context.Context) (err error) {
	defer recoverChallenge(&err)
	out, err := k.client.GetKey(ctx, k.name, k.version, nil)
	if err != nil {
		return failure(err)
	}
	if out.Key == nil || out.Key.KID == nil {
		return errors.New("the vault did not say which key it is")
	}
	k.id = string(*out.Key.KID)
	if k.version == "" {
		k.version = out.Key.KID.Version()
	}
	if k.version == "" || !strings.HasSuffix(strings.ToLower(k.id), strings.ToLower("/keys/"+k.name+"/"+k.version)) {
		return fmt.Errorf("the vault answered for key %q, not for version %s of %s", k.id, k.version, k.name)
	}
	if out.Attributes != nil && out.Attributes.Enabled != nil && !*out.Attributes.Enabled {
		return fmt.Errorf("version %s of the key is disabled: enable it, or name another", k.version)
	}
	k.public, err = publicKey(out.Key)
	return err
}

// sign signs one digest.
func (k *key) sign(ctx context.Context, d remote.Digest) (signature []byte, err error) {
	defer recoverChallenge(&err)
	algorithm := rsaAlgorithms[d.Hash]
	ec, isEC := k.public.(*ecdsa.PublicKey)
	if isEC {
		if want := curveHash(ec); d.Hash != want {
			return nil, kms.WrongHash("a key on curve "+ec.Curve.Params().Name, want, d.Hash)
		}
		algorithm = ecAlgorithms[d.Hash]
	}
	out, err := k.client.Sign(ctx, k.name, k.version, azkeys.SignParameters{Algorithm: &algorithm, Value: d.Sum}, nil)
	if err != nil {
		return nil, failure(err)
	}
	if out.KID == nil || !strings.EqualFold(string(*out.KID), k.id) {
		return nil, fmt.Errorf("the vault signed with another key, not with %s", k.id)
	}
	if isEC {
		return remote.DERFromRaw(ec, out.Result)
	}
	if size := k.public.(*rsa.PublicKey).Size(); len(out.Result) != size {
		return nil, fmt.Errorf("the vault gave a signature of %d bytes, not the %d of the key", len(out.Result), size)
	}
	return out.Result, nil
}

// recoverChallenge makes an error of a panic: the library indexes into the header
// WWW-Authenticate of an answer without a look at its length.
func recoverChallenge(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("the vault sent what its library cannot read: %v", p)
	}
}

// hints say what to do about an HTTP status.
var hints = map[int]string{
	http.StatusUnauthorized: "the credentials are of another tenant, or have expired",
	http.StatusForbidden:    "the caller needs the key permissions get and sign, as the role Key Vault Crypto User has them, and the vault's firewall must let it in",
	http.StatusNotFound:     "look at the names of vault and key, and at the version",
}

// failure returns err in a user's words, and says whether it passes.
func failure(err error) error {
	var answered *azcore.ResponseError
	var noToken *azidentity.AuthenticationFailedError
	switch {
	case errors.As(err, &noToken):
		if noToken.RawResponse == nil {
			return kms.Failure("Azure credentials", err, 0, nil)
		}
		return kms.Failure("Azure credentials", err, noToken.RawResponse.StatusCode, noToken.RawResponse.Header)
	case errors.As(err, &answered):
		text := fmt.Errorf("HTTP status %d: %s", answered.StatusCode, message(answered))
		if hint := hints[answered.StatusCode]; hint != "" {
			text = fmt.Errorf("%w (%s)", text, hint)
		}
		var header http.Header
		if answered.RawResponse != nil {
			header = answered.RawResponse.Header
		}
		return kms.Failure(service, text, answered.StatusCode, header)
	}
	return kms.Failure(service, err, 0, nil)
}

// message returns what the service said; the library's own text is a page long.
func message(e *azcore.ResponseError) string {
	var body struct {
		Error struct {
			Code, Message string
		}
	}
	if e.RawResponse != nil {
		if text, err := runtime.Payload(e.RawResponse); err == nil && json.Unmarshal(text, &body) == nil && body.Error.Message != "" {
			return body.Error.Code + ": " + body.Error.Message
		}
	}
	if e.ErrorCode != "" {
		return e.ErrorCode
	}
	return http.StatusText(e.StatusCode)
}
