package split

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

// A plain package is one of a format that carries no statement.
type plain struct{ sign.Package }

func content(path, text string) signtest.MemoryFile {
	return signtest.MemoryFile{Path: path, Content: []byte(text)}
}

func debOf(name string, files ...signtest.MemoryFile) sign.Package {
	return &signtest.Memory{About: sign.Info{Format: "deb", Name: name, Version: "1.0-1", Arch: "amd64"}, Contents: files}
}

func rpmOf(name string, files ...signtest.MemoryFile) sign.Package {
	return plain{&signtest.Memory{About: sign.Info{Format: "rpm", Name: name, Version: "1.0-1", Arch: "noarch"}, Contents: files}}
}

// examples are packages of every shape, in the order that a request has them.
func examples() []sign.Package {
	return []sign.Package{
		debOf("bash", content("bin/bash", "bash"), content("etc/empty", ""), signtest.MemoryFile{Path: "postinst", Control: true, Content: []byte("#!/bin/sh")},
			signtest.MemoryFile{Path: "prerm", Control: true, Content: []byte("#!/bin/sh")}),
		debOf("empty"),
		debOf("git", content("usr/bin/git", "git"), signtest.MemoryFile{Path: "usr/bin/git-add", Link: "usr/bin/git"},
			content("odd", "odd"), signtest.MemoryFile{Path: "also odd", Link: "odd"}, content("new\nline\\ and \xff", "bytes")),
		rpmOf("hello", content("usr/bin/hello", "hello"), signtest.MemoryFile{Path: "usr/bin/hallo", Link: "usr/bin/hello"}),
	}
}

// idOf is an identity for p, which has no file.
func idOf(p sign.Package) Identity {
	return Identity{SHA256: sha256.Sum256([]byte(p.Info().Name)), Header: p.Info().Format == "rpm"}
}

func requestOf(t testing.TB, o sign.Options, packages ...sign.Package) []byte {
	t.Helper()
	spool, err := os.CreateTemp(t.TempDir(), "spool")
	if err != nil {
		t.Fatal(err)
	}
	defer spool.Close()
	b := NewBuilder(spool)
	for _, p := range packages {
		d, err := sign.DigestsOf(t.Context(), p, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Add(p.Info(), idOf(p), d); err != nil {
			t.Fatal(err)
		}
	}
	var request bytes.Buffer
	if _, _, err := b.Write(&request); err != nil {
		t.Fatal(err)
	}
	return request.Bytes()
}

func checked(t testing.TB, request []byte) *Summary {
	t.Helper()
	s, err := Check(bytes.NewReader(request), io.Discard, new(Rules))
	if err != nil {
		t.Fatalf("%v\n%s", err, request)
	}
	return s
}

func responseTo(t testing.TB, request []byte, key *sign.Signer) []byte {
	t.Helper()
	var response bytes.Buffer
	if err := Sign(t.Context(), bytes.NewReader(request), &response, key, checked(t, request), SignOptions{Jobs: 4}); err != nil {
		t.Fatal(err)
	}
	return response.Bytes()
}

func opened(t testing.TB, response []byte) *Response {
	t.Helper()
	r, err := OpenResponse(bytes.NewReader(response), int64(len(response)))
	if err != nil {
		t.Fatalf("%v\n%s", err, response)
	}
	return r
}

// A token is a key that is no software key to sign: it signs differently each time.
type token struct{ crypto.Signer }

func newKey(t testing.TB, kind string) *sign.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	if kind == "token" {
		key = token{key}
	}
	s := signtest.SignerOf(key)
	keyOf[s] = key
	return s
}

// textOf is all that a manifest says.
func textOf(t testing.TB, m *sign.Manifest) string {
	t.Helper()
	text := fmt.Sprintf("%s\n%s\n", sign.FormatAttributes(m.Files), sign.FormatAttributes(m.Control))
	if m.Statement != nil {
		statement, err := m.Statement.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		text += string(statement)
	}
	return text
}

// keyOf are the private keys of what newKey returned.
var keyOf = map[*sign.Signer]crypto.Signer{}

// brokenKey returns a key that fails after so many signatures.
func brokenKey(t testing.TB, after int64) *sign.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := &failing{Signer: key}
	b.left.Store(after)
	s, err := sign.NewSigner(b, 1)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type failing struct {
	crypto.Signer
	left atomic.Int64
}

func (f *failing) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	if f.left.Add(-1) < 0 {
		return nil, errors.New("the token is gone")
	}
	return f.Signer.Sign(r, digest, o)
}

// millionDigests writes a request of a million files in ten packages, of which a
// thousand differ.
func millionDigests() io.Reader {
	r, w := io.Pipe()
	go func() {
		out := bufio.NewWriter(w)
		fmt.Fprintln(out, requestFormat)
		for p := range 10 {
			fmt.Fprintf(out, "\nType: deb\nFile-SHA256: %064x\nStatement: imaseal-package-1\nPackage: p%d\nVersion: 1\nArchitecture: all\nSelect: all\nHash: sha256\nSHA256-control: %064x\nFiles: 100000\nScripts: 0\n", p, p, p)
			for n := range 100_000 {
				fmt.Fprintf(out, "file %064x - usr/share/a-folder-with-a-name/of-some-length/%08d\n", n%1000, n)
			}
		}
		fmt.Fprintf(out, "\n%s\n", endOf(10, 1_000_000))
		w.CloseWithError(out.Flush())
	}()
	return r
}

// A peakMemory looks at the memory in use now and then while it is written to.
type peakMemory struct {
	written int
	heap    uint64
}

func (p *peakMemory) Write(b []byte) (int, error) {
	const every = 4 << 20
	if p.written/every != (p.written+len(b))/every {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		p.heap = max(p.heap, m.HeapInuse)
	}
	p.written += len(b)
	return len(b), nil
}

// meetingKey returns a key that signs nothing before n calls wait for it at once, and
// how often they did.
func meetingKey(t testing.TB, ctx context.Context, n int) (*sign.Signer, *atomic.Int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m := &meeting{Signer: key, ctx: ctx, n: n, all: make(chan struct{})}
	return signtest.SignerOf(m), &m.meets
}

type meeting struct {
	crypto.Signer
	ctx   context.Context
	n     int
	meets atomic.Int64

	mu   sync.Mutex
	here int
	all  chan struct{} // closed when n are here
}

func (m *meeting) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	m.mu.Lock()
	m.here++
	all := m.all
	if m.here == m.n {
		m.here, m.all = 0, make(chan struct{})
		m.meets.Add(1)
		close(all)
	}
	m.mu.Unlock()
	select {
	case <-all:
		return m.Signer.Sign(r, digest, o)
	case <-m.ctx.Done():
		return nil, m.ctx.Err()
	}
}
