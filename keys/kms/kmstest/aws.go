package kmstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// AWSAlias and AWSKeyARN name the key that an AWS service holds.
const (
	AWSAlias  = "alias/release"
	AWSKeyARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
)

// AWS is a fake of AWS KMS: https://docs.aws.amazon.com/kms/latest/APIReference/.
type AWS struct {
	Service
	// Spec and Usage are what it says of the key; found from the key, and SIGN_VERIFY,
	// where they are empty.
	Spec, Usage string
	// SignedBy is the key that it says it signed with, AWSKeyARN if empty.
	SignedBy string
}

// NewAWS puts a fake of AWS KMS into region eu-central-1, with credentials for it.
func NewAWS(t *testing.T, key crypto.Signer) *AWS {
	a := &AWS{Service: Service{Key: key, t: t}}
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
	t.Setenv("AWS_REGION", "eu-central-1")
	Handle(t, "kms.eu-central-1.amazonaws.com", a)
	return a
}

// awsAlgorithms are the signing algorithms by the kind of key.
var awsAlgorithms = map[string]map[string]crypto.Hash{
	"RSA":           {"RSASSA_PKCS1_V1_5_SHA_256": crypto.SHA256, "RSASSA_PKCS1_V1_5_SHA_384": crypto.SHA384, "RSASSA_PKCS1_V1_5_SHA_512": crypto.SHA512},
	"ECC_NIST_P256": {"ECDSA_SHA_256": crypto.SHA256},
	"ECC_NIST_P384": {"ECDSA_SHA_384": crypto.SHA384},
	"ECC_NIST_P521": {"ECDSA_SHA_512": crypto.SHA512},
}

func (a *AWS) spec() string {
	if a.Spec != "" {
		return a.Spec
	}
	switch public := a.Key.Public().(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA_%d", public.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECC_NIST_" + strings.ReplaceAll(public.Curve.Params().Name, "-", "")
	}
	return "SYMMETRIC_DEFAULT"
}

// AWSError is the Fault of an error of the service.
func AWSError(status int, code, message string) Fault {
	return Answer(status, fmt.Sprintf(`{"__type":%q,"message":%q}`, code, message), "Content-Type", "application/x-amz-json-1.1")
}

func (a *AWS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if a.failed(w, r) {
		return
	}
	if r.Method != http.MethodPost || r.URL.Path != "/" || r.Header.Get("Content-Type") != "application/x-amz-json-1.1" {
		a.wrong(w, "%s %s of type %q", r.Method, r.URL, r.Header.Get("Content-Type"))
		return
	}
	if auth := r.Header.Get("Authorization"); !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/") || !strings.Contains(auth, "/eu-central-1/kms/aws4_request") {
		AWSError(http.StatusBadRequest, "UnrecognizedClientException", "The security token included in the request is invalid.")(w, r)
		return
	}
	switch r.Header.Get("X-Amz-Target") {
	case "TrentService.GetPublicKey":
		a.getPublicKey(w, r)
	case "TrentService.Sign":
		a.signDigest(w, r)
	default:
		a.wrong(w, "operation %q", r.Header.Get("X-Amz-Target"))
	}
}

func (a *AWS) getPublicKey(w http.ResponseWriter, r *http.Request) {
	var in struct{ KeyId string }
	if err := read(r, &in); err != nil {
		a.wrong(w, "GetPublicKey: %v", err)
		return
	}
	if in.KeyId != AWSAlias && in.KeyId != AWSKeyARN && !strings.HasSuffix(AWSKeyARN, "/"+in.KeyId) {
		AWSError(http.StatusBadRequest, "NotFoundException", "Key '"+in.KeyId+"' does not exist")(w, r)
		return
	}
	usage := a.Usage
	if usage == "" {
		usage = "SIGN_VERIFY"
	}
	reply(w, "application/x-amz-json-1.1", map[string]any{
		"KeyId": AWSKeyARN, "KeySpec": a.spec(), "CustomerMasterKeySpec": a.spec(), "KeyUsage": usage, "PublicKey": a.spki(),
	})
}

func (a *AWS) signDigest(w http.ResponseWriter, r *http.Request) {
	var in struct {
		KeyId, MessageType, SigningAlgorithm string
		Message                              []byte
	}
	if err := read(r, &in); err != nil {
		a.wrong(w, "Sign: %v", err)
		return
	}
	kind := a.spec()
	if strings.HasPrefix(kind, "RSA_") {
		kind = "RSA"
	}
	h, ok := awsAlgorithms[kind][in.SigningAlgorithm]
	if !ok || in.MessageType != "DIGEST" || len(in.Message) != h.Size() || in.KeyId != AWSKeyARN {
		a.wrong(w, "Sign: %+v for a key of type %s", in, a.spec())
		return
	}
	by := a.SignedBy
	if by == "" {
		by = AWSKeyARN
	}
	reply(w, "application/x-amz-json-1.1", map[string]any{
		"KeyId": by, "SigningAlgorithm": in.SigningAlgorithm, "Signature": a.sign(h, in.Message),
	})
}
