package main

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"
)

// bigPackages make a package of n files.
var bigPackages = map[string]func(t *testing.T, n int) []byte{
	"deb": func(t *testing.T, n int) []byte {
		return appendEntries(theData, bigFiles(n, func(i int, content string) tarEntry {
			return tarFile(fmt.Sprintf("./usr/share/big/%d", i), content)
		})...)(t, readShared(t, helloDeb))
	},
	"rpm": func(t *testing.T, n int) []byte {
		r := parseRPM(readShared(t, v4RPM))
		names, digests := make([]string, n), make([]string, n)
		var archive []byte
		for i, content := range bigFiles(n, func(_ int, content string) string { return content }) {
			names[i], digests[i] = fmt.Sprint(i), fmt.Sprintf("%x", sha256.Sum256([]byte(content)))
			archive = append(archive, cpioOf("./usr/share/big/"+names[i], 0o100644, len(content), content)...)
		}
		archive = append(archive, cpioOf("TRAILER!!!", 0, 0, "")...)
		all := func(tag, kind uint32, value uint64) rpmTag {
			values := make([]uint64, n)
			for i := range values {
				values[i] = value
			}
			return intsTag(tag, kind, values...)
		}
		inodes := all(inodesTag, rpmInt32, 0)
		for i := range n {
			inodes.data[4*i+2], inodes.data[4*i+3] = byte((i+1)>>8), byte(i+1)
		}
		for _, e := range []rpmTag{
			stringsTag(baseNamesTag, names...), stringsTag(dirNamesTag, "/usr/share/big/"), stringsTag(fileDigestsTag, digests...), inodes,
			all(dirIndexesTag, rpmInt32, 0), all(modesTag, rpmInt16, 0o100644), all(sizesTag, rpmInt32, bigFileSize),
			all(fileFlagsTag, rpmInt32, 0), all(devicesTag, rpmInt32, 1), all(colorsTag, rpmInt32, 0), all(classTag, rpmInt32, 0),
		} {
			r.main = withTag(r.main, e)
		}
		r.payload = gzipped(t, archive)
		r.sums(archive)
		return r.format()
	},
}

const bigFileSize = 8 << 10

// bigFiles calls add with n contents that do not compress.
func bigFiles[T any](n int, add func(i int, content string) T) []T {
	random := rand.NewChaCha8([32]byte{1})
	all := make([]T, n)
	for i := range all {
		content := make([]byte, bigFileSize)
		random.Read(content)
		all[i] = add(i, string(content))
	}
	return all
}
