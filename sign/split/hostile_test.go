package split

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

// An endless reader repeats a text and counts what was taken of it.
type endless struct {
	text  string
	taken int64
}

func (e *endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = e.text[int(e.taken)%len(e.text)]
		e.taken++
	}
	return len(b), nil
}

// good is a small request: a .deb with two names of a file and a script, and an RPM.
const good = `Format: imaseal-digests-request-1

Type: deb
File-SHA256: 1111111111111111111111111111111111111111111111111111111111111111
Statement: imaseal-package-1
Package: hello
Version: 2.10-3
Architecture: amd64
Select: all
Exclude: /usr/share/doc/**
Hash: sha256
SHA256-control: 2222222222222222222222222222222222222222222222222222222222222222
SHA256-data.tar: 3333333333333333333333333333333333333333333333333333333333333333
Files: 3
Scripts: 1
file 4444444444444444444444444444444444444444444444444444444444444444 1 usr/bin/hello
file 4444444444444444444444444444444444444444444444444444444444444444 1 usr/bin/hi
file 5555555555555555555555555555555555555555555555555555555555555555 - usr/share/odd\134name
script 6666666666666666666666666666666666666666666666666666666666666666 - postinst

Type: rpm
Header-SHA256: 7777777777777777777777777777777777777777777777777777777777777777
Package: hello
Version: 2.10-3
Architecture: x86_64
Select: all
Hash: sha512
Files: 1
Scripts: 0
file 88888888888888888888888888888888888888888888888888888888888888888888888888888888888888888888888888888888888888888888888888888888 - usr/bin/hello

End: 2 packages, 5 digests
`

var (
	digest4 = strings.Repeat("4", 64)
	line4   = "file " + digest4 + " 1 usr/bin/hello\n"
	line4b  = "file " + digest4 + " 1 usr/bin/hi\n"
	line5   = "file " + strings.Repeat("5", 64) + ` - usr/share/odd\134name` + "\n"
	script6 = "script " + strings.Repeat("6", 64) + " - postinst\n"
)

func TestHostileRequests(t *testing.T) {
	if s := checked(t, []byte(good)); s.Packages != 2 || s.Digests != 5 {
		t.Fatalf("%+v", s)
	}
	replace := func(old, new string) string {
		made := strings.Replace(good, old, new, 1)
		if made == good {
			t.Fatalf("no %q in the example", old)
		}
		return made
	}
	second := good[strings.Index(good, "\nType: rpm") : strings.Index(good, "\nEnd:")+1]
	for _, test := range []struct {
		name, request string
		line          int
		want          string
	}{
		{"nothing", "", 1, "cut off"},
		{"only a newline", "\n", 1, "no request"},
		{"another file", "#!/bin/sh\n", 1, "no request"},
		{"a response", responseFormat + "\n", 1, "no request for signatures"},
		{"a later version", replace("request-1", "request-2"), 1, "no request"},
		{"no package", requestFormat + "\n\nEnd: 0 packages, 0 digests\n", 3, "no package"},
		{"no empty line", replace("\n\nType: deb", "\nType: deb"), 2, "not the empty line"},
		{"two empty lines", replace("\n\nType: deb", "\n\n\nType: deb"), 3, "not a field Type or End"},
		{"CRLF", strings.ReplaceAll(good, "\n", "\r\n"), 1, `it has the byte '\r'`},
		{"a NUL", replace("usr/bin/hi", "usr/bin/h\x00i"), 17, `it has the byte '\x00'`},
		{"no end", good[:strings.Index(good, "\nEnd:")], 31, "cut off"},
		{"text behind the end", good + "x", 33, "after the end"},
		{"a second request behind the end", good + good, 33, "after the end"},
		{"another number of packages", replace("End: 2 packages", "End: 3 packages"), 32, "there were 2 packages, 5 digests"},
		{"another number of digests", replace("5 digests", "6 digests"), 32, "there were 2 packages, 5 digests"},
		{"numbers with zeros", replace("End: 2", "End: 02"), 32, "there were"},

		{"an unknown type", replace("Type: deb", "Type: apk"), 3, "there are deb and rpm"},
		{"a type with a space", replace("Type: deb", "Type: deb "), 3, "there are deb and rpm"},
		{"no identity", replace("File-SHA256: "+strings.Repeat("1", 64)+"\n", ""), 4, "not the SHA-256 of a file"},
		{"a short identity", replace(strings.Repeat("1", 64), strings.Repeat("1", 62)), 4, "no SHA-256"},
		{"an identity in capitals", replace(strings.Repeat("1", 64), strings.Repeat("A", 64)), 15, "not written in the one way"},
		{"a .deb by its header", replace("File-SHA256", "Header-SHA256"), 15, "has no header"},
		{"a .deb without a statement", replace("Statement: imaseal-package-1\n", ""), 14, "not written in the one way"},
		{"a statement of another version", replace("imaseal-package-1", "imaseal-package-2"), 15, "first line is not"},
		{"an RPM with a statement", replace("Package: hello\nVersion: 2.10-3\nArchitecture: x86", "Statement: imaseal-package-1\nPackage: hello\nVersion: 2.10-3\nArchitecture: x86"), 30, `unknown field "Statement"`},
		{"a .deb called an RPM", replace("Type: deb", "Type: rpm"), 15, `unknown field "Statement"`},
		{"an RPM with parts", replace("Hash: sha512\n", "Hash: sha512\nSHA256-control: "+strings.Repeat("2", 64)+"\n"), 30, "states no digests of its parts"},
		{"an RPM with a script", replace("Files: 1\nScripts: 0", "Files: 1\nScripts: 1"), 29, "no scripts"},
		{"an unknown field", replace("Select: all", "Colour: red\nSelect: all"), 16, "unknown field"},
		{"a field twice", replace("Select: all", "Select: all\nSelect: all"), 16, "repeated"},
		{"fields out of order", replace("Package: hello\nVersion: 2.10-3", "Version: 2.10-3\nPackage: hello"), 15, "out of order"},
		{"an empty name", replace("Package: hello", "Package: "), 15, "cannot be stated"},
		{"a control byte in a name", replace("Package: hello", "Package: hel\x1blo"), 15, "cannot be stated"},
		{"a line that is no field", replace("Package: hello", "hello"), 15, "is no field"},
		{"a bad glob", replace("/usr/share/doc/**", "/usr/../**"), 15, "matches no file"},
		{"md5", replace("Hash: sha256", "Hash: md5"), 15, "no usable field Hash"},
		{"sha1", replace("Hash: sha256", "Hash: sha1"), 15, "no usable field Hash"},
		{"an unknown hash", replace("Hash: sha256", "Hash: sha3"), 15, "sha3"},
		{"a signature", replace("Files: 3", "Signature: 0sAAAA\nFiles: 3"), 16, "fields are missing"},
		{"its own list of signatures", replace("SHA256-data.tar", "SHA256-ima-signatures"), 15, "for the signing host to state"},
		{"its own list of the scripts' signatures", replace("SHA256-data.tar", "SHA256-ima-control-signatures"), 15, "for the signing host to state"},
		{"a part twice", replace("SHA256-data.tar", "SHA256-control"), 15, "not again"},
		{"no parts", replace("SHA256-control: "+strings.Repeat("2", 64)+"\nSHA256-data.tar: "+strings.Repeat("3", 64)+"\n", ""), 13, "states digests of its parts"},
		{"endless parts", requestFormat + "\n\nType: deb\nFile-SHA256: " + digest4 + "\n" + strings.Repeat("SHA256-a: "+digest4+"\n", 40_000), 0, "more than 2097152 bytes"},

		{"a negative number", replace("Files: 3", "Files: -3"), 14, "no number"},
		{"a number with a sign", replace("Files: 3", "Files: +3"), 14, "no number"},
		{"a number with zeros", replace("Files: 3", "Files: 03"), 14, "no number"},
		{"a number with a space", replace("Files: 3", "Files:  3"), 14, "no number"},
		{"a huge number", replace("Files: 3", "Files: 99999999999999999999"), 14, "no number"},
		{"a large number", replace("Files: 3", "Files: 99999999"), 14, "more than"},
		{"two large numbers", replace("Files: 3\nScripts: 1", "Files: 16777216\nScripts: 16777216"), 15, "more than"},
		{"no number of scripts", replace("Scripts: 1\n", ""), 15, "not a field Scripts"},
		{"more files than there are", replace("Files: 3", "Files: 4"), 19, "not the file that is still to come"},
		{"fewer files than there are", replace("Files: 3", "Files: 2"), 18, "not the script that is still to come"},
		{"fewer scripts than there are", replace("Scripts: 1", "Scripts: 0"), 19, "not the empty line"},

		{"a digest of another length", replace(digest4+" 1 usr/bin/hello", strings.Repeat("4", 128)+" 1 usr/bin/hello"), 16, "no sha256 digest of 64"},
		{"a short digest", replace(digest4+" 1 usr/bin/hello", "44 1 usr/bin/hello"), 16, "no sha256 digest"},
		{"an empty digest", replace(digest4+" 1 usr/bin/hello", " 1 usr/bin/hello"), 16, "no sha256 digest"},
		{"a digest in capitals", replace(strings.Repeat("5", 64), strings.Repeat("B", 64)), 18, "no sha256 digest"},
		{"a digest that is none", replace(strings.Repeat("5", 64), strings.Repeat("g", 64)), 18, "no sha256 digest"},
		{"a line without a path", replace(line5, "file "+strings.Repeat("5", 64)+" -\n"), 18, "has no path"},
		{"an empty path", replace(line5, "file "+strings.Repeat("5", 64)+" - \n"), 18, "not relative"},
		{"a line with a word only", replace(line5, "file\n"), 18, "not the file"},
		{"an absolute path", replace("- usr/share", "- /usr/share"), 18, "not relative"},
		{"a path that climbs", replace("- usr/share", "- usr/../share"), 18, `component ".."`},
		{"a path with a dot", replace("- usr/share", "- ./usr/share"), 18, `component "."`},
		{"a path with two slashes", replace("- usr/share", "- usr//share"), 18, `component ""`},
		{"an escape that is none", replace(`\134`, `\999`), 18, "not octal"},
		{"an escape that is not needed", replace(`\134`, `\141`), 18, "no escape"},
		{"an escaped NUL", replace(`\134`, `\000`), 18, "no escape"},
		{"a long path", replace(`usr/share/odd\134name`, "usr/"+strings.Repeat("x", 5000)), 18, "more than the 4096"},
		{"a path twice", replace(line4b, line4), 17, "each once"},
		{"paths out of order", replace(line4+line4b, line4b+line4), 17, "must be sorted"},
		{"a script among the files", replace(line4b, script6), 17, "not the file"},
		{"a script in a folder", replace("- postinst", "- a/postinst"), 19, "in a folder"},
		{"a script called control", replace("- postinst", "- control"), 19, "no script"},
		{"a script called as the signatures", replace("- postinst", "- ima-signatures"), 19, "no script"},
		{"a script called data.tar", replace("- postinst", "- data.tar"), 19, "no script"},
		{"a script with links", replace(script6, "script "+strings.Repeat("6", 64)+" 2 postinst\n"), 19, "no hard link"},

		{"names of a file that differ", replace(line4b, "file "+strings.Repeat("5", 64)+" 1 usr/bin/hi\n"), 17, "another digest"},
		{"a link number that comes too early", replace(digest4+" 1 usr/bin/hello", digest4+" 2 usr/bin/hello"), 16, "too early"},
		{"a link number 0", replace(digest4+" 1 usr/bin/hello", digest4+" 0 usr/bin/hello"), 16, "too early"},
		{"a link number with zeros", replace(digest4+" 1 usr/bin/hello", digest4+" 01 usr/bin/hello"), 16, "no number"},
		{"a file with one name that is numbered", replace(strings.Repeat("5", 64)+" -", strings.Repeat("5", 64)+" 2"), 19, "one name only"},

		{"a package twice", replace("\nEnd: ", second+"\nEnd: "), 40, "each once"},
		{"an earlier package behind a later one", strings.Replace(good, "Package: hello\nVersion: 2.10-3\nArchitecture: x86", "Package: bash\nVersion: 2.10-3\nArchitecture: x86", 1), 29, "must be sorted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := Check(strings.NewReader(test.request), io.Discard, new(Rules))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("%v, want %q", err, test.want)
			}
			if test.line > 0 && !strings.HasPrefix(err.Error(), fmt.Sprintf("line %d: ", test.line)) {
				t.Errorf("%v is not about line %d", err, test.line)
			}
			if len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\n\x00\x1b") {
				t.Errorf("the error is no short line: %.2000q", err)
			}
			if s.SHA256 != [32]byte{} {
				t.Error("it has a hash, as if all of it was read")
			}
			// What is not checked is not signed by mistake, either.
			var response bytes.Buffer
			if err := Sign(t.Context(), strings.NewReader(test.request), &response, newKey(t, "ec"), &Summary{}, SignOptions{}); err == nil {
				t.Error("Sign took it")
			}
			if _, err := OpenResponse(bytes.NewReader(response.Bytes()), int64(response.Len())); err == nil {
				t.Error("its response has an end")
			}
		})
	}
}

// However long a request or a line is, no more is read, kept or spooled than is needed
// to refuse it.
func TestEndlessRequests(t *testing.T) {
	for name, test := range map[string]struct{ head, text string }{
		"a line without an end":      {"", "x"},
		"a path without an end":      {good[:strings.Index(good, "usr/bin/hello\n")], "x"},
		"a field without an end":     {"Format: imaseal-digests-request-1\n\nType: deb\n", "x"},
		"rules without an end":       {good[:strings.Index(good, "Hash: sha256")], "Exclude: /a\n"},
		"empty lines without an end": {requestFormat + "\n", "\n"},
		"NULs":                       {"", "\x00"},
	} {
		t.Run(name, func(t *testing.T) {
			rest := &endless{text: test.text}
			var spool counter
			_, err := Check(io.MultiReader(strings.NewReader(test.head), rest), &countWriter{&spool}, new(Rules))
			if err == nil {
				t.Fatal("it was taken")
			}
			if rest.taken > 4<<20 || spool.n > 4<<20 {
				t.Errorf("%d bytes were read and %d spooled: %v", rest.taken, spool.n, err)
			}
		})
	}
	// A request that the rules refuse is still read for its hash, up to the limit.
	rest := &endless{text: "x"}
	s, err := Check(io.MultiReader(strings.NewReader(good), rest), io.Discard, &Rules{Types: []string{"rpm"}, MaxBytes: 1 << 20})
	if !errors.Is(err, ErrRefused) || s.SHA256 != [32]byte{} || rest.taken > 1<<20 {
		t.Errorf("%d bytes were read, %+v, %v", rest.taken, s, err)
	}
}

type countWriter struct{ c *counter }

func (w *countWriter) Write(b []byte) (int, error) {
	w.c.n += int64(len(b))
	return len(b), nil
}

func TestHostileResponses(t *testing.T) {
	key := newKey(t, "ec")
	whole := string(responseTo(t, []byte(good), key))
	opened(t, []byte(whole))
	line := func(prefix string) string {
		for l := range strings.Lines(whole) {
			if strings.HasPrefix(l, prefix) {
				return l
			}
		}
		t.Fatalf("no line begins with %q", prefix)
		return ""
	}
	replace := func(old, new string) string {
		made := strings.Replace(whole, old, new, 1)
		if made == whole {
			t.Fatalf("no %q in the example", old)
		}
		return made
	}
	first := line("file ")
	for _, test := range []struct{ name, response, want string }{
		{"a request", good, "no response of a signing host"},
		{"a line dropped", replace(first, ""), "not the file that is still to come"},
		{"a line dropped and counted", strings.Replace(replace(first, ""), "Files: 3", "Files: 2", 1), "there were 2 packages, 4 digests"},
		{"a line twice", replace(first, first+first), "each once"},
		{"lines out of order", replace(first+line4like(whole, first), line4like(whole, first)+first), "must be sorted"},
		{"no signature of a statement", replace(line("Signature: "), ""), "not a field Signature"},
		{"two signatures of a statement", replace(line("Signature: "), line("Signature: ")+line("Signature: ")), "not the empty line"},
		{"no hash of the request", replace(line("Request-SHA256: "), ""), "not a field Request-SHA256"},
		{"a hash in capitals", replace(line("Request-SHA256: "), "Request-SHA256: "+strings.Repeat("A", 64)+"\n"), "no SHA-256"},
		{"a value that is not base64", replace("file 0s", "file 0s!"), "no signature in base64"},
		{"a value that is no signature", replace(first, "file 0sAAAA usr/bin/hello\n"), "too short"},
		{"a value without 0s", replace("file 0s", "file 0x"), "does not begin with 0s"},
		{"the end cut off", strings.TrimSuffix(whole, "End: 2 packages, 5 digests\n"), "cut off"},
		{"CRLF", strings.ReplaceAll(whole, "\n", "\r\n"), `byte '\r'`},
		{"the same package under two names", replace("\nEnd: 2", strings.Replace(whole[strings.Index(whole, "\nType: rpm"):strings.Index(whole, "\nEnd:")+1], "Package: hello", "Package: iello", 1)+"\nEnd: 2"), "under another name"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := OpenResponse(strings.NewReader(test.response), int64(len(test.response)))
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "line ") {
				t.Fatalf("%v, want %q", err, test.want)
			}
		})
	}
}

// line4like returns the line after l.
func line4like(text, l string) string {
	rest := text[strings.Index(text, l)+len(l):]
	return rest[:strings.IndexByte(rest, '\n')+1]
}

// What is taken can be written again: there is one way to say a thing.
func FuzzCheck(f *testing.F) {
	f.Add([]byte(good))
	f.Add(requestOf(f, sign.Options{}, examples()...))
	f.Fuzz(func(t *testing.T, request []byte) {
		if _, err := Check(bytes.NewReader(request), io.Discard, new(Rules)); err != nil {
			return
		}
		again := []byte(requestFormat + "\n")
		q, err := newRequestReader(bytes.NewReader(request))
		for err == nil {
			var p *stanzaHead
			if p, err = q.next(); err != nil || p == nil {
				break
			}
			if again, err = p.append(append(again, '\n')); err != nil {
				break
			}
			err = q.each(p, func(e *entry) error {
				again = e.appendDigest(again)
				return nil
			})
		}
		again = fmt.Appendf(again, "\n%s\n", endOf(q.packages, q.digests))
		if err != nil || !bytes.Equal(again, request) {
			t.Errorf("%v: written again it is\n%s\nnot\n%s", err, again, request)
		}
	})
}

func FuzzResponse(f *testing.F) {
	key := newKey(f, "ec")
	f.Add(responseTo(f, []byte(good), key))
	f.Add(responseTo(f, requestOf(f, sign.Options{}, examples()...), key))
	f.Fuzz(func(t *testing.T, response []byte) {
		r, err := OpenResponse(bytes.NewReader(response), int64(len(response)))
		if err != nil {
			return
		}
		again := fmt.Appendf(nil, "%s\n%s: %x\n", responseFormat, requestField, r.RequestSHA256)
		l := newLines(bytes.NewReader(response))
		l.next()
		l.next()
		var last *stanzaHead
		packages, digests := 0, 0
		for {
			p, err := nextHead(l, last, packages, digests)
			if err != nil {
				t.Fatal(err)
			}
			if p == nil {
				break
			}
			if _, _, _, err := r.read(p.Identity); err != nil {
				t.Fatal(err)
			}
			if again, err = p.append(append(again, '\n')); err != nil {
				t.Fatal(err)
			}
			statement, err := readValues(l, p, func(e *entry) { again = e.appendValue(again) })
			if err != nil {
				t.Fatal(err)
			}
			if p.stated() {
				again = appendSignature(again, statement)
			}
			last = p
			packages++
			digests += p.Files + p.Scripts
		}
		again = fmt.Appendf(again, "\n%s\n", endOf(packages, digests))
		if !bytes.Equal(again, response) {
			t.Errorf("written again it is\n%s\nnot\n%s", again, response)
		}
	})
}
