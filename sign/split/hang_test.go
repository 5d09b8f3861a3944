package split

import (
	"crypto"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/imaseal/imaseal/sign"
)

// A hanging key signs once it is let.
type hanging struct {
	crypto.Signer
	let chan struct{}
}

func (k hanging) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	<-k.let
	return k.Signer.Sign(r, digest, o)
}

type readBytes struct{ n atomic.Int64 }

func (c *readBytes) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return len(b), nil
}

// A statement may have a megabyte. While a token hangs, a request of many is not read
// into memory.
func TestAHangingKeyFillsNoMemory(t *testing.T) {
	const packages, globs, most = 200, 250, 24 << 20
	glob := strings.Repeat("a", 1000)
	var request strings.Builder
	fmt.Fprintln(&request, requestFormat)
	for p := range packages {
		fmt.Fprintf(&request, "\nType: deb\nFile-SHA256: %064x\nStatement: imaseal-package-1\nPackage: p%03d\nVersion: 1\nArchitecture: all\nSelect: all\n", p, p)
		for n := range globs {
			fmt.Fprintf(&request, "Exclude: /%s%03d\n", glob, n)
		}
		fmt.Fprintf(&request, "Hash: sha256\nSHA256-control: %064x\nFiles: 1\nScripts: 0\nfile %064x - usr/bin/x\n", p, p)
	}
	fmt.Fprintf(&request, "\n%s\n", endOf(packages, packages))
	if request.Len() < 2*most {
		t.Fatal("the request is too small to show anything")
	}
	s, err := Check(strings.NewReader(request.String()), io.Discard, new(Rules))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		fast := newKey(t, "ec")
		k := hanging{keyOf[fast], make(chan struct{})}
		slow, err := sign.NewSigner(k, fast.KeyID())
		if err != nil {
			t.Fatal(err)
		}
		read := new(readBytes)
		result := make(chan error)
		go func() {
			result <- Sign(t.Context(), io.TeeReader(strings.NewReader(request.String()), read), io.Discard, slow, s, SignOptions{Jobs: 4})
		}()
		synctest.Wait()
		if n := read.n.Load(); n > most || n == 0 {
			t.Errorf("%d of %d bytes were read", n, request.Len())
		}
		close(k.let)
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}
