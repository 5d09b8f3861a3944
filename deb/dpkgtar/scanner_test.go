package dpkgtar

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// archive writes entries in GNU format; names ending in "/" are folders, "a -> b" are
// symbolic links, "a => b" hard links, others files with their name as content.
func archive(t testing.TB, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		h := &tar.Header{Name: "./" + name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(name)), Format: tar.FormatGNU,
			ModTime: time.Unix(1700000000, 0), Uid: 7, Gid: 8, Uname: "me", Gname: "us"}
		if from, to, ok := strings.Cut(name, " -> "); ok {
			h.Typeflag, h.Name, h.Linkname, h.Size = tar.TypeSymlink, "./"+from, to, 0
		} else if from, to, ok := strings.Cut(name, " => "); ok {
			h.Typeflag, h.Name, h.Linkname, h.Size = tar.TypeLink, "./"+from, "./"+to, 0
		} else if name == "" || strings.HasSuffix(name, "/") {
			h.Typeflag, h.Size = tar.TypeDir, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			_, _ = io.WriteString(w, name)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// scan returns what a Scanner sees, in blocks of a size, up to the end mark.
func scan(raw []byte, size int) (seen []string, before int, err error) {
	var content []byte
	s := Scanner{Entry: func(path string, h *Header) error {
		seen = append(seen, fmt.Sprintf("%s %c %d %o %d %d %s %s %d %s", path, h.Kind, h.Size, h.Mode, h.UID, h.GID, h.User, h.Group, h.ModTime, h.Link))
		return nil
	}, Content: func(piece []byte) { content = append(content, piece...) }}
	for len(raw) > 0 && !s.Ended() {
		n, err := s.Scan(raw[:min(size, len(raw))])
		before += n
		if err != nil {
			return seen, before, err
		}
		raw = raw[min(size, len(raw)):]
	}
	if !s.Ended() {
		return seen, before, io.ErrUnexpectedEOF
	}
	return append(seen, string(content)), before, nil
}

// read returns what a Reader sees, in the same form.
func read(raw []byte) (seen []string, err error) {
	var content []byte
	r := NewReader(bytes.NewReader(raw))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return append(seen, string(content)), nil
		}
		if err != nil {
			return seen, err
		}
		body, err := io.ReadAll(r)
		if err != nil {
			return seen, err
		}
		content = append(content, body...)
		seen = append(seen, fmt.Sprintf("%s %c %d %o %d %d %s %s %d %s", h.Name, h.Typeflag, h.Size, h.Mode, h.Uid, h.Gid, h.Uname, h.Gname, h.ModTime.Unix(), h.Linkname))
	}
}

func TestScannerSeesWhatReaderSees(t *testing.T) {
	long := strings.Repeat("long/", 60) + "name"
	raw := archive(t, "", "usr/", "usr/a", "usr/empty", long, "usr/b => usr/a", "usr/c -> "+long, strings.Repeat("x", 511), strings.Repeat("y", 512))
	want, err := read(raw)
	if err != nil {
		t.Fatal(err)
	}
	if len(want) != 10 {
		t.Fatalf("the reader sees %q", want)
	}
	for _, size := range []int{BlockSize, 3 * BlockSize, 1 << 20} {
		seen, before, err := scan(raw, size)
		if err != nil || fmt.Sprint(seen) != fmt.Sprint(want) {
			t.Errorf("in blocks of %d: %v\n%q\n%q", size, err, seen, want)
		}
		if end := len(bytes.TrimRight(raw, "\x00")); before < end || before-end >= BlockSize {
			t.Errorf("in blocks of %d the end mark is at %d, the last byte at %d", size, before, end)
		}
	}
}

func TestScannerRefusals(t *testing.T) {
	good := archive(t, "usr/a", "usr/b")
	edit := func(at int, text string) []byte {
		raw := bytes.Clone(good)
		copy(raw[at:], text)
		return raw
	}
	for name, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"cut off":                 {good[:2*BlockSize+5], "5 bytes are no block"},
		"PAX":                     {edit(1024+156, "x"), "offset 1024: a PAX header"},
		"sparse":                  {edit(1024+156, "S"), "which dpkg does not read"},
		"no name":                 {edit(1024, "\x00"), "at which dpkg stops reading"},
		"size":                    {edit(1024+124, "x"), "no octal number"},
		"uid":                     {edit(1024+108, "x"), "uid"},
		"negative gid":            {edit(1024+116, "\xff\xff\xff\xff\xff\xff\xff\xff"), "is negative"},
		"time":                    {edit(1024+136, "x"), "time"},
		"wrong checksum":          {edit(1024+100, "0000755\x00"), "checksum"},
		"name that climbs":        {archive(t, "usr/../../etc/passwd"), `component ".."`},
		"absolute name":           {sum(edit(1024, "/usr/b\x00\x00")), "not relative"},
		"sized folder":            {sum(edit(1024+156, "5")), "is no regular file and has a size"},
		"file called like folder": {sum(edit(1024, "./usr/b/")), "a folder by its name"},
	} {
		_, _, err := scan(c.raw, BlockSize)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v does not say %q", name, err, c.want)
		}
	}
	// Times before 1970 are times.
	negative := sum(edit(1024+136, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"))
	if seen, _, err := scan(negative, BlockSize); err != nil || !strings.Contains(seen[1], " -2 ") {
		t.Errorf("%q, %v", seen, err)
	}
	// What the Entry function says is final.
	s := Scanner{Entry: func(string, *Header) error { return errors.New("no") }}
	if n, err := s.Scan(good); n != 0 || err == nil || !strings.HasSuffix(err.Error(), "offset 0: no") {
		t.Errorf("%d, %v", n, err)
	}
}

// sum puts the checksum of the header at 1024 right.
func sum(raw []byte) []byte {
	b := (*[BlockSize]byte)(raw[1024:])
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", checksum(b)))
	return raw
}

func TestEntriesHas(t *testing.T) {
	var e Entries
	if e.Has("usr") {
		t.Error("an empty archive has a folder")
	}
	if _, err := e.Add("usr/bin/a", tar.TypeReg, ""); err != nil {
		t.Fatal(err)
	}
	if !e.Has("usr/bin/a") || e.Has("usr/bin") || e.Has("b") {
		t.Error("it has the wrong entries")
	}
}

// What both take they see alike.
func FuzzScanner(f *testing.F) {
	f.Add(archive(f, "", "usr/", "usr/a", "usr/b => usr/a", strings.Repeat("long/", 60)+"name"))
	f.Add(archive(f, "a -> b", "empty"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		// Any block may be a header, so each gets a checksum that holds.
		raw = bytes.Clone(raw)
		for at := 0; at+BlockSize <= len(raw); at += BlockSize {
			if b := (*[BlockSize]byte)(raw[at:]); *b != ([BlockSize]byte{}) {
				copy(b[148:156], fmt.Sprintf("%06o\x00 ", checksum(b)))
			}
		}
		want, errReader := read(raw)
		seen, _, errScanner := scan(raw, BlockSize)
		if errReader == nil && errScanner != nil {
			t.Fatalf("only the reader takes it: %v", errScanner)
		}
		if errReader == nil && fmt.Sprint(seen) != fmt.Sprint(want) {
			t.Errorf("they see\n%q\n%q", seen, want)
		}
	})
}
