package dpkg

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imaseal/imaseal/sign/installed"
)

// Where the installer hook finds its configuration, and keeps its log.
const (
	configFile = "/etc/imaseal/install.conf"
	// configFolder holds drop-ins, *.conf, read after configFile in the order of
	// their names.
	configFolder = "/etc/imaseal/install.conf.d"
	// logFile has a line of JSON for each package.
	logFile = "/var/log/imaseal/install.log"
)

// CertificateFolders hold the certificates, DER or PEM, of the keys that packages are
// signed with. The second is where dracut and others look for what the kernel is to
// trust.
var CertificateFolders = []string{"/etc/imaseal/certs", "/etc/keys/ima"}

// A Mode says what becomes of a package that can't be labelled as it should.
type Mode string

// The modes.
const (
	ModeEnforce Mode = "enforce" // dpkg does not install it
	ModeWarn    Mode = "warn"    // it is installed, without labels
	ModeOff     Mode = "off"     // the hook does nothing at all
)

// A Verdict is what a rule of the configuration says.
type Verdict string

// The verdicts.
const (
	Allow  Verdict = "allow"
	Warn   Verdict = "warn"
	Refuse Verdict = "refuse"
)

// A Config is what the administrator wants of the installer hook.
type Config struct {
	Mode Mode
	// Unsigned is what a package without signatures means; Allowed are the patterns
	// of path.Match for names of packages that may have none. A name is chosen by
	// whoever makes the package.
	Unsigned Verdict
	Allowed  []string
	// UnknownKey is what a package means that is signed by a key of which there is no
	// certificate, Warn or Refuse. It counts only where there are certificates.
	UnknownKey Verdict
	// Unsupported is what it means when no attribute can be set, Warn or Refuse.
	Unsupported Verdict
	// LabelConffiles says which conffiles are labelled.
	LabelConffiles installed.Conffiles
	// DpkgDeb is the path of the real dpkg-deb, empty when it is to be found.
	DpkgDeb string
}

// DefaultConfig is the configuration of a system that has none.
func DefaultConfig() Config {
	return Config{
		Mode: ModeEnforce, Unsigned: Allow, UnknownKey: Warn, Unsupported: Warn,
		LabelConffiles: installed.ConffilesExecutable,
	}
}

// allowsUnsigned reports whether the package of that name is listed as one that may
// have no signatures.
func (c *Config) allowsUnsigned(name string) bool {
	return slices.ContainsFunc(c.Allowed, func(pattern string) bool {
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	})
}

// maxConfig bounds a file of the configuration in bytes, and maxDropIns their number.
const (
	maxConfig  = 1 << 20
	maxDropIns = 1000
)

// LoadConfig reads the configuration of the system whose root is dir, "/" of the
// running one. What is wrong with it comes back as problems, a line each: what could
// be understood holds, and the rest keeps its default.
func LoadConfig(dir string) (c Config, problems []string) {
	c = DefaultConfig()
	read := func(name string) {
		f, err := openPlain(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			problems = append(problems, err.Error())
			return
		}
		defer f.Close()
		problems = append(problems, ReadConfig(&c, name, f)...)
	}
	read(configFile)
	// ReadDir sorts by name, and returns what it could read beside its error.
	found, err := os.ReadDir(filepath.Join(dir, configFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		problems = append(problems, err.Error())
	}
	dropIns := 0
	for _, f := range found {
		if !strings.HasSuffix(f.Name(), ".conf") || strings.HasPrefix(f.Name(), ".") {
			continue
		}
		if dropIns++; dropIns > maxDropIns {
			problems = append(problems, fmt.Sprintf("%s has more than %d drop-ins, the rest is not read", configFolder, maxDropIns))
			break
		}
		read(path.Join(configFolder, f.Name()))
	}
	return c, problems
}

// ReadConfig reads one file of the configuration into c and returns what is wrong
// with it, a line for each problem, which name and the line's number lead in.
//
// A line is `key = value`, empty, or begins with '#'. A later line of a key wins, but
// for `allow`, whose patterns add up; an empty one forgets those before it.
func ReadConfig(c *Config, name string, r io.Reader) (problems []string) {
	text, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err == nil && len(text) > maxConfig {
		err = fmt.Errorf("more than %d bytes", maxConfig)
	}
	if err != nil {
		return []string{fmt.Sprintf("%s: %v", name, err)}
	}
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		err := fmt.Errorf("%.60q is not of the form key = value", line)
		if ok {
			err = c.set(strings.TrimSpace(key), strings.TrimSpace(value))
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s:%d: %v", name, i+1, err))
		}
	}
	return problems
}

// set takes one line.
func (c *Config) set(key, value string) error {
	switch key {
	case "mode":
		return choose(&c.Mode, key, value, ModeEnforce, ModeWarn, ModeOff)
	case "unsigned":
		return choose(&c.Unsigned, key, value, Allow, Warn, Refuse)
	case "unknown-key":
		return choose(&c.UnknownKey, key, value, Warn, Refuse)
	case "unsupported":
		return choose(&c.Unsupported, key, value, Warn, Refuse)
	case "label-conffiles":
		return choose(&c.LabelConffiles, key, value, installed.ConffilesExecutable, installed.ConffilesAll, installed.ConffilesNone)
	case "allow":
		if value == "" {
			c.Allowed = nil
			return nil
		}
		for _, pattern := range strings.Fields(value) {
			if _, err := path.Match(pattern, ""); err != nil {
				return fmt.Errorf("allow: %q is no pattern", pattern)
			}
			c.Allowed = append(c.Allowed, pattern)
		}
		return nil
	case "dpkg-deb":
		if value != "" && !path.IsAbs(value) {
			return fmt.Errorf("dpkg-deb: %q is no absolute path", value)
		}
		c.DpkgDeb = value
		return nil
	}
	return fmt.Errorf("unknown key %.60q", key)
}

func choose[T ~string](to *T, key, value string, choices ...T) error {
	if !slices.Contains(choices, T(value)) {
		var known []string
		for _, c := range choices {
			known = append(known, string(c))
		}
		return fmt.Errorf("%s: %.60q is none of %s", key, value, strings.Join(known, ", "))
	}
	*to = T(value)
	return nil
}
