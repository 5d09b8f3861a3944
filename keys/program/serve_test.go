package program

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/imaseal/imaseal/keys/remote"
)

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// digestText is a SHA-256 digest of one repeated byte, as a message has it.
func digestText(b byte) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32))
}

const greeting = `{"imaseal":"sign-1","key":"test:key"}` + "\n"

// answers returns the lines of a conversation: the welcome and the answers by id.
func answers(t *testing.T, out string) (map[string]any, map[int]map[string]any) {
	t.Helper()
	var first map[string]any
	byID := map[int]map[string]any{}
	for i, line := range strings.Split(strings.TrimSuffix(out, "\n"), "\n") {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("line %d: %v: %s", i+1, err, line)
		}
		if i == 0 {
			first = v
			continue
		}
		id := int(v["id"].(float64))
		if byID[id] != nil {
			t.Errorf("two answers to %d", id)
		}
		byID[id] = v
	}
	return first, byID
}

func opener(p *Provider) func(context.Context, string) (*Provider, error) {
	return func(_ context.Context, key string) (*Provider, error) {
		if key != "test:key" {
			return nil, fmt.Errorf("no key %q", key)
		}
		return p, nil
	}
}

func TestServe(t *testing.T) {
	key := newKey(t)
	p := &Provider{Public: key.Public(), InFlight: 4, Sign: func(_ context.Context, d remote.Digest) ([]byte, error) {
		switch d.Sum[0] {
		case 2:
			return nil, remote.Temporary(errors.New("throttled"), 1500*time.Millisecond)
		case 3:
			return nil, errors.New("not\nallowed")
		case 4:
			return nil, nil
		}
		return key.Sign(nil, d.Sum, d.Hash)
	}}
	in := greeting
	for i, digest := range []string{digestText(1), digestText(2), digestText(3), digestText(4), "AAAA"} {
		in += fmt.Sprintf(`{"sign":[{"id":%d,"hash":"sha256","digest":"%s"}]}`+"\n", i+1, digest)
	}
	in += fmt.Sprintf(`{"sign":[{"id":10,"hash":"sha1","digest":"%s"},{"id":11,"hash":"sha256","digest":"%s"}]}`+"\n", digestText(1), digestText(5))
	var out bytes.Buffer
	if err := Serve(t.Context(), strings.NewReader(in), &out, opener(p)); err != nil {
		t.Fatal(err)
	}
	first, got := answers(t, out.String())
	der, _ := base64.StdEncoding.DecodeString(first["public"].(string))
	if pub, err := x509.ParsePKIXPublicKey(der); err != nil || !key.PublicKey.Equal(pub) {
		t.Errorf("the public key came out as %v, %v", pub, err)
	}
	if first["imaseal"] != "sign-1" || first["in_flight"] != 4.0 || first["batch"] != 1.0 {
		t.Errorf("the welcome is %v", first)
	}
	if len(got) != 7 {
		t.Fatalf("%d answers: %v", len(got), got)
	}
	for _, id := range []int{1, 11} {
		sig, _ := base64.StdEncoding.DecodeString(got[id]["signature"].(string))
		sum, _ := base64.StdEncoding.DecodeString(digestText(map[int]byte{1: 1, 11: 5}[id]))
		if !ecdsa.VerifyASN1(&key.PublicKey, sum, sig) {
			t.Errorf("the signature of %d does not verify", id)
		}
	}
	for id, want := range map[int]string{
		2:  `map[error:throttled id:2 retry_after_ms:1500 temporary:true]`,
		3:  `map[error:not\u000aallowed id:3]`,
		4:  `map[error:the program made an empty signature id:4]`,
		5:  `map[error:a digest of 3 bytes is not one of sha256 id:5]`,
		10: `map[error:unknown hash sha1: there are sha256, sha384 and sha512 id:10]`,
	} {
		if text := fmt.Sprint(got[id]); text != want {
			t.Errorf("the answer is %s, not %s", text, want)
		}
	}
}

func TestServeGathersBatches(t *testing.T) {
	key := newKey(t)
	sizes := make(chan int, 10)
	p := &Provider{Public: key.Public(), Batch: 3, SignBatch: func(_ context.Context, batch []remote.Digest) ([]remote.Result, error) {
		sizes <- len(batch)
		if batch[0].Sum[0] == 7 {
			return nil, errors.New("all of them")
		}
		if batch[0].Sum[0] == 8 {
			return nil, nil
		}
		results := make([]remote.Result, len(batch))
		for i, d := range batch {
			results[i].Signature, results[i].Err = key.Sign(nil, d.Sum, d.Hash)
		}
		return results, nil
	}}
	items := func(from int, digests ...byte) string {
		var all []string
		for i, b := range digests {
			all = append(all, fmt.Sprintf(`{"id":%d,"hash":"sha256","digest":"%s"}`, from+i, digestText(b)))
		}
		return `{"sign":[` + strings.Join(all, ",") + "]}\n"
	}
	var out bytes.Buffer
	err := Serve(t.Context(), strings.NewReader(greeting+items(1, 1, 2, 3, 4)+items(5, 7, 7)+items(9, 8)), &out, opener(p))
	if err != nil {
		t.Fatal(err)
	}
	_, got := answers(t, out.String())
	count := map[int]int{}
	for range 4 {
		count[<-sizes]++
	}
	if fmt.Sprint(count) != "map[1:2 2:1 3:1]" {
		t.Errorf("batches of %v", count)
	}
	for id := 1; id <= 4; id++ {
		if got[id]["signature"] == nil {
			t.Errorf("answer %d: %v", id, got[id])
		}
	}
	if got[5]["error"] != "all of them" || got[6]["error"] != "all of them" {
		t.Errorf("answers 5 and 6: %v, %v", got[5], got[6])
	}
	if got[9]["error"] != "the program made 0 results of 1 digests" {
		t.Errorf("answer 9: %v", got[9])
	}
}

// TestServeRunsAtOnce has every digest wait for all others.
func TestServeRunsAtOnce(t *testing.T) {
	key := newKey(t)
	const n = 5
	inside, all := make(chan struct{}, 2*n), make(chan struct{})
	p := &Provider{Public: key.Public(), InFlight: n, Sign: func(_ context.Context, d remote.Digest) ([]byte, error) {
		inside <- struct{}{}
		<-all
		return []byte{d.Sum[0]}, nil
	}}
	in := greeting
	for i := 1; i <= n+2; i++ {
		in += fmt.Sprintf(`{"sign":[{"id":%d,"hash":"sha256","digest":"%s"}]}`+"\n", i, digestText(byte(i)))
	}
	var out bytes.Buffer
	done := make(chan error, 1)
	go func() { done <- Serve(t.Context(), strings.NewReader(in), &out, opener(p)) }()
	for range n {
		<-inside
	}
	select {
	case <-inside:
		t.Errorf("more than %d at once", n)
	case <-time.After(20 * time.Millisecond):
	}
	close(all)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, got := answers(t, out.String()); len(got) != n+2 {
		t.Errorf("%d answers", len(got))
	}
}

func TestServeDeclines(t *testing.T) {
	temporary := func(context.Context, string) (*Provider, error) {
		return nil, remote.Temporary(errors.New("not now"), time.Second)
	}
	for name, c := range map[string]struct {
		in   string
		open func(context.Context, string) (*Provider, error)
		want string
	}{
		"no such key":     {`{"imaseal":"sign-1","key":"other"}` + "\n", opener(&Provider{}), `{"imaseal":"sign-1","error":"no key \"other\""}`},
		"not now":         {greeting, temporary, `{"imaseal":"sign-1","error":"not now","temporary":true,"retry_after_ms":1000}`},
		"another version": {`{"imaseal":"sign-2","wish":1}` + "\n", opener(&Provider{}), `"error":"this program speaks version sign-1`},
		"odd key":         {greeting, opener(&Provider{Public: 1}), `"error":"x509: unsupported public key type: int"`},
		"no JSON":         {"hello\n", opener(&Provider{}), `"error":"invalid character`},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := Serve(t.Context(), strings.NewReader(c.in), &out, c.open); err == nil {
				t.Error("no error")
			}
			if !strings.Contains(out.String(), c.want) || strings.Count(out.String(), "\n") != 1 {
				t.Errorf("answered %s", out.String())
			}
		})
	}
}

func TestServeRefusesBadRequests(t *testing.T) {
	one := func(id int) string { return fmt.Sprintf(`{"id":%d,"hash":"sha256","digest":"%s"}`, id, digestText(1)) }
	for name, c := range map[string]struct{ in, want string }{
		"empty input":   {"", "the first line: EOF"},
		"half a line":   {greeting + `{"sign"`, "unexpected EOF"},
		"no JSON":       {greeting + "sign\n", "invalid character"},
		"nothing":       {greeting + `{"sign":[]}` + "\n", "without a digest"},
		"odd field":     {greeting + `{"sign":[` + one(1) + `],"x":1}` + "\n", "unknown field"},
		"two objects":   {greeting + `{"sign":[` + one(1) + `]} {}` + "\n", "more than one object"},
		"id zero":       {greeting + `{"sign":[` + one(0) + `]}` + "\n", "ids ascend"},
		"id twice":      {greeting + `{"sign":[` + one(1) + `,` + one(1) + `]}` + "\n", "ids ascend"},
		"id goes back":  {greeting + `{"sign":[` + one(2) + `]}` + "\n" + `{"sign":[` + one(1) + `]}` + "\n", "id 1 after id 2"},
		"no base64":     {greeting + `{"sign":[{"id":1,"hash":"sha256","digest":"#"}]}` + "\n", "base64"},
		"endless line":  {greeting + strings.Repeat("x", MaxRequestLine+1), "a line of more than"},
		"too many":      {greeting + `{"sign":[` + strings.Repeat(`{"id":1},`, MaxBatch) + `{"id":1}]}` + "\n", "digests in a line"},
		"endless hello": {strings.Repeat("x", MaxRequestLine+1), "a line of more than"},
	} {
		t.Run(name, func(t *testing.T) {
			key := newKey(t)
			p := &Provider{Public: key.Public(), Sign: func(context.Context, remote.Digest) ([]byte, error) { return []byte{1}, nil }}
			err := Serve(t.Context(), strings.NewReader(c.in), io.Discard, opener(p))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, not %q", err, c.want)
			}
		})
	}
}

// TestServeEnds has the context end while the program waits for input.
func TestServeEnds(t *testing.T) {
	in, writer := io.Pipe()
	defer writer.Close()
	answered, out := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, in, out, opener(&Provider{Public: newKey(t).Public()})) }()
	io.WriteString(writer, greeting)
	if _, err := bufio.NewReader(answered).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestServeCannotAnswer(t *testing.T) {
	answered, out := io.Pipe()
	answered.CloseWithError(errors.New("gone"))
	err := Serve(t.Context(), strings.NewReader(greeting), out, opener(&Provider{Public: newKey(t).Public()}))
	if err == nil || !strings.Contains(err.Error(), "answering: gone") {
		t.Error(err)
	}
}
