package installed

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/xattr"
)

// A scene is a small installed system with a database in memory.
type scene struct {
	t    *testing.T
	dir  string
	key  *sign.Signer
	keys *sign.TrustedKeys
	db   memory
}

// newScene makes an empty system. It takes a file system with security.* attributes
// and the right to set them.
func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{t: t, dir: t.TempDir(), keys: new(sign.TrustedKeys)}
	s.key = newKey(t, 0x11111111)
	if err := s.keys.Add(s.key.KeyID(), s.key.Public()); err != nil {
		t.Fatal(err)
	}
	value, err := s.key.SignDigest(sign.SHA256, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	root, err := xattr.OpenRoot(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := root.Probe(sign.XattrName, value); err != nil {
		t.Skipf("no labels can be set here: %v", err)
	}
	return s
}

func newKey(t *testing.T, id sign.KeyID) *sign.Signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := sign.NewSigner(private, id)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// write makes a file with its folders.
func (s *scene) write(path, content string, mode os.FileMode) {
	s.t.Helper()
	name := filepath.Join(s.dir, path)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), mode); err != nil {
		s.t.Fatal(err)
	}
}

func signed(t *testing.T, key *sign.Signer, content string) []byte {
	t.Helper()
	digest := sha256.Sum256([]byte(content))
	value, err := key.SignDigest(sign.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func md5Of(content string) []byte {
	sum := md5.Sum([]byte(content))
	return sum[:]
}

// install puts files on the disk and a signed package into the database. A path that
// ends in "!" is a conffile, one that begins with "=" is not signed.
func (s *scene) install(name string, files map[string]string) *Package {
	s.t.Helper()
	p := &Package{Format: "deb", Name: name, Version: "1", Arch: "amd64", Signed: true}
	p.Verify = func(keys *sign.TrustedKeys) error {
		sig, err := sign.ParseSignature(signed(s.t, s.key, name))
		if err != nil {
			return err
		}
		digest := sha256.Sum256([]byte(name))
		return keys.VerifyDigest(sig, digest[:])
	}
	paths := make([]string, 0, len(files))
	for path := range files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		content := files[path]
		f := File{Value: signed(s.t, s.key, content), Digest: md5Of(content), Hash: sign.MD5}
		path, f.Config = strings.CutSuffix(path, "!")
		path, plain := strings.CutPrefix(path, "=")
		if plain {
			f.Value = nil
		}
		f.Optional = f.Config
		f.Path = path
		mode := os.FileMode(0o755)
		if strings.HasPrefix(path, "etc/") && !strings.HasSuffix(path, ".sh") {
			mode = 0o644
		}
		s.write(path, content, mode)
		p.Files = append(p.Files, f)
	}
	s.db = append(s.db, p)
	return p
}

func (s *scene) system() *System {
	s.t.Helper()
	root, err := xattr.OpenRoot(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { root.Close() })
	return &System{Root: root, Database: s.db, Jobs: 3}
}

func (s *scene) apply(o ApplyOptions, names ...string) *Result {
	s.t.Helper()
	r, err := s.system().Apply(context.Background(), names, o)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func (s *scene) check(o CheckOptions, names ...string) *Result {
	s.t.Helper()
	if o.Keys == nil {
		o.Keys = s.keys
	}
	r, err := s.system().Check(context.Background(), names, o)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// label returns the label of the file, nil when it has none.
func (s *scene) label(path string) []byte {
	s.t.Helper()
	buf := make([]byte, 1024)
	n, err := unix.Lgetxattr(filepath.Join(s.dir, path), sign.XattrName, buf)
	if err == unix.ENODATA {
		return nil
	}
	if err != nil {
		s.t.Fatalf("%s: %v", path, err)
	}
	return buf[:n]
}

func (s *scene) setLabel(path string, value []byte) {
	s.t.Helper()
	if err := unix.Lsetxattr(filepath.Join(s.dir, path), sign.XattrName, value, 0); err != nil {
		s.t.Fatalf("%s: %v", path, err)
	}
}

// wantFindings compares what was found, as "kind path", in any order.
func wantFindings(t *testing.T, r *Result, want ...string) {
	t.Helper()
	var got []string
	for _, report := range r.Reports {
		for _, f := range report.Findings {
			got = append(got, string(f.Kind)+" "+f.Path)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
		for _, report := range r.Reports {
			for _, f := range report.Findings {
				t.Logf("%s %s: %s", f.Kind, f.Path, f.Detail)
			}
		}
	}
}

// detailOf returns the detail of the one finding about path.
func detailOf(t *testing.T, r *Result, path string) string {
	t.Helper()
	for _, report := range r.Reports {
		for _, f := range report.Findings {
			if f.Path == path {
				return f.Detail
			}
		}
	}
	t.Errorf("nothing was found about %q", path)
	return ""
}

// memory is a database of packages that are all called by their names.
type memory []*Package

func (m memory) Packages(ctx context.Context, names []string) iter.Seq2[*Package, error] {
	return func(yield func(*Package, error) bool) {
		for _, name := range names {
			if !slices.ContainsFunc(m, func(p *Package) bool { return p.isCalled(name) }) && !yield(nil, fmt.Errorf("%s: %w", name, errNotThere)) {
				return
			}
		}
		for _, p := range m {
			if len(names) > 0 && !slices.ContainsFunc(names, p.isCalled) {
				continue
			}
			if !yield(p, nil) {
				return
			}
		}
	}
}

var errNotThere = errors.New("not installed")

func (p *Package) isCalled(name string) bool { return name == p.Name || name == p.ID() }

func digestOf(content string) []byte {
	sum := sha256.Sum256([]byte(content))
	return sum[:]
}
