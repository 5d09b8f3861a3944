package dpkg

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/deb/dpkgtar"
	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/xattr"
)

// A seal is what the control members of one package say about its signatures, as they
// lie in dpkg's tmp.ci while it unpacks the package.
type seal struct {
	name, version, arch string
	// shared says that instances for several architectures share files (Multi-Arch:
	// same).
	shared    bool
	conffiles map[string]bool // by path

	// statement is nil of a package without signatures; everything below belongs to
	// packages that have some.
	statement *sign.Statement
	files     []sign.Entry // sorted by path
	control   []sign.Entry // of the maintainer scripts
	data      [sha256.Size]byte
}

// errKept is what a package is refused for when its members are not what dpkg keeps.
var errKept = errors.New("control members must be plain files, each with one name")

// sealMembers are the control members of which each signed package has all.
var sealMembers = []string{dpkgtar.ControlSignatures, dpkgtar.StatementName, dpkgtar.PayloadSignatures}

// readSeal reads the control members in dir. Members that are not signed at all make a
// seal without a statement; members that contradict each other an error.
func readSeal(dir *xattr.Root) (*seal, error) {
	s := new(seal)
	errControl := s.readControl(dir)
	var missing []string
	for _, name := range sealMembers {
		f, err := dir.OpenAny(name)
		if errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, name)
			continue
		}
		if err != nil {
			return s, err
		}
		f.Close()
	}
	if len(missing) == len(sealMembers) {
		// How odd an unsigned package may be is for dpkg to say, but for this.
		return s, scriptsAreFiles(dir)
	}
	if errControl != nil {
		return s, errControl
	}
	if len(missing) > 0 {
		return s, fmt.Errorf("control member %s is missing: sign the package once more", missing[0])
	}
	names, err := memberNames(dir)
	if err != nil {
		return s, err
	}
	holds, err := s.readMembers(dir, names)
	if err != nil {
		return s, err
	}
	for _, m := range s.statement.Members {
		if m.Name == dpkgtar.PayloadDigest {
			s.data = m.SHA256
			holds.Members = append(holds.Members, m) // judged when the payload has gone by
			if diff := s.statement.Diff(holds); len(diff) > 0 {
				return s, errors.New(strings.Join(diff, "; "))
			}
			return s, nil
		}
	}
	return s, fmt.Errorf("control member %s does not state a digest of %s", dpkgtar.StatementName, dpkgtar.PayloadDigest)
}

// scriptsAreFiles returns an error when a maintainer script is a link. dpkg would run
// what it leads to: a program that is signed, perhaps, at the wish of a package that is
// not, and which the kernel could not refuse.
func scriptsAreFiles(dir *xattr.Root) error {
	for _, name := range dpkgtar.Scripts {
		f, err := dir.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("maintainer script %s: %w", name, err)
		}
		f.Close()
	}
	return nil
}

// memberNames lists the control members.
func memberNames(dir *xattr.Root) ([]string, error) {
	f, err := dir.OpenFolder(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(dpkgtar.MaxControlMembers + 1)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(names) > dpkgtar.MaxControlMembers {
		return nil, fmt.Errorf("more than %d control members", dpkgtar.MaxControlMembers)
	}
	slices.Sort(names)
	return names, nil
}

// openMember opens a control member, and what it holds for reading.
func openMember(dir *xattr.Root, name string) (*xattr.File, *os.File, error) {
	f, err := dir.Open(name)
	if err == nil && f.Stat().Nlink != 1 {
		f.Close()
		err = fmt.Errorf("it has %d names", f.Stat().Nlink)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("control member %s: %w (%w)", name, err, errKept)
	}
	r, err := f.Reader()
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("control member %s: %w", name, err)
	}
	return f, r, nil
}

// readMember returns what a control member of at most so many bytes holds.
func readMember(dir *xattr.Root, name string, most int64) ([]byte, error) {
	f, r, err := openMember(dir, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	defer r.Close()
	size := f.Stat().Size
	if size > most {
		return nil, fmt.Errorf("control member %s has %d bytes, at most %d are taken", name, size, most)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, fmt.Errorf("control member %s: %w", name, err)
	}
	return text, nil
}

// readControl reads what package this is, from the members that every package may have.
func (s *seal) readControl(dir *xattr.Root) error {
	text, err := readMember(dir, "control", dpkgtar.MaxControlFile)
	if err != nil {
		return err
	}
	fields, err := dpkgtar.Fields(text)
	if err != nil {
		return err
	}
	s.name, s.version, s.arch = fields["package"], fields["version"], fields["architecture"]
	s.shared = strings.EqualFold(fields["multi-arch"], "same")
	return nil
}

// readMembers reads the signatures and returns what the members are, to be compared
// with the statement.
func (s *seal) readMembers(dir *xattr.Root, names []string) (*sign.Statement, error) {
	holds := &sign.Statement{Package: s.name, Version: s.version, Arch: s.arch}
	stated := func(name string, content []byte) {
		holds.Members = append(holds.Members, sign.MemberDigest{Name: name, SHA256: sha256.Sum256(content)})
	}
	var executed []string
	left := int64(dpkgtar.MaxControl)
	for _, name := range names {
		if dpkgtar.Ours(name) && !slices.Contains(sealMembers, name) {
			continue // the original archive, which dpkg does not install
		}
		content, err := readMember(dir, name, left)
		if err != nil {
			return nil, err
		}
		left -= int64(len(content))
		switch name {
		case dpkgtar.StatementName:
			s.statement, err = sign.ParseStatement(content)
		case dpkgtar.PayloadSignatures:
			stated(name, content)
			s.files, err = parseSignatures(content)
		case dpkgtar.ControlSignatures:
			stated(name, content)
			s.control, err = parseSignatures(content)
		default:
			var mode uint32
			if mode, err = memberMode(dir, name); err != nil {
				break
			}
			isExecuted := dpkgtar.Executed(name, int64(mode), content)
			if isExecuted {
				executed = append(executed, name)
			}
			if !isExecuted || name == "control" || name == "conffiles" {
				stated(name, content)
			}
			if name == "conffiles" {
				s.conffiles, err = readConffiles(bytes.NewReader(content))
			}
		}
		if err != nil {
			return nil, fmt.Errorf("control member %s: %w", name, err)
		}
	}
	return holds, s.covers(executed)
}

// parseSignatures reads a list of signatures, and takes nothing else for one: a digest
// that is not signed would satisfy a policy that does not ask for signatures.
func parseSignatures(text []byte) ([]sign.Entry, error) {
	entries, err := sign.ParseAttributes(text)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		sig, err := sign.ParseSignature(e.Value)
		if err == nil && !sig.Hash.Strong() {
			err = fmt.Errorf("it is over %s", sig.Hash)
		}
		if err != nil {
			return nil, fmt.Errorf("signature of %q: %w", e.Path, err)
		}
	}
	return entries, nil
}

func memberMode(dir *xattr.Root, name string) (uint32, error) {
	f, err := dir.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Stat().Mode, nil
}

// covers reports whether the signatures of the maintainer scripts are those of the
// members that are executed, no more and no less.
func (s *seal) covers(executed []string) error {
	for _, name := range executed {
		if _, ok := find(s.control, name); !ok {
			return fmt.Errorf("maintainer script %s has no signature in %s", name, dpkgtar.ControlSignatures)
		}
	}
	for _, e := range s.control {
		if !slices.Contains(executed, e.Path) {
			return fmt.Errorf("%s has a signature of %s, which is no maintainer script of the package", dpkgtar.ControlSignatures, e.Path)
		}
	}
	return nil
}

// find returns the signature of path in sorted entries.
func find(entries []sign.Entry, path string) (int, bool) {
	return slices.BinarySearchFunc(entries, path, func(e sign.Entry, path string) int { return strings.Compare(e.Path, path) })
}

// verify reports whether a trusted key made the statement, and the signatures of the
// scripts over the scripts in dir. Those of the payload are bound by the statement.
func (s *seal) verify(keys *sign.TrustedKeys, dir *xattr.Root) error {
	if err := s.statement.Verify(keys); err != nil {
		return fmt.Errorf("control member %s: %w", dpkgtar.StatementName, err)
	}
	for _, e := range s.control {
		content, err := readMember(dir, e.Path, dpkgtar.MaxControl)
		if err != nil {
			return err
		}
		err = verifyContent(keys, e.Value, content)
		if errors.Is(err, sign.ErrUnknownKey) {
			// One key signs a package: this is no package of a third party.
			err = fmt.Errorf("%w: %v", sign.ErrBadSignature, err)
		}
		if err != nil {
			return fmt.Errorf("maintainer script %s: %w", e.Path, err)
		}
	}
	return nil
}

func verifyContent(keys *sign.TrustedKeys, value, content []byte) error {
	sig, err := sign.ParseSignature(value)
	if err != nil {
		return err
	}
	if !sig.Hash.Strong() {
		return fmt.Errorf("%w: %s is no hash to sign by", sign.ErrBadSignature, sig.Hash)
	}
	h := sig.Hash.Crypto().New()
	h.Write(content)
	return keys.VerifyDigest(sig, h.Sum(nil))
}

// maxConffile is MAXCONFFILENAME of dpkg.
const maxConffile = 1000

// readConffiles reads the control member conffiles as dpkg does, deb_parse_conffiles of
// src/main/unpack.c: a name to a line, perhaps with a flag before it.
func readConffiles(r io.Reader) (map[string]bool, error) {
	found := map[string]bool{}
	for line, err := range lines(r) {
		if err != nil {
			return nil, err
		}
		line = strings.TrimRight(line, " \t\n\v\f\r")
		if line == "" {
			continue
		}
		if len(line) > maxConffile {
			return nil, fmt.Errorf("a name of %d bytes", len(line))
		}
		if line[0] != '/' {
			flag, name, _ := strings.Cut(line, " ")
			if flag != "remove-on-upgrade" || !strings.HasPrefix(name, "/") {
				return nil, fmt.Errorf("%q is no absolute name", line)
			}
			continue // it is not in the package
		}
		found[clean(line)] = true
	}
	return found, nil
}

// openControl opens the folder into which dpkg has the control members unpacked.
func openControl(adminDir string) (*xattr.Root, error) {
	name := filepath.Join(adminDir, controlFolder)
	var stat unix.Stat_t
	if err := unix.Lstat(name, &stat); err == nil && stat.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil, fmt.Errorf("%s is a link", name)
	}
	return xattr.OpenRoot(name)
}
