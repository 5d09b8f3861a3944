package compression

import (
	"bytes"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestLimitStopsBombs(t *testing.T) {
	const size, limit = 16 << 20, 1 << 20
	zeros := make([]byte, size)
	for _, p := range append(slices.Clone(programs), noProgram) {
		t.Run(string(p.format), func(t *testing.T) {
			r, err := NewReader(bytes.NewReader(p.with(t, zeros)), p.format)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			got, err := io.ReadAll(Limit(r, limit, "the bomb"))
			if err == nil || err.Error() != "the bomb has more than 1048576 bytes decompressed: refused as a decompression bomb" {
				t.Errorf("error %v", err)
			}
			if len(got) != limit {
				t.Errorf("%d bytes were read, want %d", len(got), limit)
			}
		})
	}
}

func TestLimit(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		name  string
		r     io.Reader
		limit int64
		want  string // what is read
		err   string // "" for the end
	}{
		{"takes fewer", strings.NewReader("abc"), 4, "abc", ""},
		{"takes as many", strings.NewReader("abc"), 3, "abc", ""},
		{"refuses one more", strings.NewReader("abcd"), 3, "abc", "x has more than 3 bytes"},
		{"refuses many more", strings.NewReader(strings.Repeat("abc", 1000)), 3, "abc", "x has more than 3 bytes"},
		{"takes nothing of nothing", strings.NewReader(""), 0, "", ""},
		{"refuses something for nothing", strings.NewReader("a"), 0, "", "x has more than 0 bytes"},
		{"refuses all below nothing", strings.NewReader("abc"), -5, "", "x has more than -5 bytes"},
		{"takes all up to the largest number", strings.NewReader("abc"), math.MaxInt64, "abc", ""},
		{"passes errors on", io.MultiReader(strings.NewReader("ab"), iotest.ErrReader(broken)), 3, "ab", "broken"},
		{"passes an error at the limit on", io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken)), 3, "abc", "broken"},
		{"refuses one byte more with an error", iotest.DataErrReader(strings.NewReader("abcd")), 3, "abc", "x has more than 3 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := Limit(test.r, test.limit, "x")
			got, err := io.ReadAll(r)
			if string(got) != test.want {
				t.Errorf("read %q, want %q", got, test.want)
			}
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if n, again := r.Read(make([]byte, 1)); n != 0 || again == nil {
				t.Errorf("reads on: %d bytes, error %v", n, again)
			}
		})
	}
}
