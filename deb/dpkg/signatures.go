package dpkg

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/imaseal/imaseal/deb/dpkgtar"
	"github.com/imaseal/imaseal/sign"
)

// ourMembers are those of imaseal's control members that dpkg installs.
var ourMembers = []string{dpkgtar.StatementName, dpkgtar.PayloadSignatures, dpkgtar.ControlSignatures}

// signatures are what the info database holds of a signed package.
type signatures struct {
	database *Database
	record   *record

	statement *sign.Statement
	entries   []sign.Entry
	payload   map[string][]byte // the same by path
	control   map[string][]byte
	conffiles map[string]bool              // that the package brought; nil of an unsigned one
	digests   map[string][sha256.Size]byte // of the members that were read here
}

// read reads the signatures, and reports whether there are any. The error says why
// they can't be used; then none of them is.
func (s *signatures) read() (signed bool, err error) {
	text := map[string][]byte{}
	for _, member := range ourMembers {
		content, err := s.database.readMember(s.record, member, dpkgtar.MaxControl)
		if err != nil {
			return true, err
		}
		if content != nil {
			text[member] = content
		}
	}
	if len(text) == 0 {
		return false, nil
	}
	if err := s.parse(text); err != nil {
		s.entries, s.payload, s.control, s.conffiles = nil, nil, nil, nil
		return true, err
	}
	return true, nil
}

func (s *signatures) parse(text map[string][]byte) error {
	for _, member := range ourMembers {
		if _, ok := text[member]; !ok {
			return fmt.Errorf("the info database has no %s of it, though it has others of imaseal's members", member)
		}
	}
	var err error
	if s.statement, err = sign.ParseStatement(text[dpkgtar.StatementName]); err != nil {
		return fmt.Errorf("%s: %w", dpkgtar.StatementName, err)
	}
	st, r := s.statement, s.record
	if st.Package != r.name || st.Version != r.version || st.Arch != r.arch {
		return fmt.Errorf("%s is of %s %s %s", dpkgtar.StatementName, st.Package, st.Version, st.Arch)
	}
	if s.entries, err = sign.ParseAttributes(text[dpkgtar.PayloadSignatures]); err != nil {
		return fmt.Errorf("%s: %w", dpkgtar.PayloadSignatures, err)
	}
	scripts, err := sign.ParseAttributes(text[dpkgtar.ControlSignatures])
	if err != nil {
		return fmt.Errorf("%s: %w", dpkgtar.ControlSignatures, err)
	}
	s.payload, s.control = byPath(s.entries), byPath(scripts)
	conffiles, err := s.database.readMember(s.record, "conffiles", maxListSize)
	if err != nil {
		return err
	}
	if s.conffiles, err = readConffiles(bytes.NewReader(conffiles)); err != nil {
		return fmt.Errorf("conffiles: %w", err)
	}
	s.digests = map[string][sha256.Size]byte{}
	for _, member := range []string{dpkgtar.PayloadSignatures, dpkgtar.ControlSignatures} {
		s.digests[member] = sha256.Sum256(text[member])
	}
	return nil
}

func byPath(entries []sign.Entry) map[string][]byte {
	values := make(map[string][]byte, len(entries))
	for _, e := range entries {
		values[e.Path] = e.Value
	}
	return values
}

// verify reports whether a trusted key made the statement, and whether the info
// database is what it states.
func (s *signatures) verify(keys *sign.TrustedKeys) error {
	if err := s.statement.Verify(keys); err != nil {
		return err
	}
	return s.compareAll([]string{dpkgtar.StatementName})
}

// compareAll compares the info database with the statement, but for the members that
// are left out. Two are not installed and so not compared: control, and data.tar,
// which is no file.
func (s *signatures) compareAll(leftOut []string) error {
	stated := map[string]bool{"list": true}
	for _, name := range leftOut {
		stated[name] = true
	}
	for _, m := range s.statement.Members {
		known := stated[m.Name]
		stated[m.Name] = true
		// dpkg installs no member with a dot in its name.
		if known || m.Name == "control" || strings.Contains(m.Name, ".") {
			continue
		}
		if err := s.compare(m); err != nil {
			return err
		}
	}
	for _, name := range []string{dpkgtar.PayloadSignatures, dpkgtar.ControlSignatures} {
		if !stated[name] {
			return fmt.Errorf("%w: the statement does not name %s", errEdited, name)
		}
	}
	for _, name := range s.database.info[s.database.infoName(s.record)] {
		// dpkg makes md5sums itself for a package that brings none.
		if !stated[name] && s.control[name] == nil && !isScript(name) && name != "md5sums" {
			return fmt.Errorf("%w: %s was not in the package", errEdited, s.database.root.Name(s.database.member(s.record, name)))
		}
	}
	return nil
}

// errEdited says that the info database is not what the package brought.
var errEdited = errors.New("the info database was changed")

func (s *signatures) compare(m sign.MemberDigest) error {
	found, ok := s.digests[m.Name]
	if !ok {
		content, err := s.database.readMember(s.record, m.Name, dpkgtar.MaxControl)
		if err != nil {
			return err
		}
		if content == nil {
			return fmt.Errorf("%w: %s is missing", errEdited, s.database.root.Name(s.database.member(s.record, m.Name)))
		}
		found = sha256.Sum256(content)
	}
	if found != m.SHA256 {
		return fmt.Errorf("%w: %s has the SHA-256 %x, the statement says %x", errEdited, s.database.root.Name(s.database.member(s.record, m.Name)), found, m.SHA256)
	}
	return nil
}

// isScript reports whether dpkg or debconf executes members of that name, whatever
// their mode is.
func isScript(name string) bool { return dpkgtar.Executed(name, 0, nil) }
