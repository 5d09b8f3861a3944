// Package gcpkms signs with keys in Google Cloud KMS, by its methods getPublicKey and
// asymmetricSign: https://cloud.google.com/kms/docs/reference/rest. Start with Open.
package gcpkms

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/oauth2"
	"google.golang.org/api/cloudkms/v1"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"
	htransport "google.golang.org/api/transport/http"

	"github.com/imaseal/imaseal/keys/kms"
	"github.com/imaseal/imaseal/keys/kmsref"
	"github.com/imaseal/imaseal/keys/program"
	"github.com/imaseal/imaseal/keys/remote"
)

const service = "Google Cloud KMS"

// algorithms are those whose signatures kernels verify. A version of a key has one,
// which says the hash too.
var algorithms = map[string]crypto.Hash{
	"RSA_SIGN_PKCS1_2048_SHA256": crypto.SHA256,
	"RSA_SIGN_PKCS1_3072_SHA256": crypto.SHA256,
	"RSA_SIGN_PKCS1_4096_SHA256": crypto.SHA256,
	"RSA_SIGN_PKCS1_4096_SHA512": crypto.SHA512,
	"EC_SIGN_P256_SHA256":        crypto.SHA256,
	"EC_SIGN_P384_SHA384":        crypto.SHA384,
}

// maxVersions bounds how many versions of a key are looked at for the newest.
const maxVersions = 10000

// A key is one version of a key, whose public key was fetched.
type key struct {
	versions  *cloudkms.ProjectsLocationsKeyRingsCryptoKeysCryptoKeyVersionsService
	name      string // of the version
	algorithm string
	hash      crypto.Hash
}

// Open reaches the key that a gcpkms reference names, by Google's application default
// credentials. Where it names no version, the newest enabled one is taken.
func Open(ctx context.Context, ref string) (*program.Provider, error) {
	parsed, err := kmsref.ParseGCP(ref)
	if err != nil {
		return nil, err
	}
	k := &key{}
	if k.versions, err = newClient(ctx); err != nil {
		return nil, err
	}
	if parsed.Version == "" {
		if parsed.Version, err = k.newest(ctx, parsed.Key); err != nil {
			return nil, err
		}
	}
	k.name = parsed.VersionName(parsed.Version)
	public, err := k.publicKey(ctx)
	if err != nil {
		return nil, err
	}
	return &program.Provider{Public: public, Sign: k.sign, InFlight: kms.InFlight}, nil
}

func newClient(ctx context.Context) (*cloudkms.ProjectsLocationsKeyRingsCryptoKeysCryptoKeyVersionsService, error) {
	client := kms.Client()
	var err error
	client.Transport, err = htransport.NewTransport(ctx, client.Transport, option.WithScopes(cloudkms.CloudkmsScope))
	if err != nil {
		return nil, fmt.Errorf("no Google credentials: set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login: %w", err)
	}
	service, err := cloudkms.NewService(ctx, option.WithHTTPClient(client))
	if err != nil {
		return nil, fmt.Errorf("client of Google Cloud KMS: %w", err)
	}
	return service.Projects.Locations.KeyRings.CryptoKeys.CryptoKeyVersions, nil
}

// newest returns the number of the newest enabled version of the key of that name.
func (k *key) newest(ctx context.Context, name string) (string, error) {
	newest, seen := 0, 0
	err := k.versions.List(name).Filter("state=ENABLED").Context(ctx).Pages(ctx, func(page *cloudkms.ListCryptoKeyVersionsResponse) error {
		if seen += len(page.CryptoKeyVersions) + 1; seen > maxVersions {
			return errors.New("the key has too many versions: name one in the reference")
		}
		for _, v := range page.CryptoKeyVersions {
			number, err := strconv.Atoi(strings.TrimPrefix(v.Name, name+"/cryptoKeyVersions/"))
			if err != nil {
				return fmt.Errorf("the service listed %q as a version of the key", v.Name)
			}
			newest = max(newest, number)
		}
		return nil
	})
	if err != nil {
		return "", failure(err, "to find the newest version the caller needs cloudkms.cryptoKeyVersions.list, as roles/cloudkms.viewer has it: or name a version in the reference")
	}
	if newest == 0 {
		return "", errors.New("the key has no enabled version")
	}
	return strconv.Itoa(newest), nil
}

func (k *key) publicKey(ctx context.Context) (crypto.PublicKey, error) {
	out, err := k.versions.GetPublicKey(k.name).Context(ctx).Do()
	if err != nil {
		return nil, failure(err, permission)
	}
	if err := k.checkAnswer(out.Name, []byte(out.Pem), out.PemCrc32c); err != nil {
		return nil, err
	}
	k.algorithm = out.Algorithm
	var ok bool
	if k.hash, ok = algorithms[k.algorithm]; !ok {
		return nil, fmt.Errorf("the kernel does not verify signatures of algorithm %s: make a key with RSA_SIGN_PKCS1_… or EC_SIGN_P256_SHA256 or EC_SIGN_P384_SHA384", k.algorithm)
	}
	block, _ := pem.Decode([]byte(out.Pem))
	if block == nil {
		return nil, errors.New("the service gave a public key that is no PEM")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the public key: %w", err)
	}
	return public, nil
}

// sign signs one digest. KMS gives ECDSA signatures in DER already.
func (k *key) sign(ctx context.Context, d remote.Digest) ([]byte, error) {
	if d.Hash != k.hash {
		return nil, kms.WrongHash("a key version of algorithm "+k.algorithm, k.hash, d.Hash)
	}
	request := &cloudkms.AsymmetricSignRequest{
		Digest:          &cloudkms.Digest{},
		DigestCrc32c:    checksum(d.Sum),
		ForceSendFields: []string{"DigestCrc32c"}, // 0 is one too
	}
	sum := base64.StdEncoding.EncodeToString(d.Sum)
	switch d.Hash {
	case crypto.SHA256:
		request.Digest.Sha256 = sum
	case crypto.SHA384:
		request.Digest.Sha384 = sum
	case crypto.SHA512:
		request.Digest.Sha512 = sum
	}
	out, err := k.versions.AsymmetricSign(k.name, request).Context(ctx).Do()
	if err != nil {
		return nil, failure(err, permission)
	}
	signature, err := base64.StdEncoding.DecodeString(out.Signature)
	if err != nil {
		return nil, fmt.Errorf("the service gave a signature that is no base64: %w", err)
	}
	if err := k.checkAnswer(out.Name, signature, out.SignatureCrc32c); err != nil {
		return nil, err
	}
	if !out.VerifiedDigestCrc32c {
		return nil, remote.Temporary(errors.New("the service did not check that the digest arrived whole"), 0)
	}
	return signature, nil
}

// checkAnswer checks that an answer is of this version of the key, and arrived whole:
// https://cloud.google.com/kms/docs/data-integrity-guidelines.
func (k *key) checkAnswer(name string, content []byte, sum int64) error {
	if name != k.name {
		return fmt.Errorf("the service answered for key version %q, not for %s", name, k.name)
	}
	if checksum(content) != sum {
		return remote.Temporary(errors.New("an answer of the service does not fit its checksum: it was changed on the way"), 0)
	}
	return nil
}

func checksum(b []byte) int64 {
	return int64(crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

const permission = "the caller needs cloudkms.cryptoKeyVersions.viewPublicKey and useToSign on this key, as roles/cloudkms.signerVerifier has them"

// failure returns err in a user's words, and says whether it passes. needs is what the
// caller must be allowed.
func failure(err error, needs string) error {
	var answered *googleapi.Error
	var noToken *oauth2.RetrieveError
	switch {
	case errors.As(err, &answered):
		text := fmt.Errorf("HTTP status %d: %s", answered.Code, answered.Message)
		switch answered.Code {
		case http.StatusForbidden:
			text = fmt.Errorf("%w (%s)", text, needs)
		case http.StatusNotFound:
			text = fmt.Errorf("%w (look at project, location, ring, key and version)", text)
		}
		return kms.Failure(service, text, answered.Code, answered.Header)
	case errors.As(err, &noToken) && noToken.Response != nil:
		return kms.Failure("Google credentials", err, noToken.Response.StatusCode, noToken.Response.Header)
	}
	return kms.Failure(service, err, 0, nil)
}
