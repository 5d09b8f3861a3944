package remote

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable returns text, which somebody else wrote, as one line that a terminal shows
// as it is: what is not printable is escaped, what is past limit bytes cut off.
func Printable(text string, limit int) string {
	var b strings.Builder
	for i, r := range text {
		if b.Len() >= limit {
			b.WriteString("…")
			break
		}
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case r == '\t':
			b.WriteByte(' ')
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
