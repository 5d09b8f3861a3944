package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// needTools skips the test where one of the tools is missing.
func needTools(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: scripts/test installs it", tool)
		}
	}
}

// runIn runs a shell command in dir as a user types it, imaseal being in PATH.
func runIn(t *testing.T, dir, command string, env ...string) string {
	t.Helper()
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", command)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// exampleScene is a folder with the names that the examples use.
const exampleScene = `
mkdir -p tree/DEBIAN tree/usr/bin tree/usr/share/doc/hello build
printf 'Package: hello\nVersion: 2.10-3\nArchitecture: amd64\nMaintainer: Nobody <n@example.org>\nDescription: a test\n' > tree/DEBIAN/control
printf '#!/bin/sh\n' > tree/usr/bin/hello
echo text > tree/usr/share/doc/hello/README
dpkg-deb --root-owner-group -b tree hello_2.10-3_amd64.deb >/dev/null
cp hello_2.10-3_amd64.deb build/
echo secret > passphrase
echo 'packages = hello' > rules
`

// TestExamples runs every example of every command's help, as it is printed there.
func TestExamples(t *testing.T) {
	needTools(t, "dpkg-deb")
	const (
		makeKeys = "imaseal keys init --dir keys --no-passphrase"
		signAll  = "imaseal sign --key keys/signing.key --cert keys/signing.crt hello_2.10-3_amd64.deb build"
		signRSA  = "imaseal keys init --dir rsa --type rsa2048 --no-passphrase && imaseal sign --key rsa/signing.key --cert rsa/signing.crt --cache signatures.db build"
		apart    = "imaseal keys init --dir keys --ca-dir ca --no-passphrase"
		askCA    = "imaseal keys request --key keys/signing.key --out release-2.csr"
		request  = "imaseal digests build > request"
		// What of Debian 13's counts.
		kernelConfig = "for o in IMA IMA_APPRAISE INTEGRITY_SIGNATURE INTEGRITY_ASYMMETRIC_KEYS CRYPTO_RSA CRYPTO_ECDSA CRYPTO_SHA512; do echo CONFIG_$o=y; done > config-6.12.48+deb13-amd64"
		respond      = "imaseal sign-digests --key keys/signing.key --cert keys/signing.crt --log audit.log request > response"
	)
	// What has to be there before the examples of a command make sense.
	before := map[string][]string{
		"imaseal":              nil,
		"imaseal keys init":    nil,
		"imaseal keys request": {apart},
		"imaseal keys issue":   {apart, askCA, "openssl pkey -in keys/signing.key -pubout -out public.pem"},
		"imaseal keys renew":   {apart},
		"imaseal keys show":    {makeKeys},
		"imaseal keys check":   {makeKeys, "imaseal keys init --dir keys --signing-key release-2 --no-passphrase", kernelConfig},
		"imaseal keys export":  {makeKeys},
		"imaseal keys install": {makeKeys, "mkdir -p image/etc/imaseal image/boot", kernelConfig, "mv config-* image/boot"},
		"imaseal sign":         {makeKeys},
		"imaseal verify":       {makeKeys, signAll},
		"imaseal inspect":      {makeKeys, signAll},
		"imaseal unsign":       {makeKeys, signAll},
		"imaseal resign":       {makeKeys, signAll, "imaseal keys init --dir next --no-passphrase"},
		"imaseal digests":      {makeKeys},
		"imaseal sign-digests": {makeKeys, request},
		"imaseal embed":        {makeKeys, request, respond},
		"imaseal log verify":   {makeKeys, request, respond},
		"imaseal cache stats":  {makeKeys, signRSA},
		"imaseal cache trim":   {makeKeys, signRSA},
		"imaseal cache verify": {makeKeys, signRSA},
	}
	// Those of commands that change a system run in a root of their own, in the test
	// that is named.
	elsewhere := map[string]string{
		"imaseal hook enable":  "TestHookExamples",
		"imaseal hook disable": "TestHookExamples",
		"imaseal hook status":  "TestHookExamples",
		"imaseal apply":        "TestSystemExamples",
		"imaseal check":        "TestSystemExamples",
		"imaseal clear":        "TestSystemExamples",
		"imaseal sign-file":    "TestSystemExamples",
	}
	var seen []string
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		if slices.Contains([]string{"help", "completion"}, cmd.Name()) {
			return
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
		if cmd.HasSubCommands() && cmd.HasParent() {
			return
		}
		seen = append(seen, cmd.CommandPath())
		setup, ok := before[cmd.CommandPath()]
		if elsewhere[cmd.CommandPath()] != "" {
			return
		}
		if !ok {
			t.Errorf("%s is not known to this test", cmd.CommandPath())
			return
		}
		t.Run(strings.ReplaceAll(cmd.CommandPath(), " ", "_"), func(t *testing.T) {
			dir := t.TempDir()
			help := runIn(t, dir, "imaseal help "+strings.TrimPrefix(cmd.CommandPath(), "imaseal"))
			lines := exampleLines(help)
			if len(lines) == 0 {
				t.Fatalf("no example in\n%s", help)
			}
			runIn(t, dir, exampleScene)
			for _, line := range append(setup, lines...) {
				runIn(t, dir, line)
			}
		})
	}
	visit(newRootCommand())
	if len(seen) != len(before)+len(elsewhere) {
		t.Errorf("only these commands were found: %v", seen)
	}
}

// exampleLines returns the lines of the section Examples of a help text.
func exampleLines(help string) []string {
	_, rest, _ := strings.Cut(help, "\nExamples:\n")
	section, _, _ := strings.Cut(rest, "\n\n")
	var lines []string
	for line := range strings.Lines(section) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

// TestExampleResults holds what the examples of sign promise with their folders.
func TestExampleResults(t *testing.T) {
	needTools(t, "dpkg-deb")
	dir := t.TempDir()
	runIn(t, dir, exampleScene+"imaseal keys init --dir keys --no-passphrase\n"+
		strings.Join(exampleLines(runIn(t, dir, "imaseal help sign")), "\n"))
	runIn(t, dir, "imaseal verify --cert keys/signing.crt hello_2.10-3_amd64.deb signed")
	for _, name := range []string{"signed/hello_2.10-3_amd64.deb", "programs/hello_2.10-3_amd64.deb"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if out := runIn(t, dir, "imaseal inspect --json --files programs"); !strings.Contains(out, `"path":"/usr/share/doc/hello/README","control":false,"signed":false`) {
		t.Errorf("--select exec signed a text: %s", out)
	}
}

// TestManPages makes the man pages as scripts/man does: one for each command, the
// same on every machine.
func TestManPages(t *testing.T) {
	needTools(t, "go")
	dir := t.TempDir()
	generator := filepath.Join(dir, "imaseal-man")
	if out, err := exec.Command("go", "build", "-tags", "man", "-o", generator, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	runIn(t, dir, "mkdir pages && ./imaseal-man man pages", "SOURCE_DATE_EPOCH=1700000000")
	for page, want := range map[string]string{
		"imaseal.1":                 "keys init",
		"imaseal-keys.1":            "imaseal-keys-init",
		"imaseal-keys-init.1":       "--ca-dir",
		"imaseal-keys-request.1":    "PKCS#10",
		"imaseal-keys-issue.1":      "--others",
		"imaseal-keys-renew.1":      "--new-key",
		"imaseal-keys-show.1":       "--with",
		"imaseal-keys-check.1":      "--proc-keys",
		"imaseal-keys-export.1":     "initramfs-tools",
		"imaseal-keys-install.1":    "--remove",
		"imaseal-sign.1":            "--exclude",
		"imaseal-verify.1":          "--openpgp-keyring",
		"imaseal-inspect.1":         "--files",
		"imaseal-unsign.1":          "--output",
		"imaseal-resign.1":          "--from-keyid",
		"imaseal-digests.1":         "--trust-header-digests",
		"imaseal-sign-digests.1":    "--requester",
		"imaseal-embed.1":           "RESPONSE",
		"imaseal-log-verify.1":      "--head",
		"imaseal-apply.1":           "--replace",
		"imaseal-check.1":           "--unowned",
		"imaseal-clear.1":           "--dry-run",
		"imaseal-sign-file.1":       "--recursive",
		"imaseal-completion-bash.1": "bash",
	} {
		text, err := os.ReadFile(filepath.Join(dir, "pages", page))
		if err != nil {
			t.Error(err)
			continue
		}
		plain := strings.ReplaceAll(string(text), `\-`, "-")
		if !strings.Contains(plain, want) || !strings.Contains(plain, `"1" "Nov 2023" "imaseal"`) {
			t.Errorf("%s does not say %q, or has no head:\n%.300s", page, want, plain)
		}
	}
	if found := runIn(t, dir, "cat pages/*"); strings.Contains(found, dir) {
		t.Error("a man page names a path of this machine")
	}
}
