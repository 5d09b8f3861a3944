package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/imaseal/imaseal/sign"
)

// mixed makes the package OUT of OLD, with one file signature of NEW, which is the same
// package by another key.
func mixed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: mixed OLD NEW OUT")
	}
	var packages [2]sign.Package
	var manifests [2]*sign.Manifest
	for i := range packages {
		f, err := os.Open(ts.MkAbs(args[i]))
		ts.Check(err)
		defer f.Close()
		packages[i], err = openPackage(f, openOptions{jobs: 1})
		ts.Check(err)
		manifests[i], err = packages[i].Manifest()
		ts.Check(err)
	}
	m := manifests[0]
	m.Files[0] = manifests[1].Files[0]
	var b bytes.Buffer
	ts.Check(packages[0].Write(context.Background(), &b, m, sign.WriteOptions{Force: true, Warn: func(string) {}}))
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), b.Bytes(), 0o644))
}

// TestResignIsKilled kills resign at random moments while it rolls an archive over.
// Each package is then the old one or the new one, and the same command completes what
// was begun, .changes files included.
func TestResignIsKilled(t *testing.T) {
	s := newScene(t, "deb", 40)
	old := s.path("old")
	s.must(exec.Command(s.command, "keys", "init", "--dir", s.path("next"), "--no-passphrase"))
	for i := range 6 {
		s.write(fmt.Sprintf("%s/big%d.deb", old, i), s.content)
	}
	for _, name := range []string{helloDeb, helloChanges, "packages/v4-gzip.rpm"} {
		s.write(filepath.Join(old, filepath.Base(name)), readShared(t, name))
	}
	s.must(s.sign(old))
	resign := func(more ...string) *exec.Cmd {
		return exec.Command(s.command, append([]string{"resign", "--jobs", "2", "--from-cert", s.path("keys/test.crt"),
			"--key", s.path("next/signing.key"), "--cert", s.path("next/signing.crt")}, more...)...)
	}
	read := func(dir string) map[string][]byte {
		files := map[string][]byte{}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
		return files
	}
	archive := read(old)
	span := time.Hour // at best
	for range 3 {
		began := time.Now()
		s.must(resign("--force", "--output", s.path("new"), old))
		span = min(span, time.Since(began))
	}
	rolled := read(s.path("new"))
	if len(archive) != 9 || len(rolled) != len(archive) {
		t.Fatalf("%d files became %d", len(archive), len(rolled))
	}

	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("IMASEAL_TEST_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("IMASEAL_TEST_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	between := 0 // runs that left some packages old and some new
	for range 25 {
		work := s.path("work")
		if err := os.RemoveAll(work); err != nil {
			t.Fatal(err)
		}
		for name, content := range archive {
			s.write(filepath.Join(work, name), content)
		}
		r := s.start(resign(work))
		timer := time.AfterFunc(time.Duration(random.Int64N(int64(span))), func() { r.send(syscall.SIGKILL) })
		r.code()
		timer.Stop()
		was, is := 0, 0
		for name, content := range archive {
			have, err := os.ReadFile(filepath.Join(work, name))
			switch {
			case err == nil && bytes.Equal(have, rolled[name]):
				is++
			case err == nil && bytes.Equal(have, content):
				was++
			default:
				t.Errorf("%s is neither the old nor the new one (%v)", name, err)
			}
		}
		if was > 0 && is > 0 {
			between++
		}
		s.must(resign(work))
		have := read(work)
		for name, want := range rolled {
			if !bytes.Equal(have[name], want) {
				t.Errorf("%s was not completed", name)
			}
		}
		if len(have) != len(rolled) {
			t.Errorf("%d files are there, not %d", len(have), len(rolled))
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d runs of 25 were killed on the way", between)
	if between < 3 {
		t.Error("too few runs were killed in time: the test shows nothing")
	}
}
