package rpmdb

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestNumbersAsRPMReadsThem(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "0": false, "00": false, "n": false, "no": false, "1": true, "2": true,
		"01": true, "y": true, "Yes": true, " 1 ": true, "-1": true, "true": false, "0x1": false,
	} {
		if got := isNumberTrue(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// TestPluginOfAnotherRoot looks without running anything there.
func TestPluginOfAnotherRoot(t *testing.T) {
	root := t.TempDir()
	state := func() Plugin {
		t.Helper()
		p, err := PluginState(root)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := state(); p.RPM != "" || p.Present() || p.Active || !strings.Contains(p.String(), "not installed") {
		t.Errorf("an empty root: %+v", p)
	}
	put := func(name string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/false\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put("usr/bin/rpm")
	if p := state(); p.RPM == "" || p.Present() || !strings.Contains(p.String(), "without their labels") {
		t.Errorf("rpm alone: %+v", p)
	}
	put("usr/lib/x86_64-linux-gnu/rpm-plugins/ima.so")
	if p := state(); !p.Present() || p.Active || !strings.Contains(p.String(), "only be asked") {
		t.Errorf("with a plugin: %+v", p)
	}
}

// TestPluginIsLoadedWhereWeSaySo holds the answer against what rpm does, which says
// what hooks it calls.
func TestPluginIsLoadedWhereWeSaySo(t *testing.T) {
	here, err := PluginState("/")
	if err != nil {
		t.Fatal(err)
	}
	if !here.Present() {
		t.Skip(here)
	}
	dir, other := filepath.Dir(here.Files[0]), t.TempDir()
	for name, options := range map[string][]string{
		"as it is":       nil,
		"right folder":   {"--define", "__plugindir " + dir},
		"wrong folder":   {"--define", "__plugindir " + other},
		"turned off":     {"--define", "__plugindir " + dir, "--define", "__transaction_ima %{nil}"},
		"not configured": {"--define", "__plugindir " + dir, "--undefine", "__transaction_ima"},
		"with options":   {"--define", "__plugindir " + dir, "--define", "__transaction_ima %{__plugindir}/ima.so some thing"},
		"another file":   {"--define", "__plugindir " + dir, "--define", "__transaction_ima " + other + "/ima.so"},
		"config files":   {"--define", "__plugindir " + dir, "--define", "_ima_sign_config_files 1"},
	} {
		p := Plugin{RPM: here.RPM, Files: here.Files}
		if err := p.ask(options); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		args := append(slices.Clone(options), "--root", t.TempDir(), "-Uvv", "--justdb", "--nodeps", "--ignoreos", "--ignorearch", "--nosignature",
			"../../testdata/packages/v4-gzip.rpm")
		out, _ := exec.Command(p.RPM, args...).CombinedOutput() // fails where it cannot load it
		loaded := bytes.Contains(out, []byte("calling hook init in ima plugin"))
		if p.Active != loaded || strings.Contains(p.String(), "is active") != loaded {
			t.Errorf("%s: rpm loads it: %v; we say: %s", name, loaded, p)
		}
		if p.ConfigFiles != (name == "config files") {
			t.Errorf("%s: config files: %v", name, p.ConfigFiles)
		}
	}
}
