package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A watcher follows every name of a root through a trace of system calls, and knows
// at each moment whether the inode behind it has a label. It sees that no unlabelled
// file gets the name under which it will be used, and that no unlabelled script is run.
type watcher struct {
	root  string
	names map[string]*inode
	fds   map[string]string // descriptor of a process → name
	// exempt reports whether a file may be unlabelled by its policy.
	exempt func(path string) bool

	renames, scripts int // that were right
	violations       []string
}

// An inode is what names lead to. special ones have no label: links, folders, devices.
type inode struct{ labelled, special bool }

func newWatcher(r *root, exempt func(path string) bool) *watcher {
	w := &watcher{root: r.dir, names: map[string]*inode{}, fds: map[string]string{}, exempt: exempt}
	for path := range r.labels() {
		w.names["/"+path] = &inode{labelled: true}
	}
	return w
}

// watch runs a program in the root under strace, and returns what was seen.
func (r *root) watch(exempt func(path string) bool, args ...string) (*watcher, string, error) {
	r.t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		r.t.Skip("strace is not installed: scripts/test installs it")
	}
	w := newWatcher(r, exempt)
	log := filepath.Join(r.t.TempDir(), "trace")
	out, err := output(r.command(straceOptions(log), args...))
	trace, readErr := os.ReadFile(log)
	must(r.t, readErr)
	w.read(string(trace))
	return w, out, err
}

// read follows a trace. What is wrong about a rename or an execve is decided when it
// begins, before anything can still happen to the file, and counts when it succeeds.
func (w *watcher) read(trace string) {
	readTrace(trace, w.before, func(c *call, wrong string) {
		if c.ok() {
			w.after(c, wrong)
		}
	})
}

// path returns the name of an argument, as the root sees it. Arguments of calls that
// take a folder's descriptor are in two parts.
func (w *watcher) path(folder, name string) string {
	if strings.HasPrefix(name, "/") {
		return w.real(name)
	}
	_, dir := behind(folder)
	return w.real(w.inside(dir) + "/" + name)
}

// inside cuts the root off a name that the kernel gave.
func (w *watcher) inside(name string) string { return strings.TrimPrefix(name, w.root) }

// real resolves the links of a merged /usr, by which dpkg and the kernel name one
// folder differently.
func (w *watcher) real(path string) string {
	dir, err := filepath.EvalSymlinks(filepath.Join(w.root, filepath.Dir(path)))
	if err != nil || !strings.HasPrefix(dir, w.root) {
		return filepath.Clean(path)
	}
	return filepath.Join("/", w.inside(dir), filepath.Base(path))
}

// renamed returns both names of a rename or link.
func (w *watcher) renamed(c *call) (from, to string) {
	switch {
	case (c.name == "rename" || c.name == "link") && len(c.args) >= 2:
		return w.path("", c.args[0]), w.path("", c.args[1])
	case len(c.args) >= 4:
		return w.path(c.args[0], c.args[1]), w.path(c.args[2], c.args[3])
	}
	return "", ""
}

// before judges a call that begins.
func (w *watcher) before(c *call) string {
	switch c.name {
	case "rename", "renameat", "renameat2":
		from, to := w.renamed(c)
		if node := w.names[from]; strings.HasSuffix(from, ".dpkg-new") && (node == nil || !node.labelled && !node.special) && !w.exempt(to) {
			return "renamed without a label: " + to
		}
	case "execve":
		path := w.path("", c.args[0])
		if node := w.names[path]; isScript(path) && (node == nil || !node.labelled) {
			return "executed without a label: " + path
		}
	}
	return ""
}

// isScript reports whether path is one of a maintainer script.
func isScript(path string) bool {
	return strings.HasPrefix(path, "/var/lib/dpkg/tmp.ci/") || strings.HasPrefix(path, "/var/lib/dpkg/info/")
}

// after takes note of a call that succeeded.
func (w *watcher) after(c *call, wrong string) {
	if wrong != "" {
		w.violations = append(w.violations, wrong)
	}
	switch c.name {
	case "open", "creat", "openat", "openat2":
		w.opened(c)
	case "symlink":
		w.names[w.path("", c.args[1])] = &inode{special: true}
	case "symlinkat":
		w.names[w.path(c.args[1], c.args[2])] = &inode{special: true}
	case "mkdir", "mknod":
		w.names[w.path("", c.args[0])] = &inode{special: true}
	case "mkdirat", "mknodat":
		w.names[w.path(c.args[0], c.args[1])] = &inode{special: true}
	case "unlink":
		delete(w.names, w.path("", c.args[0]))
	case "unlinkat":
		delete(w.names, w.path(c.args[0], c.args[1]))
	case "link", "linkat":
		from, to := w.renamed(c)
		if w.names[from] == nil {
			w.names[from] = &inode{}
		}
		w.names[to] = w.names[from]
	case "rename", "renameat", "renameat2":
		w.moved(c, wrong)
	case "execve":
		if isScript(w.path("", c.args[0])) && wrong == "" {
			w.scripts++
		}
	case "setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr":
		w.attribute(c)
	}
}

// opened notes which file a descriptor is of, and that a new or emptied file has no
// label.
func (w *watcher) opened(c *call) {
	fd, name := behind(c.result)
	name = w.inside(name)
	w.fds[fmt.Sprint(c.process, " ", fd)] = name
	flags := strings.Join(c.args, " ")
	node := w.names[name]
	switch creates := strings.Contains(flags, "O_CREAT") || c.name == "creat"; {
	case creates && (node == nil || strings.Contains(flags, "O_EXCL")):
		w.names[name] = &inode{}
	case node != nil && (strings.Contains(flags, "O_TRUNC") || c.name == "creat"):
		node.labelled = false
	}
}

func (w *watcher) moved(c *call, wrong string) {
	from, to := w.renamed(c)
	node := w.names[from]
	if strings.HasSuffix(from, ".dpkg-new") && wrong == "" && node != nil && node.labelled {
		w.renames++
	}
	delete(w.names, from)
	delete(w.names, to)
	if node != nil {
		w.names[to] = node
	}
	if node != nil && !node.special {
		return
	}
	// Maybe a folder.
	for name, below := range w.names {
		if rest, ok := strings.CutPrefix(name, from+"/"); ok {
			delete(w.names, name)
			w.names[to+"/"+rest] = below
		}
	}
}

// attribute notes a label that is set or removed, by name or by descriptor.
func (w *watcher) attribute(c *call) {
	if len(c.args) < 2 || c.args[1] != "security.ima" {
		return
	}
	path := c.args[0]
	if fd, ok := strings.CutPrefix(path, "/proc/self/fd/"); ok {
		path = w.fds[fmt.Sprint(c.process, " ", fd)]
	} else if strings.HasPrefix(c.name, "f") {
		_, name := behind(path)
		path = w.inside(name)
	} else {
		path = w.real(path)
	}
	if w.names[path] == nil {
		w.names[path] = &inode{}
	}
	w.names[path].labelled = !strings.Contains(c.name, "remove")
}

// TestWatcher shows that the watcher sees what it is there for.
func TestWatcher(t *testing.T) {
	const (
		create = `10 openat(AT_FDCWD</r>, "/usr/x.dpkg-new", O_WRONLY|O_CREAT|O_EXCL, 000) = 3</r/usr/x.dpkg-new>` + "\n"
		open   = `20 openat2(5</r>, "usr/x.dpkg-new", {flags=O_PATH, resolve=RESOLVE_IN_ROOT}, 24) = 7</r/usr/x.dpkg-new>` + "\n"
		label  = `20 setxattr("/proc/self/fd/7", "security.ima", "\x03\x02", 2, 0) = 0` + "\n"
		rename = `10 rename("/usr/x.dpkg-new", "/usr/x") = 0` + "\n"
		script = `10 openat(AT_FDCWD</r/var/lib/dpkg/tmp.ci>, "./preinst", O_WRONLY|O_CREAT|O_EXCL, 000) = 3</r/var/lib/dpkg/tmp.ci/preinst>` + "\n"
		named  = `20 lsetxattr("/var/lib/dpkg/tmp.ci/preinst", "security.ima", "\x03\x02", 2, 0) = 0` + "\n"
		run    = `11 execve("/var/lib/dpkg/tmp.ci/preinst", ["/var/lib/dpkg/tmp.ci/preinst", "install"], 0x7 /* 9 vars */) = 0` + "\n"
	)
	for name, c := range map[string]struct {
		trace                        string
		renames, scripts, violations int
	}{
		"labelled by descriptor": {create + open + label + rename, 1, 0, 0},
		"labelled by a thread": {create + open + "20 clone3({flags=CLONE_VM|CLONE_THREAD, stack=0x7}, 88) = 21\n" +
			strings.Replace(label, "20 ", "21 ", 1) + rename, 1, 0, 0},
		"of another process":        {create + open + strings.Replace(label, "20 ", "21 ", 1) + rename, 0, 0, 1},
		"labelled by fsetxattr":     {create + `20 fsetxattr(7</r/usr/x.dpkg-new>, "security.ima", "\x03", 1, 0) = 0` + "\n" + rename, 1, 0, 0},
		"not labelled":              {create + rename, 0, 0, 1},
		"labelled too late":         {create + open + rename + label, 0, 0, 1},
		"another attribute":         {create + open + strings.Replace(label, ".ima", ".evm", 1) + rename, 0, 0, 1},
		"label refused":             {create + open + strings.Replace(label, "= 0", "= -1 EPERM (Operation not permitted)", 1) + rename, 0, 0, 1},
		"rename failed":             {create + strings.Replace(rename, "= 0", "= -1 ENOENT (No such file or directory)", 1), 0, 0, 0},
		"label was under way":       {create + open + `20 setxattr("/proc/self/fd/7", "security.ima", "\x03", 1, 0 <unfinished ...>` + "\n" + rename + "20 <... setxattr resumed>) = 0\n", 0, 0, 1},
		"label ended in two lines":  {create + open + `20 setxattr("/proc/self/fd/7", "security.ima", "\x03", 1, 0 <unfinished ...>` + "\n20 <... setxattr resumed>) = 0\n" + rename, 1, 0, 0},
		"rename began too early":    {create + open + `10 rename("/usr/x.dpkg-new", "/usr/x" <unfinished ...>` + "\n" + label + "10 <... rename resumed>) = 0\n", 0, 0, 1},
		"made anew after the label": {create + open + label + `10 unlink("/usr/x.dpkg-new") = 0` + "\n" + create + rename, 0, 0, 1},
		"removed again":             {create + open + label + `20 removexattr("/proc/self/fd/7", "security.ima") = 0` + "\n" + rename, 0, 0, 1},
		"label of a hard link":      {create + open + label + `10 link("/usr/x.dpkg-new", "/usr/y.dpkg-new") = 0` + "\n" + `10 rename("/usr/y.dpkg-new", "/usr/y") = 0` + "\n", 1, 0, 0},
		"no label of a hard link":   {create + `10 link("/usr/x.dpkg-new", "/usr/y.dpkg-new") = 0` + "\n" + `10 rename("/usr/y.dpkg-new", "/usr/y") = 0` + "\n", 0, 0, 1},
		"link and folder": {`10 symlink("a, \"b\")", "/usr/x.dpkg-new") = 0` + "\n" + rename + `10 mkdir("/usr/d.dpkg-new", 0) = 0` + "\n" +
			`10 rename("/usr/d.dpkg-new", "/usr/d") = 0` + "\n", 0, 0, 0},
		"odd name": {strings.ReplaceAll(create+open+label+rename, "/x", `/\xc3\xbc, (1)`), 1, 0, 0},
		"script":   {script + named + run, 0, 1, 0},
		"script that moved": {script + named + `10 rename("/var/lib/dpkg/tmp.ci/preinst", "/var/lib/dpkg/info/x.preinst") = 0` + "\n" +
			strings.ReplaceAll(run, "tmp.ci/preinst", "info/x.preinst"), 0, 1, 0},
		"script without a label":     {script + run, 0, 0, 1},
		"script from before":         {strings.ReplaceAll(run, "tmp.ci/preinst", "info/old.prerm"), 0, 1, 0},
		"unlabelled one from before": {strings.ReplaceAll(run, "tmp.ci/preinst", "info/older.prerm"), 0, 0, 1},
	} {
		w := &watcher{root: "/r", fds: map[string]string{}, exempt: func(string) bool { return false },
			names: map[string]*inode{"/var/lib/dpkg/info/old.prerm": {labelled: true}}}
		w.read(c.trace)
		if w.renames != c.renames || w.scripts != c.scripts || len(w.violations) != c.violations {
			t.Errorf("%s: %d renames, %d scripts and violations %q", name, w.renames, w.scripts, w.violations)
		}
	}
}

// TestNeverAnUnlabelledName watches whole runs of dpkg, with the hook and without.
func TestNeverAnUnlabelledName(t *testing.T) {
	repo := makePackages(t, lifecyclePackages()...)
	plain := func(path string) bool {
		return strings.HasPrefix(path, "/etc/") && !strings.Contains(path, "executable")
	}
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			r := newRoot(t, suite)
			r.use(repo)
			for _, version := range []string{"1", "2"} {
				w, out, err := r.watch(plain, "dpkg", "-i", deb("sealed", version, "all"))
				if err != nil {
					t.Fatalf("version %s: %v\n%s", version, err, tail(out))
				}
				if len(w.violations) > 0 || w.renames < 10 || w.scripts < 2 {
					t.Errorf("version %s: %d renames and %d scripts were right, and not: %q", version, w.renames, w.scripts, w.violations)
				}
				t.Logf("version %s: %d renames after their label, %d scripts run with theirs", version, w.renames, w.scripts)
			}
			r.check()
		})
	}
	t.Run("without the hook", func(t *testing.T) {
		r := newRoot(t, "bookworm")
		r.withoutHook()
		r.use(repo)
		w, out, err := r.watch(plain, "dpkg", "-i", deb("sealed", "1", "all"))
		if err != nil {
			t.Fatalf("%v\n%s", err, tail(out))
		}
		all := strings.Join(w.violations, "\n")
		if w.renames > 0 || w.scripts > 0 || strings.Count(all, "renamed") < 10 || strings.Count(all, "executed") < 2 {
			t.Errorf("the watcher is blind: %d renames and %d scripts were right, and not:\n%s", w.renames, w.scripts, all)
		}
	})
}
