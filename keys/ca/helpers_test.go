package ca

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/keys/keystest"
)

var (
	need        = keystest.Need
	run         = keystest.Run
	runOpenSSL  = keystest.OpenSSL
	writeFile   = keystest.WriteFile
	tree        = keystest.Tree
	answer      = keystest.Answer
	checkError  = keystest.CheckError
	evmctlKeyID = keystest.EvmctlKeyID
)

const (
	testPassphrase = keystest.Passphrase
	caExtensions   = keystest.CAExtensions
	leafExtensions = keystest.LeafExtensions
)

type pki = keystest.PKI

// testTime is a time that certificates begin at.
var testTime = time.Date(2022, 5, 6, 7, 8, 9, 0, time.UTC)

func readTestdata(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// seed gives every file of folders in testdata to a fuzz target.
func seed(f *testing.F, folders ...string) {
	f.Helper()
	for _, folder := range folders {
		files, err := os.ReadDir(filepath.Join("testdata", folder))
		if err != nil || len(files) < 5 {
			f.Fatalf("%s: %d files, %v", folder, len(files), err)
		}
		for _, file := range files {
			f.Add(readTestdata(f, filepath.Join(folder, file.Name())))
		}
	}
}

// publicKey reads a public key as openssl pkey -pubout writes it.
func publicKey(t testing.TB, name string) interface{ Equal(crypto.PublicKey) bool } {
	t.Helper()
	block, _ := pem.Decode(readTestdata(t, name))
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return pub.(interface{ Equal(crypto.PublicKey) bool })
}

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
