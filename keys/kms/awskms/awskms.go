// Package awskms signs with keys in AWS KMS, by its operations GetPublicKey and Sign:
// https://docs.aws.amazon.com/kms/latest/APIReference/. Start with Open.
package awskms

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/imaseal/imaseal/keys/kms"
	"github.com/imaseal/imaseal/keys/kmsref"
	"github.com/imaseal/imaseal/keys/program"
	"github.com/imaseal/imaseal/keys/remote"
)

const service = "AWS KMS"

// An algorithms table holds what KMS calls a signature of a kind of key, by the hash.
type algorithms map[crypto.Hash]types.SigningAlgorithmSpec

var rsa = algorithms{
	crypto.SHA256: types.SigningAlgorithmSpecRsassaPkcs1V15Sha256,
	crypto.SHA384: types.SigningAlgorithmSpecRsassaPkcs1V15Sha384,
	crypto.SHA512: types.SigningAlgorithmSpecRsassaPkcs1V15Sha512,
}

// specs are the kinds of keys whose signatures kernels verify. KMS ties a curve to one
// hash.
var specs = map[types.KeySpec]algorithms{
	types.KeySpecRsa2048:     rsa,
	types.KeySpecRsa3072:     rsa,
	types.KeySpecRsa4096:     rsa,
	types.KeySpecEccNistP256: {crypto.SHA256: types.SigningAlgorithmSpecEcdsaSha256},
	types.KeySpecEccNistP384: {crypto.SHA384: types.SigningAlgorithmSpecEcdsaSha384},
	types.KeySpecEccNistP521: {crypto.SHA512: types.SigningAlgorithmSpecEcdsaSha512},
}

// A key is one whose public key was fetched.
type key struct {
	client *awskms.Client
	// arn names the key itself: an alias may point to another key from one request
	// to the next.
	arn        *string
	spec       types.KeySpec
	algorithms algorithms
}

// Open reaches the key that an awskms reference names, by the credentials and settings
// that AWS's own tools use.
func Open(ctx context.Context, ref string) (*program.Provider, error) {
	parsed, err := kmsref.ParseAWS(ref)
	if err != nil {
		return nil, err
	}
	client, err := newClient(ctx, parsed)
	if err != nil {
		return nil, err
	}
	out, err := client.GetPublicKey(ctx, &awskms.GetPublicKeyInput{KeyId: &parsed.ID})
	if err != nil {
		return nil, failure(err)
	}
	k := &key{client: client, arn: out.KeyId, spec: out.KeySpec, algorithms: specs[out.KeySpec]}
	switch {
	case out.KeyUsage != types.KeyUsageTypeSignVerify:
		return nil, fmt.Errorf("the key is for %s: make one for SIGN_VERIFY", out.KeyUsage)
	case k.algorithms == nil:
		return nil, fmt.Errorf("the kernel does not verify signatures of a key of type %s: make one of RSA_2048 to RSA_4096 or ECC_NIST_P256 to ECC_NIST_P521", out.KeySpec)
	case aws.ToString(k.arn) == "":
		return nil, errors.New("AWS KMS did not say which key it is")
	}
	public, err := x509.ParsePKIXPublicKey(out.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("the public key: %w", err)
	}
	return &program.Provider{Public: public, Sign: k.sign, InFlight: kms.InFlight}, nil
}

func newClient(ctx context.Context, k kmsref.AWSKey) (*awskms.Client, error) {
	settings, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("AWS configuration: %w", err)
	}
	if k.Region != "" {
		settings.Region = k.Region
	}
	if settings.Region == "" {
		return nil, errors.New("no AWS region: set AWS_REGION or a profile's region, or name the key by its ARN")
	}
	if _, err := settings.Credentials.Retrieve(ctx); err != nil {
		return nil, fmt.Errorf("no AWS credentials: set AWS_PROFILE or what else AWS's tools look at: %w", err)
	}
	return awskms.NewFromConfig(settings, func(o *awskms.Options) {
		o.HTTPClient = kms.Client()
		o.Logger = logging.Nop{}
		o.Retryer = aws.NopRetryer{} // imaseal tries again
		if k.Endpoint != "" {
			o.BaseEndpoint = aws.String("https://" + k.Endpoint)
		}
	}), nil
}

// sign signs one digest. KMS gives ECDSA signatures in DER already.
func (k *key) sign(ctx context.Context, d remote.Digest) ([]byte, error) {
	algorithm, ok := k.algorithms[d.Hash]
	if !ok {
		for want := range k.algorithms { // a curve has but one
			return nil, kms.WrongHash("a key of type "+string(k.spec), want, d.Hash)
		}
	}
	out, err := k.client.Sign(ctx, &awskms.SignInput{
		KeyId: k.arn, Message: d.Sum, MessageType: types.MessageTypeDigest, SigningAlgorithm: algorithm,
	})
	if err != nil {
		return nil, failure(err)
	}
	if aws.ToString(out.KeyId) != *k.arn {
		return nil, fmt.Errorf("AWS KMS signed with key %q, not with %s", aws.ToString(out.KeyId), *k.arn)
	}
	return out.Signature, nil
}

// hints say what to do about an error code of KMS.
var hints = map[string]string{
	"AccessDeniedException":       "allow the caller kms:GetPublicKey and kms:Sign on this key, in the key's policy or in IAM",
	"NotFoundException":           "look at the region and at the id; an alias is written alias/NAME",
	"DisabledException":           "enable the key",
	"KMSInvalidStateException":    "look at the state of the key: it may be pending deletion or import",
	"InvalidKeyUsageException":    "the key must be for SIGN_VERIFY",
	"ExpiredTokenException":       "the credentials have expired: get new ones",
	"UnrecognizedClientException": "AWS does not know the credentials",
	"InvalidSignatureException":   "the secret access key does not fit, or the clock is wrong",
}

// failure returns err in a user's words, and says whether it passes.
func failure(err error) error {
	var status int
	var header http.Header
	var answered *smithyhttp.ResponseError
	if errors.As(err, &answered) && answered.Response != nil && answered.Response.Response != nil {
		status, header = answered.Response.StatusCode, answered.Response.Header
	}
	var api smithy.APIError
	if !errors.As(err, &api) {
		return kms.Failure(service, err, status, header)
	}
	text := fmt.Errorf("%s: %s", api.ErrorCode(), api.ErrorMessage())
	if _, throttled := retry.DefaultThrottleErrorCodes[api.ErrorCode()]; throttled {
		status = http.StatusTooManyRequests // KMS says 400
	}
	if hint := hints[api.ErrorCode()]; hint != "" {
		text = fmt.Errorf("%w (%s)", text, hint)
	}
	return kms.Failure(service, text, status, header)
}
