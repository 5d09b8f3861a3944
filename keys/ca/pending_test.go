package ca

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imaseal/imaseal/keys"
)

// killedOptions are those of the run that TestInitIsKilled kills.
func killedOptions(dir string) InitOptions {
	return InitOptions{
		Dir: filepath.Join(dir, "keys"), CADir: filepath.Join(dir, "ca"), SigningKeys: []string{"one", "two"},
		Name: "Killed", Days: 7,
	}
}

// TestMain is a run of Init alone when the environment asks for it.
func TestMain(m *testing.M) {
	if dir := os.Getenv("IMASEAL_TEST_INIT"); dir != "" {
		if _, err := Init(context.Background(), killedOptions(dir)); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestInitIsKilled kills a run at each of its system calls that change a folder, as
// kill -9 does. The next run finishes the work, and no key that has its name is lost.
func TestInitIsKilled(t *testing.T) {
	t.Parallel()
	need(t, "strace")
	kill := func(t *testing.T, dir, call string, n int) (killed bool) {
		cmd := exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call,
			"-e", "inject="+call+":signal=KILL:when="+strconv.Itoa(n), os.Args[0])
		cmd.Env = append(os.Environ(), "IMASEAL_TEST_INIT="+dir)
		out, err := cmd.CombinedOutput()
		var exited *exec.ExitError
		if err != nil && !(errors.As(err, &exited) && exited.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL) {
			t.Skipf("strace cannot kill here: %v: %s", err, out)
		}
		return err != nil
	}
	names := []string{"ca/ca.key", "ca/ca.crt", "keys/one.key", "keys/one.crt", "keys/one.der", "keys/two.key", "keys/two.crt", "keys/two.der"}
	finished, redone, calls := 0, 0, 0
	for _, call := range []string{"mkdirat", "openat", "write", "fsync", "renameat", "renameat2", "unlinkat"} {
		for n := 1; ; n++ {
			dir := t.TempDir()
			if !kill(t, dir, call, n) {
				if n == 1 {
					t.Errorf("%s is never called: the test shows nothing", call)
				}
				break
			}
			calls++
			before := tree(t, dir)
			r, err := Init(t.Context(), killedOptions(dir))
			if before["keys/one.key"] != "" && before["keys/"+pendingName+"/"+listName] == "" {
				// All is in place, as after a run that was not killed.
				checkError(t, err, "is there already and is not overwritten")
			} else if err != nil {
				t.Fatalf("killed at %s %d, and then: %v", call, n, err)
			} else if len(r.Finished) > 0 {
				finished++
			} else {
				redone++
			}
			after := tree(t, dir)
			if got, want := len(after), len(names)+2; got != want {
				t.Errorf("killed at %s %d: %q", call, n, slices.Sorted(maps.Keys(after)))
			}
			for _, name := range names {
				pending := filepath.Dir(name) + "/" + pendingName + "/" + filepath.Base(name)
				for _, path := range []string{name, pending} {
					if was := before[path]; was != "" && was != after[name] {
						t.Errorf("killed at %s %d: %s became another", call, n, path)
					}
				}
				if !strings.HasPrefix(after[name], map[string]string{".key": "0600 -----BEGIN PRIVATE KEY"}[filepath.Ext(name)]) || after[name] == "" {
					t.Errorf("killed at %s %d: %s is %.40q", call, n, name, after[name])
				}
			}
			for _, name := range []string{"one", "two"} {
				key, err := keys.Open(t.Context(), filepath.Join(dir, "keys", name+".key"), keys.OpenOptions{})
				if err != nil {
					t.Fatal(err)
				}
				cert := loadCertificate(t, filepath.Join(dir, "keys", name+".crt"))
				if err := errors.Join(keys.Match(cert, key.Public()), keys.ChainsTo(cert, certificates(t, filepath.Join(dir, "ca/ca.crt")))); err != nil {
					t.Errorf("killed at %s %d: %v", call, n, err)
				}
			}
		}
	}
	if finished == 0 || redone == 0 {
		t.Errorf("killed %d times, %d finished, %d redone: the test shows nothing", calls, finished, redone)
	}
	t.Logf("killed %d times: %d finished, %d redone", calls, finished, redone)
}

// pendingSet leaves in dir what a run with options o leaves that was killed when its
// set was complete, but for what is moved out already.
func pendingSet(t *testing.T, dir string, o InitOptions, out ...string) {
	t.Helper()
	o.Dir = dir
	initKeys(t, o)
	if err := os.Mkdir(filepath.Join(dir, pendingName), 0o700); err != nil {
		t.Fatal(err)
	}
	var list string
	for _, name := range slices.Sorted(maps.Keys(tree(t, dir))) {
		if strings.Contains(name, "/") {
			continue
		}
		list += name + "\n"
		if slices.Contains(out, name) {
			continue
		}
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, pendingName, name)); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(dir, pendingName, listName), []byte(list))
}

func TestInitTakesAnInterruptedRunOnlyForWhatItIs(t *testing.T) {
	first := InitOptions{Type: "p384", Name: "First", Days: 5, Passphrase: []byte("first")}
	for name, tt := range map[string]struct {
		change func(*InitOptions)
		want   string // "" when it is what is asked for
	}{
		"the same":           {func(o *InitOptions) {}, ""},
		"another type":       {func(o *InitOptions) { o.Type = "p256" }, "its type is p384"},
		"another name":       {func(o *InitOptions) { o.Name = "Second" }, `its name is "First signing key"`},
		"another time":       {func(o *InitOptions) { o.Days = 6 }, "valid for another time"},
		"another passphrase": {func(o *InitOptions) { o.Passphrase = []byte("second") }, "wrong passphrase"},
		"no passphrase":      {func(o *InitOptions) { o.Passphrase = nil }, "one has a passphrase"},
		"another CA":         {func(o *InitOptions) { o.CADir = filepath.Join(o.Dir, "ca") }, "ca/ca.crt"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			pendingSet(t, dir, first, "ca.key", "signing.crt")
			before := tree(t, dir)
			o := first
			o.Dir = dir
			tt.change(&o)
			r, err := Init(t.Context(), o)
			if tt.want != "" {
				checkError(t, err, "signing.key: an interrupted run made this key", tt.want, "another folder")
			} else if err != nil {
				t.Fatal(err)
			} else if len(r.Finished) != 5 || len(r.Signing) != 1 || r.Signing[0].KeyID == 0 {
				t.Errorf("it tells %+v", r)
			}
			after := tree(t, dir)
			if len(after) != 5 {
				t.Errorf("%q are there", slices.Sorted(maps.Keys(after)))
			}
			for name, content := range before {
				if after[strings.TrimPrefix(name, pendingName+"/")] != content && name != pendingName+"/" && name != pendingName+"/"+listName {
					t.Errorf("%s became another", name)
				}
			}
		})
	}
}

func TestAPendingFolderIsNotTrustedBlindly(t *testing.T) {
	for name, tt := range map[string]struct {
		make func(path string) error
		want string
	}{
		"a link":           {func(path string) error { return os.Symlink("elsewhere", path) }, "is in the way"},
		"a file":           {func(path string) error { return os.WriteFile(path, nil, 0o600) }, "is in the way"},
		"open to all":      {func(path string) error { return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, 0o777)) }, "is in the way"},
		"of somebody else": {func(path string) error { return errors.Join(os.Mkdir(path, 0o700), os.Chown(path, 1, 1)) }, "is in the way"},
		"with a known name": {func(path string) error {
			return errors.Join(os.Mkdir(path, 0o700), os.WriteFile(path+"/there", []byte("new"), 0o600), os.WriteFile(path+"/"+listName, []byte("there\n"), 0o600))
		}, "file exists"},
		"with a name elsewhere": {func(path string) error {
			return errors.Join(os.Mkdir(path, 0o700), os.WriteFile(path+"/"+listName, []byte("../there\n"), 0o600))
		}, "names a file"},
	} {
		for _, folder := range []string{stagingName, pendingName} {
			t.Run(name+" "+folder, func(t *testing.T) {
				dir := t.TempDir()
				writeFile(t, filepath.Join(dir, "there"), []byte("precious"))
				if err := tt.make(filepath.Join(dir, folder)); err != nil {
					t.Skip(err) // who is not root gives nothing away
				}
				before := tree(t, dir)
				_, err := Init(t.Context(), InitOptions{Dir: dir})
				if strings.HasPrefix(name, "with ") && folder == stagingName {
					if err != nil {
						t.Errorf("what was staged only is no obstacle: %v", err)
					}
					return
				}
				checkError(t, err, tt.want, dir)
				if after := tree(t, dir); !maps.Equal(before, after) {
					t.Errorf("%q became %q", before, after)
				}
			})
		}
	}
}

func TestTwoRunsDoNotDisturbEachOther(t *testing.T) {
	dir := t.TempDir()
	first, _, err := openPending(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.stage(); err != nil {
		t.Fatal(err)
	}
	_, err = Init(t.Context(), InitOptions{Dir: dir})
	checkError(t, err, dir, "another imaseal is making keys")
	// What only reads there is not disturbed.
	if finished, err := finishPending(filepath.Dir(dir)); err != nil || finished != nil {
		t.Errorf("%q, %v", finished, err)
	}
	if _, err := os.Stat(first.staging()); err != nil {
		t.Errorf("the other's work is gone: %v", err)
	}
	first.undo()
	first.close()
	initKeys(t, InitOptions{Dir: dir})
}

// On a file system without a rename that replaces nothing, links do it.
func TestLinkNew(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	writeFile(t, from, []byte("new"))
	writeFile(t, to, []byte("precious"))
	for _, move := range []func(string, string) error{linkNew, moveNew} {
		if err := move(from, to); !errors.Is(err, fs.ErrExist) {
			t.Errorf("over another file: %v", err)
		}
	}
	if err := os.Remove(to); err != nil {
		t.Fatal(err)
	}
	// Killed between the two steps.
	if err := os.Link(from, to); err != nil {
		t.Fatal(err)
	}
	if err := linkNew(from, to); err != nil {
		t.Error(err)
	}
	if after := tree(t, dir); !maps.Equal(after, map[string]string{"to": "0600 new"}) {
		t.Errorf("%q", after)
	}
	if err := linkNew(to, from); err != nil {
		t.Error(err)
	}
	if err := moveNew(to, from); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
}

// What a killed run left is put in place, and told, before a new file takes its name.
func TestAnInterruptedRenewalIsFinished(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := testCA(t, dir)
	old := filepath.Join(dir, "keys/signing.crt")
	request := loadRequest(t, filepath.Join(dir, "keys/signing.key"))
	for name, again := range map[string]func(out string) error{
		"renew": func(string) error {
			_, err := ca.Renew(t.Context(), RenewOptions{Old: old, NewKey: true})
			return err
		},
		"issue": func(out string) error {
			_, err := ca.Issue(t.Context(), IssueOptions{Request: request, Name: "x", Out: out})
			return err
		},
		"request": func(out string) error {
			return MakeRequest(t.Context(), RequestOptions{Key: ca.key, Out: out + ".csr"})
		},
	} {
		left := filepath.Join(dir, "keys", pendingName)
		if err := os.Mkdir(left, 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(left, name+"-2.key"), []byte("precious"))
		writeFile(t, filepath.Join(left, listName), []byte(name+"-2.key\n"))
		err := again(filepath.Join(dir, "keys", name))
		checkError(t, err, "was interrupted", name+"-2.key")
		if files := tree(t, filepath.Join(dir, "keys")); files[name+"-2.key"] != "0600 precious" || len(files[pendingName+"/"]) > 0 {
			t.Errorf("%s left %q", name, slices.Sorted(maps.Keys(files)))
		}
		if err := again(filepath.Join(dir, "keys", name)); err != nil {
			t.Errorf("%s, once more: %v", name, err)
		}
	}
}
