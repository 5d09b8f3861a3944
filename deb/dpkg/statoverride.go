package dpkg

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
)

// statoverrideFile is the list of overrides, relative to dpkg's admindir.
const statoverrideFile = "statoverride"

// A statoverride is what an administrator wants in place of a package's owner and mode.
type statoverride struct {
	user, group string // names, or "#" and a number
	mode        int64
}

// readStatoverrides reads dpkg's list, lib/dpkg/db-fsys-override.c: owner, group, mode
// in octal and name, a line each.
func readStatoverrides(r io.Reader) (map[string]statoverride, error) {
	found := map[string]statoverride{}
	for line, err := range lines(r) {
		if err != nil {
			return nil, fmt.Errorf("statoverride: %w", err)
		}
		field := strings.SplitN(line, " ", 4)
		if len(field) != 4 {
			return nil, fmt.Errorf("statoverride: %q is no owner, group, mode and name", line)
		}
		mode, err := strconv.ParseUint(field[2], 8, 12)
		if err != nil {
			return nil, fmt.Errorf("statoverride: %q is no mode", field[2])
		}
		found[clean(field[3])] = statoverride{field[0], field[1], int64(mode)}
	}
	return found, nil
}

// An accounts knows the users and groups by whose names dpkg gives files away. dpkg 1.21
// asks the running system, later ones the files of the root where it has them
// (lib/dpkg/sysuser.c), so a name may stand for two numbers.
type accounts struct {
	folders []string // with passwd and group, that of the root first
	known   map[string]map[string]int64
}

// openAccounts returns the accounts of root and of system. Reading them is put off until
// a name that is not root's is asked for.
func openAccounts(root, system string) *accounts {
	return &accounts{folders: []string{filepath.Join(root, "etc"), filepath.Join(system, "etc")}, known: map[string]map[string]int64{}}
}

// isUser reports whether a user of that name, or of the number where the name is not
// known, may have the number id.
func (a *accounts) isUser(id uint32, name string, number int64) bool {
	return a.is("passwd", id, name, number)
}

// isGroup is isUser for groups.
func (a *accounts) isGroup(id uint32, name string, number int64) bool {
	return a.is("group", id, name, number)
}

func (a *accounts) is(file string, id uint32, name string, number int64) bool {
	if digits, ok := strings.CutPrefix(name, "#"); ok {
		if n, err := strconv.ParseUint(digits, 10, 32); err == nil {
			return uint32(n) == id
		}
	}
	if name == "" || name == "root" && number == 0 {
		return int64(id) == number
	}
	for _, folder := range a.folders {
		path := filepath.Join(folder, file)
		known, ok := a.known[path]
		if !ok {
			known = readAccounts(path)
			a.known[path] = known
		}
		n, ok := known[name]
		if !ok {
			n = number
		}
		if n == int64(id) {
			return true
		}
	}
	return false
}

// readAccounts reads the names and numbers of a file like /etc/passwd. Lines that are
// none are passed over.
func readAccounts(path string) map[string]int64 {
	known := map[string]int64{}
	f, err := openPlain(path)
	if err != nil {
		return known
	}
	defer f.Close()
	for line, err := range lines(f) {
		if err != nil {
			break
		}
		field := strings.Split(line, ":")
		if len(field) < 3 || field[0] == "" {
			continue
		}
		id, err := strconv.ParseUint(field[2], 10, 32)
		if _, twice := known[field[0]]; err == nil && !twice {
			known[field[0]] = int64(id)
		}
	}
	return known
}

// readList hands a list in dpkg's admindir to read, unless there is none.
func readList(adminDir, name string, read func(io.Reader) error) error {
	f, err := openPlain(filepath.Join(adminDir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return read(f)
}
