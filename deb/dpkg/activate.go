package dpkg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// This file puts the hook in front of dpkg-deb and takes it away again. Every
// change is one rename, or one run of dpkg-divert, that is on the disk before the
// next begins: after each of them dpkg-deb works, and a later enable or disable
// goes on from there. The order is the data of steps.

// A Scope says for whom the hook runs.
type Scope string

// The scopes.
const (
	ScopeNone Scope = "none"
	ScopeAPT  Scope = "apt" // for apt and what else uses its library
	ScopeAll  Scope = "all" // for every dpkg
)

// Where the parts of an active hook are.
const (
	hookPath = "/usr/lib/imaseal/dpkg-deb"
	NamePath = systemDpkgDeb
	KeptPath = systemDpkgDeb + divertedSuffix
	aptFile  = "/etc/apt/apt.conf.d/99imaseal"
	// HookOwner is the package in whose name dpkg-deb is diverted.
	HookOwner  = "imaseal-installer"
	dpkgFolder = "/" + AdminDir
	dpkgList   = dpkgFolder + "/info/dpkg.list"
	newSuffix  = ".imaseal-new"
)

// defaultAPTPath is what apt gives to dpkg as PATH when DPkg::Path is not set.
const defaultAPTPath = "/usr/sbin:/usr/bin:/sbin:/bin"

// A Holding is what stands under a name.
type Holding string

// The holdings.
const (
	HoldsNothing Holding = "nothing"
	HoldsHook    Holding = "the hook"
	HoldsOther   Holding = "dpkg's own"
)

// An Activation changes for whom the hook of one system runs. It must be closed.
type Activation struct {
	dir  string
	root *os.Root
}

// OpenActivation opens the system below the folder dir. Links that lead out of it
// are not followed.
func OpenActivation(dir string) (*Activation, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Activation{dir: dir, root: root}, nil
}

// Close releases the folder.
func (a *Activation) Close() error { return a.root.Close() }

// A step is one change of a system. After it dpkg-deb works, whatever is done next.
type step struct {
	Name string
	// Do makes the change; when it was made already, it does nothing.
	Do func(ctx context.Context) error
}

// steps returns what leads to scope, from whatever state the system is in. The
// hook never rests in between.
func (a *Activation) steps(scope Scope) []step {
	disable := []step{
		{"give dpkg's program its name back", a.restore},
		{"remove the diversion", a.undivert},
		{"drop the second name of dpkg's program", a.dropKept},
	}
	switch scope {
	case ScopeAll:
		return []step{
			{"see that nobody else diverts dpkg-deb", a.mayDivert},
			{"keep dpkg's program under a second name", a.keep},
			{"divert dpkg-deb", a.divert},
			{"put the hook in its place", a.placeHook},
			{"remove apt's setting", a.removeAPT},
		}
	case ScopeAPT:
		return append([]step{{"set apt's PATH for dpkg", a.writeAPT}}, disable...)
	default:
		return append(disable, step{"remove apt's setting", a.removeAPT})
	}
}

// Set brings the hook into use for scope. No dpkg may run meanwhile, unless it is
// the one whose maintainer script calls.
func (a *Activation) Set(ctx context.Context, scope Scope) error {
	unlock, err := a.lock()
	if err != nil {
		return err
	}
	defer unlock()
	for _, step := range a.steps(scope) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step.Do(ctx); err != nil {
			return fmt.Errorf("cannot %s: %w", step.Name, err)
		}
	}
	return nil
}

// below turns the name of a file into one below the root.
func below(name string) string { return strings.TrimPrefix(name, "/") }

// Holds tells what stands under name. The hook is known by its mark, so that one of
// another version is known, too.
func (a *Activation) Holds(name string) (Holding, error) {
	info, err := a.root.Lstat(below(name))
	if errors.Is(err, fs.ErrNotExist) {
		return HoldsNothing, nil
	}
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file, as dpkg installs it")}
	}
	f, err := a.root.Open(below(name))
	if err != nil {
		return "", err
	}
	defer f.Close()
	switch err := withoutMark(f); {
	case errors.Is(err, errIsHook):
		return HoldsHook, nil
	case err != nil:
		return "", err
	}
	return HoldsOther, nil
}

func (a *Activation) same(one, other string) bool {
	x, err := a.root.Lstat(below(one))
	if err != nil {
		return false
	}
	y, err := a.root.Lstat(below(other))
	return err == nil && os.SameFile(x, y)
}

// link gives the file from the name to as well, which may be in use: whoever looks
// finds the old file or the new. It is a hard link, as dpkg makes them of every
// file that it upgrades, because what is bound to an inode, such as security.ima
// and security.evm, does not survive a copy.
func (a *Activation) link(from, to string) error {
	temporary := to + newSuffix
	if err := a.remove(temporary); err != nil {
		return err
	}
	if !a.same(from, to) { // of two names of one file, rename would leave both
		if err := a.sync(from); err != nil {
			return err
		}
		if err := a.root.Link(below(from), below(temporary)); err != nil {
			return err
		}
		if err := a.root.Rename(below(temporary), below(to)); err != nil {
			return err
		}
	}
	return a.sync(path.Dir(to))
}

// remove removes the file name, if it is there.
func (a *Activation) remove(name string) error {
	err := a.root.Remove(below(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.sync(path.Dir(name))
}

// sync brings a file, or the names in a folder, to the disk.
func (a *Activation) sync(name string) error {
	f, err := a.root.Open(below(name))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// needHook says what to do where there is no hook to bring into use.
func (a *Activation) needHook() error {
	hook, err := a.Holds(hookPath)
	if err == nil && hook != HoldsHook {
		err = fmt.Errorf("%s is not there: install the package %s", hookPath, HookOwner)
	}
	return err
}

// errLost says that dpkg's own program is gone.
var errLost = fmt.Errorf("dpkg's own dpkg-deb is neither at %s nor at %s: take it out of the package dpkg by hand", NamePath, KeptPath)

func (a *Activation) mayDivert(ctx context.Context) error {
	if err := a.needHook(); err != nil {
		return err
	}
	// A system that is being made may have no database yet.
	list, err := a.root.ReadFile(below(dpkgList))
	if err == nil && !slices.Contains(strings.Split(string(list), "\n"), NamePath) {
		return fmt.Errorf("%s does not list %s: dpkg's own dpkg-deb is elsewhere on this system; use --scope apt", dpkgList, NamePath)
	}
	by, err := a.divertedBy(ctx)
	if err == nil && by != "" && by != HookOwner {
		err = fmt.Errorf("%s is diverted already, by %s; use --scope apt, or remove that diversion (dpkg-divert --list)", NamePath, by)
	}
	return err
}

// diversion returns who diverts dpkg-deb, and what its two names hold.
func (a *Activation) diversion(ctx context.Context) (by string, name, kept Holding, err error) {
	if by, err = a.divertedBy(ctx); err != nil {
		return by, "", "", err
	}
	if name, err = a.Holds(NamePath); err != nil {
		return by, "", "", err
	}
	kept, err = a.Holds(KeptPath)
	return by, name, kept, err
}

func (a *Activation) keep(ctx context.Context) error {
	by, name, kept, err := a.diversion(ctx)
	if err != nil {
		return err
	}
	switch {
	case by == HookOwner && kept == HoldsOther:
		return nil // dpkg keeps the second name up to date
	case name == HoldsOther:
		return a.link(NamePath, KeptPath)
	case kept == HoldsOther:
		return nil
	}
	return errLost
}

func (a *Activation) divert(ctx context.Context) error {
	return a.dpkgDivert(ctx, "--add")
}

func (a *Activation) placeHook(context.Context) error { return a.link(hookPath, NamePath) }

func (a *Activation) restore(ctx context.Context) error {
	if err := a.remove(NamePath + newSuffix); err != nil {
		return err
	}
	by, name, kept, err := a.diversion(ctx)
	if err != nil {
		return err
	}
	switch {
	case name == HoldsOther && by != HookOwner:
		return nil // also when another package diverts it: that is not ours to undo
	case kept == HoldsOther:
		return a.link(KeptPath, NamePath)
	case name == HoldsOther:
		return nil
	case name == HoldsNothing && by == "":
		return nil // no Debian system
	}
	return errLost
}

func (a *Activation) undivert(ctx context.Context) error {
	by, err := a.divertedBy(ctx)
	if err != nil || by != HookOwner {
		return err
	}
	return a.dpkgDivert(ctx, "--remove")
}

func (a *Activation) dropKept(ctx context.Context) error {
	by, err := a.divertedBy(ctx)
	if err != nil || by != "" {
		return err // the second name is another's
	}
	if err := a.remove(KeptPath + newSuffix); err != nil {
		return err
	}
	return a.remove(KeptPath)
}

func (a *Activation) writeAPT(ctx context.Context) error {
	if err := a.needHook(); err != nil {
		return err
	}
	value, err := a.APTPath(ctx)
	if err != nil {
		return err
	}
	folders := strings.Split(value, ":")
	folders = slices.DeleteFunc(folders, func(f string) bool { return path.Clean(f) == path.Dir(hookPath) || f == "" })
	value = path.Dir(hookPath) + ":" + strings.Join(folders, ":")
	if strings.ContainsAny(value, "\"\n") {
		return fmt.Errorf("apt's DPkg::Path is %q, which can't be written down; mend it first", value)
	}
	text := "// Written by \"imaseal hook enable\"; \"imaseal hook disable\" removes it.\n" +
		"// apt gives this PATH to dpkg, which so finds imaseal's dpkg-deb before its own.\n" +
		"DPkg::Path \"" + value + "\";\n"
	temporary := aptFile + newSuffix // apt reads no name with such an ending
	if err := a.remove(temporary); err != nil {
		return err
	}
	f, err := a.root.OpenFile(below(temporary), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = a.root.Rename(below(temporary), below(aptFile))
	}
	if err != nil {
		return errors.Join(err, a.remove(temporary))
	}
	return a.sync(path.Dir(aptFile))
}

func (a *Activation) removeAPT(context.Context) error {
	if err := a.remove(aptFile + newSuffix); err != nil {
		return err
	}
	return a.remove(aptFile)
}
