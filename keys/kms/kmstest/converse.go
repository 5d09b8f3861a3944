package kmstest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/keys/program"
	"github.com/imaseal/imaseal/keys/remote"
)

// A Line is one that a signing program writes: docs/services.md.
type Line struct {
	Imaseal      string
	Public       []byte
	InFlight     int `json:"in_flight"`
	Batch        int
	ID           int
	Signature    []byte
	Error        string
	Temporary    bool
	RetryAfterMS int `json:"retry_after_ms"`
}

// Converse has a provider served over pipes, as imaseal does, asks for all digests at
// once and returns its first line and the answers in the digests' order.
func Converse(t *testing.T, open func(context.Context, string) (*program.Provider, error), ref string, digests ...remote.Digest) (Line, []Line) {
	t.Helper()
	inRead, inWrite := io.Pipe()
	outRead, outWrite := io.Pipe()
	go func() {
		fmt.Fprintf(inWrite, "{\"imaseal\":%q,\"key\":%q}\n", program.Version, ref)
		for i, d := range digests {
			sum, _ := json.Marshal(d.Sum)
			hash := strings.ToLower(strings.ReplaceAll(d.Hash.String(), "-", ""))
			fmt.Fprintf(inWrite, "{\"sign\":[{\"id\":%d,\"hash\":%q,\"digest\":%s}]}\n", i+1, hash, sum)
		}
		inWrite.Close()
	}()
	served := make(chan error, 1)
	go func() {
		err := program.Serve(context.Background(), inRead, outWrite, open)
		inRead.Close()
		outWrite.Close()
		served <- err
	}()
	var first Line
	answers := make([]Line, len(digests))
	scanner := bufio.NewScanner(outRead)
	for n := 0; scanner.Scan(); n++ {
		var line Line
		d := json.NewDecoder(bytes.NewReader(scanner.Bytes()))
		d.DisallowUnknownFields()
		if err := d.Decode(&line); err != nil {
			t.Fatalf("%q: %v", scanner.Text(), err)
		}
		if n == 0 {
			first = line
		} else if line.ID < 1 || line.ID > len(digests) || answers[line.ID-1].ID != 0 {
			t.Fatalf("an answer that was not asked for: %s", scanner.Text())
		} else {
			answers[line.ID-1] = line
		}
	}
	if err := <-served; (err != nil) != (first.Error != "") {
		t.Fatalf("Serve ended with %v after %+v", err, first)
	}
	for i, a := range answers {
		if first.Error == "" && a.ID == 0 {
			t.Fatalf("no answer to digest %d", i+1)
		}
	}
	return first, answers
}
