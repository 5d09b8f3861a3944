package compression

import "testing"

func TestDetect(t *testing.T) {
	const unknown = "\xff\xff\xff\xff\xff\xff\xff\xff"
	for _, test := range []struct {
		name, head string
		want       Format
	}{
		{"nothing", "", None},
		{"a tar archive", "./\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", None},
		{"a cpio archive", "0707010000000", None},
		{"one byte of gzip", "\x1f", None},
		{"the old compress", "\x1f\x9d\x90", None},
		{"gzip", "\x1f\x8b", Gzip},
		{"five bytes of xz", "\xfd7zXZ", None},
		{"xz", "\xfd7zXZ\x00", Xz},
		{"zstd", "\x28\xb5\x2f\xfd", Zstd},
		{"bzip2", "BZh9", Bzip2},
		{"lzma of unknown size", "\x5d\x00\x00\x80\x00" + unknown, Lzma},
		{"lzma of known size", "\x5d\x00\x00\x80\x00\x01\x00\x00\x00\x00\x00\x00\x00", Lzma},
		{"lzma with a dictionary of 2^n+2^(n-1)", "\x5d\x00\x00\xc0\x00" + unknown, Lzma},
		{"lzma with a dictionary of 4 GiB", "\x5d\xff\xff\xff\xff" + unknown, Lzma},
		{"lzma that is cut", "\x5d\x00\x00\x80\x00" + unknown[:7], None},
		{"lzma with another size of dictionary", "\x5d\x00\x00\xa0\x00" + unknown, None},
		{"lzma without a dictionary", "\x5d\x00\x00\x00\x00" + unknown, None},
		{"lzma with a dictionary of 2 KiB", "\x5d\x00\x08\x00\x00" + unknown, None},
		{"lzma of 256 GiB", "\x5d\x00\x00\x80\x00\x00\x00\x00\x00\x40\x00\x00\x00", None},
		{"text that begins with a bracket", "]]]]]]]]]]]]]", None},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Detect([]byte(test.head)); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}
