package cache

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/imaseal/imaseal/sign"
)

func fileSize(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func TestFileStaysWithinItsBound(t *testing.T) {
	for _, test := range []struct {
		name           string
		bound          int64
		runs, each     int
		signature, has int // bytes of one, and how many must be left at least
	}{
		{"1 MiB of RSA-4096", 1 << 20, 40, 100, 512, 400},
		{"1 MiB of ECDSA", 1 << 20, 40, 500, 72, 1500},
		{"1 MiB of the largest signatures", 1 << 20, 20, 40, maxSignature / 4 * 4, 40},
		{"8 MiB of RSA-4096", 8 << 20, 10, 2500, 512, 3000},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "cache")
			o := Options{MaxBytes: test.bound, noSync: true}
			for run := range test.runs {
				fill(t, path, o, run*test.each, (run+1)*test.each, test.signature)
				if size := fileSize(t, path); size > test.bound {
					t.Fatalf("run %d: the file has %d bytes, the bound is %d", run, size, test.bound)
				}
			}
			c := open(t, path, o)
			c.readOnly = true // looking must not move anything
			total := test.runs * test.each
			if n := found(t, c, 0, total, test.signature); n < test.has || n == total {
				t.Errorf("%d of %d are left", n, total)
			}
			// Whole generations went, the oldest first; one may end within a run.
			whole := test.runs - 1
			for whole >= 0 && found(t, c, whole*test.each, whole*test.each+test.each, test.signature) == test.each {
				whole--
			}
			if n := found(t, c, 0, max(whole, 0)*test.each, test.signature); n > 0 {
				t.Errorf("%d of runs before %d are left, which is not whole", n, whole)
			}
			if left := (test.runs - 1 - whole) * test.each; left < test.has-test.each {
				t.Errorf("only the newest %d are left", left)
			}
		})
	}
}

func TestWhatIsUsedStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	o := Options{MaxBytes: 1 << 20, noSync: true}
	fill(t, path, o, 0, 100, 512)
	for run := 1; run < 40; run++ {
		fill(t, path, o, run*100, run*100+100, 512)
		c := open(t, path, o)
		if n := found(t, c, 0, 100, 512); n != 100 {
			t.Fatalf("run %d: %d of the 100 that are used in each run are left", run, n)
		}
		c.Close()
	}
	c := open(t, path, o)
	if n := found(t, c, 100, 200, 512); n > 0 {
		t.Errorf("%d that were never used are left after 40 runs", n)
	}
}

func TestASmallerBoundMakesTheFileSmaller(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	o := Options{noSync: true}
	for run := range 5 {
		fill(t, path, o, run*1000, run*1000+1000, 512)
	}
	if size := fileSize(t, path); size < 3<<20 {
		t.Fatalf("the file has only %d bytes", size)
	}
	o.MaxBytes = 1 << 20
	c := open(t, path, o)
	if n := found(t, c, 0, 5000, 512); n != 5000 {
		t.Errorf("%d of 5000 are found before the first write", n)
	}
	c.Close()
	fill(t, path, o, 5000, 5001, 512)
	if size := fileSize(t, path); size > o.MaxBytes {
		t.Errorf("the file has %d bytes, the bound is %d", size, o.MaxBytes)
	}
	c = open(t, path, o)
	if n := found(t, c, 5000, 5001, 512); n != 1 {
		t.Error("what made the file smaller is not in it")
	}
	if n := found(t, c, 0, 5000, 512); n < 500 {
		t.Errorf("%d are left", n)
	}
}

// A bound that changes to and fro makes many small generations.
func TestGenerationsAreNotTooMany(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	for run := range 2 * maxGenerations {
		o := Options{MaxBytes: []int64{1 << 20, 64 << 20}[run%2], noSync: true}
		fill(t, path, o, run*150, run*150+150, 512)
	}
	stats, err := Stats(path)
	if err != nil {
		t.Fatal(err)
	}
	if stats.Generations > mostGenerations+1 {
		t.Errorf("%d generations", stats.Generations)
	}
}

func TestAPoisonedValueIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	o := Options{MaxBytes: 1 << 20, noSync: true}
	fill(t, path, o, 0, 400, 512) // 3 generations, the first of which has it
	c := open(t, path, o)
	c.Remember(someone, sign.SHA256, digest(sign.SHA256, 3), signature(999, 512))
	c.Close()
	c = open(t, path, o)
	if got := c.Lookup(someone, sign.SHA256, digest(sign.SHA256, 3)); string(got) != string(signature(999, 512)) {
		t.Errorf("%x", got[:8])
	}
}

func TestBounds(t *testing.T) {
	for _, bound := range []int64{-1, 1, smallestFile - 1, largestFile + 1} {
		if c, err := Open(filepath.Join(t.TempDir(), "cache"), Options{MaxBytes: bound}); err == nil {
			c.Close()
			t.Errorf("a bound of %d is taken", bound)
		}
	}
}

func TestTimes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 10 {
		o := Options{noSync: true, now: func() time.Time { return day.AddDate(0, 0, i) }}
		fill(t, path, o, i*10, i*10+10, 512)
	}
	stats, err := Stats(path)
	if err != nil {
		t.Fatal(err)
	}
	g := stats.Groups[0]
	if len(stats.Groups) != 1 || g.Entries != 100 || !g.Oldest.Equal(day) || !g.Newest.Equal(day.AddDate(0, 0, 9)) || g.Identity != someone || g.Hash != sign.SHA256 {
		t.Errorf("%+v", stats)
	}
	if _, has, err := Trim(path, TrimOptions{Before: day.AddDate(0, 0, 5)}); err != nil || has.Groups[0].Entries != 50 {
		t.Fatalf("%+v, %v", has, err)
	}
	c := open(t, path, Options{})
	if n := found(t, c, 0, 50, 512); n != 0 {
		t.Errorf("%d are left that are too old", n)
	}
	if n := found(t, c, 50, 100, 512); n != 50 {
		t.Errorf("%d of 50 are left", n)
	}
}
