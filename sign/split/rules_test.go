package split

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
)

func TestRules(t *testing.T) {
	for _, test := range []struct{ name, rules, want string }{
		{"all of them, and good", "# what we sign\n\ntypes = deb rpm\nhashes = sha256 sha512\npackages = hel* bash\narchitectures = amd64 x86_64\nmax-bytes = " + strconv.Itoa(len(good)) + "\nmax-packages = 2\nmax-digests = 5\nmax-package-digests = 4\nheader-digests = allow\n", ""},
		{"one type", "types = rpm", "its type is deb"},
		{"one hash", "hashes = sha256", "its digests are by sha512"},
		{"other names", "packages = bash hello-*", "none of the names"},
		{"other architectures", "architectures=amd64", `its architecture is "x86_64"`},
		{"too many packages", "max-packages = 1", "one of more than 1"},
		{"too many digests", "max-digests = 4", "more than 4 digests"},
		{"too many digests in a package", "max-package-digests = 3", "has 4 files and scripts"},
		{"headers", "header-digests = refuse", "nobody has read its files"},
	} {
		t.Run(test.name, func(t *testing.T) {
			rules, err := ParseRules(strings.NewReader(test.rules))
			if err != nil {
				t.Fatal(err)
			}
			s, err := Check(strings.NewReader(good), io.Discard, rules)
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("%v, want %q", err, test.want)
			}
			if want := checked(t, []byte(good)).SHA256; s.SHA256 != want {
				t.Errorf("the hash of the refused request is %x, not %x", s.SHA256, want)
			}
		})
	}
}

func TestRulesAreStrict(t *testing.T) {
	for _, test := range []struct{ rules, want string }{
		{"", "there is no rule in it"},
		{"# packages = sudo\n\n", "there is no rule in it"},
		{"packages = hello # not sudo", "line 1: a comment has a line of its own"},
		{"packages = hello #sudo", "a comment has a line of its own"},
		{"max-digest = 5", "line 1: there is no rule"},
		{"\n# x\nTypes = deb", "line 3: there is no rule"},
		{"types", "write name = value"},
		{"types =", "has no value"},
		{"types = deb apk", "there are deb and rpm"},
		{"types = deb\ntypes = rpm", "line 2: a second rule types"},
		{"hashes = sha1", "never signed"},
		{"hashes = sha7", "sha7"},
		{"packages = [", "glob"},
		{"max-digests = 0", "refuse everything"},
		{"max-digests = -1", "no number"},
		{"max-bytes = 0", "refuse everything"},
		{"max-bytes = 4294967297", "more than 4294967296"},
		{"max-bytes = 10M", "no number"},
		{"max-digests = 1 2", "one value"},
		{"max-digests = 1e6", "no number"},
		{"max-packages = 99999999999", "more than"},
		{"header-digests = no", "allow or refuse"},
		{"= x", "there is no rule"},
		{"packages = " + strings.Repeat("x", maxRules), "more than"},
	} {
		if _, err := ParseRules(strings.NewReader(test.rules)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.40q: %v, want %q", test.rules, err, test.want)
		}
	}
}

// Of a request that has more bytes than the rules allow no more is read or spooled.
func TestRulesBoundTheBytesOfARequest(t *testing.T) {
	for name, in := range map[string]io.Reader{
		"at once":        strings.NewReader(good),
		"byte by byte":   iotest.OneByteReader(strings.NewReader(good)),
		"without an end": io.MultiReader(strings.NewReader(good), &endless{text: "x"}),
	} {
		t.Run(name, func(t *testing.T) {
			most := int64(len(good) - 1)
			taken := &counter{r: in}
			var spool counter
			s, err := Check(taken, &countWriter{&spool}, &Rules{MaxBytes: most})
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), fmt.Sprintf("more than %d bytes", most)) {
				t.Errorf("%v", err)
			}
			if taken.n != most+1 || spool.n > most || s.SHA256 != [32]byte{} {
				t.Errorf("%d bytes were read, %d spooled, %+v", taken.n, spool.n, s)
			}
		})
	}
}

func FuzzRules(f *testing.F) {
	f.Add("types = deb\nmax-digests = 5\npackages = a* b[c]\n")
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := ParseRules(strings.NewReader(text))
		if err != nil {
			return
		}
		if _, err := Check(strings.NewReader(good), io.Discard, rules); err != nil && !errors.Is(err, ErrRefused) {
			t.Error(err)
		}
	})
}
