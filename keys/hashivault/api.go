package hashivault

// This file holds what is said and heard: the requests of the transit engine's HTTP
// API (keys, sign) and their responses.

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/imaseal/imaseal/keys/remote"
)

// keyTypes are the types of transit keys that kernels verify, and their sizes in bits.
var keyTypes = map[string]int{
	"rsa-2048": 2048, "rsa-3072": 3072, "rsa-4096": 4096,
	"ecdsa-p256": 256, "ecdsa-p384": 384, "ecdsa-p521": 521,
}

// hashNames are the transit engine's names of the hashes.
var hashNames = map[crypto.Hash]string{crypto.SHA256: "sha2-256", crypto.SHA384: "sha2-384", crypto.SHA512: "sha2-512"}

// A response is the body of an answer. A server, or what stands in its place, may repeat
// the token that it was sent, which nobody must see.
type response struct {
	body  []byte
	token string
}

// hidden stands where the token was.
const hidden = "[token]"

// show returns text, a part of the body, as it can be shown, up to limit bytes.
func (r response) show(text string, limit int) string {
	if r.token != "" { // before anything is cut off: half a token is too much, too
		text = strings.ReplaceAll(text, r.token, hidden)
	}
	return remote.Printable(text, limit)
}

// A keyResponse is that of GET keys/NAME. The value for a version of a symmetric key
// is no object, so it is looked into only where it is needed.
type keyResponse struct {
	Data *struct {
		Type          string                     `json:"type"`
		LatestVersion int                        `json:"latest_version"`
		Keys          map[string]json.RawMessage `json:"keys"`
	} `json:"data"`
}

type keyVersion struct {
	PublicKey string `json:"public_key"`
}

// parseKey finds the public key of a version, of the latest if version is 0.
func parseKey(answer response, version int) (public crypto.PublicKey, actual int, err error) {
	var r keyResponse
	if err := json.Unmarshal(answer.body, &r); err != nil || r.Data == nil {
		return nil, 0, errors.New("the answer is not one of a transit engine: is the address right?")
	}
	bits, ok := keyTypes[r.Data.Type]
	if !ok {
		return nil, 0, fmt.Errorf("the key is of type %s, whose signatures kernels do not verify: make one of type rsa-2048, rsa-3072, rsa-4096, ecdsa-p256 or ecdsa-p384",
			answer.show(r.Data.Type, 40))
	}
	if version == 0 {
		version = r.Data.LatestVersion
	}
	raw, ok := r.Data.Keys[strconv.Itoa(version)]
	if !ok {
		return nil, 0, fmt.Errorf("the key has no version %d, but %s", version, answer.show(strings.Join(slices.Sorted(maps.Keys(r.Data.Keys)), ", "), 200))
	}
	var v keyVersion
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, 0, fmt.Errorf("version %d of the key: %w", version, err)
	}
	block, _ := pem.Decode([]byte(v.PublicKey))
	if block == nil {
		return nil, 0, fmt.Errorf("version %d of the key has no public key in PEM form", version)
	}
	public, err = x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, 0, fmt.Errorf("version %d of the key: %w", version, err)
	}
	size := 0
	switch k := public.(type) {
	case *rsa.PublicKey:
		if strings.HasPrefix(r.Data.Type, "rsa") {
			size = k.N.BitLen()
		}
	case *ecdsa.PublicKey:
		if strings.HasPrefix(r.Data.Type, "ecdsa") {
			size = k.Curve.Params().BitSize
		}
	}
	if size != bits {
		return nil, 0, fmt.Errorf("version %d of the key is said to be %s, and is not", version, r.Data.Type)
	}
	return public, version, nil
}

// A signRequest is the body of POST sign/NAME/HASH.
type signRequest struct {
	BatchInput          []signInput `json:"batch_input"`
	KeyVersion          int         `json:"key_version"`
	Prehashed           bool        `json:"prehashed"`
	SignatureAlgorithm  string      `json:"signature_algorithm,omitempty"`
	MarshalingAlgorithm string      `json:"marshaling_algorithm"`
}

type signInput struct {
	Input     []byte `json:"input"`
	Reference string `json:"reference"`
}

func newSignRequest(public crypto.PublicKey, version int, batch []remote.Digest) signRequest {
	r := signRequest{KeyVersion: version, Prehashed: true, MarshalingAlgorithm: "asn1"}
	if _, ok := public.(*rsa.PublicKey); ok {
		r.SignatureAlgorithm = "pkcs1v15" // the default is PSS
	}
	for i, d := range batch {
		r.BatchInput = append(r.BatchInput, signInput{d.Sum, strconv.Itoa(i)})
	}
	return r
}

type signResponse struct {
	Data *struct {
		BatchResults []signResult `json:"batch_results"`
	} `json:"data"`
}

type signResult struct {
	Signature string `json:"signature"`
	// Reference is that of the input. A server that is too old to know it leaves it
	// out.
	Reference string `json:"reference"`
	Error     string `json:"error"`
}

// parseSignatures reads the results of n digests, in their order, by a version of the
// key.
func parseSignatures(answer response, n, version int) ([]remote.Result, error) {
	var r signResponse
	if err := json.Unmarshal(answer.body, &r); err != nil || r.Data == nil {
		return nil, errors.New("the answer is not one of a transit engine")
	}
	if len(r.Data.BatchResults) != n {
		return nil, fmt.Errorf("the answer has %d signatures for %d digests", len(r.Data.BatchResults), n)
	}
	results := make([]remote.Result, n)
	for i, s := range r.Data.BatchResults {
		if s.Reference != "" && s.Reference != strconv.Itoa(i) {
			return nil, errors.New("the answer has the signatures in another order than was asked for")
		}
		if s.Error != "" {
			results[i].Err = errors.New(answer.show(s.Error, maxMessage))
			continue
		}
		sig, err := parseSignature(answer, s.Signature, version)
		if err != nil {
			return nil, err
		}
		results[i].Signature = sig
	}
	return results, nil
}

// parseSignature reads vault:vVERSION:BASE64.
func parseSignature(answer response, text string, version int) ([]byte, error) {
	rest, ok := strings.CutPrefix(text, fmt.Sprintf("vault:v%d:", version))
	if !ok {
		return nil, fmt.Errorf("a signature begins with %q, not with vault:v%d: as one by version %d of the key does", answer.show(text, 12), version, version)
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(rest)
	if err != nil || len(sig) == 0 {
		return nil, errors.New("a signature is not in base64")
	}
	return sig, nil
}

// An errorResponse is what an error's body holds.
type errorResponse struct {
	Errors []string `json:"errors"`
}

// message returns what the body of an error says, "" for nothing.
func message(answer response) string {
	var r errorResponse
	if err := json.Unmarshal(answer.body, &r); err != nil {
		return ""
	}
	return answer.show(strings.Join(r.Errors, "; "), maxMessage)
}
