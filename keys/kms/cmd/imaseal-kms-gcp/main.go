// Command imaseal-kms-gcp signs for imaseal with keys in Google Cloud KMS, --key
// gcpkms://…. imaseal starts it; docs/services.md describes it.
package main

import (
	"os"

	"github.com/imaseal/imaseal/keys/kms"
	"github.com/imaseal/imaseal/keys/kms/gcpkms"
)

func main() {
	os.Exit(kms.Run("imaseal-kms-gcp", os.Args[1:], os.Stdin, os.Stdout, os.Stderr, gcpkms.Open))
}
