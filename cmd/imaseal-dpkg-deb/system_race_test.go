package main_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nobody is a user who owns nothing.
const nobody = 65534

// TestPlantedByOthers installs into a folder that everybody may write to, while
// somebody without rights puts links and files of his own in the place of what dpkg
// unpacks there. What is labelled is always of the package, and root's.
func TestPlantedByOthers(t *testing.T) {
	const files, runs, most = 100, 30, 300
	m := made{name: "raced", version: "1", arch: "all"}
	content := func(i int) string { return fmt.Sprintf("file %d", i) }
	for i := range files {
		m.files = append(m.files, madeFile{path: fmt.Sprintf("opt/open/%02d", i), content: content(i)})
	}
	repo := makePackages(t, m)
	r := newRoot(t, "bookworm")
	r.use(repo)
	r.write("etc/dpkg/dpkg.cfg.d/test", "force-unsafe-io\n", 0o644)
	r.write("etc/outside", "outside\n", 0o644)
	must(t, os.Mkdir(r.name("opt/open"), 0o755))
	must(t, os.Chmod(r.name("opt/open"), 0o777))

	var stop atomic.Bool
	var turn sync.Mutex // he rests while the labels are looked at
	planted := make(chan int)
	go func() {
		// The thread ends with the goroutine, and with it its lack of rights.
		runtime.LockOSThread()
		_ = unix.Setfsgid(nobody)
		_ = unix.Setfsuid(nobody)
		random, n := rand.New(rand.NewPCG(1, 2)), 0
		for !stop.Load() {
			turn.Lock()
			i := random.IntN(files)
			name := r.name(fmt.Sprintf("opt/open/%02d.dpkg-new", i))
			if os.Remove(name) == nil { // dpkg has come so far
				n++
				switch random.IntN(6) {
				case 0:
					_ = os.Symlink("/etc/outside", name)
				case 1:
					_ = os.Mkdir(name, 0o755)
				default:
					// All but the owner is as in the package.
					_ = os.WriteFile(name, []byte(content(i)), 0o644)
					_ = os.Chmod(name, 0o644)
					_ = os.Chtimes(name, builtAt, builtAt)
				}
			}
			turn.Unlock()
			// Sometimes he comes late, or not at all.
			time.Sleep(time.Duration(random.IntN(20_000)) * time.Microsecond)
		}
		planted <- n
	}()
	refused, failed, installed := 0, 0, 0
	// On a busy machine he may need more to come in time, and not in time.
	for n := 0; n < runs || n < most && (refused == 0 || installed == 0); n++ {
		out, err := r.try("dpkg", "-i", deb("raced", "1", "all"))
		switch {
		case err == nil:
			installed++
		case strings.Contains(out, "imaseal: raced 1: refused: "):
			refused++
		default:
			failed++ // by dpkg itself
		}
		turn.Lock()
		labels := r.labels()
		for path := range labels {
			info, err := os.Lstat(r.name(path))
			must(t, err)
			if stat := info.Sys().(*syscall.Stat_t); stat.Uid != 0 || !strings.HasPrefix(path, "opt/open/") {
				t.Errorf("labelled: %s of user %d", path, stat.Uid)
			}
		}
		if wrong := r.wrong(labels); len(wrong) > 0 {
			t.Errorf("wrongly labelled: %q", wrong)
		}
		turn.Unlock()
	}
	stop.Store(true)
	n := <-planted
	t.Logf("%d names replaced in %d runs: %d refused by the hook, %d by dpkg, %d installed", n, refused+failed+installed, refused, failed, installed)
	if refused == 0 || installed == 0 {
		t.Error("he was always too late, or always too early")
	}
}
