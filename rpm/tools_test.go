package rpm

import (
	"bytes"
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
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/sign"
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

// cached returns what scripts/peers or scripts/forky-root left in the cache.
func cached(t testing.TB, pattern, script string) string {
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
		t.Skipf("%s is not there: run %s", pattern, script)
	}
	return found[len(found)-1]
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
	arch    string // "" is noarch
	install string // shell
	files   string
	defines []string
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
	if root != "" {
		var err error
		if dir, err = os.MkdirTemp(filepath.Join(root, "tmp"), "imaseal-test-"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
	}
	buildArch := ""
	if s.arch == "" {
		buildArch = "BuildArch: noarch\n"
	}
	text := "%define debug_package %{nil}\n%define __os_install_post %{nil}\nName: x\nVersion: 1\nRelease: 2\nSummary: x\nLicense: x\n" +
		buildArch + "%description\nx\n%install\nmkdir -p %{buildroot}\n" + s.install + "%files\n" + s.files
	save(t, filepath.Join(dir, "x.spec"), []byte(text))
	inside := "/" + strings.TrimPrefix(strings.TrimPrefix(dir, root), "/")
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
	report, err := sign.Verify(t.Context(), p, trusted(testKey()), sign.Options{})
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

func TestRPMBuild(t *testing.T) {
	rpm := system(t)
	usual := func(defines ...string) spec { return spec{install: someFiles, files: someList, defines: defines} }
	for name, s := range map[string]spec{
		"gzip":     usual("_binary_payload w9.gzdio"),
		"bzip2":    usual("_binary_payload w9.bzdio"),
		"xz":       usual("_binary_payload w2.xzdio"),
		"lzma":     usual("_binary_payload w2.lzdio"),
		"zstd":     usual("_binary_payload w3.zstdio"),
		"none":     usual("_binary_payload w.ufdio"),
		"sha384":   usual("_binary_filedigest_algorithm 9"),
		"sha512":   usual("_binary_filedigest_algorithm 10"),
		"reserve0": usual("__gpg_reserved_space 0"),
		"binary":   {arch: "native", install: "mkdir -p %{buildroot}/usr/bin\ncp /bin/true %{buildroot}/usr/bin/x\n", files: "/usr/bin/x\n"},
		"folder":   {install: "mkdir -p %{buildroot}/usr/x\n", files: "%dir /usr/x\n"},
		"ghost":    {files: "%ghost /usr/x\n"},
		"empty":    {},
		"many": {install: "mkdir -p %{buildroot}/m\nfor i in $(seq 700); do echo $i >%{buildroot}/m/$i; done\n", files: "/m\n",
			defines: []string{"_binary_payload w2.xzdio"}},
	} {
		t.Run(name, func(t *testing.T) {
			raw := s.build(t, "")
			judge(t, raw, rpm)
			trust, _ := signed(t, raw, Options{TrustHeaderDigests: true})
			full, _ := signed(t, raw, Options{})
			if !bytes.Equal(trust, full) {
				t.Error("trusting the header's digests gives another package")
			}
		})
	}
	for algo, name := range map[string]string{"1": "md5", "2": "sha1"} {
		raw := usual("_binary_filedigest_algorithm "+algo).build(t, "")
		if _, err := sign.Sign(t.Context(), open(t, raw, Options{}), testKey(), sign.Options{}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestClasses has rpmbuild's own classes of files.
func TestClasses(t *testing.T) {
	system(t)
	s := spec{arch: "native", files: "/usr/bin/*\n", install: `mkdir -p %{buildroot}/usr/bin
cp /bin/true %{buildroot}/usr/bin/elf
printf '#!/bin/sh\n:\n' >%{buildroot}/usr/bin/script
chmod 644 %{buildroot}/usr/bin/*
echo text >%{buildroot}/usr/bin/text
`}
	want := map[string]sign.Class{"usr/bin/elf": sign.ClassELF, "usr/bin/script": sign.ClassScript, "usr/bin/text": sign.ClassOther}
	n := 0
	for f, err := range open(t, s.build(t, ""), Options{TrustHeaderDigests: true}).Files(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; f.Class != want[f.Path] {
			t.Errorf("%q has class %d", f.Path, f.Class)
		}
	}
	if n != len(want) {
		t.Errorf("%d files", n)
	}
}

// TestInstall has rpm's plugin set the attributes.
func TestInstall(t *testing.T) {
	rpm := system(t)
	if os.Getuid() != 0 {
		t.Skip("only root may set security.ima")
	}
	plugins, _ := filepath.Glob("/usr/lib*/*/rpm-plugins/ima.so")
	more, _ := filepath.Glob("/usr/lib*/rpm-plugins/ima.so")
	if plugins = append(plugins, more...); len(plugins) == 0 {
		t.Skip("rpm-plugin-ima is not installed")
	}
	root := t.TempDir()
	probe := save(t, filepath.Join(root, "probe"), nil)
	if err := unix.Setxattr(probe, sign.XattrName, []byte{3, 2}, 0); err != nil {
		t.Skipf("no security.ima in %s: %v", root, err)
	}
	out, m := signed(t, spec{install: someFiles, files: someList}.build(t, ""), Options{})
	path := save(t, filepath.Join(t.TempDir(), "x.rpm"), out)
	run(t, nil, rpm, "--root", root, "-U", "--nodeps", "--nosignature", "--define", "__plugindir "+filepath.Dir(plugins[0]),
		"--define", "_ima_sign_config_files 1", path)
	for _, e := range m.Files {
		value := make([]byte, 1024)
		n, err := unix.Lgetxattr(filepath.Join(root, e.Path), sign.XattrName, value)
		if err != nil || !bytes.Equal(value[:n], e.Value) {
			t.Errorf("%q has %x, not %x: %v", e.Path, value[:max(n, 0)], e.Value, err)
		}
	}
	if len(m.Files) != 8 {
		t.Errorf("%d files were signed", len(m.Files))
	}
}

// A gpgHome is a GnuPG home with a key.
func gpgHome(t *testing.T) (env []string, public string) {
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
	run(t, env, "gpg", "--batch", "--quiet", "--passphrase", "", "--quick-gen-key", "Test <test@example.com>", "rsa2048", "sign", "0")
	public = filepath.Join(home, "public.asc")
	run(t, env, "gpg", "--batch", "--armor", "--output", public, "--export", "test@example.com")
	return env, public
}

// TestOpenPGPStays signs files of a package that rpmsign has signed as a whole.
func TestOpenPGPStays(t *testing.T) {
	system(t)
	need(t, "rpmsign")
	env, public := gpgHome(t)
	db := t.TempDir()
	run(t, nil, "rpmkeys", "--dbpath", db, "--import", public)
	path := save(t, filepath.Join(t.TempDir(), "x.rpm"), spec{install: someFiles, files: someList}.build(t, ""))
	run(t, env, "rpmsign", "-D", "__gpg /usr/bin/gpg", "-D", "_gpg_name test@example.com", "--addsign", path)
	raw := load(t, path)
	out := judge(t, raw, "rpm")
	save(t, path, out)
	if got := run(t, nil, "rpmkeys", "--dbpath", db, "-Kv", path); strings.Count(got, "Signature") != 1 || !strings.Contains(got, "Header V4 RSA/SHA") {
		t.Errorf("rpmkeys says\n%s", got)
	}
}

// keyFile writes a key as rpmsign reads it.
func keyFile(t *testing.T, kind string) (path string, key *sign.Signer) {
	t.Helper()
	var der []byte
	var pub any
	var private any
	if kind == "rsa" {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		private, pub = k, k.Public()
	} else {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		private, pub = k, k.Public()
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	path = save(t, filepath.Join(t.TempDir(), "key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	id, err := sign.KeyIDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	if r, ok := private.(*rsa.PrivateKey); ok {
		key, err = sign.NewSigner(r, id)
	} else {
		key, err = sign.NewSigner(private.(*ecdsa.PrivateKey), id)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path, key
}

// A peer is an rpmsign that can sign files.
type peer struct{ rpmsign, rpm string }

func peer418(t testing.TB) peer {
	dir := cached(t, "rpm418-*-????????/bin", "scripts/peers rpm418")
	return peer{dir + "/rpmsign", dir + "/rpm"}
}

func peer61(t testing.TB) peer {
	dir := cached(t, "rpm61-*-????????/bin", "scripts/peers rpm61")
	return peer{dir + "/rpmsign", dir + "/rpm"}
}

func (p peer) sign(t *testing.T, env []string, path, key string) {
	t.Helper()
	// Of the names one version each takes notice.
	run(t, env, p.rpmsign, "-D", "_gpg_name test@example.com", "-D", "_openpgp_sign gpg", "-D", "_openpgp_sign_id test@example.com",
		"--signfiles", "--fskpath="+key, "--addsign", path)
}

// compare signs raw by rpmsign and by us: the tags have to be the same for RSA, and
// for EC each has to verify the other's. What rpmsign signed is taken off by us.
func compare(t *testing.T, p peer, raw []byte) {
	t.Helper()
	env, _ := gpgHome(t)
	for _, kind := range []string{"rsa", "ec"} {
		keyPath, key := keyFile(t, kind)
		path := save(t, filepath.Join(t.TempDir(), "x.rpm"), raw)
		p.sign(t, env, path, keyPath)
		theirs := open(t, load(t, path), Options{})
		ours := open(t, raw, Options{})
		m, err := sign.Sign(t.Context(), ours, key, sign.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ours = open(t, write(t, ours, m, sign.WriteOptions{}), Options{})
		for _, tag := range []uint32{sigFileSignatures, sigFileSignatureLength} {
			a, b := ours.sig.find(tag), theirs.sig.find(tag)
			if (a == nil) != (b == nil) || a != nil && (a.kind != b.kind || a.count != b.count || kind == "rsa" && !bytes.Equal(a.data, b.data)) {
				t.Errorf("%s: tag %d differs from rpmsign's", kind, tag)
			}
		}
		for i, text := range fileSignatureTexts(t, theirs) {
			if (text == "") != (fileSignatureTexts(t, ours)[i] == "") {
				t.Errorf("%s: %q: one of us signs it", kind, ours.files.path(i))
			}
		}
		report, err := sign.Verify(t.Context(), theirs, trusted(key), sign.Options{})
		if err != nil || !report.OK() || report.Signed != report.Files {
			t.Errorf("%s: of rpmsign's we say %+v, %v", kind, report, err)
		}
		if theirs.mainAt != open(t, raw, Options{}).mainAt {
			continue // the reserve was too small, and is left as it is
		}
		back := open(t, write(t, theirs, nil, sign.WriteOptions{}), Options{})
		entries := without(back.sig.entries, openPGPTags...)
		i := slices.IndexFunc(entries, isReserve)
		entries[i] = binEntry(entries[i].tag, make([]byte, usualReserve))
		if !bytes.Equal(buildHeader(entries, sigRegion), open(t, raw, Options{}).sig.raw) || back.mainAt != theirs.mainAt {
			t.Errorf("%s: taken off it is not as it was", kind)
		}
	}
}

func TestPeer418(t *testing.T) {
	p := peer418(t)
	system(t)
	compare(t, p, spec{install: someFiles, files: someList}.build(t, ""))
	compare(t, p, spec{install: someFiles, files: someList, defines: []string{"_binary_filedigest_algorithm 10"}}.build(t, ""))
	compare(t, p, spec{install: "mkdir -p %{buildroot}/m\nfor i in $(seq 60); do echo $i >%{buildroot}/m/$i; done\n", files: "/m\n"}.build(t, ""))
	compare(t, p, spec{install: "mkdir -p %{buildroot}/m\n", files: "/m\n"}.build(t, ""))
}

func forky(t testing.TB) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root may chroot")
	}
	return cached(t, "forky-*[^.k]", "scripts/forky-root")
}

// TestVersion6 has rpm 6 of forky build and judge.
func TestVersion6(t *testing.T) {
	root := forky(t)
	raw := spec{install: someFiles, files: someList, defines: []string{"_rpmformat 6"}}.build(t, root)
	p := open(t, raw, Options{})
	if p.Info().FormatVersion != "6" {
		t.Errorf("format %s", p.Info().FormatVersion)
	}
	out, m := signed(t, raw, Options{})
	if !bytes.Equal(write(t, open(t, out, Options{}), nil, sign.WriteOptions{}), raw) {
		t.Error("unsign does not give the original")
	}
	dir, err := os.MkdirTemp(filepath.Join(root, "tmp"), "imaseal-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	save(t, dir+"/x.rpm", out)
	inside := strings.TrimPrefix(dir, root)
	rpm6 := func(args ...string) string { return run(t, nil, "chroot", append([]string{root}, args...)...) }
	rpm6("rpmkeys", "-Kv", "--nosignature", inside+"/x.rpm")
	got := rpm6("rpm", "-qp", "--nosignature", "--qf", `%{RPMFORMAT}\n[%{FILENAMES}|%{FILESIGNATURES}\n]`, inside+"/x.rpm")
	if want := "6\n" + asRPMShows(p, m); got != want {
		t.Errorf("rpm shows\n%s\nnot\n%s", got, want)
	}
	os.Mkdir(dir+"/root", 0o755)
	rpm6("rpm", "--root", inside+"/root", "-U", "--nodeps", "--nosignature", inside+"/x.rpm")
	if _, err := os.Stat(dir + "/root/usr/bin/b1"); err != nil {
		t.Error(err)
	}
}

func TestPeer61(t *testing.T) {
	p := peer61(t)
	root := forky(t)
	s := spec{install: someFiles, files: someList}
	if _, err := exec.LookPath("rpmbuild"); err == nil {
		compare(t, p, s.build(t, ""))
	}
	s.defines = []string{"_rpmformat 6"}
	raw := s.build(t, root)
	compare(t, p, raw)
	judge(t, raw, p.rpm)
}
