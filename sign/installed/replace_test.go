package installed

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/sign"
)

// rolledOver makes a system whose packages are signed by the scene's key, and whose
// files are still labelled by an older one. The kernel would take either.
func rolledOver(t *testing.T, files map[string]string) (s *scene, old *sign.Signer) {
	t.Helper()
	s = newScene(t)
	old = newKey(t, 0x22222222)
	if err := s.keys.Add(old.KeyID(), old.Public()); err != nil {
		t.Fatal(err)
	}
	for path, content := range s.install("a", files).contents(files) {
		s.setLabel(path, signed(t, old, content))
	}
	return s, old
}

// contents returns what the files of p hold, by their paths.
func (p *Package) contents(files map[string]string) map[string]string {
	found := map[string]string{}
	for _, f := range p.Files {
		content, ok := files[f.Path]
		if !ok {
			content = files[f.Path+"!"]
		}
		found[f.Path] = content
	}
	return found
}

func TestReplaceTakesOnlyWhatVerifies(t *testing.T) {
	for name, c := range map[string]struct {
		change   func(*scene)
		options  func(*scene) ApplyOptions
		want     []string
		replaced bool
	}{
		"right": {replaced: true},
		"the content is another": {
			change: func(s *scene) { s.write("usr/bin/a", "CHANGED", 0o755) },
			want:   []string{"digest mismatch /usr/bin/a"},
		},
		"the package's signature is another's": {
			change: func(s *scene) { s.db[0].Files[0].Value = signed(s.t, s.key, "B") },
			want:   []string{"digest mismatch /usr/bin/a"},
		},
		"no certificate at all": {
			options: func(*scene) ApplyOptions { return ApplyOptions{} },
			want:    []string{"other label /usr/bin/a"},
		},
		"none of the new key": {
			options: func(s *scene) ApplyOptions {
				stranger, keys := newKey(s.t, 0x33333333), new(sign.TrustedKeys)
				if err := keys.Add(stranger.KeyID(), stranger.Public()); err != nil {
					s.t.Fatal(err)
				}
				return ApplyOptions{Keys: keys, UnknownKeys: true}
			},
			want: []string{"other label /usr/bin/a"},
		},
		"a key that the kernel does not find": {
			options: func(s *scene) ApplyOptions {
				return ApplyOptions{Keys: s.keys, Finds: func(id sign.KeyID) bool { return id != s.key.KeyID() }}
			},
			want: []string{"other label /usr/bin/a"},
		},
		"a key that it finds": {
			options: func(s *scene) ApplyOptions {
				return ApplyOptions{Keys: s.keys, Finds: func(id sign.KeyID) bool { return id == s.key.KeyID() }}
			},
			replaced: true,
		},
		"an edited conffile, signed by the machine's own key": {
			change: func(s *scene) {
				s.db[0].Files[0].Config = true
				s.write("usr/bin/a", "EDITED", 0o755)
			},
			want: []string{"conffile edited /usr/bin/a"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := rolledOver(t, map[string]string{"usr/bin/a": "A"})
			before := s.label("usr/bin/a")
			if c.change != nil {
				c.change(s)
				s.setLabel("usr/bin/a", before) // writing made a new file of it
			}
			o := ApplyOptions{Keys: s.keys}
			if c.options != nil {
				o = c.options(s)
			}
			o.Replace = true
			wantFindings(t, s.apply(o), c.want...)
			want := before
			if c.replaced {
				want = s.db[0].Files[0].Value
			}
			if !bytes.Equal(s.label("usr/bin/a"), want) {
				t.Errorf("label %x, want %x", s.label("usr/bin/a"), want)
			}
		})
	}
}

// While labels are replaced, each file has at every moment one that verifies.
func TestReplaceLeavesNoMomentWithoutALabel(t *testing.T) {
	files := map[string]string{}
	for i := range 40 {
		files[fmt.Sprintf("usr/bin/%02d", i)] = fmt.Sprint(i)
	}
	s, old := rolledOver(t, files)
	labels := map[string]sign.Signature{} // by path and value, of those that hold
	for path, content := range files {
		for _, key := range []*sign.Signer{old, s.key} {
			labels[path+" "+string(signed(t, key, content))] = sign.Signature{}
		}
	}
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		buf := make([]byte, 1024)
		seen := 0
		for {
			select {
			case <-stop:
				if seen < 1000 {
					done <- fmt.Errorf("only %d looks: the test shows nothing", seen)
				}
				close(done)
				return
			default:
			}
			for path := range files {
				n, err := unix.Lgetxattr(filepath.Join(s.dir, path), sign.XattrName, buf)
				if _, holds := labels[path+" "+string(buf[:max(n, 0)])]; err != nil || !holds {
					done <- fmt.Errorf("%s: a label that does not hold: %x, %v", path, buf[:max(n, 0)], err)
					return
				}
				seen++
			}
		}
	}()
	replaced := 0
	for range 30 {
		for _, r := range s.apply(ApplyOptions{Keys: s.keys, Replace: true}).Reports {
			replaced += r.Changed
		}
		for path, content := range files {
			s.setLabel(path, signed(t, old, content))
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if replaced != 30*len(files) {
		t.Errorf("%d labels were replaced, not %d", replaced, 30*len(files))
	}
}

// Instances of a package for two architectures share a file, and one of them is rolled
// over: the label does not go back and forth, and the last one decides.
func TestReplaceOfASharedFile(t *testing.T) {
	s, old := rolledOver(t, map[string]string{"usr/share/doc/lib": "DOC"})
	i386 := s.install("a", map[string]string{"usr/share/doc/lib": "DOC"})
	i386.Arch = "i386"
	i386.Files[0].Value = signed(t, old, "DOC")
	i386.Verify = nil
	s.setLabel("usr/share/doc/lib", i386.Files[0].Value)
	for range 3 {
		r := s.apply(ApplyOptions{Keys: s.keys, Replace: true})
		wantFindings(t, r)
		if r.Reports[0].Changed+r.Reports[1].Changed > 0 || !bytes.Equal(s.label("usr/share/doc/lib"), i386.Files[0].Value) {
			t.Fatalf("the label of one instance was replaced by that of the other")
		}
	}
	wantFindings(t, s.check(CheckOptions{}))

	// One that is of an instance, but does not hold, is no label to keep.
	i386.Files[0].Value = signed(t, old, "OTHER")
	s.setLabel("usr/share/doc/lib", i386.Files[0].Value)
	s.apply(ApplyOptions{Keys: s.keys, Replace: true}, "a:amd64")
	if !bytes.Equal(s.label("usr/share/doc/lib"), s.db[0].Files[0].Value) {
		t.Error("a label that does not hold was kept")
	}

	i386.Files[0].Value = signed(t, s.key, "DOC")
	s.setLabel("usr/share/doc/lib", signed(t, old, "DOC"))
	wantFindings(t, s.apply(ApplyOptions{Keys: s.keys, Replace: true}))
	digest := sha256.Sum256([]byte("DOC"))
	sig, err := sign.ParseSignature(s.label("usr/share/doc/lib"))
	if err != nil || sig.KeyID != s.key.KeyID() || s.keys.VerifyDigest(sig, digest[:]) != nil {
		t.Errorf("both are rolled over, and the label is by %s (%v)", sig.KeyID, err)
	}
}
