package dpkg

import (
	"strings"
	"unicode/utf8"
)

// fnmatch is fnmatch(3) without flags, as dpkg calls it: "*", "?" and brackets match a
// slash and a leading dot, too. A character is one of UTF-8, a byte where it is none.
func fnmatch(pattern, name string) bool {
	// The last star takes more and more; those before it need not be tried again.
	star, rest := -1, ""
	for p := pattern; ; {
		if p == "" && name == "" {
			return true
		}
		matched := false
		if p != "" && p[0] == '*' {
			p = p[1:]
			star, rest = len(pattern)-len(p), name
			continue
		}
		if p != "" && name != "" {
			_, size := utf8.DecodeRuneInString(name)
			var n int
			if n, matched = matchOne(p, name[:size]); matched {
				p, name = p[n:], name[size:]
			}
		}
		if matched {
			continue
		}
		if star < 0 || rest == "" {
			return false
		}
		_, size := utf8.DecodeRuneInString(rest)
		rest = rest[size:]
		p, name = pattern[star:], rest
	}
}

// matchOne matches the first element of a pattern against one character and returns how
// long the element is.
func matchOne(p, c string) (n int, ok bool) {
	switch p[0] {
	case '?':
		return 1, true
	case '[':
		if n, ok, closed := matchBracket(p, c); closed {
			return n, ok
		}
	case '\\':
		if len(p) > 1 {
			_, size := utf8.DecodeRuneInString(p[1:])
			return 1 + size, p[1:1+size] == c
		}
		return 1, false
	}
	_, size := utf8.DecodeRuneInString(p)
	return size, p[:size] == c
}

// matchBracket matches a bracket expression; closed is false when there is no end to it,
// and the bracket stands for itself.
func matchBracket(p, c string) (n int, ok, closed bool) {
	want, _ := utf8.DecodeRuneInString(c)
	i := 1
	negated := i < len(p) && (p[i] == '!' || p[i] == '^')
	if negated {
		i++
	}
	for first := true; i < len(p); first = false {
		if p[i] == ']' && !first {
			return i + 1, ok != negated, true
		}
		if name, isClass := strings.CutPrefix(p[i:], "[:"); isClass {
			if name, _, isClass = strings.Cut(name, ":]"); isClass {
				ok = ok || inClass(name, want)
				i += len(name) + 4
				continue
			}
		}
		var low, high rune
		if low, i = bracketRune(p, i); i >= len(p) {
			break
		}
		high = low
		if p[i] == '-' && i+1 < len(p) && p[i+1] != ']' {
			high, i = bracketRune(p, i+1)
		}
		ok = ok || low <= want && want <= high
	}
	return 0, false, false
}

func bracketRune(p string, i int) (rune, int) {
	if p[i] == '\\' && i+1 < len(p) {
		i++
	}
	r, size := utf8.DecodeRuneInString(p[i:])
	return r, i + size
}

// inClass knows the character classes of POSIX, of ASCII characters.
func inClass(name string, r rune) bool {
	lower, upper, digit := r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9'
	printed := r > ' ' && r < 0x7f
	switch name {
	case "alpha":
		return lower || upper
	case "digit":
		return digit
	case "alnum":
		return lower || upper || digit
	case "lower":
		return lower
	case "upper":
		return upper
	case "space":
		return r == ' ' || r >= '\t' && r <= '\r'
	case "blank":
		return r == ' ' || r == '\t'
	case "punct":
		return printed && !(lower || upper || digit)
	case "graph":
		return printed
	case "print":
		return printed || r == ' '
	case "cntrl":
		return r < ' ' || r == 0x7f
	case "xdigit":
		return digit || r >= 'a' && r <= 'f' || r >= 'A' && r <= 'F'
	}
	return false
}
