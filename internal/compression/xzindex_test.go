package compression

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"testing"
)

// fixBlockHeader makes the checksum of the first block's header right.
func fixBlockHeader(data []byte) {
	head := data[xzHeaderSize:]
	n := int(head[0])*4 + 4
	binary.LittleEndian.PutUint32(head[n-4:], crc32.ChecksumIEEE(head[:n-4]))
}

// setFlags sets the second flag byte of a file with one stream: the kind of check.
func setFlags(data []byte, flag byte) {
	foot := data[len(data)-xzHeaderSize:]
	data[7], foot[9] = flag, flag
	binary.LittleEndian.PutUint32(data[8:], crc32.ChecksumIEEE(data[6:8]))
	binary.LittleEndian.PutUint32(foot, crc32.ChecksumIEEE(foot[4:10]))
}

// withIndex replaces the index of a file by one with the content, padding and sums.
func withIndex(data []byte, blocks []xzBlock, content []byte) []byte {
	last := blocks[len(blocks)-1]
	out := slices.Clone(data[:last.at+last.stored()])
	index := slices.Clone(content)
	for len(index)%4 != 0 {
		index = append(index, 0)
	}
	index = binary.LittleEndian.AppendUint32(index, crc32.ChecksumIEEE(index))
	foot := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1))
	foot = append(foot, data[6:8]...)
	out = append(out, index...)
	out = binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(foot))
	return append(append(out, foot...), xzFooterEnd...)
}

func indexOf(count int64, numbers ...int64) []byte {
	b := appendXzInt([]byte{0}, count)
	for _, n := range numbers {
		b = appendXzInt(b, n)
	}
	return b
}

func TestXzIndex(t *testing.T) {
	data := xzProgram.with(t, text(2500), "--block-size=1000", "--lzma2=dict=1MiB")
	x, err := readXzIndex(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if len(x.blocks) != 3 || x.total != 2500 || x.largest != 1000 || x.dictionary != 1<<20 {
		t.Errorf("%d blocks, %d bytes, the largest %d, dictionary %d", len(x.blocks), x.total, x.largest, x.dictionary)
	}
	// Each block is a good file for the program.
	for i, b := range x.blocks {
		alone, err := io.ReadAll(x.alone(bytes.NewReader(data), b))
		if err != nil {
			t.Fatal(err)
		}
		got, err := xzProgram.read(t, alone)
		if err != nil || !bytes.Equal(got, text(2500)[i*1000:min(i*1000+1000, 2500)]) {
			t.Errorf("block %d: %d bytes, %v", i, len(got), err)
		}
	}
}

// A file with an odd index is left to the plain reader, which refuses it.
func TestXzIndexesThatAreWrong(t *testing.T) {
	data := xzProgram.with(t, text(300), "--block-size=100", smallDictionary)
	x, err := readXzIndex(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	b := x.blocks
	all := []int64{b[0].unpadded, b[0].size, b[1].unpadded, b[1].size, b[2].unpadded, b[2].size}
	with := func(i int, n int64) []byte {
		numbers := slices.Clone(all)
		numbers[i] = n
		return withIndex(data, b, indexOf(3, numbers...))
	}
	edit := func(f func(d []byte)) []byte {
		d := slices.Clone(data)
		f(d)
		return d
	}
	foot := len(data) - xzHeaderSize
	if got := withIndex(data, b, indexOf(3, all...)); !bytes.Equal(got, data) {
		t.Fatal("the right index is made wrong")
	}
	short := slices.Concat(all[:2], []int64{b[1].stored() + b[2].unpadded, b[1].size + b[2].size})
	files := map[string][]byte{
		"two blocks as one":              withIndex(data, b, indexOf(2, short...)),
		"a block less":                   withIndex(data, b, indexOf(2, all[:4]...)),
		"a block more":                   withIndex(data, b, indexOf(4, append(slices.Clone(all), 8, 0)...)),
		"a count that is too small":      withIndex(data, b, indexOf(2, all...)),
		"a count that is too large":      withIndex(data, b, indexOf(4, all...)),
		"a count of 16 million":          withIndex(data, b, indexOf(16<<20, all...)),
		"the largest count":              withIndex(data, b, indexOf(math.MaxInt64, all...)),
		"no numbers":                     withIndex(data, b, indexOf(3)),
		"a number of ten bytes":          withIndex(data, b, []byte("\x00\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")),
		"a number with a needless byte":  withIndex(data, b, append([]byte{0, 0x83, 0}, indexOf(3, all...)[2:]...)),
		"a block of four bytes":          with(0, 4),
		"a block of no bytes":            with(0, 0),
		"a block that is longer":         with(0, all[0]+4),
		"a block that is shorter":        with(2, all[2]-4),
		"a block with other padding":     with(0, all[0]^1),
		"a block beyond the end":         with(4, int64(len(data))),
		"the longest block":              with(0, math.MaxInt64),
		"content that is longer":         with(1, all[1]+1),
		"content that is shorter":        with(1, all[1]-1),
		"content of the largest size":    with(1, math.MaxInt64),
		"sizes that overflow":            withIndex(data, b, indexOf(3, all[0], math.MaxInt64, all[2], math.MaxInt64, all[4], 102)),
		"padding that is not zero":       withIndex(data, b, append(indexOf(3, all...), 1)),
		"padding of four bytes too much": withIndex(data, b, append(indexOf(3, all...), 0, 0, 0, 0)),
		"another indicator":              withIndex(data, b, append([]byte{1}, indexOf(3, all...)[1:]...)),
		"another sum":                    edit(func(d []byte) { d[foot-1] ^= 1 }),
		"another end":                    edit(func(d []byte) { d[len(d)-1] ^= 1 }),
		"flags of another kind":          edit(func(d []byte) { d[foot+9] ^= 1; fixFoot(d) }),
		"a size of the index to the top": edit(func(d []byte) { binary.LittleEndian.PutUint32(d[foot+4:], uint32(len(d)/4)); fixFoot(d) }),
		"the largest size of an index":   edit(func(d []byte) { binary.LittleEndian.PutUint32(d[foot+4:], math.MaxUint32); fixFoot(d) }),
		"an index of no size":            edit(func(d []byte) { binary.LittleEndian.PutUint32(d[foot+4:], 0); fixFoot(d) }),
		"no blocks":                      slices.Concat(data[:xzHeaderSize], data[foot:]),
		"header and footer as one":       data[:xzHeaderSize],
	}
	for name, bad := range files {
		t.Run(name, func(t *testing.T) {
			if _, err := allWays(t, bad); err == nil {
				t.Error("no error")
			}
			if got, err := xzProgram.read(t, bad); err == nil {
				t.Errorf("the program reads %d bytes: the test is wrong", len(got))
			}
		})
	}
}

// fixFoot makes the sum of the footer right.
func fixFoot(data []byte) {
	foot := data[len(data)-xzHeaderSize:]
	binary.LittleEndian.PutUint32(foot, crc32.ChecksumIEEE(foot[4:10]))
}

func TestXzDictionary(t *testing.T) {
	for _, test := range []struct {
		name string
		head string
		want int64 // 0: refused
	}{
		{"8 MiB", "\x02\x00\x21\x01\x16\x00\x00\x00....", 8 << 20},
		{"12 MiB", "\x02\x00\x21\x01\x17\x00\x00\x00....", 12 << 20},
		{"4 KiB", "\x02\x00\x21\x01\x00\x00\x00\x00....", 4 << 10},
		{"4 GiB", "\x02\x00\x21\x01\x28\x00\x00\x00....", 1<<32 - 1},
		{"with both sizes", "\x03\xc0\x81\x01\x82\x01\x21\x01\x16\x00\x00\x00....", 8 << 20},
		{"with a size of nine bytes", "\x04\x40\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x21\x01\x16\x00\x00....", 8 << 20},
		{"too large for the format", "\x02\x00\x21\x01\x29\x00\x00\x00....", 0},
		{"two filters", "\x02\x01\x03\x01\x00\x21\x01\x16....", 0},
		{"a reserved flag", "\x02\x04\x21\x01\x16\x00\x00\x00....", 0},
		{"another filter", "\x02\x00\x04\x01\x16\x00\x00\x00....", 0},
		{"two bytes of properties", "\x02\x00\x21\x02\x16\x00\x00\x00....", 0},
		{"a size that does not end", "\x02\x40\xff\xff\xff\xff\xff\xff....", 0},
		{"a size of ten bytes", "\x04\x40\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x21\x01\x16\x00....", 0},
		{"no place for the filter", "\x01\x80\x01\x21....", 0},
		{"the end", "", 0},
		{"an index", "\x00\x01\x02\x03", 0},
		{"a header that is cut", "\x02\x00\x21\x01\x16\x00\x00\x00...", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := xzDictionary([]byte(test.head))
			if got != test.want || (err == nil) != (test.want != 0) {
				t.Errorf("%d, %v, want %d", got, err, test.want)
			}
		})
	}
}
