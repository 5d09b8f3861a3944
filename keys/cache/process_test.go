package cache

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/sign"
)

const workerEnv = "IMASEAL_CACHE_TEST_WORKER"

// TestMain makes a process that uses a cache out of the test's own program.
func TestMain(m *testing.M) {
	if job := os.Getenv(workerEnv); job != "" {
		os.Exit(worker(job))
	}
	os.Exit(m.Run())
}

// worker does a job, "PATH FROM TO": it looks up and remembers signatures in small
// batches, so that it writes all the time, and prints how many it found wrong and
// what was noted.
func worker(job string) int {
	var path string
	var from, to int
	if _, err := fmt.Sscan(job, &path, &from, &to); err != nil {
		fmt.Println(err)
		return 3
	}
	for at := from; at < to; at += 50 {
		// On a busy disk each of the others may sync for long.
		c, err := Open(path, Options{MaxBytes: 2 << 20, patience: time.Minute, Note: func(text string) { fmt.Println("noted:", text) }})
		if err != nil {
			fmt.Println(err)
			return 2
		}
		for i := at; i < min(at+50, to); i++ {
			d := digest(sign.SHA256, i)
			if got := c.Lookup(someone, sign.SHA256, d); got != nil && string(got) != string(signature(i, 512)) {
				fmt.Println("wrong:", i)
			}
			c.Remember(someone, sign.SHA256, d, signature(i, 512))
		}
		c.Close()
	}
	return 0
}

func startWorker(t *testing.T, path string, from, to int) (*exec.Cmd, *strings.Builder) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d", workerEnv, path, from, to))
	said := new(strings.Builder)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, said
}

func TestSeveralProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	const each = 250
	var all sync.WaitGroup
	for i := range 4 {
		cmd, said := startWorker(t, path, i*each, (i+1)*each)
		all.Go(func() {
			if err := cmd.Wait(); err != nil || said.String() != "" {
				t.Errorf("%v: %s", err, said)
			}
		})
	}
	all.Wait()
	c := open(t, path, Options{})
	if n := found(t, c, 0, 4*each, 512); n != 4*each {
		t.Errorf("%d of %d are there", n, 4*each)
	}
}

// Processes are killed at random moments. After each the file must be whole and
// take what is written to it.
func TestKilledProcesses(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("IMASEAL_TEST_SEED"); given != "" {
		n, err := strconv.ParseUint(given, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Logf("IMASEAL_TEST_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(t.TempDir(), "cache")
	fill(t, path, Options{MaxBytes: 64 << 20}, 0, 100, 512)
	killed := 0
	for round := range 12 {
		var workers []*exec.Cmd
		var says []*strings.Builder
		for i := range 3 {
			from := 1000 + (round*3+i)*10000
			cmd, said := startWorker(t, path, from, from+10000)
			workers, says = append(workers, cmd), append(says, said)
		}
		for i, cmd := range workers {
			time.Sleep(time.Duration(random.IntN(60)) * time.Millisecond)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			var ended *exec.ExitError
			if err := cmd.Wait(); errors.As(err, &ended) && !ended.Exited() {
				killed++
			}
			if says[i].String() != "" {
				t.Errorf("round %d: %s", round, says[i])
			}
		}
		stats, err := Stats(path)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if stats.Bytes > 2<<20 {
			t.Errorf("round %d: %d bytes", round, stats.Bytes)
		}
		mark := 500000 + round
		fill(t, path, Options{MaxBytes: 2 << 20}, mark, mark+1, 512)
		c := open(t, path, Options{MaxBytes: 2 << 20})
		if found(t, c, mark, mark+1, 512) != 1 {
			t.Errorf("round %d: what was written after a kill is gone", round)
		}
		c.Close()
	}
	if killed < 18 {
		t.Errorf("only %d of 36 were killed at work", killed)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	// One that was killed while it rewrote leaves a file that the next removes.
	if len(entries) > 2 {
		t.Errorf("left behind: %v", entries)
	}
}

// A process that is stopped with the lock in its hands holds nobody up for long.
func TestALockThatIsNotGivenBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	fill(t, path, Options{}, 0, 10, 512)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	var noted []string
	c := open(t, path, Options{Note: func(text string) { noted = append(noted, text) }, patience: 50 * time.Millisecond})
	if n := found(t, c, 0, 10, 512); n != 10 {
		t.Errorf("%d of 10 are found without the lock", n)
	}
	for i := range 3 * batchSize {
		c.Remember(someone, sign.SHA256, digest(sign.SHA256, 100+i), signature(i, 512))
	}
	c.Close()
	if len(noted) != 1 || !strings.Contains(noted[0], "lock") || !strings.Contains(noted[0], "signatures of this run were not kept") {
		t.Errorf("noted: %q", noted)
	}
	f.Close()
	fill(t, path, Options{}, 10, 20, 512)
	c = open(t, path, Options{})
	if n := found(t, c, 0, 20, 512); n != 20 {
		t.Errorf("%d of 20", n)
	}
}

func TestTheSnapshotFollowsOtherProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	c := open(t, path, Options{})
	if n := found(t, c, 0, 10, 512); n != 0 {
		t.Fatal(n)
	}
	fill(t, path, Options{}, 0, 10, 512)
	if n := found(t, c, 0, 10, 512); n != 10 {
		t.Errorf("%d of 10 that another has written meanwhile", n)
	}
	if _, _, err := Trim(path, TrimOptions{}); err != nil { // replaces the file
		t.Fatal(err)
	}
	fill(t, path, Options{}, 10, 20, 512)
	if n := found(t, c, 0, 20, 512); n != 20 {
		t.Errorf("%d of 20 after the file was replaced", n)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	c.Remember(someone, sign.SHA256, digest(sign.SHA256, 20), signature(20, 512))
	c.Close()
	c = open(t, path, Options{})
	if n := found(t, c, 0, 21, 512); n != 1 {
		t.Errorf("%d of 1 after the file was removed", n)
	}
}

func TestAFaultInAMappingIsAnError(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "mapped"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(pageSize); err != nil {
		t.Fatal(err)
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, pageSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mapped)
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := guarded(func() error { return errors.New(string(mapped[:1])) }); !errors.Is(err, errDamaged) {
		t.Error(err)
	}
	if err := guarded(func() error { panic("assertion failed") }); !errors.Is(err, errDamaged) {
		t.Error(err)
	}
}

// Who waits for the lock of a file that is replaced meanwhile must not write into
// the one that has no name any more.
func TestTheFileIsReplacedWhileItsLockIsWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	fill(t, path, Options{}, 0, 10, 512)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() { fill(t, path, Options{patience: time.Minute}, 10, 20, 512) })
	for !waitsForLock(t, f) {
		time.Sleep(time.Millisecond)
	}
	if err := os.WriteFile(path+".new", emptyFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	f.Close()
	waiting.Wait()
	c := open(t, path, Options{})
	if n := found(t, c, 0, 20, 512); n != 10 {
		t.Errorf("%d are in the new file, of 10 that were written after it came", n)
	}
}

// waitsForLock reports whether this process has f's file open for writing.
func waitsForLock(t *testing.T, f *os.File) bool {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range open {
		name := filepath.Join("/proc/self/fd", fd.Name())
		link, err := os.Lstat(name)
		if err != nil || link.Mode()&0o200 == 0 {
			continue
		}
		if other, err := os.Stat(name); err == nil && os.SameFile(info, other) {
			return true
		}
	}
	return false
}
