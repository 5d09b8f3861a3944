package installed

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
)

// checkScene is a system of two signed packages and an unsigned one, all labelled.
func checkScene(t *testing.T) *scene {
	t.Helper()
	s := newScene(t)
	s.install("sh", map[string]string{"usr/bin/sh": "SHELL", "etc/shrc!": "RC", "etc/cron.sh!": "CRON"})
	s.install("ssh", map[string]string{"usr/sbin/sshd": "SSHD", "usr/share/doc/ssh": "DOC", "=usr/share/doc/plain": "PLAIN"})
	p := s.install("plain", map[string]string{"=usr/bin/plain": "UNSIGNED", "=usr/bin/nodigest": "NO"})
	p.Signed, p.Verify = false, nil
	p.Files[0].Digest, p.Files[0].Hash = nil, 0
	wantFindings(t, s.apply(ApplyOptions{Keys: s.keys}))
	return s
}

// copyOver puts the file from with its label in the place of to, as cp -a does.
func (s *scene) copyOver(from, to string) {
	s.t.Helper()
	content, err := os.ReadFile(filepath.Join(s.dir, from))
	if err != nil {
		s.t.Fatal(err)
	}
	os.Remove(filepath.Join(s.dir, to))
	s.write(to, string(content), 0o755)
	if label := s.label(from); label != nil {
		s.setLabel(to, label)
	}
}

func (s *scene) symlink(target, path string) {
	s.t.Helper()
	name := filepath.Join(s.dir, path)
	if err := errors.Join(os.RemoveAll(name), os.Symlink(target, name)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) chmod(path string, mode os.FileMode) {
	s.t.Helper()
	if err := os.Chmod(filepath.Join(s.dir, path), mode); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) clearLabel(path string) {
	s.t.Helper()
	f, err := s.system().Root.Open(path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	if err := f.Remove(sign.XattrName); err != nil {
		s.t.Fatal(err)
	}
}

// TestCheckFinds changes one thing of a good system and names all that has to be
// found.
func TestCheckFinds(t *testing.T) {
	stranger := newKey(t, 0x22222222)
	for name, c := range map[string]struct {
		change func(*scene)
		want   []string
		detail string // of the first
	}{
		"nothing": {func(s *scene) {}, nil, ""},
		"another signed file under the name": {
			func(s *scene) { s.copyOver("usr/bin/sh", "usr/sbin/sshd") },
			[]string{"wrong name /usr/sbin/sshd"}, "validly signed, but it is /usr/bin/sh of sh:amd64",
		},
		"a signed file in place of an unsigned one": {
			func(s *scene) { s.copyOver("usr/bin/sh", "usr/bin/plain") },
			[]string{"wrong name /usr/bin/plain"}, "it is /usr/bin/sh of sh:amd64",
		},
		"the same where the database has no digest": {
			func(s *scene) { s.copyOver("usr/bin/sh", "usr/bin/nodigest") },
			[]string{"wrong name /usr/bin/nodigest"}, "it is /usr/bin/sh of sh:amd64",
		},
		"a signed file in place of a conffile": {
			func(s *scene) { s.copyOver("usr/bin/sh", "etc/cron.sh") },
			[]string{"wrong name /etc/cron.sh"}, "it is /usr/bin/sh of sh:amd64",
		},
		"a signed file of no package": {
			func(s *scene) {
				s.write("usr/sbin/sshd", "OLD SSHD", 0o755)
				s.setLabel("usr/sbin/sshd", signed(s.t, s.key, "OLD SSHD"))
			},
			[]string{"foreign file /usr/sbin/sshd"}, "no installed package has it",
		},
		"other content": {
			func(s *scene) { s.write("usr/sbin/sshd", "EVIL", 0o755) },
			[]string{"digest mismatch /usr/sbin/sshd"}, "",
		},
		"other content without a label": {
			func(s *scene) { s.write("usr/sbin/sshd", "EVIL", 0o755); s.clearLabel("usr/sbin/sshd") },
			[]string{"digest mismatch /usr/sbin/sshd"}, "",
		},
		"other content by a stranger": {
			func(s *scene) {
				s.write("usr/sbin/sshd", "EVIL", 0o755)
				s.setLabel("usr/sbin/sshd", signed(s.t, stranger, "EVIL"))
			},
			[]string{"digest mismatch /usr/sbin/sshd"}, "",
		},
		"no label":       {func(s *scene) { s.clearLabel("usr/sbin/sshd") }, []string{"no label /usr/sbin/sshd"}, ""},
		"a kernel's own": {func(s *scene) { s.setLabel("usr/sbin/sshd", append([]byte{4, 4}, make([]byte, 32)...)) }, []string{"no label /usr/sbin/sshd"}, ""},
		"the label of another file": {
			func(s *scene) { s.setLabel("usr/sbin/sshd", s.label("usr/bin/sh")) },
			[]string{"bad signature /usr/sbin/sshd"}, "",
		},
		"the label of a stranger": {
			func(s *scene) { s.setLabel("usr/sbin/sshd", signed(s.t, stranger, "SSHD")) },
			[]string{"unknown key ID /usr/sbin/sshd"}, "22222222",
		},
		"a malformed label": {
			func(s *scene) { s.setLabel("usr/sbin/sshd", []byte{3, 2, 4, 0, 0, 0, 0, 0, 9, 1}) },
			[]string{"bad signature /usr/sbin/sshd"}, "",
		},
		"missing":        {func(s *scene) { os.Remove(filepath.Join(s.dir, "usr/sbin/sshd")) }, []string{"missing /usr/sbin/sshd"}, ""},
		"a link instead": {func(s *scene) { s.symlink("/bin/sh", "usr/sbin/sshd") }, []string{"not a regular file /usr/sbin/sshd"}, "a symbolic link to /bin/sh"},
		"a file that may be missing": {func(s *scene) {
			s.db[1].Files[2].Optional = true
			os.Remove(filepath.Join(s.dir, "usr/share/doc/ssh"))
		}, nil, ""},

		"a conffile edited":  {func(s *scene) { s.write("etc/shrc", "MINE", 0o644) }, []string{"conffile edited /etc/shrc"}, ""},
		"a conffile deleted": {func(s *scene) { os.Remove(filepath.Join(s.dir, "etc/shrc")) }, []string{"conffile deleted /etc/shrc"}, ""},
		"an executable one edited": {
			func(s *scene) { s.write("etc/cron.sh", "MINE", 0o755) },
			[]string{"conffile locked /etc/cron.sh"}, "sign-file",
		},
		"an executable one replaced": {
			func(s *scene) { s.write("etc/cron.sh", "MINE", 0o755); s.clearLabel("etc/cron.sh") },
			[]string{"conffile edited /etc/cron.sh"}, "sign-file",
		},
		"an executable one signed again": {
			func(s *scene) {
				s.write("etc/cron.sh", "MINE", 0o755)
				s.setLabel("etc/cron.sh", signed(s.t, s.key, "MINE"))
			},
			[]string{"conffile edited /etc/cron.sh"}, "signed by key 11111111",
		},
		"a conffile made executable": {func(s *scene) { s.chmod("etc/shrc", 0o755) }, []string{"no label /etc/shrc"}, ""},

		"a label that no package signs": {
			func(s *scene) { s.setLabel("usr/bin/plain", signed(s.t, s.key, "UNSIGNED")) },
			[]string{"local signature /usr/bin/plain"}, "key 11111111",
		},
		"a bad one": {
			func(s *scene) { s.setLabel("usr/bin/plain", signed(s.t, s.key, "OTHER")) },
			[]string{"extra label /usr/bin/plain"}, "",
		},
		"a bad one that another file has": {
			func(s *scene) { s.setLabel("usr/bin/plain", s.label("usr/bin/sh")) },
			[]string{"extra label /usr/bin/plain"}, "",
		},
		"the content and label of a signed file, which is its own content, too": {
			func(s *scene) {
				s.db[2].Files[1].Digest = md5Of("SHELL")
				s.copyOver("usr/bin/sh", s.db[2].Files[1].Path)
			},
			[]string{"local signature /usr/bin/plain"}, "",
		},
		"one on a file that the selection leaves out": {
			func(s *scene) { s.setLabel("usr/share/doc/plain", signed(s.t, stranger, "PLAIN")) },
			[]string{"extra label /usr/share/doc/plain"}, "",
		},

		"an edited database": {
			func(s *scene) {
				s.db[1].Verify = func(*sign.TrustedKeys) error { return errors.New("it was edited") }
			},
			[]string{"bad statement "}, "it was edited",
		},
		"malformed signatures": {
			func(s *scene) {
				p := s.db[1]
				p.Malformed, p.Verify = errors.New("cut off"), nil
				for i := range p.Files {
					p.Files[i].Value = nil
				}
			},
			[]string{"malformed "}, "cut off",
		},
		"a script that was not in the package": {
			func(s *scene) {
				s.write("var/lib/dpkg/info/ssh.preinst", "#!/bin/sh", 0o755)
				s.db[1].Files = append(s.db[1].Files, File{Path: "var/lib/dpkg/info/ssh.preinst", Script: true})
			},
			[]string{"unsigned script /var/lib/dpkg/info/ssh.preinst"}, "",
		},
		"a script of an unsigned package": {
			func(s *scene) {
				s.write("var/lib/dpkg/info/plain.preinst", "#!/bin/sh", 0o755)
				s.db[2].Files = append(s.db[2].Files, File{Path: "var/lib/dpkg/info/plain.preinst", Script: true})
			},
			nil, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := checkScene(t)
			c.change(s)
			r := s.check(CheckOptions{})
			wantFindings(t, r, c.want...)
			if c.detail != "" {
				_, path, _ := strings.Cut(c.want[0], " /")
				if path != "" {
					path = "/" + path
				}
				if got := detailOf(t, r, path); !strings.Contains(got, c.detail) {
					t.Errorf("detail %q does not hold %q", got, c.detail)
				}
			}
		})
	}
}

func TestCheckCounts(t *testing.T) {
	s := checkScene(t)
	s.clearLabel("usr/sbin/sshd")
	r := s.check(CheckOptions{})
	for i, want := range [][2]int{{2, 2}, {2, 1}, {0, 0}} {
		if got := [2]int{r.Reports[i].Files, r.Reports[i].Labelled}; got != want {
			t.Errorf("%s: files and labelled %v, want %v", r.Reports[i].Package.Name, got, want)
		}
	}
}

// What a key signed that is not trusted is one finding, and the contents are judged by
// the digests of the database.
func TestCheckWithAnUnknownKey(t *testing.T) {
	s := checkScene(t)
	other := newKey(t, 0x22222222)
	keys := new(sign.TrustedKeys)
	if err := keys.Add(other.KeyID(), other.Public()); err != nil {
		t.Fatal(err)
	}
	r := s.check(CheckOptions{Keys: keys})
	wantFindings(t, r, "unknown key ID ", "unknown key ID ")
	if d := r.Reports[1].Findings[0].Detail; d != "2 of its signatures are by key 11111111, which no certificate given is for" {
		t.Errorf("detail %q", d)
	}
	s.write("usr/share/doc/ssh", "EVIL", 0o644)
	s.copyOver("usr/bin/sh", "usr/sbin/sshd")
	wantFindings(t, s.check(CheckOptions{Keys: keys}, "ssh"),
		"unknown key ID ", "digest mismatch /usr/share/doc/ssh", "wrong name /usr/sbin/sshd")
}

// Another trusted key may have signed the same content.
func TestCheckTakesAnotherKey(t *testing.T) {
	s := checkScene(t)
	other := newKey(t, 0x22222222)
	if err := s.keys.Add(other.KeyID(), other.Public()); err != nil {
		t.Fatal(err)
	}
	s.setLabel("usr/sbin/sshd", signed(t, other, "SSHD"))
	r := s.check(CheckOptions{})
	wantFindings(t, r, "other key /usr/sbin/sshd")
	if r.Reports[1].Labelled != 2 {
		t.Errorf("%+v", *r.Reports[1])
	}
	// Where it is the label of another instance there is nothing to say at all.
	i386 := s.install("ssh", map[string]string{"usr/sbin/sshd": "SSHD"})
	i386.Arch = "i386"
	i386.Files[0].Value = signed(t, other, "SSHD")
	s.setLabel("usr/sbin/sshd", i386.Files[0].Value)
	wantFindings(t, s.check(CheckOptions{}))
}

// A name of another architecture's instance is no other name.
func TestCheckOfASharedFileThatIsDamaged(t *testing.T) {
	s := checkScene(t)
	s.install("ssh", map[string]string{"usr/share/doc/ssh": "DOC"}).Arch = "i386"
	s.write("usr/share/doc/ssh", "DAMAGED", 0o644)
	wantFindings(t, s.check(CheckOptions{}, "ssh"), "digest mismatch /usr/share/doc/ssh", "digest mismatch /usr/share/doc/ssh")
	wantFindings(t, s.check(CheckOptions{Keys: new(sign.TrustedKeys)}, "ssh"), "digest mismatch /usr/share/doc/ssh", "digest mismatch /usr/share/doc/ssh",
		"unknown key ID ", "unknown key ID ")
}

// Only what is named is checked, but a file is told by all packages.
func TestCheckSelects(t *testing.T) {
	s := checkScene(t)
	s.copyOver("usr/bin/sh", "usr/sbin/sshd")
	s.write("usr/bin/sh", "EVIL", 0o755)
	r := s.check(CheckOptions{}, "ssh")
	wantFindings(t, r, "wrong name /usr/sbin/sshd")
	if len(r.Reports) != 1 {
		t.Errorf("%d reports", len(r.Reports))
	}
}

func TestCheckConffileRule(t *testing.T) {
	s := checkScene(t)
	wantFindings(t, s.check(CheckOptions{Conffiles: ConffilesAll}), "no label /etc/shrc")
	s.clearLabel("etc/cron.sh")
	wantFindings(t, s.check(CheckOptions{Conffiles: ConffilesNone}))
	wantFindings(t, s.check(CheckOptions{}), "no label /etc/cron.sh")
}

func TestCheckUnowned(t *testing.T) {
	s := checkScene(t)
	s.symlink("usr/bin", "bin") // a merged /usr
	renameFile(t, s.db[0], "usr/bin/sh", "bin/sh")
	s.write("usr/local/bin/script", "#!/bin/sh", 0o644)
	s.write("usr/local/lib/lib.so", "\x7fELFlib", 0o644)
	s.write("opt/vendor/bin/run", "text", 0o755)
	s.write("usr/local/share/text", "text", 0o644)
	s.write("usr/lib/signed", "LOCAL", 0o755)
	s.setLabel("usr/lib/signed", signed(t, s.key, "LOCAL"))
	s.write("usr/lib/badly", "LOCAL", 0o755)
	s.setLabel("usr/lib/badly", signed(t, s.key, "OTHER"))
	s.write("home/user/script", "#!/bin/sh", 0o755)
	s.copyOver("usr/sbin/sshd", "usr/local/sbin/backdoor")
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "x"), []byte("#!"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.symlink(outside, "usr/local/games")
	s.symlink("/usr/local/bin/script", "usr/local/bin/link")
	wantFindings(t, s.check(CheckOptions{}))
	r := s.check(CheckOptions{Unowned: true})
	wantFindings(t, r,
		"unowned /usr/local/bin/script", "unowned /usr/local/lib/lib.so", "unowned /opt/vendor/bin/run", "unowned /usr/lib/badly",
		"local signature /usr/lib/signed", "wrong name /usr/local/sbin/backdoor")
	last := r.Reports[len(r.Reports)-1]
	if last.Package != nil || last.Findings[0].Package != "" {
		t.Errorf("the last report is of a package: %+v", last)
	}
}

func TestSeverities(t *testing.T) {
	for kind, want := range map[Kind]string{
		KindWrongName: "critical", KindMismatch: "critical", KindUnlabelled: "problem", KindMissing: "problem",
		KindEdited: "notice", KindError: "error",
	} {
		if got := kind.Severity().String(); got != want {
			t.Errorf("%s is %s, want %s", kind, got, want)
		}
	}
}

// renameFile makes the database call a file otherwise.
func renameFile(t *testing.T, p *Package, from, to string) {
	t.Helper()
	for i := range p.Files {
		if p.Files[i].Path == from {
			p.Files[i].Path = to
			return
		}
	}
	t.Fatalf("%s has no file %s", p.Name, from)
}

// A package may take a file over from another (Replaces of Debian). The first one goes
// on to sign it, but the file is not its own any more.
