package dpkg

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
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

// An accounts knows the users and groups of a system by its files, as dpkg does
// (lib/dpkg/sysuser.c): those of the root, or of the running system where the root has
// none yet.
type accounts struct {
	root  string
	users map[string]int64
	group map[string]int64
}

// openAccounts returns the accounts of root. Reading them is put off until a name that
// is not root's is asked for.
func openAccounts(root string) *accounts { return &accounts{root: root} }

// uid returns the number of a user, or else, which is what the archive says.
func (a *accounts) uid(name string, otherwise int64) int64 {
	return lookUp(&a.users, a.root, "/etc/passwd", name, otherwise)
}

// gid is uid for groups.
func (a *accounts) gid(name string, otherwise int64) int64 {
	return lookUp(&a.group, a.root, "/etc/group", name, otherwise)
}

func lookUp(known *map[string]int64, root, file, name string, otherwise int64) int64 {
	if number, ok := strings.CutPrefix(name, "#"); ok {
		if id, err := strconv.ParseUint(number, 10, 32); err == nil {
			return int64(id)
		}
	}
	if name == "" || name == "root" && otherwise == 0 {
		return otherwise
	}
	if *known == nil {
		*known = readAccounts(root, file)
	}
	if id, ok := (*known)[name]; ok {
		return id
	}
	return otherwise
}

// readAccounts reads the names and numbers of a file like /etc/passwd. Lines that are
// none are passed over.
func readAccounts(root, file string) map[string]int64 {
	known := map[string]int64{}
	f, err := openPlain(filepath.Join(root, file))
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.Open(file)
	}
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
