package dpkg

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
)

// A record is what dpkg's status file says of a package.
type record struct {
	name, version, arch string
	same                bool   // Multi-Arch: same, so that its info files name the architecture
	state               string // the third word of Status
	conffiles           []conffile
}

// A conffile is one that a package has, with the MD5 of the content that the package
// shipped, which is nil until the package is configured for the first time.
type conffile struct {
	path string // relative to the root
	md5  []byte
}

// unpacked reports whether the files of the package are where they belong. Of a
// package that is half-installed nobody knows.
func (r *record) unpacked() bool {
	switch r.state {
	case "installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending":
		return true
	}
	return false
}

// sameAs reports whether both tell of the same package.
func (r *record) sameAs(o *record) bool { return r.name == o.name && r.arch == o.arch }

// parseStatus reads a status file, or a part of one, as dpkg writes it. An error
// names the line.
func parseStatus(text []byte) ([]record, error) {
	var records []record
	r, begun, field := record{}, false, ""
	number := 0
	finish := func() error {
		if !begun {
			return nil
		}
		if err := r.check(); err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		records = append(records, r)
		r, begun, field = record{}, false, ""
		return nil
	}
	for len(text) > 0 {
		number++
		var line []byte
		line, text, _ = bytes.Cut(text, []byte{'\n'})
		switch {
		case len(bytes.TrimSpace(line)) == 0:
			if err := finish(); err != nil {
				return nil, err
			}
		case line[0] == ' ' || line[0] == '\t':
			if field != "conffiles" {
				continue
			}
			c, ok, err := parseConffile(string(line[1:]))
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", number, err)
			}
			if ok {
				r.conffiles = append(r.conffiles, c)
			}
		default:
			name, value, ok := bytes.Cut(line, []byte{':'})
			if !ok {
				return nil, fmt.Errorf("line %d is no field", number)
			}
			begun, field = true, strings.ToLower(string(name))
			r.set(field, strings.TrimSpace(string(value)))
		}
	}
	if err := finish(); err != nil {
		return nil, err
	}
	return records, nil
}

func (r *record) set(field, value string) {
	switch field {
	case "package":
		r.name = value
	case "version":
		r.version = value
	case "architecture":
		r.arch = value
	case "multi-arch":
		r.same = value == "same"
	case "status":
		if words := strings.Fields(value); len(words) == 3 {
			r.state = words[2]
		}
	}
}

// check refuses names that would lead out of the info database.
func (r *record) check() error {
	if !plainName(r.name) {
		return fmt.Errorf("a package cannot be called %.200q", r.name)
	}
	if r.arch != "" && !plainName(r.arch) {
		return fmt.Errorf("package %s: an architecture cannot be called %.200q", r.name, r.arch)
	}
	return nil
}

func plainName(s string) bool {
	return s != "" && s[0] != '.' && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == '/' || c == ':' || c >= 0x7f })
}

// parseConffile reads a line of the field Conffiles: the name, the digest, and marks
// behind it. A conffile that the package no longer has is not ok.
func parseConffile(line string) (c conffile, ok bool, err error) {
	rest, digest := cutLastWord(line)
	for digest == "obsolete" || digest == "remove-on-upgrade" {
		// It is not the package's any more, or was never shipped.
		rest, digest = cutLastWord(rest)
		ok = true
	}
	gone := ok
	name := relative(rest)
	if name == "" {
		return c, false, fmt.Errorf("no conffile is called %.200q", rest)
	}
	c.path = name
	if sum, err := hex.DecodeString(digest); err == nil && len(sum) == 16 {
		c.md5 = sum
	} else if digest != "newconffile" {
		return c, false, fmt.Errorf("conffile %.200q has the digest %.200q", name, digest)
	}
	return c, !gone, nil
}

// cutLastWord returns line without its last word, and that word.
func cutLastWord(line string) (before, word string) {
	line = strings.TrimRight(line, " ")
	i := strings.LastIndexByte(line, ' ')
	if i < 0 {
		return "", line
	}
	return strings.TrimRight(line[:i], " "), line[i+1:]
}
