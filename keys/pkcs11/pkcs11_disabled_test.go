//go:build !(pkcs11 && cgo)

package pkcs11

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// TestNotBuilt: such a build says which one has tokens, and what is wrong with a URI
// before that.
func TestNotBuilt(t *testing.T) {
	ctx := context.Background()
	if _, err := Open(ctx, "token=a", Options{}); !errors.Is(err, errNotBuilt) || !strings.Contains(err.Error(), "-tags pkcs11") {
		t.Error(err)
	}
	if _, err := Certificates(ctx, "token=a", Options{}); !errors.Is(err, errNotBuilt) {
		t.Error(err)
	}
	if _, err := Open(ctx, "tokn=a", Options{}); err == nil || errors.Is(err, errNotBuilt) {
		t.Error(err)
	}
}
