package awskms

import (
	"crypto"
	"crypto/elliptic"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/keys/kms/kmstest"
)

func TestMain(m *testing.M) { kmstest.Main(m) }

const ref = "awskms:///" + kmstest.AWSAlias

func TestSign(t *testing.T) {
	for name, c := range map[string]struct {
		key    crypto.Signer
		hashes []crypto.Hash
	}{
		"RSA_2048":      {kmstest.RSAKey(t, 2048), []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}},
		"ECC_NIST_P256": {kmstest.ECKey(t, elliptic.P256()), []crypto.Hash{crypto.SHA256}},
		"ECC_NIST_P384": {kmstest.ECKey(t, elliptic.P384()), []crypto.Hash{crypto.SHA384}},
		"ECC_NIST_P521": {kmstest.ECKey(t, elliptic.P521()), []crypto.Hash{crypto.SHA512}},
	} {
		t.Run(name, func(t *testing.T) {
			kmstest.NewAWS(t, c.key)
			kmstest.CheckSigns(t, Open, ref, c.key.Public(), c.hashes)
		})
	}
}

// TestReferences reaches the same key by all spellings.
func TestReferences(t *testing.T) {
	key := kmstest.ECKey(t, elliptic.P256())
	aws := kmstest.NewAWS(t, key)
	kmstest.Handle(t, "kms.example.com", aws)
	for _, ref := range []string{
		ref, "awskms:///" + kmstest.AWSKeyARN, "awskms:///1234abcd-12ab-34cd-56ef-1234567890ab",
		"awskms://kms.example.com/" + kmstest.AWSAlias,
	} {
		kmstest.CheckSigns(t, Open, ref, key.Public(), []crypto.Hash{crypto.SHA256})
	}
}

// TestRegion takes the region from the ARN before that of the environment.
func TestRegion(t *testing.T) {
	key := kmstest.ECKey(t, elliptic.P256())
	kmstest.NewAWS(t, key)
	t.Setenv("AWS_REGION", "eu-west-1")
	kmstest.CheckSigns(t, Open, "awskms:///"+kmstest.AWSKeyARN, key.Public(), []crypto.Hash{crypto.SHA256})
	t.Setenv("AWS_REGION", "")
	kmstest.CheckSigns(t, Open, "awskms:///"+kmstest.AWSKeyARN, key.Public(), []crypto.Hash{crypto.SHA256})
	if first, _ := kmstest.Converse(t, Open, ref); !strings.Contains(first.Error, "no AWS region: set AWS_REGION") {
		t.Errorf("without a region: %+v", first)
	}
}

// TestEndpointFromEnvironment goes where AWS's own variable says.
func TestEndpointFromEnvironment(t *testing.T) {
	key := kmstest.ECKey(t, elliptic.P256())
	aws := kmstest.NewAWS(t, key)
	server := httptest.NewServer(aws)
	defer server.Close()
	kmstest.Handle(t, "kms.eu-central-1.amazonaws.com", nil)
	t.Setenv("AWS_ENDPOINT_URL_KMS", server.URL)
	kmstest.CheckSigns(t, Open, ref, key.Public(), []crypto.Hash{crypto.SHA256})
}

// TestRefused has keys and answers that no file may be signed with.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, a *kmstest.AWS)
		ref    string
		want   string
	}{
		"the usage is another": {func(t *testing.T, a *kmstest.AWS) { a.Usage = "KEY_AGREEMENT" }, ref, "the key is for KEY_AGREEMENT: make one for SIGN_VERIFY"},
		"a curve of coins":     {func(t *testing.T, a *kmstest.AWS) { a.Spec = "ECC_SECG_P256K1" }, ref, "signatures of a key of type ECC_SECG_P256K1"},
		"a curve of Edwards":   {func(t *testing.T, a *kmstest.AWS) { a.Spec = "ECC_NIST_EDWARDS25519" }, ref, "make one of RSA_2048"},
		"a key type of later":  {func(t *testing.T, a *kmstest.AWS) { a.Spec = "ML_DSA_65" }, ref, "signatures of a key of type ML_DSA_65"},
		"no such key":          {nil, "awskms:///alias/other", "NotFoundException: Key 'alias/other' does not exist (look at the region and at the id"},
		"no reference":         {nil, "awskms://alias/other", "awskms:///KEY"},
		"no credentials":       {func(t *testing.T, a *kmstest.AWS) { t.Setenv("AWS_ACCESS_KEY_ID", "") }, ref, "no AWS credentials: set AWS_PROFILE"},
		"unknown credentials":  {func(t *testing.T, a *kmstest.AWS) { t.Setenv("AWS_ACCESS_KEY_ID", "AKIDOTHER") }, ref, "UnrecognizedClientException: The security token included in the request is invalid. (AWS does not know the credentials)"},
		"a broken profile":     {func(t *testing.T, a *kmstest.AWS) { t.Setenv("AWS_PROFILE", "nobody") }, ref, "AWS configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			aws := kmstest.NewAWS(t, kmstest.ECKey(t, elliptic.P256()))
			if c.change != nil {
				c.change(t, aws)
			}
			kmstest.CheckRefused(t, Open, c.ref, c.want, "wJalrXUtnFEMI")
		})
	}
}

// TestFaults has the service fail in all ways, both before and within the work.
func TestFaults(t *testing.T) {
	kmstest.CheckFaults(t, Open, ref, func(t *testing.T) *kmstest.Service {
		return &kmstest.NewAWS(t, kmstest.ECKey(t, elliptic.P256())).Service
	}, []kmstest.FaultCase{
		{Name: "throttled", Fault: kmstest.AWSError(400, "ThrottlingException", "Rate exceeded"), Want: "AWS KMS: ThrottlingException: Rate exceeded", Temporary: true},
		{Name: "quota", Fault: kmstest.AWSError(400, "LimitExceededException", "limit"), Want: "LimitExceededException", Temporary: true},
		{Name: "unavailable", Fault: kmstest.AWSError(500, "KeyUnavailableException", "busy"), Want: "KeyUnavailableException: busy", Temporary: true},
		{Name: "dependency", Fault: kmstest.AWSError(500, "DependencyTimeoutException", "slow"), Want: "DependencyTimeoutException: slow", Temporary: true},
		{Name: "denied", Fault: kmstest.AWSError(400, "AccessDeniedException", "User x is not authorized"), Want: "AccessDeniedException: User x is not authorized (allow the caller kms:GetPublicKey and kms:Sign"},
		{Name: "disabled", Fault: kmstest.AWSError(400, "DisabledException", "arn is disabled."), Want: "DisabledException: arn is disabled. (enable the key)"},
		{Name: "pending", Fault: kmstest.AWSError(400, "KMSInvalidStateException", "arn is pending deletion."), Want: "(look at the state of the key"},
		{Name: "expired", Fault: kmstest.AWSError(400, "ExpiredTokenException", "expired"), Want: "get new ones"},
	})
}

// TestWrongAnswers has the service answer with what was not asked for.
func TestWrongAnswers(t *testing.T) {
	aws := kmstest.NewAWS(t, kmstest.ECKey(t, elliptic.P256()))
	aws.SignedBy = strings.Replace(kmstest.AWSKeyARN, "1234abcd", "ffffabcd", 1)
	_, answers := kmstest.Converse(t, Open, ref, kmstest.Digest(crypto.SHA256, 1))
	if !strings.Contains(answers[0].Error, "AWS KMS signed with key") || answers[0].Temporary || answers[0].Signature != nil {
		t.Errorf("signed by another key: %+v", answers[0])
	}
	aws.SetFault(kmstest.Answer(200, `{"KeySpec":"ECC_NIST_P256","KeyUsage":"SIGN_VERIFY","PublicKey":"AAAA"}`))
	if first, _ := kmstest.Converse(t, Open, ref); !strings.Contains(first.Error, "did not say which key it is") {
		t.Errorf("a key without a name: %+v", first)
	}
	aws.SetFault(kmstest.Answer(200, `{"KeyId":"x","KeySpec":"ECC_NIST_P256","KeyUsage":"SIGN_VERIFY","PublicKey":"AAAA"}`))
	if first, _ := kmstest.Converse(t, Open, ref); !strings.Contains(first.Error, "the public key:") {
		t.Errorf("a key that is none: %+v", first)
	}
}

func TestWrongHash(t *testing.T) {
	kmstest.NewAWS(t, kmstest.ECKey(t, elliptic.P384()))
	kmstest.CheckWrongHash(t, Open, ref, crypto.SHA256, "a key of type ECC_NIST_P384 signs SHA-384 digests only, not SHA-256: use --hash sha384")
}

// TestHang ends a request when imaseal does not want it any more.
func TestHang(t *testing.T) {
	aws := kmstest.NewAWS(t, kmstest.ECKey(t, elliptic.P256()))
	kmstest.CheckHang(t, Open, ref, &aws.Service)
}
