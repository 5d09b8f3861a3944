package dpkgtar

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/imaseal/imaseal/sign"
)

// The control members that imaseal adds. dpkg installs them into its info database,
// unlike those that begin with UnsignedPrefix, as they have a dot in the name.
// docs/format.md has the whole story.
const (
	ControlSignatures = sign.ControlSignatures
	StatementName     = "ima-package"
	PayloadSignatures = sign.PayloadSignatures
	UnsignedPrefix    = "unsigned."
)

// PayloadDigest is the name by which a package statement calls the decompressed
// data.tar.
const PayloadDigest = "data.tar"

const (
	// MaxControl bounds a decompressed control archive in bytes. It has room for the
	// RSA-4096 signatures of 60,000 files, which is what the largest package of
	// Debian has.
	MaxControl = 48 << 20
	// MaxControlMembers bounds how many members a control archive has.
	MaxControlMembers = 1024
	// MaxControlFile bounds the file control in bytes; the longest have some 100 KiB
	// of dependencies.
	MaxControlFile = 1 << 20
	// MaxControlName is MAXCONTROLFILENAME of dpkg.
	MaxControlName = 100
)

// Ours reports whether imaseal alone makes control members of that name.
func Ours(name string) bool {
	switch name {
	case ControlSignatures, StatementName, PayloadSignatures:
		return true
	}
	return strings.HasPrefix(name, UnsignedPrefix)
}

// Scripts are the maintainer scripts, which dpkg and debconf execute.
var Scripts = []string{"preinst", "postinst", "prerm", "postrm", "config"}

// Executed reports whether the control member has to be signed; head holds the first
// two bytes of its content at least.
func Executed(name string, mode int64, head []byte) bool {
	return !Ours(name) && (slices.Contains(Scripts, name) || mode&0o111 != 0 || bytes.HasPrefix(head, []byte("#!")))
}

// Fields reads the one stanza of the control file, deb-control(5). Names are in
// lower case; of folded values only the first line is kept, as nobody here wants
// the others.
func Fields(text []byte) (map[string]string, error) {
	fields := map[string]string{}
	last := ""
	for i, line := range strings.Split(strings.TrimRight(string(text), "\n"), "\n") {
		if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			if last == "" || slices.Contains(identity, last) {
				return nil, fmt.Errorf("control: line %d continues a field that has one line", i+1)
			}
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return nil, fmt.Errorf("control: line %d is no field: %.60q", i+1, line)
		}
		last = strings.ToLower(name)
		if _, twice := fields[last]; twice {
			return nil, fmt.Errorf("control: line %d: field %.60s stands there twice", i+1, name)
		}
		fields[last] = strings.Trim(value, " \t\r")
	}
	for _, name := range identity {
		if !isIdentity(fields[name]) {
			return nil, fmt.Errorf("control: field %s is %.60q", name, fields[name])
		}
	}
	return fields, nil
}

// identity are the fields that the package statement names.
var identity = []string{"package", "version", "architecture"}

// isIdentity takes the characters that dpkg takes in names, versions and
// architectures.
func isIdentity(value string) bool {
	alnum := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' }
	return value != "" && alnum(rune(value[0])) &&
		!strings.ContainsFunc(value, func(r rune) bool { return !alnum(r) && !strings.ContainsRune("+-.~:_", r) })
}
