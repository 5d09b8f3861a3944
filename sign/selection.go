package sign

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Limits of a selection. A package's own is data from outside, and every file is
// matched against every glob.
const (
	maxRules = 256
	maxGlob  = 1024 // bytes
)

// SelectAll and SelectExec are the named rules of a [Selection].
const (
	SelectAll  = "all"
	SelectExec = "exec"
)

// A Selection says which payload files have to be signed. Control files always
// have to. The zero value selects everything.
type Selection struct {
	// Select holds rules of which one has to match: SelectAll, SelectExec, or a
	// glob over the installed absolute path. No rule means SelectAll.
	Select []string
	// Exclude holds globs of which none may match.
	Exclude []string
}

// NewSelection checks the rules and returns them sorted and without repetition,
// so that equal selections are recorded in equal bytes.
//
// A glob is an absolute path in which `*`, `?` and `[…]` stand for characters
// other than a slash, as in [path.Match], and a component `**` for any number of
// folders. There may be 256 rules and 256 exclusions, of 1024 bytes each.
func NewSelection(selects, excludes []string) (Selection, error) {
	if len(selects) > maxRules || len(excludes) > maxRules {
		return Selection{}, fmt.Errorf("%d rules and %d exclusions are more than %d", len(selects), len(excludes), maxRules)
	}
	s := Selection{Select: canonical(selects), Exclude: canonical(excludes)}
	if len(s.Select) == 0 {
		s.Select = []string{SelectAll}
	}
	for _, rule := range s.Select {
		if rule == SelectAll || rule == SelectExec {
			continue
		}
		if err := checkGlob(rule); err != nil {
			return Selection{}, fmt.Errorf("selection %q: %w", rule, err)
		}
	}
	for _, glob := range s.Exclude {
		if err := checkGlob(glob); err != nil {
			return Selection{}, fmt.Errorf("exclusion %q: %w", glob, err)
		}
	}
	return s, nil
}

func canonical(rules []string) []string {
	sorted := slices.Clone(rules)
	slices.Sort(sorted)
	return slices.Compact(sorted)
}

func checkGlob(glob string) error {
	if !strings.HasPrefix(glob, "/") {
		return fmt.Errorf("not all, exec or an absolute path such as /usr/bin/**")
	}
	if len(glob) > maxGlob {
		return fmt.Errorf("longer than %d bytes", maxGlob)
	}
	if !canBeStated(glob) {
		return fmt.Errorf("control characters, and spaces at the end, are not allowed")
	}
	for part := range strings.SplitSeq(glob[1:], "/") {
		switch part {
		case "", ".", "..":
			return fmt.Errorf("a component %q matches no file", part)
		}
		if _, err := path.Match(part, ""); err != nil {
			return err
		}
	}
	return nil
}

// Match reports whether f has to be signed. head holds the first bytes of its
// content; nil where the content is not read and f.Class counts instead.
func (s Selection) Match(f *File, head []byte) bool {
	if f.Control {
		return true
	}
	name := "/" + f.Path
	for _, glob := range s.Exclude {
		if matchGlob(glob, name) {
			return false
		}
	}
	if len(s.Select) == 0 {
		return true
	}
	for _, rule := range s.Select {
		switch rule {
		case SelectAll:
			return true
		case SelectExec:
			if executable(f, head) {
				return true
			}
		default:
			if matchGlob(rule, name) {
				return true
			}
		}
	}
	return false
}

// Equal reports whether both selections have the same rules.
func (s Selection) Equal(t Selection) bool {
	return slices.Equal(s.rules(), t.rules()) && slices.Equal(s.Exclude, t.Exclude)
}

func (s Selection) rules() []string {
	if len(s.Select) == 0 {
		return []string{SelectAll}
	}
	return s.Select
}

// executable reports whether f is what policies for executables appraise. Shared
// libraries carry no x bit in Debian, hence the look at the content; kernel
// modules may be compressed, hence the look at the name.
func executable(f *File, head []byte) bool {
	if f.Mode&0o111 != 0 {
		return true
	}
	if f.Content == nil && head == nil {
		if f.Class != ClassOther {
			return true
		}
	} else if bytes.HasPrefix(head, []byte("\x7fELF")) || bytes.HasPrefix(head, []byte("#!")) {
		return true
	}
	base := path.Base(f.Path)
	for _, suffix := range []string{".ko", ".ko.gz", ".ko.xz", ".ko.zst"} {
		if strings.HasSuffix(base, suffix) {
			return true
		}
	}
	return false
}

// matchGlob matches component by component; "**" takes any number of them.
func matchGlob(glob, name string) bool {
	return matchParts(strings.Split(glob, "/"), strings.Split(name, "/"))
}

// matchParts goes back to the last "**" only: what the ones before it took can
// stay, as the last one takes anything. So it makes no more than
// len(glob)*len(name) comparisons.
func matchParts(glob, name []string) bool {
	rest, taken := -1, 0 // of glob behind the last "**"; of name when it was met
	for g, n := 0, 0; ; {
		switch {
		case g < len(glob) && glob[g] == "**":
			g++
			rest, taken = g, n
		case g == len(glob) && n == len(name):
			return true
		case g < len(glob) && n < len(name) && matchPart(glob[g], name[n]):
			g++
			n++
		case rest >= 0 && taken < len(name):
			taken++
			g, n = rest, taken
		default:
			return false
		}
	}
}

func matchPart(glob, name string) bool {
	ok, err := path.Match(glob, name)
	return ok && err == nil
}
