package deb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

const (
	memoryChild = "IMASEAL_TEST_MEMORY_CHILD"
	// maxMemory is what a process may take for any package, in KiB.
	maxMemory = 160 << 10
)

// TestMemory lets a process of its own verify and sign each package, whatever comes
// of it, and looks at how much memory that took at most.
func TestMemory(t *testing.T) {
	if path := os.Getenv(memoryChild); path != "" {
		signInChild(t, path)
		// Not the maximum of getrusage, which begins with that of the parent.
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s", status)
		return
	}
	if testing.Short() {
		t.Skip("writes gigabytes of zeros")
	}
	control := func(suffix string, content []byte) []byte {
		m := build{}.members(t)
		m[1] = arMember{name: "control.tar" + suffix, content: content}
		return arOf(m...)
	}
	data := func(suffix string, content []byte) []byte {
		m := build{}.members(t)
		m[2] = arMember{name: "data.tar" + suffix, content: content}
		return arOf(m...)
	}
	large := func(name string, size int64) entry {
		return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: size, ModTime: buildTime, Format: tar.FormatGNU}, ""}
	}
	plain := func(name string, size int64) entry {
		e := large(name, size)
		e.Mode = 0o644
		return e
	}
	s := signed(t, noFolder().bytes(t), sign.WriteOptions{})
	entries := func(path, value string) []byte {
		var b strings.Builder
		for i := range maxSignatures {
			if b.Len() > maxControl-1<<20 {
				break
			}
			fmt.Fprintf(&b, "# file: %s%09d\nsecurity.ima=0s%s\n\n", path, i, value)
		}
		return reseal(t, s, edit("ima-signatures", func(string) string { return b.String() }))
	}
	for name, raw := range map[string][]byte{
		"control bomb of 1 GiB":               control(".gz", gzipped(t, 1<<30, file("./control", 0o644, controlText), large("./x", 1<<30))),
		"script of 47 MiB":                    control(".gz", gzipped(t, 47<<20, file("./control", 0o644, controlText), large("./preinst", 47<<20))),
		"control archive of 47 MiB":           control(".gz", gzipped(t, 47<<20, file("./control", 0o644, controlText), plain("./templates", 47<<20))),
		"control archive of 47 MiB by zstd":   control(".zst", zstded(t, 32<<20, 47<<20, file("./control", 0o644, controlText), plain("./templates", 47<<20))),
		"control archive with a large window": control(".zst", zstded(t, 128<<20, 47<<20, file("./control", 0o644, controlText), plain("./templates", 47<<20))),
		"control file of 47 MiB":              control(".gz", gzipped(t, 47<<20, large("./control", 47<<20))),
		"data of 2 GiB":                       data(".zst", zstded(t, 8<<20, 2<<30, large("./x", 2<<30))),
		"data with a window of 128 MiB":       data(".zst", zstded(t, 128<<20, 300<<20, large("./x", 300<<20))),
		"short signatures, as many as may be": entries("", ""),
		"large signatures":                    entries("usr/share/some/longer/path/of/a/file/", strings.Repeat("AAAA", 40)),
		"large names":                         entries(strings.Repeat("n/", 150), ""),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "p.deb")
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(os.Args[0], "-test.run=^TestMemory$", "-test.v")
			cmd.Env = append(os.Environ(), memoryChild+"="+path)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			_, peak, ok := strings.Cut(string(out), "VmHWM:")
			var took int
			if _, err := fmt.Sscan(peak, &took); !ok || err != nil {
				t.Fatalf("no peak in %s", out)
			}
			t.Logf("%d MiB, %v: %s", took>>10, cmd.ProcessState.UserTime(), firstLog(string(out)))
			if took > maxMemory {
				t.Errorf("it took %d KiB of memory", took)
			}
		})
	}
}

func firstLog(out string) string {
	for line := range strings.Lines(out) {
		if strings.Contains(line, ".go:") {
			return line[:min(len(line), 300)]
		}
	}
	return ""
}

func signInChild(t *testing.T, path string) {
	debug.SetMemoryLimit(96 << 20) // as the command does
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Open(f, info.Size(), Options{Jobs: 2})
	if err != nil {
		t.Log(err)
		return
	}
	r, err := sign.Verify(t.Context(), p, signtest.Trust(testKey), sign.Options{Jobs: 2})
	if err == nil {
		err = fmt.Errorf("verify: %d files, %d findings", r.Files, len(r.Findings))
	}
	r = nil
	m, failed := sign.Sign(t.Context(), p, testKey, sign.Options{Jobs: 2})
	if failed == nil {
		failed = p.Write(t.Context(), io.Discard, m, sign.WriteOptions{})
	}
	t.Log(errors.Join(err, failed))
}

// gzipped compresses an archive whose last entry has n zeros as its content.
func gzipped(t testing.TB, n int64, entries ...entry) []byte {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	writeZeros(t, z, n, entries...)
	return b.Bytes()
}

func zstded(t testing.TB, window int, n int64, entries ...entry) []byte {
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, zstd.WithWindowSize(window), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	writeZeros(t, z, n, entries...)
	return b.Bytes()
}

func writeZeros(t testing.TB, z io.WriteCloser, n int64, entries ...entry) {
	t.Helper()
	w := tar.NewWriter(z)
	for i, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		var err error
		if i == len(entries)-1 {
			_, err = io.CopyN(w, zeros{}, n)
		} else {
			_, err = io.WriteString(w, e.content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
}
