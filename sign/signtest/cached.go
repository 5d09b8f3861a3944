package signtest

import (
	"os"
	"path/filepath"
	"testing"
)

// Cached returns what a script of scripts/ keeps in the cache: the last file or folder
// there whose name matches the pattern. Where there is none the test is skipped and says
// which script to run.
func Cached(t testing.TB, pattern, script string) string {
	t.Helper()
	cache := os.Getenv("IMASEAL_CACHE")
	if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			t.Skip(err)
		}
		cache = filepath.Join(base, "imaseal")
	}
	found, _ := filepath.Glob(filepath.Join(cache, pattern))
	if len(found) == 0 {
		t.Skipf("%s is not in %s: run %s", pattern, cache, script)
	}
	return found[len(found)-1]
}
