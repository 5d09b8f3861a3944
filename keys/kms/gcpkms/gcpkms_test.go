package gcpkms

import (
	"crypto"
	"crypto/elliptic"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/keys/kms/kmstest"
	"github.com/imaseal/imaseal/keys/remote"
)

func TestMain(m *testing.M) { kmstest.Main(m) }

const (
	ref    = "gcpkms://" + kmstest.GCPKeyVersion
	newest = "gcpkms://" + kmstest.GCPKey
)

func TestSign(t *testing.T) {
	rsa := kmstest.RSAKey(t, 2048)
	for name, c := range map[string]struct {
		key  crypto.Signer
		hash crypto.Hash
	}{
		"RSA_SIGN_PKCS1_2048_SHA256": {rsa, crypto.SHA256},
		"RSA_SIGN_PKCS1_4096_SHA512": {rsa, crypto.SHA512}, // the size does not matter
		"EC_SIGN_P256_SHA256":        {kmstest.ECKey(t, elliptic.P256()), crypto.SHA256},
		"EC_SIGN_P384_SHA384":        {kmstest.ECKey(t, elliptic.P384()), crypto.SHA384},
	} {
		t.Run(name, func(t *testing.T) {
			kmstest.NewGCP(t, c.key).Algorithm = name
			kmstest.CheckSigns(t, Open, ref, c.key.Public(), []crypto.Hash{c.hash})
		})
	}
}

// TestVersions takes the version of the reference, else the newest enabled one.
func TestVersions(t *testing.T) {
	key := kmstest.ECKey(t, elliptic.P256())
	gcp := kmstest.NewGCP(t, key)
	short := "gcpkms://" + strings.Replace(kmstest.GCPKeyVersion, "cryptoKeyVersions", "versions", 1)
	for _, ref := range []string{ref, short, newest} {
		kmstest.CheckSigns(t, Open, ref, key.Public(), []crypto.Hash{crypto.SHA256})
	}
	gcp.Enabled = []int{2, 3, 1}
	kmstest.CheckSigns(t, Open, newest, key.Public(), []crypto.Hash{crypto.SHA256})
	for want, enabled := range map[string][]int{
		"the key has no enabled version":     nil,
		"cryptoKeyVersions/12/publicKey not": {3, 12, 2}, // the fake has version 3 only
	} {
		gcp.Enabled = enabled
		if first, _ := kmstest.Converse(t, Open, newest); !strings.Contains(first.Error, want) || first.Temporary {
			t.Errorf("%v: %+v", enabled, first)
		}
	}
	gcp.Enabled = make([]int, maxVersions+1)
	if first, _ := kmstest.Converse(t, Open, newest); !strings.Contains(first.Error, "too many versions: name one") {
		t.Errorf("%+v", first)
	}
}

// TestListFaults has the list of versions fail.
func TestListFaults(t *testing.T) {
	kmstest.CheckFaults(t, Open, newest, func(t *testing.T) *kmstest.Service {
		return &kmstest.NewGCP(t, kmstest.ECKey(t, elliptic.P256())).Service
	}, nil)
	gcp := kmstest.NewGCP(t, kmstest.ECKey(t, elliptic.P256()))
	gcp.SetFault(kmstest.GCPError(403, "PERMISSION_DENIED", "Permission denied."))
	if first, _ := kmstest.Converse(t, Open, newest); !strings.Contains(first.Error, "cloudkms.cryptoKeyVersions.list") {
		t.Errorf("%+v", first)
	}
	gcp.SetFault(nil)
	gcp.Change = func(answer map[string]any) {
		answer["cryptoKeyVersions"] = []map[string]string{{"name": kmstest.GCPKey + "/cryptoKeyVersions/../x"}}
	}
	if first, _ := kmstest.Converse(t, Open, newest); !strings.Contains(first.Error, "as a version of the key") {
		t.Errorf("%+v", first)
	}
}

// TestRefused has keys and callers with which no file is signed.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, g *kmstest.GCP)
		ref    string
		want   string
	}{
		"PSS":                   {func(t *testing.T, g *kmstest.GCP) { g.Algorithm = "RSA_SIGN_PSS_2048_SHA256" }, ref, "signatures of algorithm RSA_SIGN_PSS_2048_SHA256: make a key with RSA_SIGN_PKCS1_"},
		"a curve of coins":      {func(t *testing.T, g *kmstest.GCP) { g.Algorithm = "EC_SIGN_SECP256K1_SHA256" }, ref, "algorithm EC_SIGN_SECP256K1_SHA256"},
		"an algorithm of later": {func(t *testing.T, g *kmstest.GCP) { g.Algorithm = "PQ_SIGN_ML_DSA_65" }, ref, "algorithm PQ_SIGN_ML_DSA_65"},
		"no such version":       {nil, "gcpkms://" + kmstest.GCPKey + "/cryptoKeyVersions/4", "HTTP status 404: CryptoKeyVersion " + kmstest.GCPKey + "/cryptoKeyVersions/4/publicKey not found. (look at project"},
		"no reference":          {nil, "gcpkms://projects/p", "gcpkms://projects/PROJECT/"},
		"no credentials": {func(t *testing.T, g *kmstest.GCP) {
			t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent/account.json")
		}, ref, "no Google credentials: set GOOGLE_APPLICATION_CREDENTIALS"},
	} {
		t.Run(name, func(t *testing.T) {
			gcp := kmstest.NewGCP(t, kmstest.ECKey(t, elliptic.P256()))
			if c.change != nil {
				c.change(t, gcp)
			}
			kmstest.CheckRefused(t, Open, c.ref, c.want, "PRIVATE KEY")
		})
	}
}

// TestFaults has the service fail in all ways, both before and within the work.
func TestFaults(t *testing.T) {
	kmstest.CheckFaults(t, Open, ref, func(t *testing.T) *kmstest.Service {
		return &kmstest.NewGCP(t, kmstest.ECKey(t, elliptic.P256())).Service
	}, []kmstest.FaultCase{
		{Name: "quota", Fault: kmstest.GCPError(429, "RESOURCE_EXHAUSTED", "Quota exceeded", "Retry-After", "30"), Want: "Google Cloud KMS: HTTP status 429: Quota exceeded", Temporary: true, RetryAfterMS: 30000},
		{Name: "unavailable", Fault: kmstest.GCPError(503, "UNAVAILABLE", "The service is currently unavailable."), Want: "HTTP status 503: The service", Temporary: true},
		{Name: "denied", Fault: kmstest.GCPError(403, "PERMISSION_DENIED", "Permission 'x' denied on resource"), Want: "HTTP status 403: Permission 'x' denied on resource (the caller needs cloudkms.cryptoKeyVersions.viewPublicKey and useToSign"},
		{Name: "disabled", Fault: kmstest.GCPError(400, "FAILED_PRECONDITION", "the version is not enabled, current state is: DISABLED."), Want: "HTTP status 400: the version is not enabled"},
	})
}

// TestTokenFaults has the giver of tokens fail.
func TestTokenFaults(t *testing.T) {
	for _, c := range []struct {
		fault     kmstest.Fault
		want      string
		temporary bool
	}{
		{kmstest.Answer(503, "", "Retry-After", "1"), "Google credentials: ", true},
		{kmstest.Answer(400, `{"error":"invalid_grant","error_description":"Invalid JWT Signature."}`, "Content-Type", "application/json"), "invalid_grant", false},
	} {
		kmstest.NewGCP(t, kmstest.ECKey(t, elliptic.P256()))
		kmstest.Handle(t, "oauth2.googleapis.com", c.fault)
		first, _ := kmstest.Converse(t, Open, ref)
		if !strings.Contains(first.Error, c.want) || first.Temporary != c.temporary || strings.Contains(first.Error, "eyJ") {
			t.Errorf("%+v", first)
		}
	}
}

// TestIntegrity has answers that were changed on the way, or are not of the key.
func TestIntegrity(t *testing.T) {
	for name, c := range map[string]struct {
		field     string
		value     any
		want      string
		temporary bool
	}{
		"the checksum of the key":       {"pemCrc32c", "1", "does not fit its checksum", true},
		"the name of the key":           {"name", kmstest.GCPKey + "/cryptoKeyVersions/2", "answered for key version \"" + kmstest.GCPKey + "/cryptoKeyVersions/2\"", false},
		"the key":                       {"pem", "", "does not fit its checksum", true},
		"the checksum of the signature": {"signatureCrc32c", "1", "does not fit its checksum", true},
		"no checksum of the signature":  {"signatureCrc32c", nil, "does not fit its checksum", true},
		"the signature":                 {"signature", "AAAA", "does not fit its checksum", true},
		"a signature that is no base64": {"signature", "!", "no base64", false},
		"the digest was not checked":    {"verifiedDigestCrc32c", false, "did not check that the digest arrived whole", true},
		"nobody says whether it was":    {"verifiedDigestCrc32c", nil, "did not check that the digest arrived whole", true},
		"a checksum that is no number":  {"signatureCrc32c", "x", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			gcp := kmstest.NewGCP(t, kmstest.ECKey(t, elliptic.P256()))
			gcp.Change = func(answer map[string]any) {
				if _, ok := answer[c.field]; !ok {
					return
				}
				if answer[c.field] = c.value; c.value == nil {
					delete(answer, c.field)
				}
			}
			first, answers := kmstest.Converse(t, Open, ref, kmstest.Digest(crypto.SHA256, 1))
			got := first
			if first.Error == "" {
				got = answers[0]
			}
			if got.Error == "" || !strings.Contains(got.Error, c.want) || got.Temporary != c.temporary || got.Signature != nil {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestZeroChecksum signs a digest whose checksum is 0, which Go leaves out of JSON
// where it is not told.
func TestZeroChecksum(t *testing.T) {
	key := kmstest.ECKey(t, elliptic.P256())
	kmstest.NewGCP(t, key)
	d := remote.Digest{Hash: crypto.SHA256, Sum: zeroChecksum()}
	if checksum(d.Sum) != 0 {
		t.Fatalf("the checksum of %x is %d", d.Sum, checksum(d.Sum))
	}
	_, answers := kmstest.Converse(t, Open, ref, d)
	kmstest.Verify(t, key.Public(), d, answers[0].Signature)
}

// zeroChecksum solves for four bytes, by which a CRC can be made any value: each bit
// that is flipped flips the same bits of the checksum, whatever the others are.
func zeroChecksum() []byte {
	sum := make([]byte, 32)
	base := checksum(sum)
	effect := func(bit int) int64 {
		sum[bit/8] ^= 1 << (bit % 8)
		defer func() { sum[bit/8] ^= 1 << (bit % 8) }()
		return checksum(sum) ^ base
	}
	var rows [32]struct{ effect, bits int64 }
	for bit := range 32 {
		e, bits := effect(bit), int64(1)<<bit
		for b := 31; b >= 0 && e != 0; b-- {
			if e>>b&1 == 0 {
				continue
			}
			if rows[b].effect == 0 {
				rows[b].effect, rows[b].bits = e, bits
				break
			}
			e, bits = e^rows[b].effect, bits^rows[b].bits
		}
	}
	var flip int64
	for b := 31; b >= 0; b-- {
		if base>>b&1 == 1 {
			base, flip = base^rows[b].effect, flip^rows[b].bits
		}
	}
	for bit := range 32 {
		sum[bit/8] ^= byte(flip>>bit&1) << (bit % 8)
	}
	return sum
}

func TestWrongHash(t *testing.T) {
	kmstest.NewGCP(t, kmstest.RSAKey(t, 2048))
	kmstest.CheckWrongHash(t, Open, ref, crypto.SHA512, "a key version of algorithm RSA_SIGN_PKCS1_2048_SHA256 signs SHA-256 digests only, not SHA-512: use --hash sha256")
}

// TestHang ends a request when imaseal does not want it any more.
func TestHang(t *testing.T) {
	gcp := kmstest.NewGCP(t, kmstest.ECKey(t, elliptic.P256()))
	kmstest.CheckHang(t, Open, ref, &gcp.Service)
}
