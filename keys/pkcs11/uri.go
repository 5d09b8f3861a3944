package pkcs11

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxURI bounds the length of a URI in bytes. Those of real objects have a few
// hundred.
const maxURI = 8192

// A URI names a token or an object on one, RFC 7512. What it leaves out may be
// anything. It never holds a PIN.
type URI struct {
	// Token, Manufacturer, Model and Serial are those of the token.
	Token, Manufacturer, Model, Serial string
	// SlotID is the number of the slot, nil if any will do. Many modules give another
	// one at every start.
	SlotID                            *uint
	SlotDescription, SlotManufacturer string
	// LibraryDescription, LibraryManufacturer and LibraryVersion are those of the
	// module, the last as "2" or "2.6".
	LibraryDescription, LibraryManufacturer, LibraryVersion string
	// Object is the object's label, CKA_LABEL; ID its CKA_ID, nil if any will do.
	Object string
	ID     []byte
	// Type is the class of the object: "private", "public" or "cert", "" for the one
	// that is looked for.
	Type string

	// PINSource is the path of a file whose first line is the PIN, "" if none.
	PINSource string
	// ModulePath is the absolute path of the module or of the folder that holds it,
	// ModuleName its name without "lib" and ".so".
	ModulePath, ModuleName string
}

// errPINValue does not repeat the URI, as that holds the PIN.
var errPINValue = errors.New("pkcs11: pin-value puts the PIN where every user of the machine and every log can see it, so it is refused: use pin-source=FILE, --passphrase-file, --passphrase-fd or the prompt, and change the PIN if others may have seen it")

// A uriError says where a URI is wrong.
type uriError struct{ attribute, reason string }

func (e *uriError) Error() string {
	return fmt.Sprintf("pkcs11 URI: attribute %s: %s", e.attribute, e.reason)
}

// ParseURI reads a URI, with or without "pkcs11:" in front. Attributes that it does
// not know are errors: passing over one that is misspelt would name more objects than
// were meant. No error repeats a value that could be a PIN.
func ParseURI(text string) (*URI, error) {
	if len(text) > maxURI {
		return nil, fmt.Errorf("pkcs11 URI: %d bytes are more than the %d that one may have", len(text), maxURI)
	}
	text = strings.TrimPrefix(text, "pkcs11:")
	path, query, _ := strings.Cut(text, "?")
	u := new(URI)
	seen := map[string]bool{}
	// The query first: an error about the path must not come before that about a PIN.
	for _, part := range []struct {
		text, separator string
		set             func(name, value string) error
	}{{query, "&", u.setQuery}, {path, ";", u.setPath}} {
		if part.text == "" {
			continue
		}
		for attribute := range strings.SplitSeq(part.text, part.separator) {
			name, value, err := splitAttribute(attribute)
			if err != nil {
				return nil, err
			}
			if seen[name] {
				return nil, &uriError{name, "it is given twice"}
			}
			seen[name] = true
			if err := part.set(name, value); err != nil {
				return nil, err
			}
		}
	}
	if u.ModuleName != "" && u.ModulePath != "" && filepath.Ext(u.ModulePath) == ".so" {
		return nil, &uriError{"module-name", "module-path names the library already: leave one of them out"}
	}
	return u, nil
}

// splitAttribute takes name=value apart and decodes the value.
func splitAttribute(attribute string) (name, value string, err error) {
	name, raw, ok := strings.Cut(attribute, "=")
	if name == "pin-value" {
		return "", "", errPINValue
	}
	if !isName(name) {
		// It is not repeated: it may be what follows an unescaped ; or & in a PIN.
		return "", "", errors.New("pkcs11 URI: between its separators ; ? and & there must be attributes NAME=VALUE; write %3B, %3F and %26 for those within a value")
	}
	if !ok {
		return "", "", &uriError{name, "it has no value: write " + name + "=VALUE"}
	}
	if value, err = url.PathUnescape(raw); err != nil {
		return "", "", &uriError{name, "a % must be followed by two hexadecimal digits; write %25 for the sign itself"}
	}
	if value == "" {
		return "", "", &uriError{name, "its value is empty: leave it out"}
	}
	if name != "id" && strings.ContainsRune(value, 0) {
		return "", "", &uriError{name, "it holds a zero byte"}
	}
	return name, value, nil
}

func isName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
}

// pathTexts are the attributes of the path that are compared as they are.
func (u *URI) pathTexts() map[string]*string {
	return map[string]*string{
		"token": &u.Token, "manufacturer": &u.Manufacturer, "model": &u.Model, "serial": &u.Serial,
		"slot-description": &u.SlotDescription, "slot-manufacturer": &u.SlotManufacturer,
		"library-description": &u.LibraryDescription, "library-manufacturer": &u.LibraryManufacturer,
		"object": &u.Object,
	}
}

func (u *URI) setPath(name, value string) error {
	if text, ok := u.pathTexts()[name]; ok {
		*text = value
		return nil
	}
	switch name {
	case "id":
		u.ID = []byte(value)
	case "slot-id":
		id, err := strconv.ParseUint(value, 10, 0)
		if err != nil {
			return &uriError{name, "it must be a decimal number"}
		}
		slot := uint(id)
		u.SlotID = &slot
	case "library-version":
		major, minor, ok := strings.Cut(value, ".")
		if !isByte(major) || ok && !isByte(minor) {
			return &uriError{name, "it must be MAJOR or MAJOR.MINOR, of 0 to 255 each"}
		}
		u.LibraryVersion = value
	case "type":
		if !slices.Contains([]string{"private", "public", "cert"}, value) {
			return &uriError{name, "it must be private, public or cert"}
		}
		u.Type = value
	case "pin-source", "module-path", "module-name":
		return &uriError{name, "it belongs behind a question mark: pkcs11:token=…?" + name + "=…"}
	default:
		return &uriError{name, "it is none of RFC 7512 that is known here: token, manufacturer, model, serial, slot-id, slot-manufacturer, slot-description, library-manufacturer, library-description, library-version, object, id, type"}
	}
	return nil
}

func (u *URI) setQuery(name, value string) error {
	switch name {
	case "pin-source":
		path, err := pinSource(value)
		if err != nil {
			return err
		}
		u.PINSource = path
	case "module-path":
		if !filepath.IsAbs(value) {
			return &uriError{name, "it must be an absolute path"}
		}
		u.ModulePath = filepath.Clean(value)
	case "module-name":
		if strings.ContainsRune(value, '/') {
			return &uriError{name, "it must be a mere name such as softhsm2; module-path takes a path"}
		}
		u.ModuleName = value
	default:
		return &uriError{name, "behind the question mark there may be pin-source, module-path and module-name"}
	}
	return nil
}

// pinSource returns the path that a pin-source means: a path, or a file URI.
func pinSource(value string) (string, error) {
	if strings.HasPrefix(value, "|") {
		return "", &uriError{"pin-source", "programs are not run: name a file, or let the program write to --passphrase-fd"}
	}
	rest, ok := strings.CutPrefix(value, "file:")
	if !ok {
		if scheme, _, found := strings.Cut(value, ":"); found && isName(scheme) {
			return "", &uriError{"pin-source", "only a path or a file: URI can be read; for a file with a colon in its name write ./ in front"}
		}
		return value, nil
	}
	if after, found := strings.CutPrefix(rest, "//"); found {
		host, path, _ := strings.Cut(after, "/")
		if host != "" && host != "localhost" {
			return "", &uriError{"pin-source", "a file of another machine cannot be read: write file:/PATH"}
		}
		rest = "/" + path
	}
	if rest == "" || rest == "/" {
		return "", &uriError{"pin-source", "it names no file"}
	}
	return rest, nil
}

func isByte(s string) bool {
	_, err := strconv.ParseUint(s, 10, 8)
	return err == nil && s != "" && s[0] != '+'
}

// String returns the URI in the order of RFC 7512, as ParseURI reads it.
func (u *URI) String() string {
	var path, query []string
	add := func(to *[]string, name, value string) {
		if value != "" {
			*to = append(*to, name+"="+escape(value))
		}
	}
	add(&path, "library-manufacturer", u.LibraryManufacturer)
	add(&path, "library-description", u.LibraryDescription)
	add(&path, "library-version", u.LibraryVersion)
	add(&path, "slot-manufacturer", u.SlotManufacturer)
	add(&path, "slot-description", u.SlotDescription)
	if u.SlotID != nil {
		add(&path, "slot-id", strconv.FormatUint(uint64(*u.SlotID), 10))
	}
	add(&path, "model", u.Model)
	add(&path, "manufacturer", u.Manufacturer)
	add(&path, "serial", u.Serial)
	add(&path, "token", u.Token)
	if len(u.ID) > 0 {
		path = append(path, "id="+escapeID(u.ID))
	}
	add(&path, "object", u.Object)
	add(&path, "type", u.Type)
	add(&query, "pin-source", u.PINSource)
	add(&query, "module-name", u.ModuleName)
	add(&query, "module-path", u.ModulePath)
	text := "pkcs11:" + strings.Join(path, ";")
	if len(query) > 0 {
		text += "?" + strings.Join(query, "&")
	}
	return text
}

// escape escapes all but letters, digits and what is harmless in a shell's quotes too.
func escape(value string) string {
	var b strings.Builder
	for i := range len(value) {
		c := value[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_./", c) >= 0 || c == ':' && i > 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// escapeID escapes every byte, as that is how an id is told from its text.
func escapeID(id []byte) string {
	var b strings.Builder
	for _, c := range id {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}
