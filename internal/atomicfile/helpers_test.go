package atomicfile

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// The test binary is also a writer that another process can kill or wait for:
// it starts to replace the file named in asWriter and says so on its output.
const (
	asWriter   = "ATOMICFILE_TEST_WRITER"
	asReadOnly = "ATOMICFILE_TEST_READ_ONLY"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(asWriter); path != "" {
		Write(context.Background(), path, func(f *os.File) error {
			fmt.Fprintln(f, "of a process that was killed")
			if os.Getenv(asReadOnly) != "" {
				f.Chmod(0o400)
			}
			fmt.Println(f.Name())
			io.Copy(io.Discard, os.Stdin) // until it is killed
			return nil
		}, Options{})
		return
	}
	os.Exit(m.Run())
}

// A writer is a process in the middle of Write.
type writer struct {
	cmd       *exec.Cmd
	in        io.Closer
	temporary string
}

// startWriter returns when the temporary of path is there and locked.
func startWriter(t *testing.T, path string, env ...string) *writer {
	t.Helper()
	w := &writer{cmd: exec.Command(os.Args[0])}
	w.cmd.Env = append(append(os.Environ(), asWriter+"="+path), env...)
	in, err := w.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.cmd.Process.Kill(); w.cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the writing process said nothing: %v", err)
	}
	w.in, w.temporary = in, line[:len(line)-1]
	return w
}

func (w *writer) kill(t *testing.T) {
	t.Helper()
	if err := w.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	w.cmd.Wait() // it was killed: no news
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// content is what Write is to write.
func content(s string) func(*os.File) error {
	return func(f *os.File) error {
		_, err := f.WriteString(s)
		return err
	}
}

func mustHave(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s has %q, want %q", path, got, want)
	}
}

// mustHold fails unless exactly the files of the names are in the folder.
func mustHold(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, e := range entries {
		got[e.Name()] = true
	}
	for _, name := range want {
		if !got[name] {
			t.Errorf("%s is not in the folder any more", name)
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("%s was left in the folder", name)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// small mounts a file system of size bytes.
func small(t *testing.T, size int) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("no tmpfs can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func stale(dir, base string) string {
	return filepath.Join(dir, prefixOf(base)+"ABCDEFGHIJKLMNOPQRSTUVWXYZ"+suffix)
}
