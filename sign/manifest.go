package sign

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// A Manifest says which file carries which file signature.
type Manifest struct {
	// Files are the payload's signatures by path, sorted bytewise, each path once.
	// A hard link has an entry of its own, equal to that of the file it links to.
	Files []Entry
	// Control are those of the control files that the package manager executes,
	// sorted by name. Always empty in an RPM, which has no such files.
	Control []Entry
	// Statement binds the signatures to the package. Nil in a format that has none
	// and in a package that lacks it.
	Statement *Statement
}

// An Entry is one file's signature.
type Entry struct {
	// Path is a [File.Path].
	Path string
	// Value is the value of security.ima as the package carries it, well formed
	// or not.
	Value []byte
}

// Sort brings the entries into the order that a manifest has.
func (m *Manifest) Sort() {
	for _, entries := range [][]Entry{m.Files, m.Control} {
		slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	}
}

// The text form of a list of entries is that of getfattr --dump --encoding=base64
// (attr 2.5, tools/getfattr.c), so that stock setfattr --restore reads it:
//
//	# file: usr/bin/hello
//	security.ima=0sAwIEyh39PABH...
//	(an empty line)
//
// In names a newline, a carriage return and a backslash are written as a
// backslash and three octal digits; every other byte stands for itself.
const (
	attributesFile  = "# file: "
	attributesValue = XattrName + "=0s"
)

// FormatAttributes returns the text form of entries, in their order.
func FormatAttributes(entries []Entry) []byte {
	size := 0
	for _, e := range entries {
		size += len(attributesFile) + len(e.Path) + len(attributesValue) + base64.StdEncoding.EncodedLen(len(e.Value)) + 4
	}
	b := make([]byte, 0, size)
	for _, e := range entries {
		b = append(b, attributesFile...)
		b = AppendQuoted(b, e.Path)
		b = append(b, '\n')
		b = append(b, attributesValue...)
		b = base64.StdEncoding.AppendEncode(b, e.Value)
		b = append(b, '\n', '\n')
	}
	return b
}

// ParseAttributes reads the text form. It takes exactly what [FormatAttributes]
// writes for entries sorted by path, each path once; an error names the line.
// The paths must be clean and relative, without a component "..".
func ParseAttributes(text []byte) ([]Entry, error) {
	entries := make([]Entry, 0, min(bytes.Count(text, []byte(attributesFile)), 1<<16))
	line := 0
	next := func() ([]byte, error) {
		line++
		end := bytes.IndexByte(text, '\n')
		if end < 0 {
			return nil, fmt.Errorf("line %d does not end in a newline", line)
		}
		l := text[:end]
		text = text[end+1:]
		return l, nil
	}
	for len(text) > 0 {
		name, err := next()
		if err != nil {
			return nil, err
		}
		quoted, ok := bytes.CutPrefix(name, []byte(attributesFile))
		if !ok {
			return nil, fmt.Errorf("line %d does not begin with %q", line, attributesFile)
		}
		path, err := Unquote(quoted)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if err := CheckPath(path); err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if len(entries) > 0 && entries[len(entries)-1].Path >= path {
			return nil, fmt.Errorf("line %d: %q stands after %q: names must be sorted, each once", line, path, entries[len(entries)-1].Path)
		}
		attr, err := next()
		if err != nil {
			return nil, err
		}
		encoded, ok := bytes.CutPrefix(attr, []byte(attributesValue))
		if !ok {
			return nil, fmt.Errorf("line %d does not begin with %q", line, attributesValue)
		}
		value, err := base64.StdEncoding.Strict().AppendDecode(nil, encoded)
		if err != nil || bytes.IndexByte(encoded, '\r') >= 0 {
			return nil, fmt.Errorf("line %d: the value is not base64", line)
		}
		blank, err := next()
		if err != nil {
			return nil, err
		}
		if len(blank) > 0 {
			return nil, fmt.Errorf("line %d is not empty", line)
		}
		entries = append(entries, Entry{Path: path, Value: value})
	}
	return entries, nil
}

// CheckPath reports whether path is one that a [File] may have: relative to the
// root, clean, without a component "..", without NUL.
func CheckPath(path string) error {
	if path == "" || strings.HasPrefix(path, "/") {
		return fmt.Errorf("path %q is not relative to the root", path)
	}
	if strings.IndexByte(path, 0) >= 0 {
		return fmt.Errorf("path %q contains a NUL byte", path)
	}
	for part := range strings.SplitSeq(path, "/") {
		switch part {
		case "", ".", "..":
			return fmt.Errorf("path %q has a component %q", path, part)
		}
	}
	return nil
}

func needsQuoting(c byte) bool { return c == '\n' || c == '\r' || c == '\\' }

// AppendQuoted appends path as the text form has it: in one line.
func AppendQuoted(b []byte, name string) []byte {
	for i := range len(name) {
		if c := name[i]; needsQuoting(c) {
			b = append(b, '\\', '0'+c>>6, '0'+c>>3&7, '0'+c&7)
		} else {
			b = append(b, c)
		}
	}
	return b
}

// Unquote undoes [AppendQuoted] and refuses any other way to write a path, so that
// each has one form.
func Unquote(quoted []byte) (string, error) {
	if bytes.IndexByte(quoted, '\r') >= 0 {
		return "", fmt.Errorf("%q has a carriage return", quoted)
	}
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted), nil
	}
	var name []byte
	for i := 0; i < len(quoted); i++ {
		if quoted[i] != '\\' {
			name = append(name, quoted[i])
			continue
		}
		if len(quoted)-i < 4 {
			return "", fmt.Errorf("%q ends within an escape", quoted)
		}
		var c int
		for _, digit := range quoted[i+1 : i+4] {
			if digit < '0' || digit > '7' {
				return "", fmt.Errorf("%q has an escape that is not octal", quoted)
			}
			c = c<<3 | int(digit-'0')
		}
		if c > 255 || !needsQuoting(byte(c)) {
			return "", fmt.Errorf("%q escapes what needs no escape", quoted)
		}
		name = append(name, byte(c))
		i += 3
	}
	return string(name), nil
}
