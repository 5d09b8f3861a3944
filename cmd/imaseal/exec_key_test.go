package main

import (
	"crypto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// buildSigner builds the signing program of the tests.
func buildSigner(t *testing.T, path string) {
	t.Helper()
	if out, err := exec.Command("go", "build", "-o", path, "./testdata/signer").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestProgramSigns has a program sign a package: one that answers in any order, dies in
// the middle, is throttled.
func TestProgramSigns(t *testing.T) {
	signer := filepath.Join(t.TempDir(), "signer")
	buildSigner(t, signer)
	for behaviour, said := range map[string]string{"good": "", "dies": "it ended (exit status 3): the device was unplugged: trying again", "is throttled": ""} {
		t.Run(behaviour, func(t *testing.T) {
			s := newService(t, p256Key(t), "deb", manyFiles(t, 300))
			want := s.byFile()
			out := s.must(s.by("exec:"+signer+"?"+behaviour+","+s.key, s.pkg))
			s.mustBeSigned(want)
			if !strings.Contains(out, said) {
				t.Errorf("said: %s", out)
			}
		})
	}
}

// TestProgramFaults has a program go wrong for good.
func TestProgramFaults(t *testing.T) {
	signer := filepath.Join(t.TempDir(), "signer")
	buildSigner(t, signer)
	for behaviour, want := range map[string]string{
		"always dies": "signing program signer: it ended (exit status 3) (asked ",
		"lies":        "made a signature that does not verify",
		"prints":      "signing program signer: it does not keep to the protocol (invalid character 'd'",
		"refuses":     "signing program signer: the operator said no",
	} {
		for format, pkg := range realPackages {
			t.Run(behaviour+" "+format, func(t *testing.T) {
				s := newService(t, p256Key(t), format, readShared(t, pkg))
				s.fails(s.by("exec:"+signer+"?"+behaviour+","+s.key, "--quiet", "--sign-patience", "1s", s.pkg), want)
			})
		}
	}
}

// TestProgramIsInterrupted ends a run by a signal while the program hangs; the program
// ends with it.
func TestProgramIsInterrupted(t *testing.T) {
	signer := filepath.Join(t.TempDir(), "signer-that-hangs")
	buildSigner(t, signer)
	s := newService(t, p256Key(t), "deb", manyFiles(t, 50))
	r := s.start(s.by("exec:"+signer+"?hangs,"+s.key, s.pkg))
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(s.key + ".started"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the program was not started")
		}
	}
	time.Sleep(100 * time.Millisecond)
	r.send(syscall.SIGINT)
	if code := r.code(); code != exitInterrupted {
		t.Errorf("exit code %d: %s", code, r.output.String())
	}
	if s.whole(nil) || len(s.leftovers()) > 0 {
		t.Error("the package was touched")
	}
	if runs(signer) {
		t.Error("the program still runs")
	}
}

// runs reports whether a process of a program runs.
func runs(program string) bool {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == program {
			return true
		}
	}
	return false
}

// TestCloudProgramIsFound looks where the programs of the clouds may be.
func TestCloudProgramIsFound(t *testing.T) {
	const ref = "awskms:///alias/release"
	if _, err := os.Stat("/usr/lib/imaseal/imaseal-kms-aws"); err == nil {
		t.Skip("imaseal-kms-aws is installed on this machine")
	}
	s := newService(t, p256Key(t), "deb", readShared(t, helloDeb))
	t.Setenv("SIGNER_KEY", s.key)
	want := s.byFile()
	s.fails(s.by(ref, s.pkg), "key "+ref+": the program imaseal-kms-aws is not installed", "install the package of that name", "on PATH")

	onPath := t.TempDir()
	buildSigner(t, filepath.Join(onPath, "imaseal-kms-aws"))
	path := os.Getenv("PATH")
	t.Setenv("PATH", onPath+":"+path)
	s.must(s.by(ref, s.pkg))
	s.mustBeSigned(want)

	// The one beside the command comes first.
	t.Setenv("PATH", path)
	content, err := os.ReadFile(s.command)
	if err != nil {
		t.Fatal(err)
	}
	s.write(s.path("bin/imaseal"), content)
	if err := os.Chmod(s.path("bin/imaseal"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(onPath, "imaseal-kms-aws"), s.path("bin/imaseal-kms-aws")); err != nil {
		t.Fatal(err)
	}
	s.command = s.path("bin/imaseal")
	s.write(s.pkg, s.content)
	s.must(s.by(ref, s.pkg))
	s.mustBeSigned(want)
}

// TestBadReferences names what is wrong with each.
func TestBadReferences(t *testing.T) {
	s := newService(t, p256Key(t), "deb", readShared(t, helloDeb))
	for ref, want := range map[string]string{
		"exec:":                          "it should read exec:PROGRAM",
		"exec:?key":                      "it should read exec:PROGRAM",
		"exec:/no/such/program":          "key exec:/no/such/program: ",
		"exec:no-such-program-at-all":    "executable file not found in $PATH: name a program with its x bit set, by its path",
		"exec:" + s.pkg:                  "permission denied",
		"exec:/bin/true":                 "signing program true: it sent no key, as a signing program does first: it ended (exit status 0)",
		"exec:/bin/cat":                  "its first line is not that of a signing program",
		"awskms:///":                     "it should read awskms:///KEY",
		"awskms://x":                     "it should read awskms:///KEY",
		"gcpkms://projects/p":            "it should read gcpkms://projects/PROJECT/",
		"azurekms://vault/\x1b[2Jkey":    `it should read azurekms://VAULT.vault.azure.net/KEY`,
		"hashivault:release":             "it should read hashivault://NAME",
		"hashivault://release?v=1":       "it should read hashivault://NAME",
		"hashivault://\x1b[2Jrelease":    `hashivault://\u001b[2Jrelease: it should read`,
		"hashivault://other":             "404 Not Found: there is no key other in transit",
		"hashivault://release?version=2": "the key has no version 2, but 1",
	} {
		s.fails(s.by(ref, s.pkg), want)
	}
}

// TestServicesDocument runs the commands of docs/services.md as they are printed.
func TestServicesDocument(t *testing.T) {
	needTools(t, "dpkg-deb", "python3", "openssl")
	text, err := os.ReadFile("../../docs/services.md")
	if err != nil {
		t.Fatal(err)
	}
	section := func(heading string) string {
		_, s, ok := strings.Cut(string(text), "\n"+heading+"\n")
		if !ok {
			t.Fatalf("no section %s", heading)
		}
		s, _, _ = strings.Cut(s, "\n## ")
		return s
	}
	commands := regexp.MustCompile(`(?m)^    ((?:key=|imaseal ).*)$`)
	t.Run("Vault", func(t *testing.T) {
		s := newService(t, rsaKey(t), "deb", readShared(t, helloDeb))
		s.write(s.path("hello_1.0_all.deb"), s.content)
		var script string
		for _, m := range commands.FindAllStringSubmatch(section("## Vault and OpenBao"), -1) {
			script += m[1] + "\n"
		}
		if strings.Count(script, "\n") != 6 {
			t.Fatalf("the commands are %q", script)
		}
		if out := runIn(t, s.dir, script); !strings.Contains(out, "ok") {
			t.Error(out)
		}
	})
	for name, key := range map[string]func(*testing.T) crypto.Signer{
		"RSA":   func(t *testing.T) crypto.Signer { return rsaKey(t) },
		"ECDSA": func(t *testing.T) crypto.Signer { return p256Key(t) },
	} {
		t.Run("a program in Python, "+name, func(t *testing.T) {
			s := newService(t, key(t), "deb", readShared(t, helloDeb))
			_, program, _ := strings.Cut(section("## Signing programs"), "\n    #!")
			program, _, _ = strings.Cut("#!"+program, "\nSaved as")
			program = strings.ReplaceAll(program, "\n    ", "\n")
			s.write(s.path("signer"), []byte(program))
			if err := os.Chmod(s.path("signer"), 0o755); err != nil {
				t.Fatal(err)
			}
			for from, to := range map[string]string{s.key: "keys/signing.key", s.cert: "keys/signing.crt"} {
				if err := os.Rename(from, s.path(to)); err != nil {
					t.Fatal(err)
				}
			}
			s.key, s.cert = s.path("keys/signing.key"), s.path("keys/signing.crt")
			want := s.byFile()
			if err := os.Rename(s.pkg, s.path("hello_1.0_all.deb")); err != nil {
				t.Fatal(err)
			}
			s.pkg = s.path("hello_1.0_all.deb")
			found := commands.FindAllStringSubmatch(section("## Signing programs"), -1)
			if len(found) != 1 {
				t.Fatalf("the commands are %q", found)
			}
			runIn(t, s.dir, found[0][1])
			if name == "RSA" {
				s.mustBeSigned(want)
			}
			s.must(exec.Command(s.command, "verify", "--cert", s.cert, s.pkg))
			s.fails(s.by("exec:"+s.path("signer")+"?/no/key", "--force", s.pkgCopy()), "no key in /no/key")
		})
	}
}

// pkgCopy puts the original package back.
func (s *service) pkgCopy() string {
	s.write(s.pkg, s.content)
	return s.pkg
}
