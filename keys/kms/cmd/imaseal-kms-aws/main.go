// Command imaseal-kms-aws signs for imaseal with keys in AWS KMS, --key awskms://….
// imaseal starts it; docs/services.md describes it.
package main

import (
	"os"

	"github.com/imaseal/imaseal/keys/kms"
	"github.com/imaseal/imaseal/keys/kms/awskms"
)

func main() {
	os.Exit(kms.Run("imaseal-kms-aws", os.Args[1:], os.Stdin, os.Stdout, os.Stderr, awskms.Open))
}
