package dpkg

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"path"
	"strings"

	"github.com/imaseal/imaseal/sign"
)

// relative returns the path that dpkg writes as name, "/usr/bin/hello" or
// "./usr/bin/hello", relative to the root. It is "" for the root itself and for what
// is no clean path.
func relative(name string) string {
	name = strings.TrimPrefix(strings.TrimPrefix(name, "."), "/")
	if sign.CheckPath(name) != nil {
		return ""
	}
	return name
}

// parseList reads the file list of a package, info/PACKAGE.list, and returns its
// names relative to the root, but for the folders in which others stand.
func parseList(text []byte) ([]string, error) {
	names := make([]string, 0, bytes.Count(text, []byte{'\n'}))
	folders := map[string]bool{}
	last := ""
	number := 0
	for line := range bytes.Lines(text) {
		number++
		name := strings.TrimSuffix(string(line), "\n")
		if name == "/." || name == "" {
			continue
		}
		clean := relative(name)
		if clean == "" || name[0] != '/' {
			return nil, fmt.Errorf("line %d: no file is called %.200q", number, name)
		}
		if dir := path.Dir(clean); dir != last {
			folders[dir], last = true, dir
		}
		names = append(names, clean)
	}
	kept := names[:0]
	for _, name := range names {
		if !folders[name] {
			kept = append(kept, name)
		}
	}
	return kept, nil
}

// parseMD5Sums reads info/PACKAGE.md5sums: a digest, two spaces and a name a line.
// What can't be read is left out: packages make these files by hand, too, and their
// digests are the weakest of what there is to compare with.
func parseMD5Sums(text []byte) map[string][]byte {
	sums := make(map[string][]byte, bytes.Count(text, []byte{'\n'}))
	for line := range bytes.Lines(text) {
		digest, name, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		sum, err := hex.DecodeString(digest)
		if !ok || err != nil || len(sum) != 16 {
			continue
		}
		// Behind the first space there is a second, or the star of md5sum --binary.
		if name = strings.TrimLeft(name, " *"); relative(name) != "" {
			sums[relative(name)] = sum
		}
	}
	return sums
}
