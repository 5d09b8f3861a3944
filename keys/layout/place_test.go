package layout

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imaseal/imaseal/keys"
	"github.com/imaseal/imaseal/keys/ca"
	"github.com/imaseal/imaseal/sign"
)

func dracutLayout(t testing.TB, certs ...*x509.Certificate) *Layout {
	t.Helper()
	l, err := New(Options{For: "dracut", Certs: certs})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestPlace(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	_, cert := madeKeys(t, t.TempDir())
	l := dracutLayout(t, cert)
	dir := t.TempDir()
	if got := place(t, l, dir, PlaceOptions{DryRun: true}); !slices.Equal(got, []string{Placed, Placed}) || len(tree(t, dir)) > 0 {
		t.Errorf("a dry run does %q and leaves %q", got, tree(t, dir))
	}
	place(t, l, dir, PlaceOptions{})
	want := map[string]string{
		"etc/": "0755", "etc/keys/": "0755", "etc/keys/ima/": "0755", "etc/dracut.conf.d/": "0755",
		"etc/dracut.conf.d/98-imaseal.conf": "0644 " + dracutConf, l.Files[0].Path: "0644 " + string(cert.Raw),
	}
	got := tree(t, dir)
	if len(got) != len(want) {
		t.Errorf("there are %d files, not %d", len(got), len(want))
	}
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s is %.60q, not %.60q", name, got[name], want[name])
		}
	}
	before, err := os.Stat(filepath.Join(dir, l.Files[0].Path))
	if err != nil {
		t.Fatal(err)
	}
	if got := place(t, l, dir, PlaceOptions{}); !slices.Equal(got, []string{Unchanged, Unchanged}) {
		t.Errorf("the second time it does %q", got)
	}
	if after, err := os.Stat(filepath.Join(dir, l.Files[0].Path)); err != nil || !os.SameFile(before, after) {
		t.Error("the second time the file was written again")
	}
}

func TestPlaceGivesFilesToTheOwnerOfTheRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	_, cert := madeKeys(t, t.TempDir())
	dir := t.TempDir()
	if err := os.Chown(dir, 1234, 4321); err != nil {
		t.Fatal(err)
	}
	l := dracutLayout(t, cert)
	place(t, l, dir, PlaceOptions{})
	for _, name := range []string{"etc", "etc/keys/ima", l.Files[0].Path} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if s := info.Sys().(*syscall.Stat_t); s.Uid != 1234 || s.Gid != 4321 {
			t.Errorf("%s belongs to %d:%d", name, s.Uid, s.Gid)
		}
	}
}

func TestPlaceOverOtherFiles(t *testing.T) {
	keysDir := t.TempDir()
	_, cert := madeKeys(t, keysDir)
	_, stranger := madeKeys(t, t.TempDir())
	l, err := New(Options{For: "dracut", Certs: []*x509.Certificate{cert}, Config: configOf(t, "CONFIG_IMA_LOAD_X509=y\nCONFIG_IMA_X509_PATH=\"/etc/keys/own.der\"\n")})
	if err != nil {
		t.Fatal(err)
	}
	certFile, own, conf := l.Files[0].Path, l.Files[1].Path, l.Files[2].Path
	// Another certificate of the same key, as after a renewal.
	authority, err := ca.Open(t.Context(), filepath.Join(keysDir, "ca.key"), filepath.Join(keysDir, "ca.crt"), keys.OpenOptions{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer authority.Close()
	renewed, err := authority.Issue(t.Context(), ca.IssueOptions{Request: &ca.Request{PublicKey: cert.PublicKey}, Name: "renewed", Out: filepath.Join(t.TempDir(), "renewed")})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, path, content string
		mode                fs.FileMode
		update              string // what an update does, "" for an error
		export              string // what an export does
	}{
		{"the same", certFile, string(cert.Raw), 0o644, Unchanged, Unchanged},
		{"the same, with another mode", certFile, string(cert.Raw), 0o600, Replaced, ""},
		{"another certificate of the key", certFile, string(renewed.Certificate.Raw), 0o644, Replaced, ""},
		{"a certificate of another key", certFile, string(stranger.Raw), 0o644, "", ""},
		{"a text", certFile, "text", 0o644, "", ""},
		{"that of another key, which the kernel loads", own, string(stranger.Raw), 0o644, Kept, ""},
		{"a text that the kernel would load", own, "text", 0o644, "", ""},
		{"an older file of imaseal's", conf, ownFile + " Something else.\n", 0o644, Replaced, ""},
		{"somebody's file", conf, "add_dracutmodules+=\" integrity \"\n", 0o644, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			try := func(o PlaceOptions, want string) {
				t.Helper()
				dir := t.TempDir()
				full := filepath.Join(dir, test.path)
				if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(test.content), test.mode)); err != nil {
					t.Fatal(err)
				}
				before := tree(t, dir)
				got, err := tryPlace(t, l, dir, o)
				if want == "" {
					checkError(t, err, full, "there already")
					if len(tree(t, dir)) != len(before) || tree(t, dir)[test.path] != before[test.path] {
						t.Error("something was written all the same")
					}
					return
				}
				if err != nil || !slices.Contains(got, want) {
					t.Errorf("it does %q, %v, not %s", got, err, want)
				}
				expected := cert.Raw
				if want == Kept {
					expected = stranger.Raw
				}
				if content, err := os.ReadFile(full); err != nil || test.path != conf && string(content) != string(expected) {
					t.Errorf("%s is not the certificate: %v", full, err)
				}
			}
			try(PlaceOptions{}, test.export)
			try(PlaceOptions{Update: true}, test.update)
			forced := Replaced
			if test.update == Unchanged {
				forced = Unchanged
			}
			try(PlaceOptions{Update: true, Force: true}, forced)
		})
	}
}

func TestPlaceStaysBelowTheRoot(t *testing.T) {
	_, cert := madeKeys(t, t.TempDir())
	l := dracutLayout(t, cert)
	certFile := l.Files[0].Path
	for _, test := range []struct {
		name       string
		link, to   string
		want       string // "" for no error
		insideOnly string // where the certificate is then
	}{
		{"a folder that leads out", "etc/keys", "../../outside", "links below the root must be relative", ""},
		{"one by an absolute name", "etc/keys", "OUTSIDE", "links below the root must be relative", ""},
		{"etc itself", "etc", "../outside", "links below the root must be relative", ""},
		{"a file that leads out", certFile, "OUTSIDE/victim", "no regular file", ""},
		{"a file that leads to another inside", certFile, "../../victim", "no regular file", ""},
		{"a folder that leads inside", "etc/keys", "../usr/keys", "", "usr/keys/ima"},
	} {
		t.Run(test.name, func(t *testing.T) {
			top := t.TempDir()
			dir, outside := filepath.Join(top, "root"), filepath.Join(top, "outside")
			link := filepath.Join(dir, test.link)
			err := errors.Join(os.MkdirAll(filepath.Dir(link), 0o755), os.MkdirAll(filepath.Join(dir, "usr/keys"), 0o755), os.Mkdir(outside, 0o755),
				os.WriteFile(filepath.Join(outside, "victim"), []byte("victim"), 0o644),
				os.Symlink(strings.Replace(test.to, "OUTSIDE", outside, 1), link))
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range []PlaceOptions{{}, {Update: true, Force: true}} {
				_, err = tryPlace(t, l, dir, o)
				if (err != nil) != (test.want != "") {
					t.Errorf("%+v gives %v", o, err)
				}
				if err != nil {
					checkError(t, err, test.want)
				}
			}
			if got := tree(t, outside); len(got) != 1 || got["victim"] != "0644 victim" {
				t.Errorf("outside there is %q", got)
			}
			if test.insideOnly != "" {
				if _, err := os.Stat(filepath.Join(dir, test.insideOnly, filepath.Base(certFile))); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// Between the look and the write somebody puts a link there.
func TestPlaceDoesNotFollowALinkThatAppears(t *testing.T) {
	_, cert := madeKeys(t, t.TempDir())
	file := dracutLayout(t, cert).Files[0]
	dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
	full := filepath.Join(dir, file.Path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(victim, []byte("victim"), 0o644), os.Symlink(victim, full)); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := file.write(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(victim); err != nil || string(content) != "victim" {
		t.Errorf("the link was followed: %q, %v", content, err)
	}
	if info, err := os.Lstat(full); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the certificate is not there: %v", err)
	}
}

func TestPlaceInterrupted(t *testing.T) {
	_, cert := madeKeys(t, t.TempDir())
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := dracutLayout(t, cert).Place(ctx, root, PlaceOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	for name := range tree(t, dir) {
		if !strings.HasSuffix(name, "/") {
			t.Errorf("%s was written", name)
		}
	}
}

func TestRemove(t *testing.T) {
	keysDir := t.TempDir()
	_, cert := madeKeys(t, keysDir)
	_, other := madeKeys(t, t.TempDir())
	id, err := sign.KeyIDFromCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(keysDir, "signing.crt"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, system := range []string{"debian", "dracut"} {
		l, err := New(Options{For: system, Certs: []*x509.Certificate{cert, other}})
		if err != nil {
			t.Fatal(err)
		}
		place(t, l, dir, PlaceOptions{})
	}
	for name, content := range map[string]string{"etc/imaseal/certs/by-hand.crt": string(pem), "etc/keys/own.der": string(cert.Raw), "etc/keys/else.der": string(cert.Raw)} {
		writeFile(t, filepath.Join(dir, name), []byte(content))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	want := []string{"etc/keys/own.der", "etc/imaseal/certs/" + id.String() + ".der", "etc/imaseal/certs/by-hand.crt", "etc/keys/ima/" + id.String() + ".der"}
	slices.Sort(want)
	before := len(tree(t, dir))
	own := []string{"etc/keys/own.der", "etc/keys/none.der"}
	if got, err := Remove(root, id, own, true); err != nil || !slices.Equal(slices.Sorted(slices.Values(got)), want) || len(tree(t, dir)) != before {
		t.Errorf("a dry run: %q, %v", got, err)
	}
	if got, err := Remove(root, id, own, false); err != nil || !slices.Equal(slices.Sorted(slices.Values(got)), want) || len(tree(t, dir)) != before-len(want) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := Remove(root, id, own, false); err != nil || len(got) != 0 {
		t.Errorf("the second time: %q, %v", got, err)
	}

	// Whoever loads certificates follows links.
	link := filepath.Join(dir, "etc/keys/ima/link.der")
	if err := errors.Join(os.Symlink("../else.der", link), os.Symlink("nowhere", link+"2.der"), os.Mkdir(filepath.Join(dir, "etc/keys/ima/folder.der"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if got, err := Remove(root, id, own, false); err != nil || !slices.Equal(got, []string{"etc/keys/ima/link.der"}) {
		t.Errorf("a link: %q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "etc/keys/else.der")); err != nil {
		t.Errorf("what the link led to: %v", err)
	}
	if err := os.Symlink(filepath.Join(keysDir, "signing.crt"), link); err != nil {
		t.Fatal(err)
	}
	_, err = Remove(root, id, own, false)
	checkError(t, err, "link.der", "remove it by hand")
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}

	several, err := os.ReadFile(filepath.Join(keysDir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "etc/imaseal/certs/bundle.pem"), append(pem, several...))
	_, err = Remove(root, id, own, false)
	checkError(t, err, "bundle.pem", "by hand")
}
