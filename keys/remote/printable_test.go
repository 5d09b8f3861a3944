package remote

import (
	"strings"
	"testing"
)

// FuzzPrintable checks that no text reaches a terminal as more than a text.
func FuzzPrintable(f *testing.F) {
	f.Add("plain", 10)
	f.Add("\x1b[2J\xff\u202e", 3)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = min(max(limit, 0), 10000)
		got := Printable(text, limit)
		if len(got) > limit+20 {
			t.Errorf("%d bytes, more than %d", len(got), limit)
		}
		for _, r := range got {
			if r < ' ' || r == 0x7f || r == '\u202e' || r == '\ufffd' && !strings.Contains(text, "\ufffd") {
				t.Errorf("%q holds %q", got, r)
			}
		}
	})
}
