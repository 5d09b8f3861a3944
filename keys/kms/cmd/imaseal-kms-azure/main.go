// Command imaseal-kms-azure signs for imaseal with keys in Azure Key Vault and Managed
// HSM, --key azurekms://…. imaseal starts it; docs/services.md describes it.
package main

import (
	"os"

	"github.com/imaseal/imaseal/keys/kms"
	"github.com/imaseal/imaseal/keys/kms/azurekms"
)

func main() {
	os.Exit(kms.Run("imaseal-kms-azure", os.Args[1:], os.Stdin, os.Stdout, os.Stderr, azurekms.Open))
}
