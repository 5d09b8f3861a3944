package main_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// An entry is one of an archive, with its content.
type entry struct {
	tar.Header
	content string
}

// A forgery is a signed package taken apart, to be put together as another one.
type forgery struct {
	t       testing.TB
	control []entry
	data    []entry
	tail    string // follows the data archive's end mark
}

// forge takes a package apart that dpkg-deb has written with gzip.
func forge(t testing.TB, deb string) *forgery {
	t.Helper()
	content, err := os.ReadFile(deb)
	must(t, err)
	members := map[string][]byte{}
	for rest := content[len("!<arch>\n"):]; len(rest) >= 60; {
		name := strings.TrimRight(string(rest[:16]), " /")
		size, err := strconv.Atoi(strings.TrimSpace(string(rest[48:58])))
		must(t, err)
		members[name] = rest[60 : 60+size]
		rest = rest[60+size+size%2:]
	}
	return &forgery{t: t, control: untar(t, members["control.tar.gz"]), data: untar(t, members["data.tar.gz"])}
}

func untar(t testing.TB, compressed []byte) (entries []entry) {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(compressed))
	must(t, err)
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return entries
		}
		must(t, err)
		content, err := io.ReadAll(r)
		must(t, err)
		entries = append(entries, entry{*h, string(content)})
	}
}

func (f *forgery) tar(entries []entry) []byte {
	f.t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.Format, e.Size, e.PAXRecords = tar.FormatGNU, int64(len(e.content)), nil
		must(f.t, w.WriteHeader(&e.Header))
		_, err := io.WriteString(w, e.content)
		must(f.t, err)
	}
	must(f.t, w.Close())
	return b.Bytes()
}

// write puts the package together at name.
func (f *forgery) write(name string) {
	f.t.Helper()
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	member := func(name string, content []byte) {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n%s", name, 1700000000, 0, 0, "100644", len(content), content)
		if len(content)%2 != 0 {
			b.WriteByte('\n')
		}
	}
	zipped := func(content []byte) []byte {
		var z bytes.Buffer
		w, err := gzip.NewWriterLevel(&z, gzip.BestSpeed)
		must(f.t, err)
		_, err = w.Write(content)
		must(f.t, err)
		must(f.t, w.Close())
		return z.Bytes()
	}
	member("debian-binary", []byte("2.0\n"))
	member("control.tar.gz", zipped(f.tar(f.control)))
	member("data.tar.gz", zipped(append(f.tar(f.data), f.tail...)))
	must(f.t, os.MkdirAll(filepath.Dir(name), 0o755))
	must(f.t, os.WriteFile(name, b.Bytes(), 0o644))
}

// member returns a control member, or a file of the payload.
func (f *forgery) member(name string) *entry {
	f.t.Helper()
	for _, entries := range [][]entry{f.control, f.data} {
		for i := range entries {
			if filepath.Clean(entries[i].Name) == name {
				return &entries[i]
			}
		}
	}
	f.t.Fatalf("the package has no %s", name)
	return nil
}

// add adds a file to the payload, and a signature that its manifest states for it:
// that of the file usr/bin/hostile.
func (f *forgery) add(e entry) {
	f.t.Helper()
	e.Mode = 0o644
	f.data = append(f.data, e)
	f.claim(strings.TrimPrefix(e.Name, "./"))
}

// claim adds a signature to the manifest.
func (f *forgery) claim(path string) {
	f.t.Helper()
	manifest := f.member("ima-signatures")
	blocks := strings.SplitAfter(manifest.content, "\n\n")
	blocks = blocks[:len(blocks)-1]
	value := regexp.MustCompile(`# file: usr/bin/hostile\n(security\.ima=.*)`).FindStringSubmatch(manifest.content)
	blocks = append(blocks, "# file: "+path+"\n"+value[1]+"\n\n")
	slices.Sort(blocks)
	manifest.content = strings.Join(blocks, "")
}

// state makes the digests of the statement right, which leaves its signature wrong:
// what a package can be that is installed where no certificate is.
func (f *forgery) state() {
	f.t.Helper()
	statement := f.member("ima-package")
	digests := map[string][sha256.Size]byte{"data.tar": sha256.Sum256(append(f.tar(f.data), f.tail...))}
	for _, e := range f.control {
		digests[filepath.Clean(e.Name)] = sha256.Sum256([]byte(e.content))
	}
	statement.content = regexp.MustCompile(`SHA256-(\S+): [0-9a-f]{64}`).ReplaceAllStringFunc(statement.content, func(line string) string {
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "SHA256-"), ":")
		return fmt.Sprintf("SHA256-%s: %x", name, digests[name])
	})
}
