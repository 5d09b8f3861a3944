package dpkg

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A filter is a --path-exclude or --path-include of dpkg's.
type filter struct {
	pattern string
	include bool
}

// dpkgConfig is the folder of dpkg's own configuration.
const dpkgConfig = "/etc/dpkg"

// dpkgFilters returns the filters of the running dpkg: those of its configuration, in
// the order in which it reads them (lib/dpkg/options.c), then those of its command
// line. What can't be read has none.
func dpkgFilters(system, home string, commandLine []string) []filter {
	var found []filter
	folder := filepath.Join(system, dpkgConfig, "dpkg.cfg.d")
	names, _ := os.ReadDir(folder)
	for _, f := range names {
		if isConfigName(f.Name()) {
			found = append(found, fileFilters(filepath.Join(folder, f.Name()))...)
		}
	}
	found = append(found, fileFilters(filepath.Join(system, dpkgConfig, "dpkg.cfg"))...)
	if home != "" {
		found = append(found, fileFilters(filepath.Join(home, ".dpkg.cfg"))...)
	}
	return append(found, optionFilters(commandLine)...)
}

// isConfigName takes the names of the files that dpkg reads in a folder.
func isConfigName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-')
	})
}

// fileFilters returns the filters of one file: an option to a line, without its dashes.
func fileFilters(name string) []filter {
	f, err := openPlain(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	var found []filter
	for line, err := range lines(f) {
		if err != nil {
			break
		}
		line = strings.TrimRight(line, " \t\v\f\r")
		end := strings.IndexFunc(line, func(r rune) bool {
			return r != '-' && !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9')
		})
		if end <= 0 {
			continue
		}
		value := strings.TrimLeft(line[end+1:], " \t\v\f\r")
		if line[end] != '=' {
			value = strings.TrimLeft(strings.TrimPrefix(value, "="), " \t\v\f\r")
		}
		if q := value; len(q) >= 2 && (q[0] == '"' || q[0] == '\'') && q[len(q)-1] == q[0] {
			value = q[1 : len(q)-1]
		}
		found = appendFilter(found, line[:end], value)
	}
	return found
}

// optionFilters returns the filters of a command line.
func optionFilters(args []string) []filter {
	var found []filter
	for i := 1; i < len(args); i++ {
		option, ok := strings.CutPrefix(args[i], "--")
		if !ok {
			continue
		}
		name, value, joined := strings.Cut(option, "=")
		if !joined && i+1 < len(args) && (name == optionExclude || name == optionInclude) {
			i++
			value = args[i]
		}
		found = appendFilter(found, name, value)
	}
	return found
}

const (
	optionExclude = "path-exclude"
	optionInclude = "path-include"
)

func appendFilter(to []filter, option, value string) []filter {
	switch option {
	case optionExclude:
		return append(to, filter{value, false})
	case optionInclude:
		return append(to, filter{value, true})
	}
	return to
}

// excluded reports whether dpkg does not extract the file at path, filter_should_skip of
// src/main/filters.c: of the filters that match the last wins.
func excluded(filters []filter, path string) bool {
	for i := len(filters) - 1; i >= 0; i-- {
		if fnmatch(filters[i].pattern, shown(path)) {
			return !filters[i].include
		}
	}
	return false
}

// parentCommandLine returns the command line of dpkg, nil where it can't be known.
func parentCommandLine() []string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(os.Getppid()) + "/cmdline")
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}
