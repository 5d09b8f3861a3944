// Command signer is a signing program for tests. The key that imaseal hands over is
// BEHAVIOUR,FILE: the file holds a private key in PEM; what it does wrong has a name.
package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/imaseal/imaseal/keys/program"
	"github.com/imaseal/imaseal/keys/remote"
)

func main() {
	if len(os.Args) > 1 {
		fmt.Fprintln(os.Stderr, "there are arguments:", os.Args[1:])
		os.Exit(1)
	}
	if err := program.Serve(context.Background(), os.Stdin, os.Stdout, open); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func open(_ context.Context, ref string) (*program.Provider, error) {
	behaviour, file, _ := strings.Cut(ref, ",")
	if strings.HasPrefix(ref, "awskms:") { // imaseal-kms-aws in a test
		behaviour, file = "good", os.Getenv("SIGNER_KEY")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key := parsed.(crypto.Signer)
	first := os.Mkdir(file+".started", 0o700) == nil
	var signed atomic.Int32
	return &program.Provider{Public: key.Public(), InFlight: 20, Sign: func(ctx context.Context, d remote.Digest) ([]byte, error) {
		time.Sleep(rand.N(2 * time.Millisecond)) // answers come in any order
		n := signed.Add(1)
		switch {
		case behaviour == "dies" && first && n > 40:
			fmt.Fprintln(os.Stderr, "the device was unplugged")
			os.Exit(3)
		case behaviour == "always dies":
			os.Exit(3)
		case behaviour == "hangs" && n > 3:
			select {}
		case behaviour == "lies":
			d.Sum = bytes.Repeat([]byte{1}, len(d.Sum))
		case behaviour == "prints" && n > 3:
			fmt.Println("debug: signing")
		case behaviour == "is throttled" && n%5 == 0:
			return nil, remote.Temporary(errors.New("slow down"), 0)
		case behaviour == "refuses" && n > 3:
			return nil, errors.New("the operator said no")
		}
		return key.Sign(nil, d.Sum, d.Hash)
	}}, nil
}
