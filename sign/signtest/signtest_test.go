package signtest

import (
	"testing"

	"github.com/imaseal/imaseal/sign"
)

func example(t *testing.T) []byte {
	t.Helper()
	m := &Memory{
		About: sign.Info{Format: "memory", Name: "hello", Version: "1-1", Arch: "all"},
		Contents: []MemoryFile{
			{Path: "usr/bin/hello", Mode: 0o755, Content: []byte("\x7fELF hello")},
			{Path: "usr/bin/hi", Mode: 0o755, Link: "usr/bin/hello"},
			{Path: "usr/share/doc/hello/copyright", Mode: 0o644, Content: []byte("free")},
			{Path: "var/lib/hello/empty", Mode: 0o644},
			{Path: "postinst", Control: true, Mode: 0o755, Content: []byte("#!/bin/sh\n")},
		},
	}
	raw, err := m.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestMemoryKeepsTheContract(t *testing.T) {
	Run(t, Format{Open: OpenMemory, Raw: map[string][]byte{"hello": example(t)}})
}
