package rpm

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

// A peer is an rpmsign that can sign files.
type peer struct{ rpmsign, rpm string }

func peer418(t testing.TB) peer {
	dir := signtest.Cached(t, "rpm418-*-????????/bin", "scripts/peers rpm418")
	return peer{dir + "/rpmsign", dir + "/rpm"}
}

func peer61(t testing.TB) peer {
	dir := signtest.Cached(t, "rpm61-*-????????/bin", "scripts/peers rpm61")
	return peer{dir + "/rpmsign", dir + "/rpm"}
}

func (p peer) sign(t *testing.T, env []string, path, key string) {
	t.Helper()
	// Of the names one version each takes notice.
	run(t, env, p.rpmsign, "-D", "_gpg_name rsa2048", "-D", "_openpgp_sign gpg", "-D", "_openpgp_sign_id rsa2048",
		"--signfiles", "--fskpath="+key, "--addsign", path)
}

// compare signs raw by rpmsign and by us: the tags have to be the same for RSA, and
// for EC each has to verify the other's. What rpmsign signed is taken off by us.
func compare(t *testing.T, p peer, env []string, raw []byte) {
	t.Helper()
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
		report, err := sign.Verify(t.Context(), theirs, signtest.Trust(key), sign.Options{})
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
	env, _ := gpgHome(t, "rsa2048")
	compare(t, p, env, spec{install: someFiles, files: someList}.build(t, ""))
	compare(t, p, env, spec{install: someFiles, files: someList, defines: []string{"_binary_filedigest_algorithm 10"}}.build(t, ""))
	compare(t, p, env, spec{install: "mkdir -p %{buildroot}/m\nfor i in $(seq 60); do echo $i >%{buildroot}/m/$i; done\n", files: "/m\n"}.build(t, ""))
	compare(t, p, env, spec{install: "mkdir -p %{buildroot}/m\n", files: "/m\n"}.build(t, ""))
}

func TestPeer61(t *testing.T) {
	p := peer61(t)
	root := forky(t)
	env, _ := gpgHome(t, "rsa2048")
	s := spec{install: someFiles, files: someList}
	if _, err := exec.LookPath("rpmbuild"); err == nil {
		compare(t, p, env, s.build(t, ""))
	}
	s.defines = []string{"_rpmformat 6"}
	raw := s.build(t, root)
	compare(t, p, env, raw)
	judge(t, raw, p.rpm)
}
