package keys

import (
	"crypto/x509"
	"testing"

	"github.com/imaseal/imaseal/keys/keystest"
)

var (
	readTestdata = keystest.ReadTestdata
	seed         = keystest.Seed
	publicKey    = keystest.PublicKey
	need         = keystest.Need
	runOpenSSL   = keystest.OpenSSL
	writeFile    = keystest.WriteFile
	answer       = keystest.Answer
	refuse       = keystest.Refuse
	checkError   = keystest.CheckError
	holdsSecret  = keystest.HoldsSecret
	evmctlKeyID  = keystest.EvmctlKeyID
)

const (
	testPassphrase = keystest.Passphrase
	caExtensions   = keystest.CAExtensions
	leafExtensions = keystest.LeafExtensions
)

type pki = keystest.PKI

func loadCertificate(t testing.TB, path string) *x509.Certificate {
	t.Helper()
	certs, err := LoadCertificates(path)
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}
