package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"imaseal": main})
}

// TestScript runs the command as its users do, one topic a script.
//
// Besides testscript's own, the scripts have these commands:
//
//	mkdeb TREE FILE [dpkg-deb OPTION...]   builds a .deb from the folder TREE
//	flip FILE OFFSET                       changes one byte; from the end if negative
//	same FILE FILE                         the files are equal, byte for byte
//	sum FILE                               remembers FILE's bytes
//	unchanged FILE                         they are still what sum saw
//	clean DIR                              no temporary file is left in DIR
func TestScript(t *testing.T) {
	for _, tool := range []string{"dpkg-deb", "rpmbuild"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: scripts/test installs it", tool)
		}
	}
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(scripts) < 5 {
		t.Fatalf("only %d scripts found: %v", len(scripts), err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("GNUPGHOME", filepath.Join(e.WorkDir, "gnupg"))
			e.Setenv("SOURCE_DATE_EPOCH", "1700000000")
			return os.Mkdir(filepath.Join(e.WorkDir, "gnupg"), 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"mkdeb":     mkdeb,
			"flip":      flip,
			"same":      same,
			"sum":       sumCommand,
			"unchanged": unchanged,
			"clean":     clean,
		},
	})
}

func mkdeb(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: mkdeb TREE FILE [OPTION...]")
	}
	tree, file := ts.MkAbs(args[0]), ts.MkAbs(args[1])
	ts.Check(filepath.Walk(filepath.Join(tree, "DEBIAN"), func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		switch info.Name() {
		case "preinst", "postinst", "prerm", "postrm", "config":
			return os.Chmod(path, 0o755)
		}
		return os.Chmod(path, 0o644)
	}))
	options := append([]string{"--root-owner-group"}, args[2:]...)
	ts.Check(ts.Exec("dpkg-deb", append(options, "--build", tree, file)...))
}

func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	path := ts.MkAbs(args[0])
	content, err := os.ReadFile(path)
	ts.Check(err)
	var offset int
	_, err = fmt.Sscan(args[1], &offset)
	ts.Check(err)
	if offset < 0 {
		offset += len(content)
	}
	content[offset] ^= 1
	ts.Check(os.WriteFile(path, content, 0o644))
}

func same(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: same FILE FILE")
	}
	a, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	b, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	if bytes.Equal(a, b) == neg {
		ts.Fatalf("%s and %s: equal is %v", args[0], args[1], neg)
	}
}

func sumCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sum FILE")
	}
	ts.Setenv("SUM_"+filepath.Base(args[0]), sumOf(ts, args[0]))
}

func unchanged(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: unchanged FILE")
	}
	before := ts.Getenv("SUM_" + filepath.Base(args[0]))
	if before == "" {
		ts.Fatalf("sum %s was not called", args[0])
	}
	if (before == sumOf(ts, args[0])) == neg {
		ts.Fatalf("%s: unchanged is %v", args[0], neg)
	}
}

func sumOf(ts *testscript.TestScript, name string) string {
	content, err := os.ReadFile(ts.MkAbs(name))
	ts.Check(err)
	return fmt.Sprintf("%x", sha256.Sum256(content))
}

func clean(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: clean DIR")
	}
	left, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), ".*.tmp"))
	ts.Check(err)
	if len(left) > 0 {
		ts.Fatalf("temporary files are left: %v", left)
	}
}

// TestHelpExamples holds the help to what it promises: every verb has an example,
// and each example names flags that exist.
func TestHelpExamples(t *testing.T) {
	var verbs int
	root := newRootCommand()
	for _, cmd := range append(root.Commands(), newKeysInitCommand()) {
		if !cmd.Runnable() || cmd.Name() == "help" || cmd.Name() == "completion" {
			continue
		}
		verbs++
		if cmd.Example == "" {
			t.Errorf("imaseal %s has no example", cmd.Name())
		}
	}
	if verbs < 5 {
		t.Errorf("only %d verbs were looked at", verbs)
	}
}

// TestNoCommand shows the help, as a person who calls the bare command expects.
func TestNoCommand(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(context.Background(), nil, nil, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d, stderr %s", code, &stderr)
	}
	for _, want := range []string{"imaseal sign", "verify", "Exit status"} {
		if !bytes.Contains(stdout.Bytes(), []byte(want)) {
			t.Errorf("the help does not say %q", want)
		}
	}
}
