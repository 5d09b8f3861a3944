package sign_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

func exampleStatement(t testing.TB) *sign.Statement {
	t.Helper()
	selection, err := sign.NewSelection([]string{"exec", "/etc/**"}, []string{"/usr/share/doc/**", "/usr/share/a b"})
	if err != nil {
		t.Fatal(err)
	}
	s := &sign.Statement{Package: "hello", Version: "1:2.10-3~bpo", Arch: "amd64", Selection: selection, Hash: sign.SHA384}
	for _, name := range []string{"control", "conffiles", "ima-signatures", "ima-control-signatures", "data.tar"} {
		s.Members = append(s.Members, sign.MemberDigest{Name: name, SHA256: sha256.Sum256([]byte(name))})
	}
	if err := s.Sign(testSigner(t, "p256")); err != nil {
		t.Fatal(err)
	}
	return s
}

func statementText(t testing.TB, s *sign.Statement) string {
	t.Helper()
	text, err := s.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestStatementIsReadBack(t *testing.T) {
	s := exampleStatement(t)
	text := statementText(t, s)
	body, err := s.Body()
	if err != nil || !strings.HasPrefix(text, string(body)+"Signature: 0sAwIF") {
		t.Errorf("body %q, %v is not what stands before the signature in %q", body, err, text)
	}
	read, err := sign.ParseStatement([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := statementText(t, read); got != text {
		t.Errorf("got %s, want %s", got, text)
	}
	if err := read.Verify(signtest.Trust(testSigner(t, "p256"))); err != nil {
		t.Error(err)
	}
	if diff := read.Diff(s); len(diff) > 0 || !read.Selection.Equal(s.Selection) {
		t.Errorf("%q, %+v", diff, read.Selection)
	}
	if err := read.Verify(signtest.Trust(testSigner(t, "p384"))); !errors.Is(err, sign.ErrUnknownKey) {
		t.Error(err)
	}
}

// A statement that differs from the signed one in anything is refused when it is
// read or when its signature is verified; what breaks the form, when it is read.
func TestStatementMutationsAreRefused(t *testing.T) {
	text := statementText(t, exampleStatement(t))
	keys := signtest.Trust(testSigner(t, "p256"))
	refused := func(name, changed string, whenRead bool) {
		t.Helper()
		if changed == text {
			t.Fatalf("%s changes nothing", name)
		}
		s, err := sign.ParseStatement([]byte(changed))
		if err == nil && whenRead {
			t.Errorf("%s: is read: %q", name, changed)
		}
		if err == nil && s.Verify(keys) == nil {
			t.Errorf("%s: verifies: %q", name, changed)
		}
	}
	lines := strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n")
	lines[len(lines)-1] += "\n"
	for i, line := range lines {
		rest := slices.Delete(slices.Clone(lines), i, i+1)
		optional := strings.HasPrefix(line, "SHA256-") || strings.HasPrefix(line, "Select") || strings.HasPrefix(line, "Exclude")
		refused(fmt.Sprintf("line %d dropped", i+1), strings.Join(rest, ""), !optional)
		for j := range lines {
			refused(fmt.Sprintf("line %d repeated at %d", i+1, j), strings.Join(slices.Insert(slices.Clone(lines), j, line), ""), true)
			if moved := slices.Insert(slices.Clone(rest), j, line); i != j {
				bothMembers := strings.HasPrefix(line, "SHA256-") && strings.HasPrefix(lines[j], "SHA256-")
				refused(fmt.Sprintf("line %d moved to %d", i+1, j), strings.Join(moved, ""), !bothMembers)
			}
		}
		for name, changed := range map[string]string{
			"with CRLF":           strings.TrimSuffix(line, "\n") + "\r\n",
			"with a blank behind": strings.TrimSuffix(line, "\n") + " \n",
			"with a tab behind":   strings.TrimSuffix(line, "\n") + "\t\n",
			"with a blank before": " " + line,
			"without a blank":     strings.Replace(line, ": ", ":", 1),
			"with two blanks":     strings.Replace(line, ": ", ":  ", 1),
			"with an empty value": line[:strings.Index(line, ": ")+2] + "\n",
			"with a blank line":   line + "\n",
			"in lower case":       strings.ToLower(line[:3]) + line[3:],
			"continued":           line + " x\n",
		} {
			replaced := slices.Clone(lines)
			replaced[i] = changed
			refused(fmt.Sprintf("line %d %s", i+1, name), strings.Join(replaced, ""), true)
		}
	}
	for name, change := range map[string][2]string{
		"other format":         {"imaseal-package-1", "imaseal-package-2"},
		"weak hash":            {"Hash: sha384", "Hash: sha1"},
		"hash in upper case":   {"Hash: sha384", "Hash: SHA384"},
		"unknown hash":         {"Hash: sha384", "Hash: sha3-256"},
		"digest in upper case": {"SHA256-control: ", "SHA256-control: A"},
		"member without name":  {"SHA256-control: ", "SHA256-: "},
		"unknown field":        {"Hash: ", "Note: x\nHash: "},
		"rule all and exec":    {"Select: exec", "Select: all\nSelect: exec"},
		"broken glob":          {"Select: /etc/**", "Select: /etc/["},
		"relative glob":        {"Select: /etc/**", "Select: etc/**"},
		"signature as hex":     {"Signature: 0s", "Signature: 0x"},
	} {
		refused(name, strings.Replace(text, change[0], change[1], 1), name != "rule all and exec")
	}
	refused("other hash", strings.Replace(text, "Hash: sha384", "Hash: sha256", 1), false)
	refused("signature padded further", text[:len(text)-1]+"=\n", true)
	refused("trailing byte", text+"x", true)
	refused("trailing line", text+"\n", true)
	refused("trailing NUL", text+"\x00", true)
	refused("cut off", text[:len(text)-1], true)
	refused("nothing", "", true)
	refused("first line alone", lines[0], true)
	refused("too long", text[:len(text)-1]+strings.Repeat("A", 2<<20)+"\n", true)
	refused("too many members", strings.Replace(text, "SHA256-control", strings.Repeat("SHA256-x: 00\n", 100)+"SHA256-control", 1), true)
	// Every single byte counts.
	for i := range text {
		changed := []byte(text)
		changed[i] ^= 1
		refused(fmt.Sprintf("byte %d changed", i), string(changed), false)
	}
}

func TestStatementThatCannotBeReadBackIsNotMade(t *testing.T) {
	for name, change := range map[string]func(*sign.Statement){
		"no package":             func(s *sign.Statement) { s.Package = "" },
		"newline in the version": func(s *sign.Statement) { s.Version = "1\nHash: sha1" },
		"blank behind the arch":  func(s *sign.Statement) { s.Arch = "all " },
		"no hash":                func(s *sign.Statement) { s.Hash = 0 },
		"weak hash":              func(s *sign.Statement) { s.Hash = sign.SHA1 },
		"member without a name":  func(s *sign.Statement) { s.Members[0].Name = "" },
		"member with a colon":    func(s *sign.Statement) { s.Members[0].Name = "a: b" },
		"member with a newline":  func(s *sign.Statement) { s.Members[0].Name = "a\nb" },
		"member twice":           func(s *sign.Statement) { s.Members[0] = s.Members[1] },
		"too many members":       func(s *sign.Statement) { s.Members = make([]sign.MemberDigest, 65) },
	} {
		s := exampleStatement(t)
		change(s)
		if text, err := s.MarshalText(); err == nil {
			t.Errorf("%s: %q", name, text)
		}
		if err := s.Sign(testSigner(t, "p256")); err == nil {
			t.Errorf("%s: is signed", name)
		}
	}
}

func TestStatementDiffNamesWhatDiffers(t *testing.T) {
	for want, change := range map[string]func(*sign.Statement){
		"package name":             func(s *sign.Statement) { s.Package = "other" },
		"version":                  func(s *sign.Statement) { s.Version = "9" },
		"architecture":             func(s *sign.Statement) { s.Arch = "arm64" },
		"digest of control":        func(s *sign.Statement) { s.Members[0].SHA256[0] ^= 1 },
		"digest of conffiles":      func(s *sign.Statement) { s.Members = slices.Delete(s.Members, 1, 2) },
		"digest of another":        func(s *sign.Statement) { s.Members = append(s.Members, sign.MemberDigest{Name: "another"}) },
		"digest of ima-signatures": func(s *sign.Statement) { s.Members[2].SHA256 = s.Members[3].SHA256 },
	} {
		holds := exampleStatement(t)
		change(holds)
		if diff := exampleStatement(t).Diff(holds); len(diff) != 1 || !strings.HasPrefix(diff[0], want+" is ") {
			t.Errorf("%s: %q", want, diff)
		}
	}
}

func FuzzParseStatement(f *testing.F) {
	f.Add([]byte(statementText(f, exampleStatement(f))))
	f.Add([]byte("Format: imaseal-package-1\nPackage: a\nVersion: 1\nArchitecture: all\nSelect: all\nHash: sha256\nSignature: 0s\n"))
	keys := signtest.Trust(testSigner(f, "p256"))
	signed := []byte(statementText(f, exampleStatement(f)))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := sign.ParseStatement(text)
		if err != nil {
			return
		}
		again, err := s.MarshalText()
		if err != nil || !bytes.Equal(again, text) {
			t.Fatalf("accepted %q is written as %q, %v", text, again, err)
		}
		if body, err := s.Body(); s.Verify(keys) == nil && (err != nil || !bytes.HasPrefix(signed, body)) {
			t.Fatalf("%q verifies", text)
		}
	})
}
