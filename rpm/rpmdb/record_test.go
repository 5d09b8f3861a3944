package rpmdb

import (
	"bufio"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/rpm"
)

// printed returns what rpm prints of db.
func printed(t testing.TB, db *DB) string {
	t.Helper()
	return run(t, "rpm", "--dbpath", db.folder, "-qa", "--queryformat", db.format())
}

// headerOf returns the header of the first package.
func headerOf(t testing.TB, db *DB) *rpm.Installed {
	t.Helper()
	rec, err := reader(printed(t, db)).next()
	if err != nil {
		t.Fatal(err)
	}
	h, err := rpm.ReadInstalled(rec.region)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func reader(text string) *recordReader {
	return &recordReader{r: bufio.NewReader(strings.NewReader(text))}
}

// small is a record without files, in the form in which rpm prints one.
const small = "#imaseal-rpm 12 'it'\\''s' '1' '2' 'x86 64' \nQUJD\nRA==\n.\n'/a'\\'''\\''\n' '#end' \n0 3 -1 \n'' '0302' \n.\nRQ==.\n'x' \n#end\n"

func TestRecord(t *testing.T) {
	r := reader("package x is not installed\n" + small + small + "no newline")
	var got []*record
	for {
		rec, err := r.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, rec)
	}
	one := &record{instance: 12, name: "it's", version: "1", release: "2", arch: "x86 64", region: []byte("ABCD"),
		relocated: []string{"/a''\n", "#end"}, states: []int64{0, 3, -1}, signatures: []string{"", "0302"}, rsa: []byte{}, dsa: []byte("E"), openPGP: []string{"x"}}
	want := []*record{{refusal: "package x is not installed"}, one, one, {refusal: "no newline"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	// Cut off anywhere, it is no record.
	for i := 1; i < len(small); i++ {
		rec, err := reader(small[:i]).next()
		if i >= len(recordStart) && !errors.Is(err, io.ErrUnexpectedEOF) || err == nil {
			t.Errorf("the first %d bytes: %+v, %v", i, rec, err)
		}
	}
}

func TestFirstError(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "",
		"warning: x\n":                       "",
		"error: a\n":                         "a",
		"warning: x\nerror: a \nb\nerror: c": "a b",
		"error: a\nwarning: x\nb":            "a",
		"an error: a":                        "",
	} {
		var l limitedText
		l.Write([]byte(text))
		if got := l.first(); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
	var l limitedText
	for range 1000 {
		l.Write(make([]byte, 1000))
	}
	if len(l.text) != 1<<14 {
		t.Errorf("it keeps %d bytes", len(l.text))
	}
}

// TestBadRecords: what rpm would not print is refused, and the error says where.
func TestBadRecords(t *testing.T) {
	for name, c := range map[string]struct{ old, new, err string }{
		"no number":            {" 12 ", " x ", "number"},
		"long number":          {" 12 ", " " + strings.Repeat("1", 30) + " ", "number"},
		"a name less":          {"'1' '2'", "'1'", "3 names"},
		"no quote":             {" '1'", " 1", `name: "1"`},
		"text behind a quote":  {"'1' ", "'1'x ", "behind a quote"},
		"backslash and no end": {"s' '1'", `s'\x '1'`, "name"},
		"no base64":            {"QUJD", "QU_D", "HEADERIMMUTABLE"},
		"padding within":       {"QUJD", "QUI=", "HEADERIMMUTABLE"},
		"text behind base64":   {"==\n.\n", "==\n.x\n", "HEADERIMMUTABLE"},
		"no state":             {"0 3", "0 x", "FILESTATES"},
		"quoted state":         {"0 3", "0 '3'", "FILESTATES"},
		"another end":          {"#end\n", "#End\n", "end"},
		"more behind the list": {"'x' \n", "'x' \n'y' \n", "end"},
		"long string":          {"'x'", "'" + strings.Repeat("x", maxString+1) + "'", "OPENPGP: longer"},
	} {
		i := strings.LastIndex(small, c.old)
		if i < 0 {
			t.Fatalf("%s: nothing to replace", name)
		}
		_, err := reader(small[:i] + c.new + small[i+len(c.old):]).next()
		if err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzRecord: nothing that rpm may print makes the reader fail otherwise than by an
// error, and no record is longer than its text.
func FuzzRecord(f *testing.F) {
	f.Add(small, uint16(0))
	f.Add("package x is not installed\n"+small, uint16(3))
	f.Fuzz(func(t *testing.T, text string, nth uint16) {
		r := reader(text)
		db := new(DB)
		for {
			rec, err := r.next()
			if err != nil {
				break
			}
			n := len(rec.refusal) + len(rec.region) + len(rec.rsa) + len(rec.dsa) + len(rec.states)
			for _, list := range [][]string{rec.relocated, rec.signatures, rec.openPGP} {
				for _, s := range list {
					n += len(s)
				}
			}
			if n > len(text) {
				t.Fatalf("%d bytes of %d", n, len(text))
			}
			db.convert(rec)
		}
	})
}
