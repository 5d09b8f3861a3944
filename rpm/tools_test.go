package rpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

// rpm itself is the judge here. A tool that is not on the machine skips its tests.

func need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
}

func run(t testing.TB, env []string, name string, args ...string) string {
	t.Helper()
	out, err := try(env, name, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

func try(env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), append([]string{"LC_ALL=C.UTF-8"}, env...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		return out.String() + errs.String(), err
	}
	return out.String(), nil
}

func save(t testing.TB, path string, raw []byte) string {
	t.Helper()
	if err := os.WriteFile(path, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t testing.TB, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// A spec is a package for rpmbuild.
type spec struct {
	arch     string // "" is noarch
	preamble string
	install  string // shell
	files    string
	scripts  string
	defines  []string
}

const someFiles = `mkdir -p %{buildroot}/usr/bin %{buildroot}/etc %{buildroot}/usr/share/x
printf '#!/bin/sh\necho hello\n' >%{buildroot}/usr/bin/b1
chmod 4755 %{buildroot}/usr/bin/b1
ln %{buildroot}/usr/bin/b1 %{buildroot}/usr/share/x/b0
ln %{buildroot}/usr/bin/b1 %{buildroot}/usr/bin/b2
: >%{buildroot}/usr/share/x/empty1
ln %{buildroot}/usr/share/x/empty1 %{buildroot}/usr/share/x/empty2
ln -s b1 %{buildroot}/usr/bin/to
echo 'a = 1' >%{buildroot}/etc/x.conf
echo n >"%{buildroot}/usr/share/x/ümläut x"
head -c 3000000 /dev/zero >%{buildroot}/usr/share/x/large
`

const someList = `/usr/bin/*
%dir /usr/share/x
/usr/share/x/*
%config /etc/x.conf
%ghost /var/lib/x.db
%doc /etc/x.conf
`

// build runs rpmbuild, below root where that is not empty, and returns the package.
func (s spec) build(t testing.TB, root string) []byte {
	t.Helper()
	dir := t.TempDir()
	inside := dir
	if root != "" {
		dir, inside = below(t, root)
	}
	buildArch := ""
	if s.arch == "" {
		buildArch = "BuildArch: noarch\n"
	}
	text := "%define debug_package %{nil}\n%define __os_install_post %{nil}\nName: x\nVersion: 1\nRelease: 2\nSummary: x\nLicense: x\n" +
		buildArch + s.preamble + "%description\nx\n%install\nmkdir -p %{buildroot}\n" + s.install + s.scripts + "%files\n" + s.files
	save(t, filepath.Join(dir, "x.spec"), []byte(text))
	args := []string{"-bb", "--define", "_topdir " + inside + "/top", "--define", "_buildhost localhost"}
	for _, d := range s.defines {
		args = append(args, "--define", d)
	}
	args = append(args, inside+"/x.spec")
	if root != "" {
		run(t, nil, "chroot", append([]string{root, "rpmbuild"}, args...)...)
	} else {
		run(t, nil, "rpmbuild", args...)
	}
	found, _ := filepath.Glob(dir + "/top/RPMS/*/*.rpm")
	if len(found) != 1 {
		t.Fatalf("rpmbuild made %q", found)
	}
	return load(t, found[0])
}

// asRPMShows returns what rpm -qp shows of m for the files of p.
func asRPMShows(p *Package, m *sign.Manifest) string {
	values := map[string]string{}
	for _, e := range m.Files {
		values[e.Path] = hex.EncodeToString(e.Value)
	}
	var b strings.Builder
	for i := range p.files.n {
		fmt.Fprintf(&b, "/%s|%s\n", p.files.path(i), values[p.files.path(i)])
	}
	return b.String()
}

// judge signs raw, has rpm look at it, and takes the signatures off again.
func judge(t *testing.T, raw []byte, rpm string, options ...string) []byte {
	t.Helper()
	out, m := signed(t, raw, Options{Jobs: 2})
	path := save(t, filepath.Join(t.TempDir(), "x.rpm"), out)
	run(t, nil, filepath.Join(filepath.Dir(rpm), "rpmkeys"), append(options, "-Kv", "--nosignature", path)...)
	got := run(t, nil, rpm, append(options, "-qp", "--nosignature", "--qf", `[%{FILENAMES}|%{FILESIGNATURES}\n]`, path)...)
	p := open(t, out, Options{})
	if want := asRPMShows(p, m); got != want && len(m.Files) > 0 {
		t.Errorf("rpm shows\n%s\nnot\n%s", got, want)
	}
	if p.irregular != "" {
		t.Errorf("the signature header is irregular: %s", p.irregular)
	}
	if q := open(t, raw, Options{}); q.irregular != "" {
		t.Errorf("that of rpmbuild is: %s", q.irregular)
	}
	report, err := sign.Verify(t.Context(), p, signtest.Trust(testKey()), sign.Options{})
	if err != nil || !report.OK() || report.Signed != report.Files {
		t.Errorf("verify: %+v, %v", report, err)
	}
	if !bytes.Equal(write(t, p, nil, sign.WriteOptions{}), raw) {
		t.Error("unsign does not give the original")
	}
	return out
}

func system(t testing.TB) string {
	t.Helper()
	need(t, "rpm", "rpmbuild", "rpmkeys")
	path, err := exec.LookPath("rpm")
	if err != nil {
		t.Skip(err)
	}
	return path
}

// gpgHome makes a GnuPG home with a key of each kind in kinds, whose user ids they are.
// Its public keys are in the file public.
func gpgHome(t testing.TB, kinds ...string) (env []string, public string) {
	t.Helper()
	need(t, "gpg", "gpgconf")
	home, err := os.MkdirTemp("", "gpg") // short: the agent's socket is in it
	if err != nil {
		t.Fatal(err)
	}
	env = []string{"GNUPGHOME=" + home}
	t.Cleanup(func() {
		try(env, "gpgconf", "--kill", "all")
		os.RemoveAll(home)
	})
	for _, kind := range kinds {
		run(t, env, "gpg", "--batch", "--quiet", "--passphrase", "", "--quick-gen-key", kind, kind, "sign", "0")
	}
	public = filepath.Join(home, "public.asc")
	run(t, env, "gpg", "--batch", "--armor", "--output", public, "--export")
	return env, public
}

// keyFile writes a key as rpmsign reads it.
func keyFile(t *testing.T, kind string) (path string, key *sign.Signer) {
	t.Helper()
	var private crypto.Signer
	var err error
	if kind == "rsa" {
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	path = save(t, filepath.Join(t.TempDir(), "key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return path, signtest.SignerOf(private)
}
