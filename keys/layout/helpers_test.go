package layout

import (
	"testing"

	"github.com/imaseal/imaseal/keys/ca"
	"github.com/imaseal/imaseal/keys/keystest"
)

var (
	need       = keystest.Need
	run        = keystest.Run
	writeFile  = keystest.WriteFile
	checkError = keystest.CheckError
	tree       = keystest.Tree
)

// initKeys makes new keys.
func initKeys(t testing.TB, o ca.InitOptions) *ca.InitResult {
	t.Helper()
	r, err := ca.Init(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
