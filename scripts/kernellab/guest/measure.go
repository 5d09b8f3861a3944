package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/scripts/kernellab/plan"
	"github.com/imaseal/imaseal/sign"
)

// measurements is the kernel's list of what was executed.
const measurements = "/sys/kernel/security/ima/ascii_runtime_measurements"

// tryMeasure maps files of installed packages to be executed, and compares what the
// kernel's measurement list says of them with the signatures that the packages
// brought.
func tryMeasure(most int) (seen, output string) {
	signed, mapped, refusal := mapSigned(most)
	if refusal != "" {
		return refusal, ""
	}
	list, err := measured()
	if err != nil {
		return err.Error(), ""
	}
	for _, path := range mapped {
		got := list[path]
		if links(path) > 1 {
			// An inode is measured once, under the name that was used first.
			got = slices.Concat(slices.Collect(maps.Values(list))...)
		}
		if !slices.ContainsFunc(got, func(value []byte) bool { return bytes.Equal(value, signed[path]) }) {
			return fmt.Sprintf("%s is measured with %x, its package carries %x", path, got, signed[path]), ""
		}
	}
	return plan.Allowed, fmt.Sprintf("%d of %d files are measured with the signature of their package", len(mapped), len(mapped))
}

// tryMapSigned maps files of installed packages to be executed.
func tryMapSigned(most int) (seen, output string) {
	_, mapped, refusal := mapSigned(most)
	if refusal != "" {
		return refusal, ""
	}
	if len(mapped) == 0 {
		return "no file has a label", ""
	}
	return plan.Allowed, fmt.Sprintf("%d files of packages were mapped", len(mapped))
}

// mapSigned maps files of installed packages to be executed, and returns their names,
// those of signed packages with their signatures, and what was not allowed.
func mapSigned(most int) (signed map[string][]byte, mapped []string, refusal string) {
	signed, err := packageSignatures()
	if err != nil {
		return nil, nil, err.Error()
	}
	for _, path := range slices.Sorted(maps.Keys(signed)) {
		if len(mapped) == most {
			break
		}
		switch seen := tryMap(strings.TrimPrefix(path, root)); seen {
		case plan.Allowed:
			mapped = append(mapped, path)
		case "invalid argument": // an empty file can't be mapped
		default:
			return nil, nil, path + ": " + seen
		}
	}
	return signed, mapped, ""
}

// links returns how many names a file has.
func links(path string) int {
	var stat unix.Stat_t
	if unix.Lstat(path, &stat) != nil {
		return 0
	}
	return int(stat.Nlink)
}

// packageSignatures returns the signatures in dpkg's database by the name of the
// regular file that each is of.
func packageSignatures() (map[string][]byte, error) {
	lists, err := filepath.Glob(root + "/var/lib/dpkg/info/*.ima-signatures")
	if err != nil {
		return nil, err
	}
	found := map[string][]byte{}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			return nil, err
		}
		entries, err := sign.ParseAttributes(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", list, err)
		}
		for _, e := range entries {
			// The package's /bin may be a link to /usr/bin.
			folder, err := filepath.EvalSymlinks(filepath.Join(root, filepath.Dir(e.Path)))
			if err != nil {
				continue
			}
			name := filepath.Join(folder, filepath.Base(e.Path))
			// Conffiles have no label, and could not be mapped.
			if size, err := unix.Lgetxattr(name, sign.XattrName, nil); err == nil && size > 0 {
				found[name] = e.Value
			}
		}
	}
	return found, nil
}

// measured returns the signatures of the measurement list by path. A line is PCR,
// hash, "ima-sig", digest, path, signature; a path may hold spaces.
func measured() (map[string][][]byte, error) {
	text, err := os.ReadFile(measurements)
	if err != nil {
		return nil, err
	}
	found := map[string][][]byte{}
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), " ", 5)
		if len(fields) < 5 || fields[2] != "ima-sig" {
			continue
		}
		end := strings.LastIndexByte(fields[4], ' ')
		if end < 0 {
			continue
		}
		value, err := hex.DecodeString(fields[4][end+1:])
		if err != nil {
			continue
		}
		found[fields[4][:end]] = append(found[fields[4][:end]], value)
	}
	return found, nil
}
