package hashivault

import (
	"testing"

	"github.com/imaseal/imaseal/keys/remote"
)

// FuzzKey and FuzzSignatures give the parsers any body.
func FuzzKey(f *testing.F) {
	f.Add([]byte(`{"data":{"type":"rsa-2048","latest_version":1,"keys":{"1":{"public_key":"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"}}}}`), 0)
	f.Add([]byte(`{"data":{"type":"aes","keys":{"1":1700000000}}}`), 1)
	f.Fuzz(func(t *testing.T, body []byte, version int) {
		public, actual, err := parseKey(response{body: body}, version)
		if err == nil && (public == nil || version != 0 && actual != version) {
			t.Errorf("version %d, not %d", actual, version)
		}
	})
}

func FuzzSignatures(f *testing.F) {
	f.Add([]byte(`{"data":{"batch_results":[{"signature":"vault:v1:AAAA","reference":"0"},{"error":"x"}]}}`), 2)
	f.Fuzz(func(t *testing.T, body []byte, n int) {
		results, err := parseSignatures(response{body: body}, n, 1)
		if err != nil {
			return
		}
		if len(results) != n {
			t.Errorf("%d results, not %d", len(results), n)
		}
		for _, r := range results {
			if (r.Err == nil) == (len(r.Signature) == 0) {
				t.Errorf("%+v", r)
			}
			if _, ok := remote.IsTemporary(r.Err); ok {
				t.Error("temporary")
			}
		}
	})
}
