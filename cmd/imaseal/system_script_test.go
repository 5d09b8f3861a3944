package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/sign"
	"github.com/imaseal/imaseal/sign/xattr"
)

// TestSystemScript runs the verbs for installed systems, on roots of their own that
// the stock dpkg installs packages into.
//
// Besides the commands of TestScript the scripts have these:
//
//	mkroot DIR             an empty system
//	dpkg DIR ARG...        dpkg on that system; maintainer scripts run with DPKG_ROOT
//	labelled FILE...       the files carry a signature
//	getlabel FILE          prints the label in hexadecimal
//	setlabel FILE VALUE    sets it
//	unprivileged ARG...    imaseal ARG... as nobody, in a mount of its own
func TestSystemScript(t *testing.T) {
	for _, tool := range []string{"dpkg", "dpkg-deb", "openssl", "evmctl", "setpriv"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: scripts/test installs it", tool)
		}
	}
	root, err := xattr.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := root.Probe(sign.XattrName, []byte{3, 2, 4, 0, 0, 0, 1, 0, 1, 1}); err != nil {
		t.Skipf("no labels can be set here: %v", err)
	}
	scripts, err := filepath.Glob("testdata/system/*.txtar")
	if err != nil || len(scripts) < 6 {
		t.Fatalf("only %d scripts found: %v", len(scripts), err)
	}
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/system",
		Setup: scriptSetup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"mkdeb":        mkdeb,
			"mkcert":       mkcert,
			"sign":         imasealWith("sign", "--key", "keys/signing.key", "--cert", "keys/signing.crt"),
			"code":         code,
			"flip":         flip,
			"sum":          sumCommand,
			"unchanged":    unchanged,
			"clean":        clean,
			"mkroot":       mkroot,
			"dpkg":         dpkgInto,
			"labelled":     isLabelled,
			"getlabel":     getLabel,
			"setlabel":     setLabel,
			"unprivileged": unprivileged,
		},
	})
}

func mkroot(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: mkroot DIR")
	}
	admin := filepath.Join(ts.MkAbs(args[0]), "var/lib/dpkg")
	for _, dir := range []string{"info", "updates", "triggers"} {
		ts.Check(os.MkdirAll(filepath.Join(admin, dir), 0o755))
	}
	ts.Check(os.WriteFile(filepath.Join(admin, "status"), nil, 0o644))
}

func dpkgInto(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: dpkg DIR ARG...")
	}
	options := []string{"--root=" + ts.MkAbs(args[0]), "--force-script-chrootless", "--force-unsafe-io", "--log=/dev/null"}
	ts.Check(ts.Exec("dpkg", append(options, args[1:]...)...))
}

// labelOf returns the label of a file, nil when it has none.
func labelOf(ts *testscript.TestScript, name string) []byte {
	buf := make([]byte, 4096)
	n, err := unix.Lgetxattr(ts.MkAbs(name), sign.XattrName, buf)
	if errors.Is(err, unix.ENODATA) {
		return nil
	}
	if err != nil {
		ts.Fatalf("%s: %v", name, err)
	}
	return buf[:n]
}

func isLabelled(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: labelled FILE...")
	}
	for _, name := range args {
		if got := labelOf(ts, name) != nil; got == neg {
			ts.Fatalf("%s: labelled is %v", name, got)
		}
	}
}

func getLabel(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: getlabel FILE")
	}
	ts.Check(ts.Exec("getfattr", "--absolute-names", "--only-values", "--encoding=hex", "--name="+sign.XattrName, ts.MkAbs(args[0])))
}

func setLabel(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: setlabel FILE VALUE")
	}
	ts.Check(ts.Exec("setfattr", "--name="+sign.XattrName, "--value="+args[1], ts.MkAbs(args[0])))
}

func unprivileged(ts *testscript.TestScript, neg bool, args []string) {
	// Nobody may look into the folders of the tests, so the file system below them is
	// looked at from inside.
	me, err := exec.LookPath("imaseal")
	ts.Check(err)
	script := `cd / && mount --bind "$1" /mnt && cd /mnt && shift && exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all "$@"`
	all := append([]string{"--mount", "--", "sh", "-c", script, "sh", ts.MkAbs("."), me}, args...)
	err = ts.Exec("unshare", all...)
	if (err != nil) != neg {
		ts.Fatalf("as nobody: %v", err)
	}
}
