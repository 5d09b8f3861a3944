package auditlog

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func entryOf(text string) Entry {
	return Entry{KeyID: "28e87742", KeySHA256: strings.Repeat("ab", 32), Packages: 1, Digests: 3, Outcome: Signed, Requester: text}
}

// newLog makes a log with an entry for each text and returns its path and the heads.
func newLog(t testing.TB, texts ...string) (string, []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var heads []string
	for _, text := range texts {
		_, head, err := l.Append(entryOf(text))
		if err != nil {
			t.Fatal(err)
		}
		heads = append(heads, head)
	}
	return path, heads
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestAppendMakesAChain(t *testing.T) {
	path, heads := newLog(t, "a", "b", "c")
	s, err := Verify(bytes.NewReader(read(t, path)), heads[1])
	if err != nil {
		t.Fatal(err)
	}
	if s.Entries != 3 || s.Signed != 3 || s.Digests != 9 || s.Head != heads[2] || s.NotedAt != 2 {
		t.Errorf("%+v", s)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestVerifyFindsWhatWasChanged(t *testing.T) {
	path, heads := newLog(t, "a", "b", "c", "d")
	whole := read(t, path)
	lines := bytes.SplitAfter(whole, []byte("\n"))
	join := func(lines ...[]byte) []byte { return bytes.Join(lines, nil) }
	for _, test := range []struct {
		name  string
		text  []byte
		noted string
		line  int64
		want  string
	}{
		{"a changed text", bytes.Replace(whole, []byte(`"requester":"b"`), []byte(`"requester":"x"`), 1), "", 3, "that line was changed"},
		{"another number of digests", bytes.Replace(whole, []byte(`"digests":3`), []byte(`"digests":4`), 1), "", 2, "that line was changed"},
		{"a line taken out", join(lines[0], lines[2], lines[3]), "", 2, "sequence number is 3"},
		{"the first line taken out", join(lines[1:]...), "", 1, "sequence number is 2"},
		{"a line twice", join(lines[0], lines[0], lines[1]), "", 2, "sequence number is 1"},
		{"lines exchanged", join(lines[0], lines[2], lines[1]), "", 2, "sequence number is 3"},
		{"a torn last line", whole[:len(whole)-1], "", 4, "torn"},
		{"a torn last line in its middle", whole[:len(whole)-40], "", 4, "torn"},
		{"the end cut off, and the head was noted", join(lines[:3]...), heads[3], 4, "lines at its end are missing"},
		{"all cut off, and the head was noted", nil, heads[3], 1, "lines at its end are missing"},
		{"an empty line", join(lines[0], []byte("\n")), "", 2, "no entry"},
		{"a space more", bytes.Replace(whole, []byte(`,"uid"`), []byte(`, "uid"`), 1), "", 1, "not written as imaseal writes"},
		{"an unknown field", bytes.Replace(whole, []byte(`,"uid"`), []byte(`,"x":1,"uid"`), 1), "", 1, "no entry"},
		{"a field twice", bytes.Replace(whole, []byte(`,"uid"`), []byte(`,"seq":1,"uid"`), 1), "", 1, "not written as"},
		{"two objects on a line", bytes.Replace(whole, []byte("}\n"), []byte("}{}\n"), 1), "", 1, "not written as"},
		{"CRLF", bytes.ReplaceAll(whole, []byte("\n"), []byte("\r\n")), "", 1, "not written as"},
		{"another outcome", bytes.Replace(whole, []byte(`"outcome":"signed"`), []byte(`"outcome":"good"`), 1), "", 1, "outcome"},
		{"a long line", append(bytes.Repeat([]byte("x"), 2*maxLine), '\n'), "", 1, "more than"},
		{"a long last line", bytes.Repeat([]byte("x"), 2*maxLine), "", 1, "more than"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := Verify(bytes.NewReader(test.text), test.noted)
			var broken *BrokenError
			if !errors.As(err, &broken) || broken.Line != test.line || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("%v, want line %d and %q", err, test.line, test.want)
			}
			if s.Entries != test.line-1 {
				t.Errorf("%d entries hold", s.Entries)
			}
		})
	}
	// The end that is cut off is invisible without a note: the documents say so.
	if s, err := Verify(bytes.NewReader(join(lines[:3]...)), heads[1]); err != nil || s.NotedAt != 2 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestOpenRefusesWhatCannotBeContinued(t *testing.T) {
	path, _ := newLog(t, "a", "b")
	whole := read(t, path)
	for name, test := range map[string]struct {
		text []byte
		want string
	}{
		"a torn line":        {whole[:len(whole)-5], "truncate -s "},
		"only a torn line":   {whole[:20], "truncate -s 0 "},
		"other text":         {[]byte("hello\n"), "cannot be continued"},
		"a changed last one": {append(whole[:len(whole)-2:len(whole)-2], "]\n"...), "cannot be continued"},
		"a long line":        {append(bytes.Repeat([]byte("x"), 3*maxLine), '\n'), "more than"},
		"a long torn line":   {bytes.Repeat([]byte("x"), 3*maxLine), "torn"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, test.text, 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := Open(path)
			if err == nil {
				l.Close()
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v does not say %q", err, test.want)
			}
			if !bytes.Equal(read(t, path), test.text) {
				t.Error("the file was changed")
			}
		})
	}
}

// The advice for a torn line is right to the byte.
func TestTornLineIsCutAsAdvised(t *testing.T) {
	path, heads := newLog(t, "a", "b", "c")
	whole := read(t, path)
	torn := whole[:len(whole)-7]
	s, err := Verify(bytes.NewReader(torn), "")
	if !errors.Is(err, errTorn) || !strings.Contains(s.Advice(path, err), "truncate -s ") {
		t.Fatalf("%v: %s", err, s.Advice(path, err))
	}
	if err := os.WriteFile(path, torn[:s.Whole], 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e, _, err := l.Append(entryOf("d"))
	if err != nil || e.Sequence != 3 || e.Previous != heads[1] {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestOpenRefusesOtherFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Join(dir, "link"), "/dev/null", filepath.Join(dir, "no", "log")} {
		if l, err := Open(path); err == nil {
			l.Close()
			t.Errorf("%s was opened", path)
		}
	}
}

func TestProcessesShareALog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var writers sync.WaitGroup
	for range 8 { // each has a descriptor of its own, as a process has
		writers.Go(func() {
			l, err := Open(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Close()
			for range 5 {
				if _, _, err := l.Append(entryOf("x")); err != nil {
					t.Error(err)
				}
				f, err := os.Open(path)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := VerifyFile(f, ""); err != nil {
					t.Error(err)
				}
				f.Close()
			}
		})
	}
	writers.Wait()
	if s, err := Verify(bytes.NewReader(read(t, path)), ""); err != nil || s.Entries != 40 {
		t.Errorf("%+v, %v", s, err)
	}
}

// What comes from outside can neither break a line nor make it unreadable.
func TestAppendCleansTexts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e := entryOf("a\nb\x00\x1b[31m\xff" + strings.Repeat("y", 100_000))
	e.Outcome, e.Reason = Refused, strings.Repeat("é\u2028", 5000)
	for range 1000 {
		e.Names = append(e.Names, strings.Repeat("\x7f", 9000))
	}
	if _, _, err := l.Append(e); err != nil {
		t.Fatal(err)
	}
	text := read(t, path)
	if s, err := Verify(bytes.NewReader(text), ""); err != nil || s.Entries != 1 || s.Refused != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	if bytes.ContainsAny(text[:len(text)-1], "\n\x00\x1b\x7f") || len(text) >= maxLine {
		t.Errorf("%d bytes: %.300q", len(text), text)
	}
}

func FuzzVerify(f *testing.F) {
	path, heads := newLog(f, "a", "b")
	f.Add(read(f, path), heads[0])
	f.Add([]byte("{}\n"), "")
	f.Fuzz(func(t *testing.T, text []byte, noted string) {
		s, err := Verify(bytes.NewReader(text), noted)
		if s.Whole > int64(len(text)) {
			t.Errorf("%d bytes hold of %d", s.Whole, len(text))
		}
		if err == nil && s.Whole != int64(len(text)) {
			t.Errorf("only %d bytes of %d were looked at", s.Whole, len(text))
		}
	})
}
