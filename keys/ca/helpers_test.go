package ca

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/keys/keystest"
)

var (
	readTestdata = keystest.ReadTestdata
	seed         = keystest.Seed
	publicKey    = keystest.PublicKey
	need         = keystest.Need
	run          = keystest.Run
	runOpenSSL   = keystest.OpenSSL
	writeFile    = keystest.WriteFile
	tree         = keystest.Tree
	answer       = keystest.Answer
	checkError   = keystest.CheckError
	evmctlKeyID  = keystest.EvmctlKeyID
)

const (
	testPassphrase = keystest.Passphrase
	caExtensions   = keystest.CAExtensions
	leafExtensions = keystest.LeafExtensions
)

type pki = keystest.PKI

// testTime is a time that certificates begin at.
var testTime = time.Date(2022, 5, 6, 7, 8, 9, 0, time.UTC)

func loadCertificate(t testing.TB, path string) *x509.Certificate {
	t.Helper()
	certs, err := keys.LoadCertificates(path)
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

func certificates(t testing.TB, path string) []*x509.Certificate {
	t.Helper()
	certs, err := keys.LoadCertificates(path)
	if err != nil {
		t.Fatal(err)
	}
	return certs
}
