package program

// This file holds the programs that the tests start: the test binary itself.

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imaseal/imaseal/keys/remote"
)

const (
	behaviourVariable = "IMASEAL_TEST_PROGRAM"
	keyVariable       = "IMASEAL_TEST_PROGRAM_KEY" // PKCS #8 in base64; made by the test, worth nothing
	onceVariable      = "IMASEAL_TEST_PROGRAM_ONCE"
)

func TestMain(m *testing.M) {
	if behaviour := os.Getenv(behaviourVariable); behaviour != "" {
		os.Exit(behave(behaviour))
	}
	os.Exit(m.Run())
}

// programs start the test binary as a program of this behaviour. The command is to be
// opened by the key reference "the key".
func programs(t *testing.T, behaviour string) ([]string, *ecdsa.PrivateKey) {
	t.Helper()
	key := newKey(t)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(behaviourVariable, behaviour)
	t.Setenv(keyVariable, base64.StdEncoding.EncodeToString(der))
	t.Setenv(onceVariable, t.TempDir()+"/once")
	return []string{os.Args[0]}, key
}

// first reports whether this is the first run of the program.
func first() bool {
	f, err := os.OpenFile(os.Getenv(onceVariable), os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		f.Close()
	}
	return err == nil
}

func testKey() *ecdsa.PrivateKey {
	der, err := base64.StdEncoding.DecodeString(os.Getenv(keyVariable))
	if err != nil {
		panic(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		panic(err)
	}
	return key.(*ecdsa.PrivateKey)
}

// behave is the program. What it does wrong has a name.
func behave(behaviour string) int {
	key := testKey()
	p := &Provider{Public: key.Public(), InFlight: 50}
	var signed atomic.Int32
	p.Sign = func(_ context.Context, d remote.Digest) ([]byte, error) {
		time.Sleep(rand.N(3 * time.Millisecond)) // answers come in any order
		signed.Add(1)
		return key.Sign(nil, d.Sum, d.Hash)
	}
	well := p.Sign
	open := func(_ context.Context, ref string) (*Provider, error) {
		if ref != "the key" {
			return nil, fmt.Errorf("no key is called %q", ref)
		}
		return p, nil
	}
	switch behaviour {
	case "good":
	case "batches":
		p.Batch, p.InFlight = 20, 100
		p.SignBatch = func(ctx context.Context, batch []remote.Digest) ([]remote.Result, error) {
			fmt.Fprintln(os.Stderr, "batch", len(batch))
			results := make([]remote.Result, len(batch))
			for i, d := range batch {
				results[i].Signature, results[i].Err = p.Sign(ctx, d)
			}
			return results, nil
		}
	case "dies once", "dies after one":
		dies := behaviour == "dies after one" || first()
		p.Sign = func(ctx context.Context, d remote.Digest) ([]byte, error) {
			sig, err := well(ctx, d)
			if dies && signed.Load() > 30 || behaviour == "dies after one" && signed.Load() > 1 {
				fmt.Fprintln(os.Stderr, "out of \x1b[31mmemory\a")
				os.Exit(3)
			}
			return sig, err
		}
	case "always dies":
		p.Sign = func(context.Context, remote.Digest) ([]byte, error) { os.Exit(4); return nil, nil }
	case "hangs once", "always hangs":
		hangs := behaviour == "always hangs" || first()
		p.Sign = func(ctx context.Context, d remote.Digest) ([]byte, error) {
			if hangs && signed.Load() > 30 {
				select {}
			}
			return well(ctx, d)
		}
	case "comes with another key":
		if first() {
			p.Sign = func(context.Context, remote.Digest) ([]byte, error) { os.Exit(4); return nil, nil }
		} else {
			p.Public = newKey(&testing.T{}).Public()
		}
	case "is throttled":
		p.Sign = func(ctx context.Context, d remote.Digest) ([]byte, error) {
			if signed.Add(1)%7 == 0 {
				return nil, remote.Temporary(errors.New("slow down"), 0)
			}
			return well(ctx, d)
		}
	case "refuses one":
		refused := sha256.Sum256([]byte("7"))
		p.Sign = func(ctx context.Context, d remote.Digest) ([]byte, error) {
			if string(d.Sum) == string(refused[:]) {
				return nil, errors.New("not this one")
			}
			return well(ctx, d)
		}
	case "starts on the second try":
		if first() {
			open = func(context.Context, string) (*Provider, error) {
				return nil, remote.Temporary(errors.New("no network yet"), 0)
			}
		}
	case "floods":
		for i := range 5000 {
			fmt.Fprintln(os.Stderr, i, strings.Repeat("x", 2000))
		}
	case "reads nothing":
		select {}
	case "ends at once":
		fmt.Fprint(os.Stderr, "usage: program KEY")
		return 1
	default:
		return raw(key, behaviour)
	}
	if err := Serve(context.Background(), os.Stdin, os.Stdout, open); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// raw answers each digest, once it has one, with the lines of a behaviour.
func raw(key *ecdsa.PrivateKey, behaviour string) int {
	lines := bufio.NewScanner(os.Stdin)
	lines.Scan()
	der, _ := x509.MarshalPKIXPublicKey(key.Public())
	welcomes := map[string]string{
		"garbage first":  "hello",
		"endless first":  strings.Repeat("x", MaxAnswerLine+1),
		"no public key":  `{"imaseal":"sign-1"}`,
		"old version":    `{"imaseal":"sign-0","public":"AAAA"}`,
		"too many first": fmt.Sprintf(`{"imaseal":"sign-1","public":"%s","in_flight":1000000}`, base64.StdEncoding.EncodeToString(der)),
		"odd field":      fmt.Sprintf(`{"imaseal":"sign-1","public":"%s","secret":1}`, base64.StdEncoding.EncodeToString(der)),
	}
	if w, ok := welcomes[behaviour]; ok {
		fmt.Println(w)
		lines.Scan()
		return 0
	}
	fmt.Printf("{\"imaseal\":\"sign-1\",\"public\":\"%s\"}\n", base64.StdEncoding.EncodeToString(der))
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			panic(err)
		}
		for _, i := range r.Sign {
			sig, _ := key.Sign(nil, i.Digest, hashes[i.Hash])
			text := base64.StdEncoding.EncodeToString(sig)
			good := fmt.Sprintf(`{"id":%d,"signature":"%s"}`, i.ID, text)
			fmt.Println(map[string]string{
				"plain":          good,
				"unknown id":     fmt.Sprintf(`{"id":%d,"signature":"%s"}`, i.ID+100000, text),
				"answers twice":  good + "\n" + good,
				"garbage":        "debug: \x1b[2Jsigning",
				"endless":        strings.Repeat("y", MaxAnswerLine+1),
				"neither":        fmt.Sprintf(`{"id":%d}`, i.ID),
				"both":           fmt.Sprintf(`{"id":%d,"signature":"%s","error":"x"}`, i.ID, text),
				"negative pause": fmt.Sprintf(`{"id":%d,"error":"x","temporary":true,"retry_after_ms":-1}`, i.ID),
				"lies":           fmt.Sprintf(`{"id":%d,"signature":"%s"}`, i.ID, hex.EncodeToString(sig[:8])),
			}[behaviour])
		}
	}
	return 0
}
