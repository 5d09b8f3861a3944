package rpm

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/signtest"
)

// forky returns a root with Debian's rpm 6.
func forky(t testing.TB) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root may chroot")
	}
	return signtest.Cached(t, "debian-forky-*rpm*[^.k]", "scripts/forky-root")
}

// below makes a temporary folder in root, and returns its path and that inside of it.
func below(t testing.TB, root string) (dir, inside string) {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Join(root, "tmp"), "imaseal-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir, strings.TrimPrefix(dir, root)
}

// TestVersion6 has rpm 6 of forky build and judge.
func TestVersion6(t *testing.T) {
	root := forky(t)
	v6 := func(defines ...string) spec {
		return spec{install: someFiles, files: someList, defines: append(defines, "_rpmformat 6")}
	}
	for name, c := range map[string]struct {
		spec
		format string
	}{
		"gzip":         {v6("_binary_payload w9.gzdio"), "6"},
		"bzip2":        {v6("_binary_payload w9.bzdio"), "6"},
		"xz":           {v6("_binary_payload w2.xzdio"), "6"},
		"zstd, sha512": {v6("_binary_filedigest_algorithm 10"), "6"},
		"binary": {spec{arch: "native", install: "mkdir -p %{buildroot}/usr/bin\ncp /bin/true %{buildroot}/usr/bin/x\n", files: "/usr/bin/x\n",
			defines: []string{"_rpmformat 6"}}, "6"},
		"folder":   {spec{install: "mkdir -p %{buildroot}/usr/x\n", files: "%dir /usr/x\n", defines: []string{"_rpmformat 6"}}, "6"},
		"empty":    {spec{defines: []string{"_rpmformat 6"}}, "6"},
		"format 4": {spec{install: someFiles, files: someList, defines: []string{"_rpmformat 4"}}, "4"},
	} {
		t.Run(name, func(t *testing.T) {
			raw := c.build(t, root)
			out, m := signed(t, raw, Options{})
			p := open(t, out, Options{})
			if p.Info().FormatVersion != c.format || p.irregular != "" {
				t.Errorf("format %s, irregular: %s", p.Info().FormatVersion, p.irregular)
			}
			if !bytes.Equal(unsigned(t, out), raw) {
				t.Error("unsign does not give the original")
			}
			dir, inside := below(t, root)
			save(t, dir+"/x.rpm", out)
			rpm := func(args ...string) string { return run(t, nil, "chroot", append([]string{root}, args...)...) }
			rpm("rpmkeys", "-Kv", "--nosignature", inside+"/x.rpm")
			got := rpm("rpm", "-qp", "--nosignature", "--qf", `%{RPMFORMAT}\n[%{FILENAMES}|%{FILESIGNATURES}\n]`, inside+"/x.rpm")
			want := c.format + "\n" + asRPMShows(p, m)
			if len(m.Files) == 0 { // rpm's %{FILESIGNATURES} is then one of (none), or nothing
				got, want = strings.SplitAfter(got, "\n")[0], c.format+"\n"
			}
			if got != want {
				t.Errorf("rpm shows\n%s\nnot\n%s", got, want)
			}
			if err := os.Mkdir(dir+"/root", 0o755); err != nil {
				t.Fatal(err)
			}
			rpm("rpm", "--root", inside+"/root", "-U", "--nodeps", "--nosignature", inside+"/x.rpm")
			contents := map[string]string{}
			files, err := walk(t, p)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				contents[f.Path] = f.Content + contents[f.Link]
				if got := load(t, filepath.Join(dir, "root", f.Path)); string(got) != contents[f.Path] {
					t.Errorf("%q was installed with another content", f.Path)
				}
			}
			report, err := sign.Verify(t.Context(), p, signtest.Trust(testKey()), sign.Options{})
			if err != nil || !report.OK() || report.Signed != report.Files {
				t.Errorf("verify: %+v, %v", report, err)
			}
		})
	}
}
