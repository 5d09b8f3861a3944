package compression

import (
	"bytes"
	"io"
	"runtime"
	"testing"
	"time"
)

func TestOneStreamAtATimeIsReadInParallel(t *testing.T) {
	compressed, data := big(t)
	open := func() io.ReadCloser {
		r, err := NewReaderAt(bytes.NewReader(compressed), int64(len(compressed)), Xz, 2)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, way := range []string{"the program", "blocks side by side"} {
		t.Run(way, func(t *testing.T) {
			if way != "the program" {
				t.Setenv("PATH", t.TempDir())
			}
			first, second := open(), open()
			if a, b := wayOf(first), wayOf(second); a != way || b != "block after block" {
				t.Errorf("the first by %s, the second by %s", a, b)
			}
			for _, r := range []io.ReadCloser{first, second} {
				got, err := io.ReadAll(r)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			}
			third := open() // although the first was not closed
			if got := wayOf(third); got != way {
				t.Errorf("the third by %s", got)
			}
			first.Close()
			if !parallel.Load() {
				t.Error("the late Close of the first freed the place of the third")
			}
			third.Close()
			second.Close()
			if parallel.Load() {
				t.Error("the place is not free after Close")
			}
			func() { open().Read(make([]byte, 1)) }() // nobody has it any more
			for deadline := time.Now().Add(time.Minute); parallel.Load(); runtime.GC() {
				if time.Now().After(deadline) {
					t.Fatal("the place is not free after the reader was forgotten")
				}
			}
		})
	}
}

func TestSmallStreamsAndSingleJobsAreReadBlockAfterBlock(t *testing.T) {
	compressed, _ := big(t)
	small := xzProgram.with(t, text(100<<10), "--block-size=10KiB")
	for _, test := range []struct {
		data []byte
		jobs int
	}{{compressed, 1}, {compressed, 0}, {small, 2}} {
		r, err := NewReaderAt(bytes.NewReader(test.data), int64(len(test.data)), Xz, test.jobs)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if got := wayOf(r); got != "block after block" {
			t.Errorf("%d bytes with %d jobs by %s", len(test.data), test.jobs, got)
		}
	}
}

// The workers decode as far as they may while nobody reads.
func TestXzBlocksMemoryIsBounded(t *testing.T) {
	const block, blocks = 12 << 20, 7
	data := xzProgram.with(t, make([]byte, block*blocks), "-0", "--block-size=12MiB")
	for _, jobs := range []int{2, 64} {
		x, err := readXzIndex(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		heap := func() int64 {
			runtime.GC()
			runtime.GC() // the second empties the pool
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		before := heap()
		b := newXzBlocks(bytes.NewReader(data), x, jobs)
		var most, read int64
		for err == nil {
			var n int64
			b.alive.Wait()
			most = max(most, heap()-before)
			n, err = io.CopyN(io.Discard, b, block)
			read += n
		}
		b.Close()
		if err != io.EOF || read != block*blocks {
			t.Errorf("read %d bytes, %v", read, err)
		}
		if most > blocksMemory {
			t.Errorf("%d jobs: %d MiB are held, at most %d may be", jobs, most>>20, blocksMemory>>20)
		}
		if want := int64(min(jobs, blocksMemory/(block+1<<20))) * block; most < want {
			t.Errorf("%d jobs: only %d MiB are held: was nothing decoded ahead?", jobs, most>>20)
		}
	}
}

func TestXzBlocksThatAreTooLarge(t *testing.T) {
	for _, x := range []xzIndex{
		{largest: blocksMemory + 1, dictionary: 1},
		{largest: 1, dictionary: blocksMemory + 1},
		{largest: 1 << 62, dictionary: 1<<32 - 1},
		{largest: blocksMemory/2 + 1, dictionary: 0}, // no two
		{largest: 1, dictionary: 1, blocks: make([]xzBlock, 1)},
	} {
		if len(x.blocks) == 0 {
			x.blocks = make([]xzBlock, 10)
		}
		if b := newXzBlocks(bytes.NewReader(nil), &x, 8); b != nil {
			b.Close()
			t.Errorf("%d blocks of %d bytes with a dictionary of %d are decoded", len(x.blocks), x.largest, x.dictionary)
		}
	}
}
