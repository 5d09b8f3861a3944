package split

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

// What comes of the three steps is what Sign makes of the package itself.
func TestSplitSigningMakesWhatSignMakes(t *testing.T) {
	for _, o := range []sign.Options{
		{},
		{Selection: sign.Selection{Select: []string{"/usr/**"}, Exclude: []string{"/usr/bin/git-*"}}, Hash: sign.SHA512},
	} {
		for _, kind := range []string{"ec", "rsa"} {
			t.Run(fmt.Sprint(kind, o.Hash), func(t *testing.T) {
				key := newKey(t, kind)
				r := opened(t, responseTo(t, requestOf(t, o, examples()...), key))
				for _, p := range examples() {
					want, err := sign.Sign(t.Context(), p, key, o)
					if err != nil {
						t.Fatal(err)
					}
					got, err := r.Manifest(t.Context(), idOf(p), p, signtest.Trust(key), o)
					if err != nil {
						t.Fatal(err)
					}
					if a, b := textOf(t, got), textOf(t, want); a != b {
						t.Errorf("%s:\n%s\nSign makes\n%s", p.Info().Name, a, b)
					}
				}
			})
		}
	}
}

func TestRequestDependsOnThePackagesOnly(t *testing.T) {
	forward := requestOf(t, sign.Options{}, examples()...)
	backward := examples()
	slices.Reverse(backward)
	if again := requestOf(t, sign.Options{}, append(backward, examples()...)...); !bytes.Equal(again, forward) {
		t.Errorf("another order, and packages twice, give\n%s\nnot\n%s", again, forward)
	}
	s := checked(t, forward)
	if s.Packages != 4 || s.Digests != 11 || s.Names[0] != "bash 1.0-1" {
		t.Errorf("%+v", s)
	}
}

// A key that signs randomly still gives the names of a file one signature.
func TestNamesOfAFileShareASignature(t *testing.T) {
	key := newKey(t, "token")
	request := requestOf(t, sign.Options{}, examples()...)
	r := opened(t, responseTo(t, request, key))
	for _, p := range examples() {
		if _, err := r.Manifest(t.Context(), idOf(p), p, signtest.Trust(key), sign.Options{}); err != nil {
			t.Error(err)
		}
	}
	// Two names with two good signatures are refused.
	other := responseTo(t, request, newKeyLike(key))
	mixed := exchangeLine(t, responseTo(t, request, key), other, " usr/bin/git-add")
	git := examples()[2]
	if _, err := opened(t, mixed).Manifest(t.Context(), idOf(git), git, signtest.Trust(key), sign.Options{}); err == nil || !strings.Contains(err.Error(), "another name") {
		t.Errorf("two signatures for one file: %v", err)
	}
}

// The names of a file share a signature also when the Signer can remember no more.
func TestNamesOfAFileShareASignatureInALargePackage(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes 17,000 signatures")
	}
	const files = 17_000 // more than a Signer remembers
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n\nType: rpm\nFile-SHA256: %064x\nPackage: p\nVersion: 1\nArchitecture: all\nSelect: all\nHash: sha256\nFiles: %d\nScripts: 0\n", requestFormat, 1, files+4)
	for n := range files {
		fmt.Fprintf(&b, "file %064x - a/%08d\n", n, n)
	}
	for n, inode := range []int{1, 2, 2, 1} {
		fmt.Fprintf(&b, "file %064x %d b/%d\n", 1<<40+inode, inode, n)
	}
	fmt.Fprintf(&b, "\n%s\n", endOf(1, files+4))
	r := opened(t, responseTo(t, b.Bytes(), newKey(t, "token")))
	_, m, _, err := r.read(Identity{SHA256: [32]byte{31: 1}})
	if err != nil {
		t.Fatal(err)
	}
	v := func(n int) []byte { return m.Files[files+n].Value }
	if !bytes.Equal(v(0), v(3)) || !bytes.Equal(v(1), v(2)) || bytes.Equal(v(0), v(1)) {
		t.Errorf("%x\n%x\n%x\n%x", v(0), v(1), v(2), v(3))
	}
}

// newKeyLike returns the same key without what it remembers.
func newKeyLike(key *sign.Signer) *sign.Signer {
	again, err := sign.NewSigner(keyOf[key], key.KeyID())
	if err != nil {
		panic(err)
	}
	return again
}

// exchangeLine puts the line of from that ends in suffix in place of that of into.
func exchangeLine(t *testing.T, into, from []byte, suffix string) []byte {
	t.Helper()
	find := func(text []byte) string {
		for line := range strings.Lines(string(text)) {
			if strings.HasSuffix(line, suffix+"\n") {
				return line
			}
		}
		t.Fatalf("no line ends in %q", suffix)
		return ""
	}
	made := strings.Replace(string(into), find(into), find(from), 1)
	if made == string(into) {
		t.Fatal("both lines are the same")
	}
	return []byte(made)
}

func TestResponseIsOfThisVeryPackage(t *testing.T) {
	key := newKey(t, "ec")
	trusted := signtest.Trust(key)
	request := requestOf(t, sign.Options{}, examples()...)
	whole := responseTo(t, request, key)
	bash, git, hello := examples()[0], examples()[2], examples()[3]
	replace := func(old, new string) []byte {
		made := strings.Replace(string(whole), old, new, 1)
		if made == string(whole) {
			t.Fatalf("no %q in\n%s", old, whole)
		}
		return []byte(made)
	}
	lineWith := func(suffix string) string {
		for line := range strings.Lines(string(whole)) {
			if strings.HasSuffix(line, suffix+"\n") {
				return line
			}
		}
		t.Fatalf("no line ends in %q", suffix)
		return ""
	}
	value := func(suffix string) string { return strings.Fields(lineWith(suffix))[1] }
	changed := debOf("bash", content("bin/bash", "bash!"), content("etc/empty", ""))
	for _, test := range []struct {
		name     string
		response []byte
		p        sign.Package
		trusted  *sign.TrustedKeys
		o        sign.Options
		want     string
	}{
		{"another package", responseTo(t, requestOf(t, sign.Options{}, git), key), bash, trusted, sign.Options{}, "answers another request"},
		{"other content under the same identity", whole, changed, trusted, sign.Options{}, "not about this package"},
		{"an RPM with other content", whole, rpmOf("hello", content("usr/bin/hello", "hallo"), signtest.MemoryFile{Path: "usr/bin/hallo", Link: "usr/bin/hello"}), trusted, sign.Options{}, "bad signature"},
		{"an RPM with another file", whole, rpmOf("hello", content("usr/bin/hello", "hello"), content("usr/bin/hullo", "hello")), trusted, sign.Options{}, "no signature for"},
		{"an RPM with a file more", whole, rpmOf("hello", content("usr/bin/hello", "hello"), content("a", "hello"), content("usr/bin/hallo", "hello")), trusted, sign.Options{}, "2 files and 0 scripts, but 3"},
		{"signatures exchanged", []byte(strings.ReplaceAll(string(whole), value(" usr/bin/hallo"), value(" bin/bash"))), hello, trusted, sign.Options{}, "bad signature"},
		{"signatures exchanged in a .deb", replace(value(" bin/bash"), value(" etc/empty")), bash, trusted, sign.Options{}, "bad signature"},
		{"another name for a file", replace(" usr/bin/hallo\n", " usr/bin/hbllo\n"), hello, trusted, sign.Options{}, "no signature for"},
		{"another key", whole, bash, signtest.Trust(newKey(t, "ec")), sign.Options{}, "unknown key"},
		{"another selection than asked for", whole, hello, trusted, sign.Options{Selection: sign.Selection{Select: []string{"exec"}}}, "the flags that imaseal digests had"},
		{"a selection that the response made smaller", replace("Select: all\nHash: sha256\nFiles: 2", "Select: exec\nHash: sha256\nFiles: 2"), hello, trusted, sign.Options{}, `--select "exec"`},
		{"another hash than asked for", whole, bash, trusted, sign.Options{Hash: sign.SHA384}, "sha384 is asked for"},
		{"another hash than where none is named", responseTo(t, requestOf(t, sign.Options{Hash: sign.SHA512}, bash), key), bash, trusted, sign.Options{}, "sha256 is asked for"},
		{"another version", replace("Package: bash\nVersion: 1.0-1", "Package: bash\nVersion: 1.0-2"), bash, trusted, sign.Options{}, "version is 1.0-1"},
		{"the statement's signature of another package", []byte(strings.Replace(string(whole), signatures(whole)[0], signatures(whole)[1], 1)), bash, trusted, sign.Options{}, "statement: bad signature"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := opened(t, test.response)
			_, err := r.Manifest(t.Context(), idOf(test.p), test.p, test.trusted, test.o)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("%v, want %q", err, test.want)
			}
		})
	}
	if _, err := opened(t, whole).Manifest(t.Context(), Identity{}, bash, trusted, sign.Options{}); !errors.Is(err, errOtherPackage) {
		t.Errorf("another file: %v", err)
	}
}

// signatures returns the lines with the signatures of statements.
func signatures(response []byte) (found []string) {
	for line := range strings.Lines(string(response)) {
		if strings.HasPrefix(line, signatureField+": ") {
			found = append(found, line)
		}
	}
	return found
}

// What a host can sign can be embedded: with RSA-4096, the largest key that kernels take,
// a line is longer by a signature than in the request.
func TestResponseToTheLargestRequestIsRead(t *testing.T) {
	signature := int64(base64.StdEncoding.EncodedLen(9 + 4096/8))
	if largest := maxSize + maxDigests*signature; largest > MaxResponse {
		t.Errorf("it may have %d bytes, and %d are read", largest, int64(MaxResponse))
	}
	if _, err := OpenResponse(strings.NewReader(""), MaxResponse+1); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a larger one: %v", err)
	}
}

// A request or a response that ends anywhere before its end is found out.
func TestCutOffFilesAreFound(t *testing.T) {
	request := requestOf(t, sign.Options{}, examples()...)
	response := responseTo(t, request, newKey(t, "ec"))
	for n := range len(request) {
		if s, err := Check(bytes.NewReader(request[:n]), io.Discard, new(Rules)); err == nil || s.SHA256 != [32]byte{} {
			t.Fatalf("%d of %d bytes of a request are taken", n, len(request))
		}
	}
	for n := range len(response) {
		if _, err := OpenResponse(bytes.NewReader(response), int64(n)); err == nil {
			t.Fatalf("%d of %d bytes of a response are taken", n, len(response))
		}
	}
}

// A key that fails in the middle leaves a response without an end.
func TestKeyThatFailsEndsTheResponse(t *testing.T) {
	request := requestOf(t, sign.Options{}, examples()...)
	broken := brokenKey(t, 5)
	var response bytes.Buffer
	err := Sign(t.Context(), bytes.NewReader(request), &response, broken, checked(t, request), SignOptions{})
	if err == nil || !strings.Contains(err.Error(), "token is gone") {
		t.Fatalf("%v", err)
	}
	if _, err := OpenResponse(bytes.NewReader(response.Bytes()), int64(response.Len())); err == nil {
		t.Error("a part of a response is taken")
	}
}

// A slow key has as many signatures in flight as it can take, statements among them,
// and the response is in order all the same.
func TestSignaturesAreMadeSideBySide(t *testing.T) {
	const jobs = 8
	var packages []sign.Package
	for n := range jobs {
		packages = append(packages, debOf(fmt.Sprintf("p%d", n), content("file", fmt.Sprint(n))))
	}
	request := requestOf(t, sign.Options{}, packages...)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	key, meets := meetingKey(t, ctx, jobs)
	key.Jobs = jobs
	var response bytes.Buffer
	if err := Sign(ctx, bytes.NewReader(request), &response, key, checked(t, request), SignOptions{}); err != nil {
		t.Fatal(err)
	}
	if meets.Load() != 2 { // all files, then all statements
		t.Errorf("%d calls met %d times", jobs, meets.Load())
	}
	r := opened(t, response.Bytes())
	for _, p := range packages {
		if _, err := r.Manifest(t.Context(), idOf(p), p, signtest.Trust(key), sign.Options{}); err != nil {
			t.Error(err)
		}
	}
}

func TestSignEndsWithItsContext(t *testing.T) {
	request := requestOf(t, sign.Options{}, examples()...)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Sign(ctx, bytes.NewReader(request), io.Discard, newKey(t, "ec"), checked(t, request), SignOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	full := errors.New("disk full")
	if err := Sign(t.Context(), bytes.NewReader(request), failingWriter{full}, newKey(t, "ec"), checked(t, request), SignOptions{}); !errors.Is(err, full) {
		t.Error(err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// The request that is signed is the one that was checked.
func TestSignTakesTheCheckedRequestOnly(t *testing.T) {
	request := requestOf(t, sign.Options{}, examples()...)
	s := checked(t, requestOf(t, sign.Options{}, examples()[:2]...))
	var response bytes.Buffer
	if err := Sign(t.Context(), bytes.NewReader(request), &response, newKey(t, "ec"), s, SignOptions{}); err == nil {
		t.Error("another request was signed")
	}
	if _, err := OpenResponse(bytes.NewReader(response.Bytes()), int64(response.Len())); err == nil {
		t.Error("its response has an end")
	}
}

// A million digests are checked and signed in the memory of some thousands.
func TestAMillionDigestsTakeLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	const most = 32 << 20
	peak := &peakMemory{}
	runtime.GC()
	var before runtime.MemStats // what other tests keep
	runtime.ReadMemStats(&before)
	key := newKey(t, "ec")
	s, err := Check(io.TeeReader(millionDigests(), peak), io.Discard, new(Rules))
	if err != nil || s.Digests != 1_000_000 {
		t.Fatalf("%+v, %v", s, err)
	}
	if err := Sign(t.Context(), io.TeeReader(millionDigests(), peak), io.Discard, key, s, SignOptions{Jobs: 2}); err != nil {
		t.Fatal(err)
	}
	t.Logf("at most %d KiB, %d KiB before", peak.heap>>10, before.HeapInuse>>10)
	if peak.heap > most+before.HeapInuse || peak.heap == 0 {
		t.Errorf("%d bytes of memory were in use, %d before", peak.heap, before.HeapInuse)
	}
}
