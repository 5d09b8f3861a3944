package kernel

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxConfig bounds a configuration in bytes, unpacked: those of distributions have
	// 300,000.
	maxConfig = 8 << 20
	// maxConfigLine bounds one line: the longest name a compiler or list a dozen files.
	maxConfigLine = 64 << 10
	// maxLinks bounds how many absolute links in a row are followed for one.
	maxLinks = 8
)

// A Config is the configuration that a kernel was built with, the format of .config:
// Documentation/kbuild/kconfig.rst.
type Config struct {
	// Path is the file that it was read from.
	Path string
	// Release is what is known of the kernel's name: uname -r of the running one, or
	// the end of the file's name; "" for nothing.
	Release string
	// Version is that of the kernel, the zero value where nothing tells it.
	Version Version

	values map[string]string
}

var (
	configTitle = regexp.MustCompile(`^# Linux/\S+ (\S+) Kernel Configuration$`)
	configName  = regexp.MustCompile(`^CONFIG_[A-Za-z0-9_]+$`)
)

// ReadConfig reads a configuration, compressed by gzip or not. Text that is no such
// configuration is an error.
func ReadConfig(r io.Reader) (*Config, error) {
	in := bufio.NewReaderSize(r, 4096)
	if magic, _ := in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("this is no kernel configuration: %w", err)
		}
		in = bufio.NewReader(z)
	}
	limited := &io.LimitedReader{R: in, N: maxConfig + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(make([]byte, 0, 4096), maxConfigLine)
	c := &Config{values: map[string]string{}}
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimRight(lines.Text(), " \r")
		if err := c.take(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf("a line has more than %d bytes: this is no kernel configuration", maxConfigLine)
	case err != nil:
		return nil, err
	case limited.N == 0:
		return nil, fmt.Errorf("more than %d bytes: this is no kernel configuration", maxConfig)
	case len(c.values) == 0:
		return nil, errors.New("it sets no option: this is no kernel configuration")
	}
	return c, nil
}

func (c *Config) take(line string) error {
	if m := configTitle.FindStringSubmatch(line); m != nil {
		c.Version, _ = ParseVersion(m[1]) // the zero value where it is none
	}
	if line == "" || line[0] == '#' {
		return nil
	}
	name, value, ok := strings.Cut(line, "=")
	if !ok || !configName.MatchString(name) {
		return fmt.Errorf("%.40q sets no option: this is no kernel configuration", line)
	}
	c.values[strings.TrimPrefix(name, "CONFIG_")] = value
	return nil
}

// Has reports whether an option, named without CONFIG_, is y or m.
func (c *Config) Has(option string) bool {
	return c.values[option] == "y" || c.values[option] == "m"
}

// Value returns what an option is set to: y, m, a number, or a text, without its
// quotes; "" when it is not set.
func (c *Config) Value(option string) string {
	value := c.values[option]
	if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
		value = strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(value[1 : len(value)-1])
	}
	return value
}

// Trusted reports whether IMA's keyring is .ima, which takes only certificates that a
// trusted one vouches for, in place of _ima, which root makes.
func (c *Config) Trusted() bool { return c.Has("INTEGRITY_TRUSTED_KEYRING") }

// X509Path returns the file that the kernel itself loads into .ima when it boots, ""
// when it loads none. Where there is an initramfs the file is looked for there.
func (c *Config) X509Path() string {
	if !c.Has("IMA_LOAD_X509") {
		return ""
	}
	return c.Value("IMA_X509_PATH")
}

// ReadConfigFile reads the configuration in a file. What its name says of the kernel
// counts where the file does not tell the version.
func ReadConfigFile(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := ReadConfig(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c.Path = path
	if release, ok := strings.CutPrefix(filepath.Base(path), "config-"); ok {
		c.Release = release
	} else if dir := filepath.Dir(path); filepath.Base(filepath.Dir(dir)) == "modules" {
		c.Release = filepath.Base(dir)
	}
	if !c.Version.Known() {
		c.Version, _ = ParseVersion(c.Release) // the zero value where it is none
	}
	return c, nil
}

// RunningRelease returns the name of the running kernel, as uname -r prints it.
func RunningRelease() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("asking for the kernel's name: %w", err)
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}

// RunningConfig reads the configuration of the running kernel. The error names where
// it was looked for.
func RunningConfig() (*Config, error) {
	release, err := RunningRelease()
	if err != nil {
		return nil, err
	}
	places := []string{"/proc/config.gz", "/boot/config-" + release, "/usr/lib/modules/" + release + "/config", "/lib/modules/" + release + "/config"}
	for _, path := range places {
		c, err := ReadConfigFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		c.Release = release
		if !c.Version.Known() {
			c.Version, _ = ParseVersion(release) // the zero value where it is none
		}
		return c, nil
	}
	return nil, fmt.Errorf("the configuration of this kernel (%s) is in none of %s: name the file", release, strings.Join(places, ", "))
}

// FindConfigs returns the configurations of the kernels in a system that is mounted
// at root, sorted: boot/config-* and usr/lib/modules/*/config. Links that lead out of
// the root are not followed. There may be none.
func FindConfigs(root *os.Root) ([]*Config, error) {
	var found []*Config
	for _, in := range []struct{ dir, prefix, file string }{
		{"boot", "config-", ""}, {"usr/lib/modules", "", "config"}, {"lib/modules", "", "config"},
	} {
		names, err := readNames(root, in.dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if !strings.HasPrefix(name, in.prefix) {
				continue
			}
			release := strings.TrimPrefix(name, in.prefix)
			if slices.ContainsFunc(found, func(c *Config) bool { return c.Release == release }) {
				continue
			}
			path := filepath.Join(in.dir, name, in.file)
			c, err := readConfigBelow(root, path)
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", filepath.Join(root.Name(), path), err)
			}
			c.Path, c.Release = filepath.Join(root.Name(), path), release
			if !c.Version.Known() {
				c.Version, _ = ParseVersion(release) // the zero value where it is none
			}
			found = append(found, c)
		}
	}
	return found, nil
}

// readConfigBelow reads the configuration at path. An absolute link, as some kernels
// have it, leads from the root.
func readConfigBelow(root *os.Root, path string) (*Config, error) {
	for range maxLinks {
		link, err := root.Readlink(path)
		if err != nil || !filepath.IsAbs(link) {
			break // no link, or one that os.Root follows by itself
		}
		path = strings.TrimLeft(filepath.Clean(link), "/")
	}
	f, err := root.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("this is no regular file"))
	}
	return ReadConfig(f)
}

// readNames returns the sorted names in a folder; none when there is no such folder.
func readNames(root *os.Root, dir string) ([]string, error) {
	f, err := root.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("below %s, where links must be relative and stay below it: %w", root.Name(), err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}
