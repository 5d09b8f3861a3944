package rpmdb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// rpm loads a plugin when it is in the folder that the macro __plugindir names and
// a macro is defined for it (rpm's lib/transaction.cc, rpmtsSetupTransactionPlugins).
// An administrator turns it off by defining that macro as nothing; Debian 12's rpm
// looks in /usr/lib64, where Debian's package does not put it.
const (
	pluginFile  = "ima.so"
	pluginMacro = "__transaction_ima"
	// configFilesMacro has the plugin label %config files that are not executable.
	configFilesMacro = "_ima_sign_config_files"
)

// pluginPlaces are the folders, relative to the root, in which distributions keep
// rpm's plugins.
var pluginPlaces = []string{"usr/lib64/rpm-plugins", "usr/lib/rpm-plugins", "usr/lib/*/rpm-plugins"}

// A Plugin is what is known of rpm-plugin-ima, which has rpm label files before they
// have their names.
type Plugin struct {
	// RPM is the program rpm, empty where there is none.
	RPM string
	// Files are the plugins that were found, with their root.
	Files []string
	// Folder is where rpm looks for plugins, and Configured the file that its
	// configuration names for this one, empty where it was turned off. Both are empty
	// where the configuration was not asked.
	Folder, Configured string
	// Active says that rpm loads it. It is false for another root than "/", whose
	// rpm is not run.
	Active bool
	// ConfigFiles says that the plugin labels every %config file.
	ConfigFiles bool
}

// Present reports whether the plugin is installed, loaded or not.
func (p Plugin) Present() bool { return len(p.Files) > 0 }

// String says it in a sentence for a person.
func (p Plugin) String() string {
	switch {
	case p.RPM == "":
		return "rpm is not installed"
	case p.Active:
		return "rpm-plugin-ima is active: rpm labels files before they have their names"
	case !p.Present():
		return "rpm-plugin-ima is not installed: rpm installs files without their labels"
	case p.Folder == "":
		return "rpm-plugin-ima is installed (" + p.Files[0] + "); whether rpm loads it can only be asked on that system"
	case p.Configured == "":
		return "rpm-plugin-ima is installed (" + p.Files[0] + ") but turned off: the macro %" + pluginMacro + " is not set"
	}
	return fmt.Sprintf("rpm-plugin-ima is installed (%s) but rpm, which searches %s, looks for %s: set the macro %%__plugindir in /etc/rpm/macros", p.Files[0], p.Folder, p.Configured)
}

// PluginState looks for rpm-plugin-ima below root. That of another root than "/" is
// only looked for: nothing of such a root is run, so what its rpm is configured to do
// is not known.
func PluginState(root string) (Plugin, error) {
	root = filepath.Clean(root)
	var p Plugin
	for _, place := range pluginPlaces {
		found, err := filepath.Glob(filepath.Join(root, place, pluginFile))
		if err != nil {
			return p, fmt.Errorf("%s: looking for rpm's plugins: %w", root, err)
		}
		p.Files = append(p.Files, found...)
	}
	if root != "/" {
		for _, name := range []string{"usr/bin/rpm", "bin/rpm"} {
			if path := filepath.Join(root, name); p.RPM == "" && exists(path) {
				p.RPM = path
			}
		}
		return p, nil
	}
	path, err := exec.LookPath("rpm")
	if errors.Is(err, exec.ErrNotFound) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	p.RPM = path
	return p, p.ask(nil)
}

// ask evaluates rpm's macros; options come before.
func (p *Plugin) ask(options []string) error {
	macros := []string{"%{__plugindir}", "%{?" + pluginMacro + "}", "%{?" + configFilesMacro + "}"}
	out, err := evaluate(context.Background(), p.RPM, options, macros)
	if err != nil {
		return err
	}
	p.Folder = out[0]
	// Options of the plugin may follow its path.
	p.Configured, _, _ = strings.Cut(strings.TrimSpace(out[1]), " ")
	// The folder is searched for names, then the file of the macro is loaded.
	named := filepath.Join(p.Folder, pluginFile)
	p.Active = p.Configured != "" && exists(named) && exists(p.Configured)
	p.ConfigFiles = isNumberTrue(out[2])
	for _, file := range []string{named, p.Configured} {
		if exists(file) && !slices.Contains(p.Files, file) {
			p.Files = append(p.Files, file)
		}
	}
	return nil
}

// evaluate returns what rpm makes of each of the macros, in their order.
func evaluate(ctx context.Context, rpm string, options, macros []string) ([]string, error) {
	args := slices.Clone(options)
	for _, m := range macros {
		args = append(args, "--eval", "="+m) // of nothing rpm 6 prints no line
	}
	out, err := command(ctx, rpm, args...).Output()
	if err != nil {
		return nil, fmt.Errorf("%s --eval: %w%s", rpm, err, said(err))
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(macros) {
		return nil, fmt.Errorf("%s --eval answers with %d lines, not %d: a macro of its configuration holds more than one", rpm, len(lines), len(macros))
	}
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(line, "=")
	}
	return lines, nil
}

// isNumberTrue reads a number as rpmExpandNumeric does: y and Y count, and digits.
func isNumberTrue(s string) bool {
	if s = strings.TrimSpace(s); s == "" {
		return false
	}
	if s[0] == 'y' || s[0] == 'Y' {
		return true
	}
	digits := strings.TrimLeft(strings.TrimPrefix(strings.TrimPrefix(s, "-"), "+"), "0")
	return digits != "" && digits[0] >= '1' && digits[0] <= '9'
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
