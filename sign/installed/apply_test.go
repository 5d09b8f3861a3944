package installed

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

func TestApplySetsWhatIsMissing(t *testing.T) {
	s := newScene(t)
	p := s.install("a", map[string]string{"usr/bin/a": "A", "usr/lib/liba.so": "LIB", "=usr/share/doc/a": "DOC"})
	q := s.install("b", map[string]string{"usr/bin/b": "B"})
	q.Signed, q.Files[0].Value = false, nil
	s.setLabel("usr/lib/liba.so", p.Files[2].Value)
	r := s.apply(ApplyOptions{Keys: s.keys})
	wantFindings(t, r)
	if got := *r.Reports[0]; got.Files != 2 || got.Labelled != 2 || got.Changed != 1 {
		t.Errorf("report %+v", got)
	}
	for i, f := range p.Files {
		if got := s.label(f.Path); !bytes.Equal(got, f.Value) {
			t.Errorf("file %d, %s: label %x, want %x", i, f.Path, got, f.Value)
		}
	}
	if s.label("usr/bin/b") != nil {
		t.Error("a file of an unsigned package was labelled")
	}
	// Again there is nothing to do.
	if r := s.apply(ApplyOptions{Keys: s.keys}); r.Reports[0].Changed != 0 || r.Reports[0].Labelled != 2 {
		t.Errorf("the second run: %+v", *r.Reports[0])
	}
}

func TestApplyNeverLabelsOtherContent(t *testing.T) {
	for name, keys := range map[string]bool{"by signature": true, "by digest": false} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.install("a", map[string]string{"usr/bin/good": "GOOD", "usr/bin/bad": "BAD", "etc/conf.sh!": "CONF"})
			s.write("usr/bin/bad", "EVIL", 0o755)
			s.write("etc/conf.sh", "EDITED", 0o755)
			o := ApplyOptions{}
			if keys {
				o.Keys = s.keys
			}
			r := s.apply(o)
			wantFindings(t, r, "digest mismatch /usr/bin/bad", "conffile edited /etc/conf.sh")
			if s.label("usr/bin/bad") != nil || s.label("etc/conf.sh") != nil {
				t.Error("content that was not signed has a label")
			}
			if s.label("usr/bin/good") == nil {
				t.Error("the good file has no label")
			}
		})
	}
}

// What is labelled already is read all the same, so that a label that no longer holds
// is told. It stays: the kernel judges it.
func TestApplyReadsWhatIsLabelled(t *testing.T) {
	s := newScene(t)
	p := s.install("a", map[string]string{"usr/bin/a": "A", "etc/conf.sh!": "CONF", "var/lib/dpkg/info/a.postinst": "SCRIPT"})
	p.Files[2].Digest, p.Files[2].Hash, p.Files[2].Script = nil, 0, true
	wantFindings(t, s.apply(ApplyOptions{Keys: s.keys}))
	wantFindings(t, s.apply(ApplyOptions{}))
	s.write("usr/bin/a", "EVIL", 0o755)
	s.write("etc/conf.sh", "EDITED", 0o755)
	for _, keys := range []*sign.TrustedKeys{s.keys, nil} {
		r := s.apply(ApplyOptions{Keys: keys})
		wantFindings(t, r, "digest mismatch /usr/bin/a", "conffile locked /etc/conf.sh")
		if got := *r.Reports[0]; got.Labelled != 1 || got.Changed != 0 {
			t.Errorf("%+v", got)
		}
	}
	if s.label("usr/bin/a") == nil {
		t.Error("the label was removed")
	}
}

// The digest in the database may be right where the signature is not.
func TestApplyVerifiesBySignature(t *testing.T) {
	s := newScene(t)
	p := s.install("a", map[string]string{"usr/bin/a": "A"})
	p.Files[0].Value = signed(t, s.key, "another")
	wantFindings(t, s.apply(ApplyOptions{Keys: s.keys}), "digest mismatch /usr/bin/a")
	if s.label("usr/bin/a") != nil {
		t.Error("labelled with the signature of another content")
	}
}

func TestApplyWithoutCertificateNeedsADigest(t *testing.T) {
	s := newScene(t)
	p := s.install("a", map[string]string{"usr/bin/a": "A", "var/lib/dpkg/info/a.postinst": "SCRIPT"})
	p.Files[1].Digest, p.Files[1].Hash, p.Files[1].Script = nil, 0, true
	r := s.apply(ApplyOptions{})
	wantFindings(t, r, "not judged /var/lib/dpkg/info/a.postinst")
	if s.label("usr/bin/a") == nil || s.label("var/lib/dpkg/info/a.postinst") != nil {
		t.Error("wrong labels")
	}
}

func TestApplyAdmitsPackages(t *testing.T) {
	s := newScene(t)
	other := newKey(t, 0x22222222)
	strangers := new(sign.TrustedKeys)
	if err := strangers.Add(other.KeyID(), other.Public()); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change   func(*Package)
		keys     *sign.TrustedKeys
		unknown  bool
		want     []string
		labelled bool
	}{
		"good":                     {func(*Package) {}, s.keys, false, nil, true},
		"malformed":                {func(p *Package) { p.Malformed = errors.New("cut") }, s.keys, false, []string{"malformed "}, false},
		"bad statement":            {func(p *Package) { p.Verify = func(*sign.TrustedKeys) error { return sign.ErrBadSignature } }, s.keys, false, []string{"bad statement "}, false},
		"unknown key":              {func(*Package) {}, strangers, false, []string{"unknown key ID "}, false},
		"unknown key, by digest":   {func(*Package) {}, strangers, true, nil, true},
		"bad statement, by digest": {func(p *Package) { p.Verify = func(*sign.TrustedKeys) error { return sign.ErrBadSignature } }, s.keys, true, []string{"bad statement "}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s.db = nil
			c.change(s.install("a", map[string]string{"usr/bin/" + strings.ReplaceAll(name, " ", "-"): name}))
			wantFindings(t, s.apply(ApplyOptions{Keys: c.keys, UnknownKeys: c.unknown}), c.want...)
			if got := s.label(s.db[0].Files[0].Path) != nil; got != c.labelled {
				t.Errorf("labelled %v, want %v", got, c.labelled)
			}
		})
	}
}

func TestApplyKeepsOtherLabels(t *testing.T) {
	s := newScene(t)
	p := s.install("a", map[string]string{"usr/bin/a": "A", "usr/bin/hashed": "H"})
	other := signed(t, newKey(t, 0x22222222), "A")
	digest := append([]byte{4, 4}, make([]byte, 32)...) // a digest, as the kernel keeps them
	s.setLabel("usr/bin/a", other)
	s.setLabel("usr/bin/hashed", digest)
	wantFindings(t, s.apply(ApplyOptions{Keys: s.keys}), "other label /usr/bin/a")
	if !bytes.Equal(s.label("usr/bin/a"), other) {
		t.Error("the label of another key was replaced")
	}
	if !bytes.Equal(s.label("usr/bin/hashed"), p.Files[1].Value) {
		t.Error("a digest is no signature, and was left")
	}
	wantFindings(t, s.apply(ApplyOptions{Keys: s.keys, Replace: true}))
	if !bytes.Equal(s.label("usr/bin/a"), p.Files[0].Value) {
		t.Error("--replace replaced nothing")
	}
}

// Two instances of a package share files; each may be signed by a key of its own.
func TestApplyLeavesTheLabelOfAnotherInstance(t *testing.T) {
	s := newScene(t)
	s.install("lib", map[string]string{"usr/share/doc/lib": "DOC"})
	i386 := s.install("lib", map[string]string{"usr/share/doc/lib": "DOC"})
	i386.Arch = "i386"
	i386.Files[0].Value = signed(t, newKey(t, 0x22222222), "DOC")
	s.setLabel("usr/share/doc/lib", i386.Files[0].Value)
	r := s.apply(ApplyOptions{Keys: s.keys}, "lib:amd64")
	wantFindings(t, r)
	if len(r.Reports) != 1 || r.Reports[0].Labelled != 1 || !bytes.Equal(s.label("usr/share/doc/lib"), i386.Files[0].Value) {
		t.Errorf("%d reports, label %x", len(r.Reports), s.label("usr/share/doc/lib"))
	}
}

func TestApplyConffiles(t *testing.T) {
	for _, c := range []struct {
		rule         Conffiles
		text, script bool
	}{{"", false, true}, {ConffilesExecutable, false, true}, {ConffilesAll, true, true}, {ConffilesNone, false, false}} {
		t.Run("rule "+string(c.rule), func(t *testing.T) {
			s := newScene(t)
			s.install("a", map[string]string{"etc/text!": "T", "etc/script.sh!": "S"})
			wantFindings(t, s.apply(ApplyOptions{Keys: s.keys, Conffiles: c.rule}))
			if got := s.label("etc/text") != nil; got != c.text {
				t.Errorf("text labelled: %v", got)
			}
			if got := s.label("etc/script.sh") != nil; got != c.script {
				t.Errorf("script labelled: %v", got)
			}
		})
	}
}

func TestApplyDryRunChangesNothing(t *testing.T) {
	s := newScene(t)
	s.install("a", map[string]string{"usr/bin/a": "A"})
	r := s.apply(ApplyOptions{Keys: s.keys, DryRun: true})
	if r.Reports[0].Changed != 1 || r.Reports[0].Labelled != 0 || s.label("usr/bin/a") != nil {
		t.Errorf("report %+v, label %x", *r.Reports[0], s.label("usr/bin/a"))
	}
}

// Neither a link in the place of a file nor one among its folders leads out of the
// root.
func TestApplyOfFilesThatMayBeMissing(t *testing.T) {
	s := newScene(t)
	p := s.install("a", map[string]string{"usr/bin/a": "A", "usr/share/doc/a": "D"})
	p.Files[1].Optional = true
	for _, f := range p.Files {
		if err := os.Remove(filepath.Join(s.dir, f.Path)); err != nil {
			t.Fatal(err)
		}
	}
	wantFindings(t, s.apply(ApplyOptions{Keys: s.keys}), "missing /usr/bin/a")
}

// A link among the folders that stays below the root is followed, as dpkg does on a
// system with a merged /usr.
// Whoever writes to the file while it is read does not get a label for what he wrote.
// A label on a file that was written to between reading and labelling is taken back.
// A file that takes the name while another is being labelled gets no label: it is the
// inode that was read that does.
func TestApplyResumes(t *testing.T) {
	s := newScene(t)
	files := map[string]string{}
	for i := range 40 {
		files["usr/bin/"+string(rune('a'+i/10))+string(rune('0'+i%10))] = strings.Repeat("x", i)
	}
	s.install("a", files)
	ctx, cancel := context.WithCancel(context.Background())
	sys := s.system()
	sys.Jobs = 1
	n := 0
	sys.Progress = func(files int, _ int64) {
		if n += files; n == 10 {
			cancel()
		}
	}
	if _, err := sys.Apply(ctx, nil, ApplyOptions{Keys: s.keys}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	labelled := 0
	for path := range files {
		if s.label(path) != nil {
			labelled++
		}
	}
	if labelled == 0 || labelled == len(files) {
		t.Fatalf("%d of %d files were labelled before the interruption", labelled, len(files))
	}
	r := s.apply(ApplyOptions{Keys: s.keys})
	if got := *r.Reports[0]; got.Changed != len(files)-labelled || got.Labelled != len(files) {
		t.Errorf("%d were labelled before, now %+v", labelled, got)
	}
}

func TestApplyReportsWhatIsNotInstalled(t *testing.T) {
	s := newScene(t)
	s.install("a", map[string]string{"usr/bin/a": "A"})
	r := s.apply(ApplyOptions{Keys: s.keys}, "a", "nosuch")
	if len(r.Errors) != 1 || !errors.Is(r.Errors[0], errNotThere) {
		t.Errorf("errors %v", r.Errors)
	}
	if s.label("usr/bin/a") == nil {
		t.Error("the other package was not tried")
	}
}

func TestReportsComeInTheOrderOfTheDatabase(t *testing.T) {
	s := newScene(t)
	var want []string
	for _, name := range []string{"c", "a", "b"} {
		s.install(name, map[string]string{"usr/bin/" + name + "1": name, "usr/bin/" + name + "2": "2" + name})
		s.write("usr/bin/"+name+"1", "evil", 0o755)
		s.write("usr/bin/"+name+"2", "evil", 0o755)
		want = append(want, "/usr/bin/"+name+"1", "/usr/bin/"+name+"2")
	}
	for range 5 {
		var got []string
		for _, r := range s.apply(ApplyOptions{Keys: s.keys}).Reports {
			for _, f := range r.Findings {
				got = append(got, f.Path)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("order %q, want %q", got, want)
		}
	}
}

// Somebody exchanges a folder for a link out of the root, and a file for a link to one
// outside, as fast as he can. Nothing outside ever gets a label, though the content
// there is just what was signed.
